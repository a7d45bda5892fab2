"""The Video Sequencer as the rest of the extension sees it. Only this module knows how Blender's versions differ.

4.2 has `sequences` and `frame_final_*`, 4.5 to 5.1 `strips`, 5.2 `left_handle` and a scene of the sequencer's own. No
reference to a strip outlives the function that looked it up: after an undo, a deletion or a file load it would point
into freed memory.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import bpy
import numpy as np

from .plan import Pictures

LAST_CHANNEL = 128
_HAS_HANDLES = hasattr(bpy.types, "ImageStrip") and "left_handle" in bpy.types.ImageStrip.bl_rna.properties
_LEFT, _RIGHT = ("left_handle", "right_handle") if _HAS_HANDLES else ("frame_final_start", "frame_final_end")
_TYPES = (bpy.types.Strip if hasattr(bpy.types, "Strip") else bpy.types.Sequence).bl_rna.properties["type"].enum_items
_PICTURES = [
    item.value
    for item in _TYPES
    if item.identifier in {"IMAGE", "META", "SCENE", "MOVIE", "MOVIECLIP", "MASK", "COLOR", "MULTICAM"}
]
"""Kinds of strips that show a picture by themselves. Text and adjustments lie over pictures, effects work on them."""
_SILENT = [item.value for item in _TYPES if item.identifier in {"SOUND", "TEXT"}]
"""Kinds that are no picture even where the user has selected them."""


# What the versions call differently


def edited_scene(context: bpy.types.Context) -> bpy.types.Scene | None:
    """The scene that the sequencer of this window edits; Blender 5 can have none."""
    return context.sequencer_scene if hasattr(context, "sequencer_scene") else context.scene


def strips_in(owner: Any) -> Any:
    """The strips directly in a sequence editor or a meta strip."""
    return owner.strips if hasattr(owner, "strips") else owner.sequences


def all_strips(editor: bpy.types.SequenceEditor) -> Any:
    """Every strip, those inside meta strips too."""
    return editor.strips_all if hasattr(editor, "strips_all") else editor.sequences_all


def left(strip: Any) -> int:
    return int(strip.left_handle if _HAS_HANDLES else strip.frame_final_start)


def right(strip: Any) -> int:
    """The first frame after the strip."""
    return int(strip.right_handle if _HAS_HANDLES else strip.frame_final_end)


def content_start(strip: Any) -> int:
    """Where the strip's first picture would be, were nothing trimmed off."""
    return int(strip.content_start if _HAS_HANDLES else strip.frame_start)


def set_frames(strip: Any, frames: int) -> None:
    if _HAS_HANDLES:
        strip.right_handle = strip.left_handle + frames
    else:
        strip.frame_final_duration = frames


_MEDIA_TYPE = ("media_type",) if "media_type" in bpy.types.ImageFormatSettings.bl_rna.properties else ()
OUTPUT_PROPERTIES = (*_MEDIA_TYPE, "file_format", "color_mode", "color_depth", "compression", "color_management")
"""What `make_targa` may change, in the order in which it can be set back."""


RENDERS_APART = bpy.app.version < (5, 0)
"""Whether a picture can be rendered in one step and written in another. Blender 5 renders only to write."""


def make_targa(settings: bpy.types.ImageFormatSettings) -> None:
    """Set a scene's output to uncompressed Targa, 8-bit RGBA: of all formats the fastest to write and to read."""
    if _MEDIA_TYPE:
        settings.media_type = "IMAGE"
    settings.file_format = "TARGA_RAW"
    settings.color_management = "FOLLOW_SCENE"
    settings.color_mode = "RGBA"


# Looking


def level(scene: bpy.types.Scene) -> Any:
    """The sequence editor, or the innermost meta strip that is open in it."""
    editor = scene.sequence_editor
    return editor.meta_stack[-1] if editor.meta_stack else editor


def pictures(scene: bpy.types.Scene, but: Collection[str] = (), selected: bool = False) -> Pictures:
    """What shows a picture where the user is editing: at the top level, or inside the open meta strip.

    Strips with names in `but` do not count, nor what is muted, itself or with its channel. With `selected` only what is
    selected counts, there an adjustment or an effect too.
    """
    owner = level(scene) if scene.sequence_editor else None
    strips = strips_in(owner) if owner is not None else ()
    lefts, rights, channels, types = (_column(strips, name) for name in (_LEFT, _RIGHT, "channel", "type"))
    shown = ~_flags(strips, "mute")
    if owner is not None:
        shown &= ~_flags(owner.channels, "mute")[channels]
    shown &= ~np.isin(types, _SILENT) & _flags(strips, "select") if selected else np.isin(types, _PICTURES)
    for name in but:
        row = strips.find(name)
        if row >= 0:
            shown[row] = False
    (rows,) = np.nonzero(shown)
    return Pictures(lefts[rows], rights[rows], channels[rows], rows, lambda row: strips[row].name)


