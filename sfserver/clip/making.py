"""One way of making a clip: events of a source in, pictures in order out, each kept before the next is asked for."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Protocol

from attrs import frozen
from sfwire.errors import WireError

from .. import samples
from ..engine import base
from .interrupts import Interrupts
from .planning import Notes
from .sources import Event

DISSOLVE_CONFIDENCE = 0.5
"""The draft engine halves its confidence at the difference from which on it dissolves; others may have none."""


@frozen
class Result:
    """How a run ended that was not refused."""

    written: int
    made: int
    """In-between frames; `written` has the keyframes too unless only those between were asked for."""
    wanted: int
    cancelled: bool
    seconds: float
    engine: str


class Watcher(Notes, Protocol):
    """Who is told what happens: the command line's progress bar."""

    def planned(self, wanted: int) -> None: ...

    def at(self, stage: str, made: int) -> None: ...


class Frames(Protocol):
    """Where pictures go."""

    def write(self, index: int, image: base.Picture) -> object:
        """The frame at `index` of the clip. Raises MediaError."""
        ...


class Clip:
    """Puts the keyframes, which are the user's own pictures, between the frames that come."""

    def __init__(self, job: base.Job, frames: Frames, between_only: bool) -> None:
        self.made = 0
        self.wanted = len(job.wanted())
        self.unsure = 0
        self.findings: list[str] = []
        """What the engine saw between two keyframes, a line each."""
        self._wanted_at = job.wanted()
        self._gaps = list(pairwise(keyframe.at for keyframe in job.keyframes))
        self._frames = frames
        self._form = samples.form_of(job.keyframes[0].image)
        self._keyframes = [] if between_only else list(job.keyframes)

    def add(self, frame: base.Frame) -> None:
        while self._keyframes and self._keyframes[0].at < frame.index:
            self._write_keyframe()
        self._frames.write(frame.index, samples.conformed(frame.image, self._form))
        self.made += 1
        self.unsure += frame.confidence is not None and frame.confidence <= DISSOLVE_CONFIDENCE

    def found(self, line: str) -> str | None:
        """Of the gap that the next frame is in: the line, with its place where there are several gaps; None where it
        was said before, as after an interruption."""
        if len(self._gaps) > 1 and self.made < self.wanted:
            at = self._wanted_at[self.made]
            line = next((f"frames {a} to {b}: {line}" for a, b in self._gaps if a < at < b), line)
        if line in self.findings:
            return None
        self.findings.append(line)
        return line

    def finish(self) -> None:
        """The last keyframes; a clip that broke off ends with its last frame instead of a jump."""
        while self.made == self.wanted and self._keyframes:
            self._write_keyframe()

    def _write_keyframe(self) -> None:
        keyframe = self._keyframes.pop(0)
        self._frames.write(keyframe.at, keyframe.image)


def follow(source: Generator[Event, None, None], clip: Clip, watcher: Watcher) -> tuple[bool, WireError | None]:
    """Everything that comes from the source goes into the clip; whether Ctrl-C ended it, and what broke it off."""
    cancelled, failure = False, None
    watcher.planned(clip.wanted)
    with Interrupts() as interrupts, closing(source):
        try:
            for event in source:
                if isinstance(event, base.Frame):
                    with interrupts.deferred():
                        clip.add(event)
                elif event.stage.startswith(base.CHOSEN):
                    watcher.note(event.stage.removeprefix(base.CHOSEN))
                    continue
                elif event.stage.startswith(base.FOUND):
                    if line := clip.found(event.stage.removeprefix(base.FOUND)):
                        watcher.note(line)
                    continue
                watcher.at("in-betweens" if isinstance(event, base.Frame) else event.stage, clip.made)
        except KeyboardInterrupt:
            cancelled = True
        except WireError as error:
            failure = error
    assert cancelled or failure or clip.made == clip.wanted, "an engine ended early"
    clip.finish()
    return cancelled, failure


def note_unsure(clip: Clip, watcher: Notes) -> None:
    if clip.unsure:
        watcher.note(f"{clip.unsure} of {clip.made} frames are uncertain: the keyframes have too little in common")


def broken_off(failure: WireError, clip: Clip, out: Path) -> WireError:
    if not clip.made:
        return failure
    return WireError(f"{failure}; the first {clip.made} of {clip.wanted} frames are in {out}")
