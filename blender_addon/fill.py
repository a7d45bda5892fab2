"""One gap being filled: from the keyframes on the timeline to the pictures of a strip.

Driven by `look` and `step`, which take one picture at a time. What the server is asked and what comes of it is
`making`'s: once for the frames, and before that once for a draft of them, each picture of which stands on the strip
until the one that it stands in for has come. Knows Blender only as `strips` and `capture`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import bpy

from . import capture, drafts, frames, strips, takes
from .frames import Writer, Written, draft_name, frame_name, keyframe_name
from .making import Making
from .record import Record, timestamp
from .sheet import Sheet

if TYPE_CHECKING:
    from .sfwire.codec import Buffer


@dataclass(eq=False)
class Fill:
    """The state of one job. The pictures in `keyframes` and in requests are dropped when it ends."""

    record: Record
    sheet: Sheet
    place: strips.Place
    folder: Path
    to_look_at: list[tuple[int, int]]
    """(index in the clip, frame of the timeline) of keyframes that were not looked at yet."""
    taken_off: list[takes.Aside]
    """The takes that were muted for this one."""
    keyframes: list[tuple[int, Buffer]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    """Files that stand in the strip, one a frame, as far as they are on disk: the only record that matters."""
    final_frames: int = 0
    """How many of them are no draft's: those come first."""
    problem: str = ""
    """Why it ended early, in a sentence."""
    cancelling: bool = False
    saved: bool = False
    """A file was saved that shows pictures of the draft."""
    _rendered: int | None = None
    """Index in the clip of the keyframe that was rendered and written last."""

    def __post_init__(self) -> None:
        self._given = {index for index, _ in self.sheet.keys}
        self.final = Making(self.record, self.sheet, frame_name)
        self.draft = Making(_for_draft(self.record), self.sheet, draft_name) if self.record.draft_engine else None

    @property
    def makings(self) -> list[Making]:
        """In the order in which the server is to be asked."""
        return [self.final] if self.draft is None else [self.draft, self.final]

    def go_on(self) -> None:
        """Take for made what lies in the folder: an earlier fill was broken off after it."""
        for making in self.makings:
            making.go_on(self.folder)
        if self.draft is not None:
            self.draft.pass_over(self.final.made)
        self._show()

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
        if self.to_look_at:
            return "Looking at the keyframes"
        if self.draft is not None and not self.draft.over and not self.final.made:
            return f"Draft: {self.draft.stage.lower()}"
        return self.final.stage

    def look(self) -> None:
        """Take one step to the next keyframe, as the timeline shows it below what lies above the strip; of a fill that
        goes on, as it showed it then."""
        index, frame = self.to_look_at[0]
        there = strips.bounds(self.job, self.place)  # finds a scene that was renamed
        if there is None:
            return  # `step` notices
        scene = bpy.data.scenes[self.place.scene]
        size = self.record.width, self.record.height
        try:
            path = self.folder / keyframe_name(index)
            picture = capture.read(path, *size)
            if picture is None and self._rendered == index:
                capture.fit(path, *size)
            elif picture is None and (
                capture.write(scene, path) or capture.render(scene, frame, *size, path, channel=there[2])
            ):
                self._rendered = index
        except (OSError, RuntimeError) as error:
            self.to_look_at.clear()
            self.problem = f"The picture at frame {frame} could not be had: {_reason(error)}"
            self.cancel()
            return
        if picture is not None:
            self.keyframes.append((index, picture))
            del self.to_look_at[0]
            if not self.to_look_at:
                self._ask()

    def _ask(self) -> None:
        """Make the requests up. A draft that is whole already is not asked for."""
        self.final.ask(self.keyframes)
        if self.draft is not None and self.draft.whole:
            self.draft.cancel()
        elif self.draft is not None:
            self.draft.ask(self.keyframes)

    def cancel(self) -> None:
        """Stop; what has come stays. Takes effect in a later step, when the server has said so or at once if it never
        heard of it."""
        self.cancelling = True
        for making in self.makings:
            making.cancel()

    def step(self, writer: Writer) -> None:
        """Take what came, and make the strip show what is on disk."""
        assert not self.over
        for making in self.makings:
            making.take(writer, self.folder)
        if self.draft is not None and self.final.whole:
            self.draft.cancel()
        if not strips.grow(self.job, self.place, self.names):
            self.cancel()
            self.problem = self.problem or "Its strip was deleted"
            self._finish("stopped")
        elif all(making.over for making in self.makings):
            self._finish("finished" if self.final.whole else "stopped")
        else:
            self._note()

    def written(self, result: Written, now: float) -> None:
        """One picture is on disk, or could not be written."""
        is_draft = frames.standing_for(result.name) is not None
        making = self.draft if is_draft and self.draft is not None else self.final
        making.written(result, self.folder, now)
        self._show()

    def _show(self) -> None:
        """Settle which files the strip shows: what is made, and from there on the draft."""
        final = self.sheet.ready(self.final.missing) if self.final.made else ()
        drafted = self.sheet.ready(self.draft.missing) if self.draft is not None and self.draft.made else ()
        names = [keyframe_name(i) if i in self._given else frame_name(i) for i in final]
        names += [keyframe_name(i) if i in self._given else draft_name(i) for i in drafted[len(final) :]]
        self.names, self.final_frames = names, len(final)

    def _note(self) -> None:
        """Write on the strip which engine was chosen and what it said that it saw, as soon as it is said."""
        found = self.final.found or (self.draft.found if self.draft is not None else "")
        chosen = self.final.chosen or self.record.chosen
        if (found, chosen) != (self.record.found, self.record.chosen):
            self.record.found, self.record.chosen = found, chosen
            strips.write(self.job, self.place, self.record)

    def _finish(self, state: str) -> None:
        record, done = self.record, self.final.done
        self.problem = self.problem or self._what_went_wrong()
        record.state, record.ended = state, timestamp()
        if done is not None:
            record.engine, record.version, record.seed = done.engine, done.version, done.seed
        if state == "finished":
            record.found = self.final.found
        record.frames, record.draft_frames = len(self.names), len(self.names) - self.final_frames
        for making in self.makings:
            making.let_go()
        self.keyframes.clear()
        if self.names:
            if state == "finished":
                self._clear_up()
            record.kilobytes = sum(making.bytes_made for making in self.makings) // 1000
            strips.settle(self.job, self.place, record)
        else:
            strips.remove(self.job, self.place)
            takes.bring_back(self.taken_off)
            if not any(making.ordered for making in self.makings):
                frames.delete_nothing_made(self.folder)

    def _what_went_wrong(self) -> str:
        if self.final.problem and self.names and self.final_frames < len(self.names):
            return f"{self.final.problem}. The draft stays where no frame came"
        if self.draft is not None and self.draft.problem and not self.final.problem:
            return f"There is no draft: {self.draft.problem}" if self.final.whole else self.draft.problem
        return self.final.problem

    def _clear_up(self) -> None:
        """Delete what only an unfinished fill needs; of a draft nothing that a file or a copy of the strip may show."""
        frames.delete_keyframes(self.folder, but=self.names)
        if self.draft is not None and not self.saved and not drafts.shows_draft(self.folder):
            frames.delete_drafts(self.folder)
            self.draft.bytes_made = 0

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


def _for_draft(record: Record) -> Record:
    """The same, of the engine whose pictures stand in."""
    return replace(record, engine=record.draft_engine, auto=0, params={})


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)
