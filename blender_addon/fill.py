"""One gap being filled: from the frames of a stream to the pictures of a strip.

Driven by `step`, which never blocks. Knows Blender only as `sequencer`, so it runs in tests without a window.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from . import sequencer
from .frames import Writer, Written, frame_name, png_size
from .record import Record, timestamp
from .sfwire.request import Ended, Picture

if TYPE_CHECKING:
    from .sfwire.client import Client
    from .sfwire.request import Request
    from .sfwire.stream import Stream

MAX_UNWRITTEN = 8
"""Frames given to the writer and not yet on disk; more than that and the stream is left alone, so the server waits."""
EVENTS_A_STEP = 4


@dataclass(eq=False)
class Fill:
    """The state of one job. `request` is dropped when it ends, since it holds two pictures."""

    record: Record
    place: sequencer.Place
    folder: Path
    request: Request | None
    replaces: tuple[str, sequencer.Place] | None = None
    """The take that was muted for this one."""
    stream: Stream | None = None
    names: list[str] = field(default_factory=list)
    """Files that are on disk, in order: the only record that matters."""
    ordered: int = 0
    """Frames given to the writer."""
    problem: str = ""
    """Why it ended early, in a sentence."""
    cancelling: bool = False
    refused: bool = False
    """A frame was none: those after it are not taken."""
    torn: bool = False
    """A frame could not be written: those after it would leave a hole."""
    first_frame_at: float | None = None
    latest_at: float = 0.0
    _end: Ended | None = None

    @property
    def job(self) -> str:
        return self.record.job

    @property
    def over(self) -> bool:
        return self.record.state != "growing"

    @property
    def stage(self) -> str:
        """What is going on, in a few words."""
        if self.over:
            return {"finished": "Finished", "stopped": "Stopped"}[self.record.state]
        if self.cancelling:
            return "Cancelling"
        if self.stream is None:
            return "Waiting"
        if self.stream.interrupted:
            return f"Reconnecting: {self.stream.interrupted}"
        progress = self.stream.progress
        if progress is not None:
            return f"{progress.stage.capitalize()} {progress.step} of {progress.of}"
        return f"{self.stream.position} before it" if self.stream.position else "Starting"

    def seconds_left(self) -> float | None:
        """Until the last frame, at the rate so far; None while that is not known."""
        interrupted = self.stream is None or self.stream.interrupted
        if self.first_frame_at is None or len(self.names) < 2 or interrupted:
            return None
        rate = (len(self.names) - 1) / max(self.latest_at - self.first_frame_at, 1e-6)
        return (self.record.frames_wanted - len(self.names)) / rate

    def submit(self, client: Client) -> None:
        assert self.request is not None
        self.stream = client.submit(self.request)

    def cancel(self) -> None:
        """Stop; what has come stays. Takes effect in a later step, when the server has said so or at once if it never
        heard of it."""
        self.cancelling = True
        if self.stream is not None:
            self.stream.cancel()

    def step(self, writer: Writer, now: float) -> None:
        """Take what came, and make the strip as long as what is on disk."""
        assert not self.over
        self._take(writer)
        if not sequencer.grow(self.job, self.place, self.names):
            self.cancel()
            self.problem = self.problem or "Its strip was deleted"
            self._finish("stopped")
        elif self._everything_is_here():
            self._finish("finished" if len(self.names) == self.record.frames_wanted else "stopped")

    def written(self, result: Written, now: float) -> None:
        """One frame is on disk, or could not be written."""
        if result.error is None and not self.torn:
            self.names.append(result.name)
            self.latest_at = now
            self.first_frame_at = self.first_frame_at or now
            return
        self.ordered -= 1
        if result.error is not None:
            self.torn = True
            self._break(f"{result.name} could not be written to {self.folder}: {result.error.strerror}")

    def _take(self, writer: Writer) -> None:
        if self.stream is None or self.ordered - len(self.names) >= MAX_UNWRITTEN:
            return
        for event in self.stream.poll(EVENTS_A_STEP):
            if isinstance(event, Picture):
                self._order(event, writer)
            elif isinstance(event, Ended):
                self._end = event
                if event.done is not None:
                    self.record.engine, self.record.version = event.done.engine, event.done.version
                    self.record.seed = event.done.seed
                elif not self.cancelling:
                    self.problem = self.problem or str(event.error)

    def _order(self, picture: Picture, writer: Writer) -> None:
        if self.torn or self.refused:
            return
        if picture.encoding != "png" or png_size(picture.data) != (self.record.width, self.record.height):
            self.refused = True
            self._break(f"Frame {picture.index} is not a PNG of {self.record.width} x {self.record.height}")
            return
        self.ordered += 1
        writer.put(self.job, self.folder / frame_name(picture.index), picture.data)

    def _break(self, problem: str) -> None:
        self.problem = self.problem or problem
        self.cancel()

    def _everything_is_here(self) -> bool:
        """The stream has ended, or never began and is not wanted, and no frame is on its way to the disk."""
        ended = self._end is not None or (self.cancelling and self.stream is None)
        return ended and self.ordered == len(self.names)

    def _finish(self, state: str) -> None:
        self.record.state, self.record.frames, self.record.ended = state, len(self.names), timestamp()
        self.request = self.stream = None
        if self.names:
            sequencer.settle(self.job, self.place, self.record)
        else:
            sequencer.remove(self.job, self.place)
            if self.replaces is not None:
                sequencer.set_mute(*self.replaces, mute=False)

    def leave(self) -> None:
        """The extension is being switched off: stop at once, keep what is on disk."""
        self.cancel()
        self._finish("stopped")

    def mend(self) -> None:
        """After an undo or redo: give a strip that came back everything that was made for it, or take it off again."""
        assert self.over
        if not self.names:
            sequencer.remove(self.job, self.place)
        elif sequencer.grow(self.job, self.place, self.names):
            sequencer.settle(self.job, self.place, self.record)
