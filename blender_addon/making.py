"""What one engine makes of a gap: a request, its stream, and the pictures of it that are on disk.

A fill has one making; or two, of which the draft engine's stands in for the one that takes its time. No Blender here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from . import alpha, frames
from .frames import Writer, Written, png_size
from .record import AUTO, Record
from .sfwire.messages import Progress
from .sfwire.request import Ended, Picture, Request
from .sheet import Sheet
from .words import changes

if TYPE_CHECKING:
    from .sfwire.client import Client
    from .sfwire.codec import Buffer
    from .sfwire.messages import Done
    from .sfwire.stream import Stream

MAX_UNWRITTEN = 8
"""Frames given to the writer and not yet on disk; more than that and the stream is left alone, so the server waits."""
EVENTS_A_STEP = 4
FOUND = "found: "
"""Begins a stage that says what an engine saw in the keyframes on both sides of the next picture."""
CHOSEN = f"{AUTO}: "
"""Begins a stage that says which engine the server chose, and why."""
WAITS_FOR_US = "waiting"
"""The stage in which a frame is made and not taken yet."""


def request_for(record: Record, sheet: Sheet, keyframes: Sequence[tuple[int, Buffer]], start_from: int = 0) -> Request:
    """What is asked of the server: the pictures of the sheet, between the (index, RGB8 or RGBA8) that are given; those
    before `start_from` are there."""
    given, channels = alpha.alike(keyframes, record.width, record.height)
    return Request(
        keyframes=given,
        channels=channels,
        width=record.width,
        height=record.height,
        num_frames=sheet.clip_frames,
        prompt=record.prompt,
        prompts=changes(record.words(), sheet),
        negative_prompt=record.negative_prompt,
        seed=record.seed,
        engine=record.asked,
        params=record.params,
        encoding="png",
        start_from=start_from,
    )


@dataclass(eq=False)
class Making:
    """From a request to files. Nothing of it is left in memory when it is over but counts and sentences."""

    record: Record
    """What is asked for."""
    sheet: Sheet
    name_of: Callable[[int], str]
    """Of the file of the picture at a place in the clip."""
    request: Request | None = None
    stream: Stream | None = None
    made: int = 0
    """Pictures that are on disk, in order, or not wanted any more."""
    ordered: int = 0
    """Pictures given to the writer."""
    bytes_made: int = 0
    problem: str = ""
    """Why it ended early, in a sentence."""
    findings: list[str] = field(default_factory=list)
    """What the engine said that it saw in the keyframes: between each two of them there is one."""
    chosen: str = ""
    """Which engine the server chose, and why."""
    done: Done | None = None
    """How it ended, where the engine brought it to its end."""
    _given_up: bool = False
    _refused: bool = False
    """A frame was none: those after it are not taken."""
    _torn: bool = False
    """A frame could not be written: those after it would leave a hole."""
    _ended: bool = False
    _first_frame_at: float | None = None
    _latest_at: float = 0.0

    def __post_init__(self) -> None:
        self.wanted = self.sheet.wanted

    @property
    def found(self) -> str:
        """All findings; the same over again says nothing new."""
        return "; ".join(dict.fromkeys(self.findings))

    @property
    def whole(self) -> bool:
        return self.made == len(self.wanted)

    @property
    def over(self) -> bool:
        """Its stream has ended, or never began and is not wanted, and no frame is on its way to the disk."""
        ended = self._ended or (self._given_up and self.stream is None)
        return ended and self.ordered == self.made

    @property
    def missing(self) -> int:
        """Index in the clip of the first picture that is not on disk."""
        return self.wanted[self.made] if not self.whole else self.sheet.clip_frames

    @property
    def stage(self) -> str:
        """What is going on, in a few words."""
        if self.stream is None:
            return "Waiting"
        if self.stream.interrupted:
            return f"Reconnecting: {self.stream.interrupted}"
        progress = self.stream.progress
        if progress is not None and progress.stage.startswith((FOUND, CHOSEN)):
            return progress.stage.partition(": ")[2]
        if progress is not None and progress.stage == WAITS_FOR_US:
            return "Receiving"
        if progress is not None:
            passes = "" if self.made else f" {progress.step} of {progress.of}"
            return progress.stage.capitalize() + passes
        ahead = self.stream.position
        return f"Waiting behind {ahead} other{'s' if ahead > 1 else ''}" if ahead else "Starting"

    def seconds_left(self) -> float | None:
        """Until the last frame, at the rate so far; None while that is not known."""
        interrupted = self.stream is None or self.stream.interrupted
        if self._first_frame_at is None or self.made < 2 or interrupted:
            return None
        rate = (self.made - 1) / max(self._latest_at - self._first_frame_at, 1e-6)
        return (len(self.wanted) - self.made) / rate

    def go_on(self, folder: Path) -> None:
        """Take for made what lies in the folder whole and in order: an earlier fill was broken off after it."""
        size = self.record.width, self.record.height
        for index in self.wanted:
            bytes_ = frames.size_of_png(folder / self.name_of(index), size)
            if bytes_ is None:
                break
            self.made += 1
            self.bytes_made += bytes_
        self.ordered = self.made

    def pass_over(self, made: int) -> None:
        """The first pictures are not wanted any more."""
        self.made = self.ordered = max(self.made, made)

    def ask(self, keyframes: Sequence[tuple[int, Buffer]]) -> None:
        self.request = request_for(self.record, self.sheet, keyframes, self.missing)

    def submit(self, client: Client) -> None:
        assert self.request is not None
        self.request = alpha.as_kept(self.request, client.welcome)
        self.stream = client.submit(self.request)

    @property
    def waits(self) -> bool:
        """It is to be handed to the server."""
        return self.request is not None and self.stream is None and not self._given_up

    def cancel(self) -> None:
        """Stop; what has come stays. Is over when the server has said so, or at once if it never heard of it."""
        if self.stream is not None and not self._given_up:
            self.stream.cancel()
        self._given_up = True

    def take(self, writer: Writer, folder: Path) -> None:
        """Take some of what came, and have its pictures written."""
        if self.stream is None or self.ordered - self.made >= MAX_UNWRITTEN:
            return
        for event in self.stream.poll(EVENTS_A_STEP):
            if isinstance(event, Picture):
                self._order(event, writer, folder)
            elif isinstance(event, Progress) and event.stage.startswith(FOUND):
                self.findings.append(event.stage.removeprefix(FOUND))
            elif isinstance(event, Progress) and event.stage.startswith(CHOSEN):
                self.chosen = event.stage.removeprefix(CHOSEN)
            elif isinstance(event, Ended):
                self._ended = True
                if event.done is not None and event.done.outcome == "finished":
                    self.done = event.done
                elif event.error is not None and not self._given_up:
                    self.problem = self.problem or str(event.error)

    def _order(self, picture: Picture, writer: Writer, folder: Path) -> None:
        if self._torn or self._refused:
            return
        if picture.encoding != "png" or png_size(picture.data) != (self.record.width, self.record.height):
            self._refused = True
            self.give_up(f"Frame {picture.index} is not a PNG of {self.record.width} x {self.record.height}")
            return
        self.ordered += 1
        self.bytes_made += len(picture.data)
        writer.put(self.record.job, folder / self.name_of(picture.index), picture.data)

    def written(self, result: Written, folder: Path, now: float) -> None:
        """One picture is on disk, or could not be written."""
        if result.error is None and not self._torn:
            self.made += 1
            self._latest_at = now
            self._first_frame_at = self._first_frame_at or now
            return
        self.ordered -= 1
        if result.error is not None:
            self._torn = True
            self.give_up(f"{result.name} could not be written to {folder}: {result.error.strerror}")

    def give_up(self, problem: str) -> None:
        self.problem = self.problem or problem
        self.cancel()

    def let_go(self) -> None:
        """Forget the pictures."""
        self.request = self.stream = None