def _column(owner: Any, name: str) -> np.ndarray:
    values = np.empty(len(owner), np.int32)
    if len(owner):
        owner.foreach_get(name, values)
    return values


def _flags(owner: Any, name: str) -> np.ndarray:
    values = np.empty(len(owner), bool)
    if len(owner):
        owner.foreach_get(name, values)
    return values


def channel_of(scene: bpy.types.Scene, name: str, frame: int) -> int:
    """The channel in which a strip is seen at a frame: that of the last effect made of it, else its own."""
    strips = strips_in(level(scene))
    strip = strips[name]
    for effect in strips:
        inputs = [effect.path_resolve(i) for i in ("input_1", "input_2") if i in effect.bl_rna.properties]
        if strip in inputs and left(effect) <= frame < right(effect) and not effect.mute:
            return channel_of(scene, effect.name, frame)
    return strip.channel


def span_of(scene: bpy.types.Scene, name: str) -> tuple[int, int, int] | None:
    """(left, right, channel) of a strip where the user is editing, None where there is none of the name."""
    strip = strips_in(level(scene)).get(name) if scene.sequence_editor else None
    return (left(strip), right(strip), strip.channel) if strip is not None else None


def content_start_of(scene: bpy.types.Scene, name: str) -> int | None:
    """Where the first picture of a strip where the user is editing would be, were nothing trimmed off."""
    strip = strips_in(level(scene)).get(name) if scene.sequence_editor else None
    return content_start(strip) if strip is not None else None


def names_over(scene: bpy.types.Scene, start: int, end: int) -> list[str]:
    """Names of the strips that lie at any frame of [start, end) where the user is editing, muted ones too."""
    strips = strips_in(level(scene)) if scene.sequence_editor else ()
    (rows,) = np.nonzero((_column(strips, _LEFT) < end) & (_column(strips, _RIGHT) > start))
    return [strips[int(row)].name for row in rows]


def texts_over(scene: bpy.types.Scene, start: int, end: int) -> list[tuple[int, int, str]]:
    """(left, right, text) of the text strips that are seen at any frame of [start, end), counted from `start`."""
    strips = [strips_in(level(scene))[name] for name in names_over(scene, start, end)]
    texts = (strip for strip in strips if strip.type == "TEXT" and not strip.mute)
    seen = (text for text in texts if not level(scene).channels[text.channel].mute)
    return [(left(text) - start, right(text) - start, text.text) for text in seen]


def is_still(scene: bpy.types.Scene, name: str) -> bool:
    """Whether a strip shows one and the same picture all the time."""
    strip = strips_in(level(scene))[name]
    return strip.type == "COLOR" or (strip.type == "IMAGE" and len(strip.elements) == 1)


def may_exceed_white(scene: bpy.types.Scene, name: str) -> bool:
    """Whether a strip can hold values above 1: a render, or a picture of floats."""
    strip = strips_in(level(scene)).get(name)
    if strip is None or strip.type not in {"SCENE", "IMAGE"}:
        return False
    return strip.type == "SCENE" or strip.elements[0].filename.lower().endswith((".exr", ".hdr"))


def bottom_picture(scene: bpy.types.Scene, name: str) -> Path | None:
    """The file of an image strip under which nothing lies, None of any other."""
    strip = strips_in(level(scene)).get(name)
    if strip is None or strip.type != "IMAGE":
        return None
    shown = pictures(scene)
    below = (shown.channel < strip.channel) & (shown.left < right(strip)) & (shown.right > left(strip))
    return None if below.any() else Path(bpy.path.abspath(strip.directory)) / strip.elements[0].filename


def active_name(scene: bpy.types.Scene) -> str | None:
    """Name of the active strip, where it lies at the level being edited."""
    strip = scene.sequence_editor.active_strip if scene.sequence_editor else None
    return strip.name if strip is not None and strip.name in strips_in(level(scene)) else None


def frames_per_second(scene: bpy.types.Scene) -> float:
    return scene.render.fps / scene.render.fps_base


def free_channels(owner: Any, start: int, end: int, but: str = "") -> list[int]:
    """Channels of a level that hold nothing in [start, end) and are neither locked nor muted, from 1; the strip `but`
    does not count."""
    taken = {s.channel for s in strips_in(owner) if left(s) < end and right(s) > start and s.name != but}
    taken |= {i for i, channel in enumerate(owner.channels) if channel.lock or channel.mute}
    return [channel for channel in range(1, LAST_CHANNEL + 1) if channel not in taken]


def channels_shown(scene: bpy.types.Scene, start: int, end: int) -> set[int]:
    """Channels on which anything but sound is seen at some frame of [start, end)."""
    owner = level(scene)
    found = (s for s in strips_in(owner) if s.type != "SOUND" and left(s) < end and right(s) > start and not s.mute)
    return {strip.channel for strip in found if not owner.channels[strip.channel].mute}


def redraw() -> None:
    """Have every sequencer drawn again, and the preferences."""
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type in ("SEQUENCE_EDITOR", "PREFERENCES"):
                area.tag_redraw()
