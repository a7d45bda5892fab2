"""What a user can do with strips that were made here: another take, stepping through takes, discarding, cleaning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import bpy

from . import begin, frames, gaps, keep, runtime, settings, strips, summon, takes, written
from .operators import Deed, allows, carry_out, scene_of
from .plan import CannotFill
from .record import AUTO
from .refusals import fail, refuse


class _WithAStrip(bpy.types.Operator):
    """What is done with the active strip, one of ours. Not an operator by itself."""

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return allows(cls, context, written.active_job)


class INBETWEEN_OT_new_take(bpy.types.Operator):
    """Make the active strip's frames anew, with its settings, the prompt that stands on it and another seed. It takes
    the old one's place, which is muted above it
    """

    bl_idname = "inbetween.new_take"
    bl_label = "New Take"
    bl_options = {"UNDO"}

    new_seed: bpy.props.BoolProperty(
        name="New Seed", description="Make it differently, with another seed", default=True, options={"SKIP_SAVE"}
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return allows(cls, context, lambda scene: _check_take(scene, written.active_job(scene)[0]))

    def execute(self, context: bpy.types.Context) -> set[str]:
        return carry_out(self, context, lambda scene: _to_take_again(scene, self.new_seed))


def _check_take(scene: bpy.types.Scene, name: str) -> None:
    """Raises CannotFill where no other take can be made: what costs nothing to find out, as it is asked at each
    drawing."""
    if written.is_growing(scene, name):
        raise CannotFill("This strip is still growing: wait for it, or cancel it")
    if summon.is_there():
        begin.find_engine(AUTO)


def _to_take_again(scene: bpy.types.Scene, new_seed: bool) -> Deed:
    """Make the active strip's frames once more."""
    name = written.active_job(scene)[0]

    def take(scene: bpy.types.Scene) -> None:
        _check_take(scene, name)
        record, gap = written.read(scene, name), gaps.of_take(scene, name)
        begin.find_engine(record.asked)
        seed = begin.new_seed() if new_seed else record.seed
        anew = begin.again(scene, record, gap, seed, written.next_prompt(scene, name, record.prompt))
        anew.gap = record.gap or record.job
        fill = begin.begin(scene, gap, anew, instead_of=name)
        strips.make_active(scene, fill.place.strip)

    return take


class INBETWEEN_OT_show_take(_WithAStrip):
    """Show another take of this gap"""

    bl_idname = "inbetween.show_take"
    bl_label = "Show Take"
    bl_options = {"UNDO"}

    by: bpy.props.IntProperty(name="By", description="1 for the next take, -1 for the previous one", default=1)

    @classmethod
    def description(cls, context: bpy.types.Context, properties: bpy.types.OperatorProperties) -> str:
        return "Show the next take of this gap" if properties.by > 0 else "Show the previous take of this gap"

    def execute(self, context: bpy.types.Context) -> set[str]:
        try:
            self.report({"INFO"}, takes.step(scene_of(context), self.by))
        except CannotFill as error:
            return fail(self, error)
        return {"FINISHED"}


class INBETWEEN_OT_use_settings(_WithAStrip):
    """Set prompt, engine, seed and all else for the next fill to what made this strip"""

    bl_idname = "inbetween.use_settings"
    bl_label = "Use These Settings"
    bl_options = {"UNDO"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        scene, pump = scene_of(context), runtime.running_pump()
        try:
            record = written.read(scene, written.active_job(scene)[0])
        except CannotFill as error:
            return fail(self, error)
        settings.adopt(scene, record, pump.engine(record.asked) if pump is not None else None)
        return {"FINISHED"}


class INBETWEEN_OT_open_folder(_WithAStrip):
    """Show the folder with this strip's frames"""

    bl_idname = "inbetween.open_folder"
    bl_label = "Open Folder"

    def execute(self, context: bpy.types.Context) -> set[str]:
        scene = scene_of(context)
        name, job = written.active_job(scene)
        folder = strips.folder_of(job, strips.Place(scene.name, name))
        if folder is None or not folder.is_dir():
            return fail(self, f"{folder} is not there")
        return bpy.ops.wm.path_open(filepath=str(folder))


class INBETWEEN_OT_discard(_WithAStrip):
    """Take the strip off the timeline and delete its frames from the disk"""

    bl_idname = "inbetween.discard"
    bl_label = "Discard"
    bl_options = {"UNDO"}

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        return context.window_manager.invoke_confirm(self, event)

    def execute(self, context: bpy.types.Context) -> set[str]:
        scene = scene_of(context)
        name, job = written.active_job(scene)
        pump, place = runtime.running_pump(), strips.Place(scene.name, name)
        folder = strips.folder_of(job, place)
        if pump is not None:
            pump.drop(job)
        strips.remove(job, place)
        if folder is not None and job not in strips.jobs_in_use():  # else a copy still shows the frames
            self._delete(folder, job)
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
            return refuse(cls, "Save the file first: until then its frames are among those of unsaved files")
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
            return fail(self, f"Frames could not be deleted: {error.strerror}")
        self.report({"INFO"}, f"{freed / 1e6:.0f} MB freed")
        return {"FINISHED"}


def _unused(parents: Sequence[Path]) -> list[tuple[Path, str, int]]:
    """(parent, job, bytes) of frames that no strip reads from there and that are not being made."""
    pump = runtime.running_pump()
    used = strips.frame_folders() | ({fill.folder for fill in pump.fills} if pump is not None else set())
    used = {folder.resolve() for folder in used}
    return [
        (parent, job, size)
        for parent in parents
        for job, size in frames.jobs_on_disk(parent).items()
        if (parent / frames.FOLDER / job).resolve() not in used
    ]


CLASSES = (
    INBETWEEN_OT_new_take,
    INBETWEEN_OT_show_take,
    INBETWEEN_OT_use_settings,
    INBETWEEN_OT_open_folder,
    INBETWEEN_OT_discard,
    INBETWEEN_OT_clean_unused,
)
