"""The picture that the timeline shows at a frame, as a server takes it: RGB8 rows from top to bottom.

Rendered by Blender itself with the view transform Standard, so that what comes back goes through the scene's own look
once and not twice. Everything that is set for it is set back.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bpy
import numpy as np

from . import sequencer

_NEUTRAL: dict[str, dict[str, Any]] = {
    "display_settings": {"display_device": "sRGB"},
    "view_settings": {
        "view_transform": "Standard",
        "look": "None",
        "exposure": 0.0,
        "gamma": 1.0,
        "use_curve_mapping": False,
        "use_white_balance": False,
    },
    "render": {
        "use_sequencer": True,
        "use_file_extension": False,
        "use_overwrite": True,
        "use_placeholder": False,
        "use_stamp": False,
        "use_multiview": False,
        "use_border": False,
        "dither_intensity": 0.0,
    },
}
"""What a keyframe is rendered with, as far as this Blender has it. In this order a value is valid when it is set."""


def frame_size(scene: bpy.types.Scene) -> tuple[int, int]:
    """(width, height) of the scene's picture in pixels, at 100 %."""
    return scene.render.resolution_x, scene.render.resolution_y


def capture(scene: bpy.types.Scene, frame: int, width: int, height: int, keep_as: Path) -> bytes:
    """The timeline's picture at `frame`, `width` x `height` RGB8; also left as a PNG of that size at `keep_as`.

    Raises OSError where the file cannot be written, RuntimeError where Blender cannot render.
    """
    keep_as.touch()  # the render would only print that it cannot write
    with _neutral(scene):
        full_width, full_height = frame_size(scene)
        scene.render.resolution_percentage = _percentage(max(width / full_width, height / full_height))
        scene.render.filepath = str(keep_as)
        scene.frame_set(frame)
        with bpy.context.temp_override(scene=scene):
            bpy.ops.render.render(write_still=True)
    image = bpy.data.images.load(str(keep_as), check_existing=False)
    try:
        if tuple(image.size) == (0, 0):
            raise OSError(f"{keep_as} could not be written: is the disk full?")
        if tuple(image.size) != (width, height):
            image.scale(width, height)
            image.file_format = "PNG"
            image.save()
        return _rgb8(image)
    finally:
        bpy.data.images.remove(image)


def _percentage(scale: float) -> int:
    """The smallest whole percentage that is not below `scale`: Blender scales down better than a picture scaled up."""
    return max(1, min(100, -int(-scale * 100 // 1)))


def _rgb8(image: bpy.types.Image) -> bytes:
    width, height = image.size
    pixels = np.empty(width * height * 4, dtype=np.float32)
    image.pixels.foreach_get(pixels)
    rows = pixels.reshape(height, width, 4)[::-1, :, :3]  # Blender keeps the bottom row first
    return (rows * 255.0 + 0.5).astype(np.uint8).tobytes()


@contextmanager
def _neutral(scene: bpy.types.Scene) -> Generator[None]:
    """Set what `_NEUTRAL` says and PNG output; set everything back, the frame too."""
    frame, subframe = scene.frame_current, scene.frame_subframe
    output = scene.render.image_settings
    wanted = [
        (owner, name, value)
        for owner, values in ((scene.path_resolve(path), values) for path, values in _NEUTRAL.items())
        for name, value in values.items()
        if name in owner.bl_rna.properties
    ]
    changed = [(owner, name) for owner, name, _ in wanted]
    changed += [(scene.render, "filepath"), (scene.render, "resolution_percentage")]
    changed += [(output, name) for name in sequencer.OUTPUT_PROPERTIES]
    before = [(owner, name, owner.path_resolve(name)) for owner, name in changed]
    try:
        for owner, name, value in wanted:
            setattr(owner, name, value)
        sequencer.make_png(output)
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)
        scene.frame_set(frame, subframe=subframe)
