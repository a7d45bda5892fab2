"""One stream followed to its end: which frames came, and how it ended. Every frame's bytes are known beforehand."""

from __future__ import annotations

import time
from collections.abc import Callable

from attrs import define, field
from fake_engines import picture
from sfwire.request import Ended, Interrupted, Picture, Request
from sfwire.stream import Stream

from .figures import Figures

PATIENCE_S = 400.0
"""A stream that has neither brought a frame nor ended for this long is stuck."""


@define
class Followed:
    """What a stream brought."""

    request: Request
    got: list[int] = field(factory=list[int])
    wrong: list[int] = field(factory=list[int])
    interruptions: list[str] = field(factory=list[str])
    ended: Ended | None = None
    cancelled: bool = False

    def take(self, frame: Picture) -> None:
        r = self.request
        self.got.append(frame.index)
        if bytes(frame.data) != picture(r.seed, frame.index, r.width, r.height).tobytes():
            self.wrong.append(frame.index)

    def count(self, figures: Figures, case: str) -> None:
        """Add it to the figures. A cancelled stream may end early, but without a hole."""
        wanted = self.request.wanted()
        doubled = len(self.got) - len(set(self.got))
        expected = wanted[: len(set(self.got))] if self.cancelled else wanted
        lost = len(set(expected) - set(self.got))
        out_of_order = sum(later < earlier for earlier, later in zip(self.got, self.got[1:], strict=False))
        figures.counts["streams"] += 1
        figures.counts["frames"] += len(self.got)
        figures.counts["interruptions"] += bool(self.interruptions)
        if doubled:
            figures.find("doubled", f"{case}: {self.got}", doubled)
        if self.wrong or out_of_order:
            figures.find("wrong", f"{case}: {self.wrong or self.got}", len(self.wrong) + out_of_order)
        if self.ended is None:
            figures.find("stuck", f"{case}: {len(self.got)} of {len(wanted)} frames; {self.interruptions[-3:]}")
        elif self.ended.error is not None:
            figures.find(
                "failed", f"{case}: {self.ended.error} after {len(self.got)} frames; {self.interruptions[-3:]}"
            )
        elif lost:
            figures.find("lost", f"{case}: {sorted(set(expected) - set(self.got))}", lost)


def follow(
    stream: Stream,
    request: Request,
    on_picture: Callable[[int], object] = lambda count: None,
    patience_s: float = PATIENCE_S,
    pause_s: float = 0.0,
) -> Followed:
    """Take everything until the end. `on_picture` hears how many have come; `pause_s` makes a slow reader."""
    followed = Followed(request)
    heard_at = time.monotonic()
    while not stream.ended and time.monotonic() - heard_at < patience_s:
        events = stream.poll(1 if pause_s else 16)
        for event in events:
            if isinstance(event, Picture):
                heard_at = time.monotonic()
                followed.take(event)
                on_picture(len(followed.got))
                time.sleep(pause_s)
            elif isinstance(event, Interrupted):
                followed.interruptions.append(event.reason)
            elif isinstance(event, Ended):
                followed.ended = event
        if not events:
            time.sleep(0.002)
    return followed
