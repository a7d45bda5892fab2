"""The Video Sequencer as the rest of the extension sees it. Only this module knows how Blender's versions differ.

4.2 has `sequences` and `frame_final_*`, 4.5 to 5.1 `strips`, 5.2 `left_handle` and a scene of the sequencer's own. No
reference to a strip outlives the function that looked it up: after an undo, a deletion or a file load it would point
into freed memory. Strips are found again by the job that is written on them.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import bpy

from .plan import Gap, Span
from .record import Record, from_properties, is_job

JOB = "inbetween_job"
RECORD = "inbetween"
LAST_CHANNEL = 128
GROWING, FINISHED, STOPPED = "COLOR_05", "COLOR_04", "COLOR_02"
"""Colour tags: blue while it grows, green when it is whole, orange when it stopped early."""
_SILENT = frozenset({"SOUND", "ADJUSTMENT"})
"""Kinds of strips that show no picture of their own."""
_HAS_HANDLES = hasattr(bpy.types, "ImageStrip") and "left_handle" in bpy.types.ImageStrip.bl_rna.properties


# What the versions call differently


def edited_scene(context: bpy.types.Context) -> bpy.types.Scene | None:
    """The scene that the sequencer of this window edits; Blender 5 can have none."""
    return context.sequencer_scene if hasattr(context, "sequencer_scene") else context.scene


def _strips(owner: Any) -> Any:
    """The strips directly in a sequence editor or a meta strip."""
    return owner.strips if hasattr(owner, "strips") else owner.sequences


def _all_strips(editor: bpy.types.SequenceEditor) -> Any:
    """Every strip, those inside meta strips too."""
    return editor.strips_all if hasattr(editor, "strips_all") else editor.sequences_all


def left(strip: Any) -> int:
    return int(strip.left_handle if _HAS_HANDLES else strip.frame_final_start)


def right(strip: Any) -> int:
    """The first frame after the strip."""
    return int(strip.right_handle if _HAS_HANDLES else strip.frame_final_end)


def _set_frames(strip: Any, frames: int) -> None:
    if _HAS_HANDLES:
        strip.right_handle = strip.left_handle + frames
    else:
        strip.frame_final_duration = frames


_MEDIA_TYPE = ("media_type",) if "media_type" in bpy.types.ImageFormatSettings.bl_rna.properties else ()
OUTPUT_PROPERTIES = (*_MEDIA_TYPE, "file_format", "color_mode", "color_depth", "compression", "color_management")
"""What `make_png` changes, in the order in which it can be set back."""


def make_png(settings: bpy.types.ImageFormatSettings) -> None:
    """Set a scene's output to 8-bit RGB PNG."""
    if _MEDIA_TYPE:
        settings.media_type = "IMAGE"
    settings.file_format = "PNG"
    settings.color_management = "FOLLOW_SCENE"
    settings.color_mode = "RGB"
    settings.color_depth = "8"
    settings.compression = 15


# Looking


def spans(scene: bpy.types.Scene, growing: Collection[str] = ()) -> list[Span]:
    """What shows a picture where the user is editing: at the top level, or inside the open meta strip.

    Strips of the jobs `growing` do not count: they are what fills a gap.
    """
    if not scene.sequence_editor:
        return []
    shown = (s for s in _strips(_level(scene)) if s.type not in _SILENT and not s.mute)
    return [_span(strip) for strip in shown if strip.get(JOB) not in growing]


def selected_spans(scene: bpy.types.Scene, growing: Collection[str] = ()) -> list[Span]:
    """The same of the strips that are selected; an adjustment that the user has selected counts."""
    if not scene.sequence_editor:
        return []
    chosen = (s for s in _strips(_level(scene)) if s.select and s.type != "SOUND" and not s.mute)
    return [_span(strip) for strip in chosen if strip.get(JOB) not in growing]


def _span(strip: Any) -> Span:
    return Span(left(strip), right(strip), strip.name, strip.channel)


