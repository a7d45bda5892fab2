"""What a user can do with gaps: fill one, fill all, close a loop, continue, cancel."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import bpy

from . import begin, gaps, runtime, sequencer, settings, strips
from .plan import CannotFill, Gap

_UNSAVED = "The file is not saved: its frames are in your user folder, and come beside the file when you save it"


def scene_of(context: bpy.types.Context) -> bpy.types.Scene:
    """The scene being edited. Raises CannotFill."""
    scene = sequencer.edited_scene(context)
    if scene is None:
        raise CannotFill("The sequencer edits no scene: choose one in its header")
    return scene


def allows(
    cls: type[bpy.types.Operator], context: bpy.types.Context, check: Callable[[bpy.types.Scene], object]
) -> bool:
    """Whether `check` has nothing against it; shows the user what it has."""
    try:
        check(scene_of(context))
    except CannotFill as error:
        cls.poll_message_set(str(error))
        return False
    return True


def carry_out(
    operator: bpy.types.Operator, context: bpy.types.Context, fill: Callable[[bpy.types.Scene], None]
) -> set[str]:
    """Begin fills, or say why not."""
    try:
        fill(scene_of(context))
    except (CannotFill, runtime.Unavailable) as error:
        operator.report({"ERROR"}, str(error))
        return {"CANCELLED"}
    if not bpy.data.is_saved:
        operator.report({"WARNING"}, _UNSAVED)
    return {"FINISHED"}


class INBETWEEN_OT_fill_gap(bpy.types.Operator):
    """Fill the gap between the selected strips, or under the playhead, with frames that lead from one to the other.
    Pictures inside it are keyframes. On a gap that is filled: another take. In a hole cut into a take: that part again
    """

    bl_idname = "inbetween.fill_gap"
    bl_label = "Fill Gap"
    bl_options = {"UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return allows(cls, context, _check_gap)

    def execute(self, context: bpy.types.Context) -> set[str]:
        return carry_out(self, context, lambda scene: _fill(scene, [gaps.find(scene)]))


class INBETWEEN_OT_fill_all_gaps(bpy.types.Operator):
    """Fill every gap between the selected strips, one after another"""

    bl_idname = "inbetween.fill_all_gaps"
    bl_label = "Fill All Gaps"
    bl_options = {"UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return allows(cls, context, lambda scene: (begin.engine_for(scene), gaps.find_all(scene)))

    def execute(self, context: bpy.types.Context) -> set[str]:
        return carry_out(self, context, lambda scene: _fill(scene, gaps.find_all(scene)))


def _check_gap(scene: bpy.types.Scene) -> None:
    engine = begin.engine_for(scene)
    begin.check(scene, gaps.with_keyframes(scene, gaps.find(scene)), engine)


def _fill(scene: bpy.types.Scene, found: Sequence[Gap]) -> None:
    """Raises CannotFill, before anything is begun, where one of the gaps cannot be filled."""
    engine = begin.engine_for(scene)
    whole = [gaps.with_keyframes(scene, gap) for gap in found]
    for gap, record in [(gap, begin.new_record(scene, gap, engine)) for gap in whole]:
        settings.of(scene).seed = record.seed
        begin.begin(scene, gap, record)


class INBETWEEN_OT_loop(bpy.types.Operator):
    """Close a loop: make frames after the active strip that lead from its last picture back to its first"""

    bl_idname = "inbetween.loop"
    bl_label = "Close Loop"
    bl_options = {"UNDO"}

    frames: bpy.props.IntProperty(
        name="Frames", description="How many frames lead back", default=12, min=1, soft_max=200, max=998
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return allows(cls, context, lambda scene: (begin.engine_for(scene), gaps.of_loop(scene, 1)))

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        return context.window_manager.invoke_props_dialog(self)

    def execute(self, context: bpy.types.Context) -> set[str]:
        return carry_out(self, context, lambda scene: _fill(scene, [gaps.of_loop(scene, self.frames)]))


class INBETWEEN_OT_go_on(bpy.types.Operator):
    """Make the frames that are still missing, from those that are there on, with the same settings"""

    bl_idname = "inbetween.go_on"
    bl_label = "Continue"
    bl_options = {"UNDO"}

    everywhere: bpy.props.BoolProperty(
        name="All", description="Every strip that was broken off, not only the active one", options={"SKIP_SAVE"}
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return allows(cls, context, begin.engine_for)

    def execute(self, context: bpy.types.Context) -> set[str]:
        return carry_out(self, context, self._go_on)

    def _go_on(self, scene: bpy.types.Scene) -> None:
        names = strips.broken_off(scene) if self.everywhere else [strips.active_job(scene)[0]]
        if self.everywhere:
            runtime.broken_off = 0
        for name in names:
            begin.go_on(scene, name)


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


CLASSES = (
    INBETWEEN_OT_fill_gap,
    INBETWEEN_OT_fill_all_gaps,
    INBETWEEN_OT_loop,
    INBETWEEN_OT_go_on,
    INBETWEEN_OT_cancel,
)
