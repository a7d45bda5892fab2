"""The strips that we made: putting them on the timeline, finding them again, making them grow.

They are found by the job that is written on them, never by a reference, see `sequencer`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import bpy

from . import sequencer
from .frames import standing_for
from .plan import Gap
from .record import Record, is_job
from .sequencer import all_strips, free_channels, left, level, right, set_frames, strips_in
from .written import JOB, PROMPT, RECORD, record_on

GROWING, FINISHED, STOPPED = "COLOR_05", "COLOR_04", "COLOR_02"
"""Colour tags: blue while it grows, green when it is whole, orange when it stopped early."""


class Place:
    """Where a job's strip was last seen: makes finding it again cheap. Names, not references."""

    def __init__(self, scene: str, strip: str) -> None:
        self.scene = scene
        self.strip = strip


def jobs_in_use() -> set[str]:
    """The jobs whose folder some strip of this file reads, whether or not it still says so itself."""
    return {folder.name for folder in frame_folders()} | jobs_on_timeline()


def jobs_on_timeline() -> set[str]:
    """The jobs that have a strip."""
    return {job for _, strip in _ours() if is_job(job := strip.get(JOB))}


def frame_folders() -> set[Path]:
    """The folders of jobs that strips of this file read, as full paths."""
    return {folder for _, folder in showing_frames()}


def repoint(folder: Path, to: str) -> None:
    """Have every strip that reads the folder read another one, written as `to` says."""
    for strip, shown in showing_frames():
        if shown == folder and Path(strip.directory) != Path(to):
            strip.directory = to


def showing_frames() -> Iterator[tuple[Any, Path]]:
    """Image strips that may be changed and read a job's folder. A linked scene is another file's."""
    for scene in bpy.data.scenes:
        for strip in all_strips(scene.sequence_editor) if scene.sequence_editor and scene.library is None else ():
            if strip.type == "IMAGE" and is_job(Path(strip.directory).name):
                yield strip, _folder(strip)


def _folder(strip: Any) -> Path:
    return Path(os.path.normpath(bpy.path.abspath(strip.directory)))


def _ours() -> Iterator[tuple[bpy.types.Scene, Any]]:
    for scene in bpy.data.scenes:
        for strip in all_strips(scene.sequence_editor) if scene.sequence_editor and scene.library is None else ():
            if strip.type == "IMAGE" and JOB in strip:
                yield scene, strip


def _find(job: str, place: Place) -> tuple[bpy.types.Scene, Any] | None:
    """The strip of a job: by its last name, else by looking at every strip of every scene."""
    scene = bpy.data.scenes.get(place.scene)
    if scene is not None and scene.sequence_editor:
        strip = all_strips(scene.sequence_editor).get(place.strip)
        if strip is not None and strip.get(JOB) == job and strip.type == "IMAGE":
            return scene, strip
    for scene, strip in sorted(_ours(), key=lambda found: found[0].name != place.scene):
        if strip.get(JOB) == job:
            place.scene, place.strip = scene.name, strip.name
            return scene, strip
    return None


def bounds(job: str, place: Place) -> tuple[int, int, int] | None:
    """(left, right, channel) of a job's strip."""
    found = _find(job, place)
    return (left(found[1]), right(found[1]), found[1].channel) if found else None


def folder_of(job: str, place: Place) -> Path | None:
    """Where the files of a job's strip lie."""
    found = _find(job, place)
    return _folder(found[1]) if found else None


def put(scene: bpy.types.Scene, gap: Gap, title: str, picture: str, record: Record) -> Place:
    """Put a strip of one picture at the start of the gap, in the channel where it belongs, see `channel_for`.

    Raises LookupError where every channel is taken or locked.
    """
    scene.sequence_editor_create()
    owner = level(scene)
    channel = channel_for(scene, gap)
    if channel is None:
        raise LookupError("Every channel is taken or locked at the gap: unlock one, or move a strip")
    strip = strips_in(owner).new_image(
        name=title, filepath=picture, channel=channel, frame_start=gap.start, fit_method="STRETCH"
    )
    strip[JOB] = record.job
    strip[RECORD] = record.to_properties()
    strip[PROMPT] = record.prompt
    strip.color_tag = GROWING
    strip.lock = True
    strip.select = False  # the strips around the gap stay what the user has selected
    return Place(scene.name, strip.name)


def channel_for(scene: bpy.types.Scene, gap: Gap) -> int | None:
    """Where a strip that fills the gap belongs: in the gap's own channel, else as near to it as keeps the order of what
    is seen: below grades and titles that lie above it, above what lies below. None where every channel is taken."""
    free = free_channels(level(scene), gap.start, gap.end)
    shown = sequencer.channels_shown(scene, gap.start, gap.end)
    above = min((c for c in shown if c > gap.channel), default=sequencer.LAST_CHANNEL + 1)
    below = max((c for c in shown if c < gap.channel), default=0)
    between = [c for c in free if gap.channel <= c < above] + [c for c in reversed(free) if below < c < gap.channel]
    higher = [c for c in free if c > gap.channel]
    return next(iter(between + higher + free), None)


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
    show_pictures(strip, names)
    known = len(elements)
    if known < len(names):
        _make_room(found[0], strip, len(names))
        for name in names[known:]:
            elements.append(name)
        compose_anew(strip)
    if right(strip) - left(strip) != len(names):
        set_frames(strip, len(names))
    return True