def _level(scene: bpy.types.Scene) -> Any:
    """The sequence editor, or the innermost meta strip that is open in it."""
    editor = scene.sequence_editor
    return editor.meta_stack[-1] if editor.meta_stack else editor


def frames_per_second(scene: bpy.types.Scene) -> float:
    return scene.render.fps / scene.render.fps_base


def active_record(scene: bpy.types.Scene) -> tuple[str, Record] | None:
    """(name, record) of the active strip, where it is one that we made."""
    strip = scene.sequence_editor.active_strip if scene.sequence_editor else None
    record = _record(strip) if strip is not None else None
    return (strip.name, record) if record else None


def _record(strip: Any) -> Record | None:
    properties = strip.get(RECORD)
    return from_properties(properties.to_dict()) if hasattr(properties, "to_dict") else None


def jobs_in_use() -> set[str]:
    """The jobs whose folder some strip of this file reads, whether or not it still says so itself."""
    return {folder.name for folder in frame_folders()} | jobs_on_timeline()


def frame_folders() -> set[Path]:
    """The folders of jobs that strips of this file read, as full paths."""
    return {folder for _, folder in _showing_frames()}


def repoint(folder: Path, to: str) -> None:
    """Have every strip that reads the folder read another one, written as `to` says."""
    for strip, shown in _showing_frames():
        if shown == folder and Path(strip.directory) != Path(to):
            strip.directory = to


def _showing_frames() -> Iterator[tuple[Any, Path]]:
    """Image strips that may be changed and read a job's folder. A linked scene is another file's."""
    for scene in bpy.data.scenes:
        for strip in _all_strips(scene.sequence_editor) if scene.sequence_editor and scene.library is None else ():
            if strip.type == "IMAGE" and is_job(Path(strip.directory).name):
                yield strip, Path(os.path.normpath(bpy.path.abspath(strip.directory)))


def jobs_on_timeline() -> set[str]:
    """The jobs that have a strip."""
    return {job for _, strip in _ours() if is_job(job := strip.get(JOB))}


class Place:
    """Where a job's strip was last seen: makes finding it again cheap. Names, not references."""

    def __init__(self, scene: str, strip: str) -> None:
        self.scene = scene
        self.strip = strip


def _find(job: str, place: Place) -> tuple[bpy.types.Scene, Any] | None:
    """The strip of a job: by its last name, else by looking at every strip of every scene."""
    scene = bpy.data.scenes.get(place.scene)
    if scene is not None and scene.sequence_editor:
        strip = _all_strips(scene.sequence_editor).get(place.strip)
        if strip is not None and strip.get(JOB) == job and strip.type == "IMAGE":
            return scene, strip
    scenes = sorted(bpy.data.scenes, key=lambda other: other.name != place.scene)
    for scene in scenes:
        for strip in _all_strips(scene.sequence_editor) if scene.sequence_editor else ():
            if strip.get(JOB) == job and strip.type == "IMAGE":
                place.scene, place.strip = scene.name, strip.name
                return scene, strip
    return None


def folder_of(job: str, place: Place) -> Path | None:
    """Where the files of a job's strip lie."""
    found = _find(job, place)
    return Path(os.path.normpath(bpy.path.abspath(found[1].directory))) if found else None


def bounds(job: str, place: Place) -> Span | None:
    """Where a job's strip lies."""
    found = _find(job, place)
    return _span(found[1]) if found else None


# Changing


