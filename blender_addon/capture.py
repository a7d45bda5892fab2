"""The picture that the timeline shows at a frame, as a server takes it: RGB8 rows from top to bottom, or RGBA8 where
something is transparent.

Rendered by Blender itself without the scene's view, so that what comes back goes through it once and not twice, and
without what lies above the channel in which the result will lie, which is seen over the result too. Everything that is
set for it is set back. `render`, `write`, `fit` and `read` are steps of their own, since at 4K each of them is felt.
"""

from __future__ import annotations

import struct
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bpy
import numpy as np

from . import alpha, sequencer
from .plan import Gap

_DISPLAY, _VIEW = "sRGB", "Standard"
_NEUTRAL: dict[str, dict[str, Any]] = {
    "view_settings": {
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
"""What a keyframe is rendered with beside display and view, as far as this Blender has it."""
_TARGA_HEAD = struct.Struct("<BBB5xHHHHBB")
"""Length of the id, colour map, kind; then x, y, width, height, bits a pixel, descriptor (Truevision TGA, 2.0)."""
_UNCOMPRESSED, _TOP_FIRST, _ALPHA_BITS = 2, 0x20, 8
_RGBA_OF_BGRA = [2, 1, 0, 3]
"""And the other way round."""


_rendered_for: Path | None = None
"""The file that is to hold what Blender's render result shows, None where that is another render's."""


def forget_rendered() -> None:
    """Another render begins."""
    global _rendered_for
    _rendered_for = None


def frame_size(scene: bpy.types.Scene) -> tuple[int, int]:
    """(width, height) of the scene's picture in pixels, at 100 %."""
    return scene.render.resolution_x, scene.render.resolution_y


def what_differs(scene: bpy.types.Scene, gap: Gap, keeps_alpha: bool = True) -> list[str]:
    """What frames made for a gap will not have from its pictures, each in a sentence to be said before the press."""
    display, view = scene.display_settings, scene.view_settings
    plain = _offers(display, "display_device", _DISPLAY)
    plain = plain and (display.display_device != _DISPLAY or _offers(view, "view_transform", _VIEW))
    found = []
    if not plain:
        found.append(f"The colour configuration has no {_VIEW} view on {_DISPLAY}: its own default view is used")
    elif view.view_transform != _VIEW and any(
        sequencer.may_exceed_white(scene, name) for name in (gap.before, gap.after)
    ):
        found.append(f"What is brighter than white is cut off: the frames are made before {view.view_transform}")
    space = scene.sequencer_colorspace_settings.name
    if space != _DISPLAY:
        found.append(f"The sequencer works in {space}, the frames are {_DISPLAY}")
    pictures = (sequencer.bottom_picture(scene, name) for name in (gap.before, gap.after))
    if not keeps_alpha and any(picture is not None and alpha.may_hide(picture) for picture in pictures):
        found.append("What is transparent becomes black: this engine keeps no alpha")
    return found


def _offers(owner: Any, name: str, value: str) -> bool:
    """Whether a menu that depends on the colour configuration has an entry."""
    return bool(bpy.types.UILayout.enum_item_name(owner, name, value))


def render(
    scene: bpy.types.Scene,
    frame: int,
    width: int,
    height: int,
    keep_as: Path,
    channel: int = sequencer.LAST_CHANNEL,
) -> bool:
    """Render the timeline's picture at `frame` up to `channel`, for `write` to leave as a Targa at `keep_as`; in a size
    from which `fit` goes down to `width` x `height`. Whether it was written already, as Blender 5 does at once.

    Raises OSError where the file cannot be written, RuntimeError where Blender cannot render.
    """
    global _rendered_for
    keep_as.touch()  # the render would only print that it cannot write
    with _neutral(scene, channel):
        if sequencer.RENDERS_APART:  # half as long so; the alpha is there all the same when it is written
            scene.render.image_settings.color_mode = "RGB"
        full_width, full_height = frame_size(scene)
        scene.render.resolution_percentage = _percentage(max(width / full_width, height / full_height))
        scene.render.filepath = str(keep_as)
        scene.frame_set(frame)
        with bpy.context.temp_override(scene=scene):
            bpy.ops.render.render(write_still=not sequencer.RENDERS_APART)
    _rendered_for = keep_as if sequencer.RENDERS_APART else None
    return not sequencer.RENDERS_APART


def write(scene: bpy.types.Scene, keep_as: Path) -> bool:
    """Leave what `render` rendered for a file there; False where it did not, or another render came after it.

    Raises RuntimeError where it cannot be written.
    """
    rendered = bpy.data.images.get("Render Result")  # an undo in between may have taken it away
    if _rendered_for != keep_as or rendered is None:
        return False
    forget_rendered()
    with _neutral(scene, sequencer.LAST_CHANNEL):
        rendered.save_render(str(keep_as), scene=scene)
    return True


def fit(path: Path, width: int, height: int) -> None:
    """Scale a picture that `render` left to the size. Raises OSError where it is not whole, or cannot be written."""
    found = _read_targa(path)
    if found.shape[2] == 4:  # what nobody sees has a colour too, which scaling would mix in
        _write_targa(path, np.dstack((alpha.over_black(found), found[..., 3])))
    _write_targa(path, _scaled(path, width, height, has_alpha=found.shape[2] == 4))


def read(path: Path, width: int, height: int) -> memoryview | None:
    """RGB8, or RGBA8, of a picture that `render` left; None where there is none of the size, or not the whole of it."""
    try:
        with path.open("rb") as file:
            if _size_in(file.read(_TARGA_HEAD.size)) != (width, height):
                return None
        return memoryview(_read_targa(path)).cast("B").toreadonly()
    except OSError:
        return None


def _percentage(scale: float) -> int:
    """The smallest whole percentage that is not below `scale`: Blender scales down better than a picture scaled up."""
    return max(1, min(100, -int(-scale * 100 // 1)))


def _size_in(head: bytes) -> tuple[int, int] | None:
    """(width, height) that the head of a Targa file says, None where it is cut off."""
    return _TARGA_HEAD.unpack(head)[5:7] if len(head) == _TARGA_HEAD.size else None


def _read_targa(path: Path) -> np.ndarray:
    """[height, width, 3] RGB8, the top row first; [height, width, 4] with straight alpha if that hides anything."""
    data = path.read_bytes()
    head = _TARGA_HEAD.unpack_from(data) if len(data) >= _TARGA_HEAD.size else (0,) * 9
    id_bytes, _, kind, _, _, width, height, bits, descriptor = head
    start, size = _TARGA_HEAD.size + id_bytes, width * height * (bits // 8)
    if kind != _UNCOMPRESSED or bits not in (24, 32) or len(data) < start + size:
        raise OSError(0, f"{path.name} could not be written whole: is the disk full?")
    pixels = np.frombuffer(data, np.uint8, size, start).reshape(height, width, bits // 8)
    if not descriptor & _TOP_FIRST:
        pixels = pixels[::-1]
    if bits == 32 and pixels[..., 3].min() < 255:
        return np.ascontiguousarray(pixels[..., _RGBA_OF_BGRA])
    return np.ascontiguousarray(pixels[..., 2::-1])


def _write_targa(path: Path, pixels: np.ndarray) -> None:
    """Write [height, width, 3 or 4] RGB8 or RGBA8, the top row first. Raises OSError."""
    height, width, channels = pixels.shape
    descriptor = _TOP_FIRST if channels == 3 else _TOP_FIRST | _ALPHA_BITS
    head = _TARGA_HEAD.pack(0, 0, _UNCOMPRESSED, 0, 0, width, height, 8 * channels, descriptor)
    path.write_bytes(head + pixels[..., _RGBA_OF_BGRA[:channels] if channels == 4 else slice(None, None, -1)].tobytes())


def _scaled(path: Path, width: int, height: int, has_alpha: bool) -> np.ndarray:
    """[height, width, 3] RGB8 of a picture, scaled by Blender; of one whose colours are multiplied by its alpha,
    [height, width, 4] RGBA8 with straight alpha."""
    image = bpy.data.images.load(str(path), check_existing=False)
    try:
        image.alpha_mode = "CHANNEL_PACKED" if has_alpha else "NONE"
        image.scale(width, height)
        pixels = np.empty(width * height * 4, dtype=np.float32)
        image.pixels.foreach_get(pixels)
    finally:
        bpy.data.images.remove(image)
    rows = pixels.reshape(height, width, 4)[::-1]  # Blender keeps the bottom row first
    rows = alpha.divided(rows) if has_alpha else rows[..., :3]
    return (rows.clip(0, 1) * 255.0 + 0.5).astype(np.uint8)


@contextmanager
def _neutral(scene: bpy.types.Scene, channel: int) -> Generator[None]:
    """Set what `_NEUTRAL` says and the output, mute what lies above the channel; set everything back, the frame too."""
    frame, subframe = scene.frame_current, scene.frame_subframe
    output = scene.render.image_settings
    wanted = [
        (owner, name, value)
        for owner, values in ((scene.path_resolve(path), values) for path, values in _NEUTRAL.items())
        for name, value in values.items()
        if name in owner.bl_rna.properties
    ]
    wanted += [(above, "mute", True) for above in _channels_above(scene, channel)]
    changed = [(scene.display_settings, "display_device"), (scene.view_settings, "view_transform")]
    changed += [(owner, name) for owner, name, _ in wanted]
    changed += [(scene.render, "filepath"), (scene.render, "resolution_percentage")]
    changed += [(output, name) for name in sequencer.OUTPUT_PROPERTIES]
    before = [(owner, name, owner.path_resolve(name)) for owner, name in changed]
    try:
        _set_view(scene)
        for owner, name, value in wanted:
            setattr(owner, name, value)
        sequencer.make_targa(output)
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)
        scene.frame_set(frame, subframe=subframe)


def _set_view(scene: bpy.types.Scene) -> None:
    """sRGB and Standard; where the colour configuration has no such, what a new scene has under it."""
    display, view = scene.display_settings, scene.view_settings
    if _offers(display, "display_device", _DISPLAY):
        display.display_device = _DISPLAY
        if _offers(view, "view_transform", _VIEW):
            view.view_transform = _VIEW
            return
    fresh = bpy.data.scenes.new("In-Between")
    try:
        display.display_device = fresh.display_settings.display_device
        view.view_transform = fresh.view_settings.view_transform
    finally:
        bpy.data.scenes.remove(fresh)


def _channels_above(scene: bpy.types.Scene, channel: int) -> list[Any]:
    """The channels above one that hold anything and are not muted."""
    owner = sequencer.level(scene)
    used = {strip.channel for strip in sequencer.strips_in(owner) if strip.channel > channel}
    return [owner.channels[above] for above in sorted(used) if not owner.channels[above].mute]
