"""What a user can do with gaps: fill one, fill all, close a loop, continue, cancel."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import bpy

from . import begin, gaps, runtime, sequencer, settings, strips, summon, written
from .plan import CannotFill, Gap
from .refusals import fail, refuse

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
        return refuse(cls, str(error))
    return True


Deed = Callable[[bpy.types.Scene], None]
"""What a press does as soon as a server is there. Raises CannotFill."""


def carry_out(
    operator: bpy.types.Operator, context: bpy.types.Context, mean: Callable[[bpy.types.Scene], Deed]
) -> set[str]:
    """Settle what is meant now, whatever is selected later, and do it, or say why not; while no server is there, have
    one come first, or lead to where one is installed."""
    try:
        scene = scene_of(context)
        deed = mean(scene)
        if summon.is_there():
            deed(scene)
        else:
            operator.report({"INFO"}, summon.ask(summon.Wish(scene.name, operator.bl_label, deed)))
    except (CannotFill, runtime.Unavailable) as error:
        return fail(operator, error)
    except summon.NotInstalled as error:
        operator.report({"WARNING"}, str(error))
        return bpy.ops.inbetween.show_install()
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
        return carry_out(self, context, lambda scene: _to_fill(scene, [gaps.find(scene)]))


class INBETWEEN_OT_fill_all_gaps(bpy.types.Operator):
    """Fill every gap between the selected strips, one after another"""

    bl_idname = "inbetween.fill_all_gaps"
    bl_label = "Fill All Gaps"
    bl_options = {"UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return allows(cls, context, lambda scene: (_check_engine(scene), gaps.find_all(scene)))

    def execute(self, context: bpy.types.Context) -> set[str]:
        return carry_out(self, context, lambda scene: _to_fill(scene, gaps.find_all(scene)))


def _check_gap(scene: bpy.types.Scene) -> None:
    gap = gaps.with_keyframes(scene, gaps.find(scene))
    if summon.is_there():
        chosen = settings.of(scene)
        begin.check(scene, gap, begin.engine_of(chosen.engine_id, gap, chosen.step))


def _check_engine(scene: bpy.types.Scene) -> None:
    """Raises CannotFill where the server says that it will not do. Without a server nobody knows."""
    if summon.is_there():
        begin.engine_for(scene)


def _to_fill(scene: bpy.types.Scene, found: Sequence[Gap]) -> Deed:
    """Fill these gaps: all of them, or none where one of them cannot be filled or is not there any more."""
    waits = not summon.is_there()

    def fill(scene: bpy.types.Scene) -> None:
        for gap in found if waits else ():
            gaps.check_still(scene, gap)
        whole = [gaps.with_keyframes(scene, gap) for gap in found]
        for gap, record in [(gap, begin.new_record(scene, gap)) for gap in whole]:
            settings.of(scene).seed = record.seed
            begin.begin(scene, gap, record)

    return fill


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
        return allows(cls, context, lambda scene: (_check_engine(scene), gaps.of_loop(scene, 1)))

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        return context.window_manager.invoke_props_dialog(self)

    def execute(self, context: bpy.types.Context) -> set[str]:
        return carry_out(self, context, lambda scene: _to_fill(scene, [gaps.of_loop(scene, self.frames)]))


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
        return allows(cls, context, _check_engine)

    def execute(self, context: bpy.types.Context) -> set[str]:
        return carry_out(self, context, lambda scene: _to_go_on(scene, self.everywhere))


def _to_go_on(scene: bpy.types.Scene, everywhere: bool) -> Deed:
    """With the strips that were broken off, or the active one."""
    names = strips.broken_off(scene) if everywhere else [written.active_job(scene)[0]]
    if everywhere:
        runtime.broken_off = 0

    def go_on(scene: bpy.types.Scene) -> None:
        for name in names:
            begin.go_on(scene, name)

    return go_on


class INBETWEEN_OT_cancel(bpy.types.Operator):
    """Stop making frames; those that came stay in the strip"""

    bl_idname = "inbetween.cancel"
    bl_label = "Cancel"

    job: bpy.props.StringProperty(options={"HIDDEN", "SKIP_SAVE"})

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        pump = runtime.running_pump()
        if pump is None or not pump.fills:
            return refuse(cls, "Nothing is being made")
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
