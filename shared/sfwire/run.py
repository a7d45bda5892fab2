"""One request on its way: what the session knows of it between two messages."""

from __future__ import annotations

from enum import Enum, auto

from attrs import define, field

from . import messages as m
from .request import Picture, Request

Offers = tuple[tuple[str, str, bool], ...]
"""(id, version, available) of engines."""


class At(Enum):
    WAITING = auto()
    ASKED = auto()
    ACCEPTED = auto()


@define(eq=False)
class Run:
    """A request that has not ended. One `attempt` is one id on the wire."""

    ticket: str
    request: Request
    engine: str
    wanted: list[int]
    wire_id: str = ""
    at: At = At.WAITING
    submitted_at: float = 0.0
    not_before: float = 0.0
    asked_at: float = 0.0
    asks: int = 0
    tries: int = 0
    """Attempts in a row that failed by themselves, without a new frame in between."""
    losses: int = 0
    """The same of attempts that failed with their connection, and since when."""
    losing_since: float = 0.0
    accepted_nonce: int = 0
    delivered: int = 0
    taken: int = 0
    delivered_before: int = 0
    """Frames delivered when this attempt began."""
    got: int = 0
    """Frames that came under this attempt's id, held ones included."""
    held: dict[int, Picture] = field(factory=dict[int, Picture])
    behind_since: float | None = None
    """Since when frames are known to be missing."""
    done: m.Done | None = None
    offers: Offers = ()
    """What the server had to choose from when this attempt began, where the choice is its own."""

    @property
    def complete(self) -> bool:
        return self.delivered == len(self.wanted)

    def lost(self, now: float) -> None:
        """The connection took this attempt with it: nothing that the request is to blame for."""
        if not self.losses:
            self.losing_since = now
        self.losses += 1

    def is_new(self) -> None:
        """A frame came: what went wrong before it is over."""
        self.delivered += 1
        self.tries = self.losses = 0

    @property
    def next_index(self) -> int:
        return self.wanted[self.delivered]

    def credit(self, window: int) -> int:
        """Frames that may have been sent under this id by now: what was delivered and not yet taken is still ours."""
        return self.taken + window - self.delivered_before
