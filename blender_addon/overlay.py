"""How far a strip has come, drawn onto it in the timeline: a bar under the frames that are final, and one of another
colour under those that still show a draft."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import bpy

from . import runtime, sequencer, written

Colour = tuple[float, float, float, float]
Bar = tuple[int, int, int, Colour]
"""(first frame, the frame after the last, channel, colour)."""

FINAL: Colour = (0.30, 0.78, 0.45, 1.0)
DRAFT: Colour = (0.95, 0.72, 0.25, 1.0)
BOTTOM, TOP = 0.06, 0.16
"""Where the bar lies, in heights of a channel above its lower edge."""

_handler: Any = None
"""What Blender wants back to stop drawing."""


def register() -> None:
    global _handler
    _handler = bpy.types.SpaceSequenceEditor.draw_handler_add(_draw, (), "WINDOW", "POST_VIEW")


def unregister() -> None:
    global _handler
    bpy.types.SpaceSequenceEditor.draw_handler_remove(_handler, "WINDOW")
    _handler = None


def bars(scene: bpy.types.Scene) -> Iterator[Bar]:
    """Under the strips that grow where the user is editing and began with a draft, and under the active one where that
    was left with one."""
    pump = runtime.running_pump()
    fills = [fill for fill in pump.fills if fill.place.scene == scene.name] if pump is not None else []
    for fill in fills:
        if fill.draft is not None:
            yield from _under(scene, fill.place.strip, fill.final_frames, len(fill.names) - fill.final_frames)
    name = written.active(scene) if scene.sequence_editor else None
    if name is not None and name not in {fill.place.strip for fill in fills}:
        strip = scene.sequence_editor.active_strip
        made, drafts = (written.number(strip, key) for key in ("frames", "draft_frames"))
        if drafts:
            yield from _under(scene, name, made - drafts, drafts)


def _under(scene: bpy.types.Scene, name: str, finals: int, drafts: int) -> Iterator[Bar]:
    """What of its first frames can be seen of a strip; it may have been trimmed."""
    there, start = sequencer.span_of(scene, name), sequencer.content_start_of(scene, name)
    if there is None or start is None:
        return
    left, right, channel = there
    for first, last, colour in ((start, start + finals, FINAL), (start + finals, start + finals + drafts, DRAFT)):
        first, last = max(first, left), min(last, right)
        if first < last:
            yield first, last, channel, colour


def _draw() -> None:
    """Called by Blender while it draws a timeline, in frames and channels."""
    import gpu  # there is none without a window
    from gpu_extras.batch import batch_for_shader

    scene = sequencer.edited_scene(bpy.context)
    shader = gpu.shader.from_builtin("UNIFORM_COLOR")
    for first, last, channel, colour in bars(scene) if scene is not None else ():
        low, high = channel + BOTTOM, channel + TOP
        corners = ((first, low), (last, low), (first, high), (last, high))
        shader.uniform_float("color", colour)
        batch_for_shader(shader, "TRI_STRIP", {"pos": corners}).draw(shader)
