"""What a user can do with gaps and strips: fill, fill all, cancel, discard, redo, clean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import bpy

from . import begin, frames, keep, runtime, sequencer, settings
from .plan import CannotFill, Gap
from .record import Record

_UNSAVED = "The file is not saved: its frames are in your user folder, and come beside the file when you save it"


def _scene(context: bpy.types.Context) -> bpy.types.Scene:
    """The scene being edited. Raises CannotFill."""
    scene = sequencer.edited_scene(context)
    if scene is None:
        raise CannotFill("The sequencer edits no scene: choose one in its header")
    return scene


def _poll(
    cls: type[bpy.types.Operator], context: bpy.types.Context, check: Callable[[bpy.types.Scene], object]
) -> bool:
    """Whether `check` has nothing against it; shows the user what it has."""
    try:
        check(_scene(context))
    except CannotFill as error:
        cls.poll_message_set(str(error))
        return False
    return True


def _execute(
    operator: bpy.types.Operator, context: bpy.types.Context, fill: Callable[[bpy.types.Scene], None]
) -> set[str]:
    """Begin fills, or say why not."""
    try:
        fill(_scene(context))
    except (CannotFill, runtime.Unavailable) as error:
        operator.report({"ERROR"}, str(error))
        return {"CANCELLED"}
    if not bpy.data.is_saved:
        operator.report({"WARNING"}, _UNSAVED)
    return {"FINISHED"}


class INBETWEEN_OT_fill_gap(bpy.types.Operator):
    """Fill the gap between the selected strips, or under the playhead, with frames that lead from one to the other"""

    bl_idname = "inbetween.fill_gap"
    bl_label = "Fill Gap"
    bl_options = {"UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return _poll(cls, context, lambda scene: _plan(scene, [begin.find_gap(scene)]))

    def execute(self, context: bpy.types.Context) -> set[str]:
        return _execute(self, context, lambda scene: _fill(scene, [begin.find_gap(scene)]))


class INBETWEEN_OT_fill_all_gaps(bpy.types.Operator):
    """Fill every gap between the selected strips, one after another"""

    bl_idname = "inbetween.fill_all_gaps"
    bl_label = "Fill All Gaps"
    bl_options = {"UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return _poll(cls, context, lambda scene: _plan(scene, begin.find_gaps(scene)))

    def execute(self, context: bpy.types.Context) -> set[str]:
        return _execute(self, context, lambda scene: _fill(scene, begin.find_gaps(scene)))


def _plan(scene: bpy.types.Scene, gaps: Sequence[Gap]) -> list[tuple[Gap, Record]]:
    """What each gap will ask for. Raises CannotFill, before anything is begun, where one of them cannot be filled."""
    engine = begin.engine_for(scene)
    return [(gap, begin.new_record(scene, gap, engine)) for gap in gaps]


def _fill(scene: bpy.types.Scene, gaps: Sequence[Gap]) -> None:
    for gap, record in _plan(scene, gaps):
        settings.of(scene).seed = record.seed
        begin.begin(scene, gap, record)


class INBETWEEN_OT_redo(bpy.types.Operator):
    """Make the active strip's frames again, as a new take above it; the old one is muted"""

    bl_idname = "inbetween.redo"
    bl_label = "Redo"
    bl_options = {"UNDO"}

    new_seed: bpy.props.BoolProperty(
        name="New Seed", description="Make it differently, with another seed", default=False, options={"SKIP_SAVE"}
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return _poll(cls, context, _take)

    def execute(self, context: bpy.types.Context) -> set[str]:
        return _execute(self, context, self._again)

    def _again(self, scene: bpy.types.Scene) -> None:
        gap, record = _take(scene)
        engine = begin.find_engine(record.engine)
        seed = begin.new_seed() if self.new_seed else record.seed
        old = sequencer.Place(scene.name, scene.sequence_editor.active_strip.name)
        begin.begin(scene, gap, begin.again(record, seed, gap, engine), replaces=(record.job, old), above=gap.channel)
        sequencer.set_mute(record.job, old, mute=True)


def _take(scene: bpy.types.Scene) -> tuple[Gap, Record]:
    """The place and the record of the active strip, to be made again. Raises CannotFill."""
    active = sequencer.active_record(scene)
    if active is None:
        raise CannotFill("Make a strip active whose frames were made here")
    name, record = active
    if record.state == "growing":
        raise CannotFill("This strip is still growing: wait for it, or cancel it")
    begin.find_engine(record.engine)
    span = sequencer.bounds(record.job, sequencer.Place(scene.name, name))
    assert span is not None  # the active strip itself, or the one that it is a copy of
    return Gap(span.left, span.left + record.frames_wanted, record.before, record.after, span.channel), record


class INBETWEEN_OT_cancel(bpy.types.Operator):
    """Stop making frames; those that came stay in the strip"""

    bl_idname = "inbetween.cancel"
    bl_label = "Cancel"

    job: bpy.props.StringProperty(options={"HIDDEN", "SKIP_SAVE"})

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        pump = runtime.running_pump()
        if pump is None or not pump.fills:
            cls.poll_message_set("Nothing is being made")
            return False
        return True

    def execute(self, context: bpy.types.Context) -> set[str]:
        runtime.pump().cancel(self.job)
        runtime.wake()
        return {"FINISHED"}


class INBETWEEN_OT_discard(bpy.types.Operator):
    """Take the strip off the timeline and delete its frames from the disk"""

    bl_idname = "inbetween.discard"
    bl_label = "Discard"
    bl_options = {"UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        scene = sequencer.edited_scene(context)
        if scene is None or sequencer.active_record(scene) is None:
            cls.poll_message_set("Make a strip active whose frames were made here")
            return False
        return True

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        return context.window_manager.invoke_confirm(self, event)

    def execute(self, context: bpy.types.Context) -> set[str]:
        scene = sequencer.edited_scene(context)
        active = sequencer.active_record(scene) if scene is not None else None
        if scene is None or active is None:
            self.report({"ERROR"}, "The active strip was not made here")
            return {"CANCELLED"}
        name, record = active
        pump, place = runtime.running_pump(), sequencer.Place(scene.name, name)
        folder = sequencer.folder_of(record.job, place)
        if pump is not None:
            pump.drop(record.job)
        sequencer.remove(record.job, place)
        if folder is not None and record.job not in sequencer.jobs_in_use():  # else a copy still shows the frames
            self._delete(folder, record.job)
        return {"FINISHED"}

    def _delete(self, folder: Path, job: str) -> None:
        if folder.parent.parent not in (keep.parent(), *keep.user_parents()) or folder.name != job:
            self.report({"INFO"}, f"Its frames stay in {folder}: another file may use them")
            return
        try:
            frames.delete_folder(folder.parent.parent, job)
        except OSError as error:
            self.report({"WARNING"}, f"Its frames could not be deleted: {error.strerror}")


class INBETWEEN_OT_clean_unused(bpy.types.Operator):
    """Delete frames that no strip of this file uses. Other files may use them"""

    bl_idname = "inbetween.clean_unused"
    bl_label = "Clean Unused Frames"

    unsaved: bpy.props.BoolProperty(
        name="Of Unsaved Files",
        description="Clean the user's folder, where frames of files lie that were never saved",
        default=False,
        options={"SKIP_SAVE"},
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if not bpy.data.is_saved:
            cls.poll_message_set("Save the file first: until then its frames are among those of unsaved files")
            return False
        return True

    def _parents(self) -> tuple[Path, ...]:
        return keep.user_parents() if self.unsaved else (keep.parent(),)

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        if not _unused(self._parents()):
            self.report({"INFO"}, "There are no frames that this file does not use")
            return {"CANCELLED"}
        return context.window_manager.invoke_props_dialog(self, width=420)

    def draw(self, context: bpy.types.Context) -> None:
        sizes = [size for _, _, size in _unused(self._parents())]
        column = self.layout.column(align=True)
        column.label(text=f"Delete the frames of {len(sizes)} takes, {sum(sizes) / 1e6:.0f} MB?")
        others = "Files that were never saved, and auto-saves," if self.unsaved else "Other .blend files in this folder"
        column.label(text=f"{others} may use them. This cannot be undone.")

    def execute(self, context: bpy.types.Context) -> set[str]:
        try:
            freed = sum(frames.delete_folder(parent, job) for parent, job, _ in _unused(self._parents()))
        except OSError as error:
            self.report({"ERROR"}, f"Frames could not be deleted: {error.strerror}")
            return {"CANCELLED"}
        self.report({"INFO"}, f"{freed / 1e6:.0f} MB freed")
        return {"FINISHED"}


def _unused(parents: Sequence[Path]) -> list[tuple[Path, str, int]]:
    """(parent, job, bytes) of frames that no strip reads from there and that are not being made."""
    pump = runtime.running_pump()
    used = sequencer.frame_folders() | ({fill.folder for fill in pump.fills} if pump is not None else set())
    used = {folder.resolve() for folder in used}
    return [
        (parent, job, size)
        for parent in parents
        for job, size in frames.jobs_on_disk(parent).items()
        if (parent / frames.FOLDER / job).resolve() not in used
    ]


CLASSES = (
    INBETWEEN_OT_fill_gap,
    INBETWEEN_OT_fill_all_gaps,
    INBETWEEN_OT_redo,
    INBETWEEN_OT_cancel,
    INBETWEEN_OT_discard,
    INBETWEEN_OT_clean_unused,
)
