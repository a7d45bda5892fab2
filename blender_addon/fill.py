"""One gap being filled: from the keyframes on the timeline and the frames of a stream to the pictures of a strip.

Driven by `look` and `step`, which take one picture at a time. Knows Blender only as `strips` and `capture`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import bpy

from . import capture, frames, strips, takes
from .frames import Writer, Written, frame_name, keyframe_name, png_size
from .record import Record, timestamp
from .sfwire.request import Ended, Picture, Request
from .sheet import Sheet
from .words import changes

if TYPE_CHECKING:
    from .sfwire.client import Client
    from .sfwire.codec import Buffer
    from .sfwire.stream import Stream

MAX_UNWRITTEN = 8
"""Frames given to the writer and not yet on disk; more than that and the stream is left alone, so the server waits."""
EVENTS_A_STEP = 4


def request_for(record: Record, sheet: Sheet, keyframes: Sequence[tuple[int, Buffer]], start_from: int = 0) -> Request:
    """What is asked of the server: the pictures of the sheet, between the (index, RGB8) that are given; those before
    `start_from` are there."""
    return Request(
        keyframes=tuple(keyframes),
        width=record.width,
        height=record.height,
        num_frames=sheet.clip_frames,
        prompt=record.prompt,
        prompts=changes(record.words(), sheet),
        negative_prompt=record.negative_prompt,
        seed=record.seed,
        engine=record.engine,
        params=record.params,
        encoding="png",
        start_from=start_from,
    )


@dataclass(eq=False)
class Fill:
    """The state of one job. The pictures in `keyframes` and `request` are dropped when it ends."""

    record: Record
    sheet: Sheet
    place: strips.Place
    folder: Path
    to_look_at: list[tuple[int, int]]
    """(index in the clip, frame of the timeline) of keyframes that were not looked at yet."""
    taken_off: list[takes.Aside]
    """The takes that were muted for this one."""
    keyframes: list[tuple[int, Buffer]] = field(default_factory=list)
    request: Request | None = None
    stream: Stream | None = None
    made: int = 0
    """Pictures that were made and are on disk, in order."""
    names: list[str] = field(default_factory=list)
    """Files that stand in the strip, one a frame, as far as they are on disk: the only record that matters."""
    ordered: int = 0
    """Pictures given to the writer."""
    problem: str = ""
    """Why it ended early, in a sentence."""
    cancelling: bool = False
    refused: bool = False
    """A frame was none: those after it are not taken."""
    torn: bool = False
    """A frame could not be written: those after it would leave a hole."""
    first_frame_at: float | None = None
    latest_at: float = 0.0
    _bytes: int = 0
    _end: Ended | None = None

    def __post_init__(self) -> None:
        self._wanted = self.sheet.wanted
        self._given = {index for index, _ in self.sheet.keys}

    def go_on(self) -> None:
        """Take for made what lies in the folder whole and in order: an earlier fill was broken off after it."""
        size = self.record.width, self.record.height
        for index in self._wanted:
            bytes_ = frames.size_of_png(self.folder / frame_name(index), size)
            if bytes_ is None:
                break
            self.made += 1
            self._bytes += bytes_
        self.ordered = self.made
        self.names = self._ready() if self.made else []

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
            return "Looking at the keyframes" if self.to_look_at else "Waiting"
        if self.stream.interrupted:
            return f"Reconnecting: {self.stream.interrupted}"
        progress = self.stream.progress
        if progress is not None:
            passes = "" if self.made else f" {progress.step} of {progress.of}"
            return progress.stage.capitalize() + passes
        ahead = self.stream.position
        return f"Waiting behind {ahead} other{'s' if ahead > 1 else ''}" if ahead else "Starting"

    def seconds_left(self) -> float | None:
        """Until the last frame, at the rate so far; None while that is not known."""
        interrupted = self.stream is None or self.stream.interrupted
        if self.first_frame_at is None or self.made < 2 or interrupted:
            return None
        rate = (self.made - 1) / max(self.latest_at - self.first_frame_at, 1e-6)
        return (len(self._wanted) - self.made) / rate

    def look(self) -> None:
        """Look at one keyframe, as the timeline shows it below what lies above the strip; of a fill that goes on, as it
        showed it then."""
        index, frame = self.to_look_at.pop(0)
        there = strips.bounds(self.job, self.place)  # finds a scene that was renamed
        if there is None:
            return  # `step` notices
        scene = bpy.data.scenes[self.place.scene]
        size = self.record.width, self.record.height
        try:
            path = self.folder / keyframe_name(index)
            picture = capture.read(path, *size) or capture.capture(scene, frame, *size, path, channel=there[2])
        except (OSError, RuntimeError) as error:
            self.to_look_at.clear()
            self._break(f"The picture at frame {frame} could not be had: {_reason(error)}")
            return
        self.keyframes.append((index, picture))
        if not self.to_look_at:
            self.request = request_for(self.record, self.sheet, self.keyframes, self._missing())

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
        if not strips.grow(self.job, self.place, self.names):
            self.cancel()
            self.problem = self.problem or "Its strip was deleted"
            self._finish("stopped")
        elif self._everything_is_here():
            self._finish("finished" if self.made == len(self._wanted) else "stopped")

    def written(self, result: Written, now: float) -> None:
        """One frame is on disk, or could not be written."""
        if result.error is None and not self.torn:
            self.made += 1
            self.names = self._ready()
            self.latest_at = now
            self.first_frame_at = self.first_frame_at or now
            return
        self.ordered -= 1
        if result.error is not None:
            self.torn = True
            self._break(f"{result.name} could not be written to {self.folder}: {result.error.strerror}")

    def _missing(self) -> int:
        """Index in the clip of the first picture that is not on disk."""
        return self._wanted[self.made] if self.made < len(self._wanted) else self.sheet.clip_frames

    def _ready(self) -> list[str]:
        """The files of the frames that can be shown by now."""
        shown = self.sheet.ready(self._missing())
        new = [keyframe_name(i) if i in self._given else frame_name(i) for i in shown[len(self.names) :]]
        return self.names + new

    def _take(self, writer: Writer) -> None:
        if self.stream is None or self.ordered - self.made >= MAX_UNWRITTEN:
            return
        for event in self.stream.poll(EVENTS_A_STEP):
            if isinstance(event, Picture):
                self._order(event, writer)
            elif isinstance(event, Ended):
                self._end = event
                if event.done is not None and event.done.outcome == "finished":
                    self.record.engine, self.record.version = event.done.engine, event.done.version
                    self.record.seed = event.done.seed
                elif event.error is not None and not self.cancelling:
                    self.problem = self.problem or str(event.error)

    def _order(self, picture: Picture, writer: Writer) -> None:
        if self.torn or self.refused:
            return
        if picture.encoding != "png" or png_size(picture.data) != (self.record.width, self.record.height):
            self.refused = True
            self._break(f"Frame {picture.index} is not a PNG of {self.record.width} x {self.record.height}")
            return
        self.ordered += 1
        self._bytes += len(picture.data)
        writer.put(self.job, self.folder / frame_name(picture.index), picture.data)

    def _break(self, problem: str) -> None:
        self.problem = self.problem or problem
        self.cancel()

    def _everything_is_here(self) -> bool:
        """The stream has ended, or never began and is not wanted, and no frame is on its way to the disk."""
        ended = self._end is not None or (self.cancelling and self.stream is None)
        return ended and self.ordered == self.made

    def _finish(self, state: str) -> None:
        self.record.state, self.record.frames, self.record.ended = state, len(self.names), timestamp()
        self.record.kilobytes = self._bytes // 1000
        self.request = self.stream = None
        self.keyframes.clear()
        if self.names:
            strips.settle(self.job, self.place, self.record)
        else:
            strips.remove(self.job, self.place)
            takes.bring_back(self.taken_off)
            if not self.ordered:
                frames.delete_nothing_made(self.folder)
        if state == "finished":
            frames.delete_keyframes(self.folder, but=self.names)

    def leave(self) -> None:
        """The extension is being switched off: stop at once, keep what is on disk."""
        self.cancel()
        self._finish("stopped")

    def mend(self) -> None:
        """After an undo or redo: give a strip that came back everything that was made for it, or take it off again."""
        assert self.over
        if not self.names:
            strips.remove(self.job, self.place)
        elif strips.grow(self.job, self.place, self.names):
            strips.settle(self.job, self.place, self.record)


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)