def compose_anew(strip: Any) -> None:
    """Blender 5 looks ahead of the playhead, and would go on showing that nothing was there."""
    strip.invalidate_cache("COMPOSITE")


def show_pictures(strip: Any, names: Sequence[str]) -> None:
    """Have the pictures that stand in a strip already be those that are named, as far as there are any."""
    others = [(element, name) for element, name in zip(strip.elements, names, strict=False) if element.filename != name]
    for element, name in others:
        element.filename = name
    if others:
        strip.invalidate_cache("RAW")  # what Blender 5 keeps of a picture outlives its name


def _make_room(scene: bpy.types.Scene, strip: Any, frames: int) -> None:
    start, end, channel = left(strip), left(strip) + frames, strip.channel
    owner = strip.parent_meta() or scene.sequence_editor
    for other in strips_in(owner):
        if other.channel == channel and left(other) < end and right(other) > start and other.name != strip.name:
            _lift(owner, strip, start, end)
            return


def _lift(owner: Any, strip: Any, start: int, end: int) -> None:
    """Move a strip to the next higher channel that is free in [start, end), else to a lower one."""
    free = free_channels(owner, start, end, but=strip.name)
    channel = next((c for c in free if c > strip.channel), next(iter(free), None))
    if channel is not None and channel != strip.channel:
        strip.channel = channel


def settle(job: str, place: Place, record: Record) -> None:
    """Write the last word on a strip: it may be edited again."""
    found = _find(job, place)
    if found is not None:
        _settle(found[1], record)


def _settle(strip: Any, record: Record) -> None:
    strip[RECORD] = record.to_properties()
    strip.lock = False
    strip.color_tag = FINISHED if record.state == "finished" else STOPPED


def settle_orphans() -> int:
    """Unlock strips that were saved while they grew; returns how many have been broken off so, now or earlier."""
    broken_off = 0
    for _, strip in _ours():
        record = record_on(strip)
        if record and record.state == "growing":
            record.state, record.frames = "stopped", len(strip.elements)
            record.draft_frames = sum(standing_for(element.filename) is not None for element in strip.elements)
            _settle(strip, record)
        broken_off += bool(record and is_broken_off(record))
    return broken_off


def is_broken_off(record: Record) -> bool:
    """Whether nobody stopped it: the file was closed, or the computer, while it grew."""
    return record.state == "stopped" and not record.ended


def broken_off(scene: bpy.types.Scene) -> list[str]:
    """Names of the strips where the user is editing that were broken off."""
    found = ((strip.name, record_on(strip)) for strip in strips_in(level(scene)) if JOB in strip)
    return [name for name, record in found if record and is_broken_off(record)]


def grow_on(job: str, place: Place, record: Record) -> None:
    """Have a strip that stopped early grow again."""
    write(job, place, record)
    found = _find(job, place)
    if found is not None:
        found[1].color_tag, found[1].lock = GROWING, True


def write(job: str, place: Place, record: Record) -> None:
    """Write what is known by now on a strip."""
    found = _find(job, place)
    if found is not None:
        found[1][RECORD] = record.to_properties()


def remove(job: str, place: Place | None = None) -> None:
    """Take a job's strip off the timeline, if it is there."""
    found = _find(job, place or Place("", ""))
    if found is not None:
        scene, strip = found
        strips_in(strip.parent_meta() or scene.sequence_editor).remove(strip)


def hide(job: str, place: Place) -> int:
    """Mute a strip and lift it out of its channel, for another to lie there; returns the channel, 0 if it is gone."""
    found = _find(job, place)
    if found is None:
        return 0
    scene, strip = found
    channel = strip.channel
    strip.mute = True
    _lift(strip.parent_meta() or scene.sequence_editor, strip, left(strip), right(strip))
    return channel


def show(job: str, place: Place, channel: int) -> None:
    """Have a strip seen again, in the channel if that is free there."""
    found = _find(job, place)
    if found is None:
        return
    scene, strip = found
    strip.mute = False
    owner = strip.parent_meta() or scene.sequence_editor
    if channel in free_channels(owner, left(strip), right(strip), but=strip.name):
        strip.channel = channel


def make_active(scene: bpy.types.Scene, name: str) -> None:
    """Select a strip where the user is editing, and nothing else."""
    for strip in strips_in(level(scene)):
        strip.select = strip.name == name
    scene.sequence_editor.active_strip = strips_in(level(scene))[name]
