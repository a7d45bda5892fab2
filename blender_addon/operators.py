"""What a user can do with gaps and strips: fill, fill all, cancel, discard, redo, clean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import bpy

from . import begin, frames, runtime, sequencer, settings
from .plan import CannotFill, Gap
from .record import Record

_UNSAVED = "The file is not saved: frames are kept in the extension's own folder. Save first to have them beside it"


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
        pump = runtime.running_pump()
        fill = pump.drop(record.job) if pump is not None else None
        sequencer.remove(record.job, sequencer.Place(scene.name, name))
        if record.job in sequencer.jobs_in_use():
            return {"FINISHED"}  # a copy of the strip still shows the frames
        parents = [fill.folder.parent.parent] if fill is not None else [begin.frames_parent(), begin.unsaved_parent()]
        try:
            for parent in parents:
                frames.delete_folder(parent, record.job)
        except OSError as error:
            self.report({"WARNING"}, f"Its frames could not be deleted: {error.strerror}")
        return {"FINISHED"}


class INBETWEEN_OT_clean_unused(bpy.types.Operator):
    """Delete the frames beside this file that none of its strips uses. Other files beside it may use them"""

    bl_idname = "inbetween.clean_unused"
    bl_label = "Clean Unused Frames"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if not bpy.data.is_saved:
            cls.poll_message_set("Save the file first: frames are cleaned beside it")
            return False
        return True

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        unused = _unused()
        if not unused:
            self.report({"INFO"}, "All frames beside this file are used by its strips")
            return {"CANCELLED"}
        return context.window_manager.invoke_props_dialog(self, width=420)

    def draw(self, context: bpy.types.Context) -> None:
        unused = _unused()
        column = self.layout.column(align=True)
        column.label(text=f"Delete the frames of {len(unused)} takes, {sum(unused.values()) / 1e6:.0f} MB?")
        column.label(text="Other .blend files in this folder may use them. This cannot be undone.")

    def execute(self, context: bpy.types.Context) -> set[str]:
        try:
            freed = sum(frames.delete_folder(_parent(), job) for job in _unused())
        except OSError as error:
            self.report({"ERROR"}, f"Frames could not be deleted: {error.strerror}")
            return {"CANCELLED"}
        self.report({"INFO"}, f"{freed / 1e6:.0f} MB freed")
        return {"FINISHED"}


def _parent() -> Path:
    return Path(bpy.data.filepath).parent


def _unused() -> dict[str, int]:
    """Jobs beside this file that no strip uses and that are not being made, with their bytes."""
    pump = runtime.running_pump()
    used = sequencer.jobs_in_use() | (pump.jobs if pump is not None else set())
    return {job: size for job, size in frames.jobs_on_disk(_parent()).items() if job not in used}


CLASSES = (
    INBETWEEN_OT_fill_gap,
    INBETWEEN_OT_fill_all_gaps,
    INBETWEEN_OT_redo,
    INBETWEEN_OT_cancel,
    INBETWEEN_OT_discard,
    INBETWEEN_OT_clean_unused,
)
