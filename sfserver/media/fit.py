"""Pictures brought to the size of a clip, and the size of a clip found for a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from PIL import Image
from sfwire import limits

from ..samples import Form, Picture, form_of, from_unit, premultiplied, straight, unit

FitRule = Literal["crop", "pad", "stretch"]
FIT_RULES: tuple[FitRule, ...] = get_args(FitRule)
_ASPECT_TOLERANCE = 0.01
"""Relative; 1 % of 832 pixels is a strip of 8, which nobody sees and rounding to an engine's multiple needs."""


def fit(image: Picture, width: int, height: int, rule: FitRule) -> Picture:
    """`image` at [height, width, C]; the very same bytes where it has that size already.

    `crop` fills the frame and cuts what sticks out at both sides, `pad` shows everything between black bars, which are
    transparent where there is alpha; `stretch` ignores the aspect. Filter: Lanczos.
    """
    from_height, from_width = image.shape[:2]
    if (from_width, from_height) == (width, height):
        return image
    form = form_of(image)
    if form != Form():  # Pillow scales floats as well, a plane at a time
        planes = np.moveaxis(premultiplied(unit(image)) if form.has_alpha else unit(image), 2, 0)
        scaled = np.stack([_scaled(Image.fromarray(np.ascontiguousarray(p)), width, height, rule) for p in planes], -1)
        if form.has_alpha:
            scaled = straight(np.concatenate((scaled[..., :3], np.clip(scaled[..., 3:], 0, 1)), axis=-1))
        return from_unit(np.maximum(scaled, 0), form)
    return _scaled(Image.fromarray(image), width, height, rule)


def _scaled(picture: Image.Image, width: int, height: int, rule: FitRule) -> Picture:
    from_width, from_height = picture.size
    if rule == "stretch":
        return np.array(picture.resize((width, height), Image.Resampling.LANCZOS))
    if rule == "crop":
        scale = max(width / from_width, height / from_height)
        margin_x, margin_y = (from_width - width / scale) / 2, (from_height - height / scale) / 2
        box = (margin_x, margin_y, from_width - margin_x, from_height - margin_y)
        return np.array(picture.resize((width, height), Image.Resampling.LANCZOS, box=box))
    scale = min(width / from_width, height / from_height)
    inner = (max(1, round(from_width * scale)), max(1, round(from_height * scale)))
    padded = Image.new(picture.mode, (width, height))
    padded.paste(picture.resize(inner, Image.Resampling.LANCZOS), ((width - inner[0]) // 2, (height - inner[1]) // 2))
    return np.array(padded)


def fit_all(images: Sequence[Picture], width: int, height: int, rule: FitRule) -> tuple[list[Picture], list[str]]:
    """All keyframes by one rule, and a warning where their aspects differ: things will seem to change their shape."""
    notes: list[str] = []
    first = images[0]
    for image in images[1:]:
        if abs(_aspect(image) / _aspect(first) - 1) > _ASPECT_TOLERANCE:
            notes.append(
                f"the keyframes have different aspects ({_size(first)} and {_size(image)}); "
                f"all are fitted to {width}x{height} by '{rule}', other rules are: "
                + ", ".join(other for other in FIT_RULES if other != rule)
            )
            break
    return [fit(image, width, height, rule) for image in images], notes


def clip_size(image: Picture, multiple: int, min_side_px: int, max_pixels: int) -> tuple[int, int]:
    """(width, height) for a clip that starts with `image`: its own, scaled into the limits, rounded to `multiple`."""
    height, width = image.shape[:2]
    longest, most = max(width, height), min(max_pixels, limits.MAX_PIXELS)
    scale = min(1.0, limits.MAX_SIDE_PX / longest, math.sqrt(most / (width * height)))
    scale = max(scale, min_side_px / min(width, height))
    smallest = math.ceil(min_side_px / multiple) * multiple
    width, height = (max(smallest, round(side * scale / multiple) * multiple) for side in (width, height))
    while width * height > most and max(width, height) > smallest:  # rounding up went over the limit
        width, height = (width - multiple, height) if width >= height else (width, height - multiple)
    return width, height


def _aspect(image: Picture) -> float:
    return image.shape[1] / image.shape[0]


def _size(image: Picture) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