def place_strip(scene: bpy.types.Scene, gap: Gap, title: str, picture: str, record: Record, above: int = 0) -> Place:
    """Put a strip of one picture at the start of the gap, in a channel that is free for the whole of it.

    Prefers the channel of the strip before, then those above it; with `above`, only those above that one. Raises
    LookupError where every channel is taken or locked.
    """
    scene.sequence_editor_create()
    level = _level(scene)
    channel = _free_channel(level, gap.start, gap.end, above + 1 if above else gap.channel)
    if channel is None:
        raise LookupError("Every channel is taken or locked at the gap: unlock one, or move a strip")
    strip = _strips(level).new_image(
        name=title, filepath=picture, channel=channel, frame_start=gap.start, fit_method="STRETCH"
    )
    strip[JOB] = record.job
    strip[RECORD] = record.to_properties()
    strip.color_tag = GROWING
    strip.lock = True
    strip.select = False  # the strips around the gap stay what the user has selected
    return Place(scene.name, strip.name)


def _free_channel(level: Any, start: int, end: int, first: int, but: str = "") -> int | None:
    """A channel that holds nothing in [start, end) and is neither locked nor muted; the strip `but` does not count."""
    taken = {s.channel for s in _strips(level) if left(s) < end and right(s) > start and s.name != but}
    taken |= {i for i, channel in enumerate(level.channels) if channel.lock or channel.mute}
    order = [*range(first, LAST_CHANNEL + 1), *range(1, first)]
    return next((channel for channel in order if channel not in taken), None)


def grow(job: str, place: Place, names: Sequence[str]) -> bool:
    """Make the strip hold exactly the pictures `names`, in that order; False where the strip is gone.

    Also mends what an undo took away. A strip that has met another one moves to a free channel, which is looked for
    first: Blender 4.5 hangs where a strip is assigned to a place that is taken.
    """
    found = _find(job, place)
    if found is None:
        return False
    strip = found[1]
    if not names:
        return True
    elements = strip.elements
    if elements[0].filename != names[0]:
        elements[0].filename = names[0]
    known = len(elements)
    if known < len(names):
        _make_room(found[0], strip, len(names))
        for name in names[known:]:
            elements.append(name)
    if right(strip) - left(strip) != len(names):
        _set_frames(strip, len(names))
    return True


def _make_room(scene: bpy.types.Scene, strip: Any, frames: int) -> None:
    start, end, channel = left(strip), left(strip) + frames, strip.channel
    level = strip.parent_meta() or scene.sequence_editor
    for other in _strips(level):
        if other.channel == channel and left(other) < end and right(other) > start and other.name != strip.name:
            free = _free_channel(level, start, end, channel + 1, but=strip.name)
            if free is not None:
                strip.channel = free
            return


def settle(job: str, place: Place, record: Record) -> None:
    """Write the last word on a strip: it may be edited again."""
    found = _find(job, place)
    if found is None:
        return
    strip = found[1]
    strip[RECORD] = record.to_properties()
    strip.lock = False
    strip.color_tag = FINISHED if record.state == "finished" else STOPPED


def settle_orphans(growing: Collection[str] = ()) -> None:
    """Unlock strips that were saved while they grew and that none of the jobs `growing` fills any more."""
    for _, strip in _ours():
        record = _record(strip)
        if record and record.state == "growing" and record.job not in growing:
            record.state, record.frames = "stopped", len(strip.elements)
            strip[RECORD] = record.to_properties()
            strip.lock = False
            strip.color_tag = STOPPED


def _ours() -> Iterator[tuple[bpy.types.Scene, Any]]:
    for scene in bpy.data.scenes:
        for strip in _all_strips(scene.sequence_editor) if scene.sequence_editor and scene.library is None else ():
            if strip.type == "IMAGE" and JOB in strip:
                yield scene, strip


def remove(job: str, place: Place | None = None) -> None:
    """Take a job's strip off the timeline, if it is there."""
    found = _find(job, place or Place("", ""))
    if found is not None:
        scene, strip = found
        _strips(strip.parent_meta() or scene.sequence_editor).remove(strip)


def set_mute(job: str, place: Place, mute: bool) -> None:
    found = _find(job, place)
    if found is not None:
        found[1].mute = mute


def redraw() -> None:
    """Have every sequencer drawn again."""
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type == "SEQUENCE_EDITOR":
                area.tag_redraw()
