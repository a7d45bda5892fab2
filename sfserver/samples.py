"""The samples of a picture: how many a pixel has, how deep they are, and how one kind becomes another.

Pictures are [H, W, 3] RGB or [H, W, 4] RGBA in sRGB, as uint8, uint16 or float32. Alpha is straight: colours are not
multiplied by it. Of floats 0 to 1 is what whole numbers can say; lights may be brighter than 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray
from sfwire import limits as L
from sfwire.messages import EngineInfo

Picture = NDArray[Any]
GREY = 128 / 255
"""Behind transparency where there can be none. Drawn keyframes are often black ink on nothing and rendered ones often
highlights on nothing: on black or white one of them would vanish."""
_TYPES = {8: np.dtype("<u1"), 16: np.dtype("<u2"), 32: np.dtype("<f4")}


@frozen
class Form:
    """The kind of a picture."""

    channels: int = L.CHANNELS
    depth: int = L.DEPTH

    @property
    def type(self) -> np.dtype[Any]:
        return _TYPES[self.depth]

    @property
    def most(self) -> int:
        """The sample that is all of it."""
        return 1 if self.depth == 32 else 2**self.depth - 1

    @property
    def has_alpha(self) -> bool:
        return self.channels == L.RGBA

    def within(self, channels: int, depth: int) -> Form:
        """As much of it as can be kept there."""
        return Form(min(self.channels, channels), min(self.depth, depth))

    def kept_by(self, info: EngineInfo) -> Form:
        return self.within(info.max_channels, info.max_depth)


RGB8 = Form()
"""What every engine takes and makes."""


def form_of(image: Picture) -> Form:
    return Form(image.shape[2], 8 * image.dtype.itemsize)


def common(images: Iterable[Picture]) -> Form:
    """The least that says all that one of them says. Alpha that hides nothing counts as well: its owner wants it."""
    forms = [form_of(image) for image in images]
    return Form(max(form.channels for form in forms), max(form.depth for form in forms))


def conformed(image: Picture, form: Form) -> Picture:
    """The picture in that form, itself if it has it. Where alpha has to go the picture lies over GREY."""
    here = form_of(image)
    if here.channels < form.channels:
        full = np.full((*image.shape[:2], 1), here.most, image.dtype)
        image = np.concatenate((image, full), axis=2)
    elif here.channels > form.channels:
        image = _over_grey(image, here) if hides(image) else np.ascontiguousarray(image[..., :3])
    return image if here.depth == form.depth else from_unit(unit(image), form)


def hides(image: Picture) -> bool:
    """Something of it is transparent."""
    here = form_of(image)
    return here.has_alpha and bool(image[..., 3].min() < here.most)


def unit(image: Picture) -> Picture:
    """Samples from 0 to 1, colours of floats also above; what is no number counts as nothing."""
    here = form_of(image)
    if here.depth < 32:
        return image.astype(np.float32) / np.float32(here.most)
    clean = np.maximum(np.nan_to_num(image, nan=0.0, posinf=1.0, neginf=0.0), 0)
    if here.has_alpha:
        clean[..., 3:] = np.minimum(clean[..., 3:], 1)
    return clean


def from_unit(samples: Picture, form: Form) -> Picture:
    """Rounded and cut off as the depth of `form` wants it."""
    if form.depth == 32:
        return samples.astype(form.type)
    return np.rint(np.clip(samples, 0, 1) * np.float32(form.most)).astype(form.type)


def premultiplied(samples: Picture) -> Picture:
    """RGBA with its colours multiplied by its alpha: so they can be moved and mixed without what nobody sees."""
    return np.concatenate((samples[..., :3] * samples[..., 3:], samples[..., 3:]), axis=-1)


def straight(samples: Picture) -> Picture:
    """The opposite; where nothing is seen colours are black."""
    alpha = samples[..., 3:]
    seen = alpha > 0
    colours: Picture = np.where(seen, samples[..., :3] / np.where(seen, alpha, 1), 0)
    return np.concatenate((colours, alpha), axis=-1)


def mixed(a: Picture, b: Picture, t: float) -> Picture:
    """From `a` to `b`, both of one form, at a share `t` of the way."""
    form = form_of(a)
    if hides(a) or hides(b):
        both = premultiplied(unit(a)) * np.float32(1 - t) + premultiplied(unit(b)) * np.float32(t)
        return from_unit(straight(both), form)
    both = a * np.float32(1 - t) + b * np.float32(t)
    return both.astype(form.type) if form.depth == 32 else np.rint(both).astype(form.type)


def to_linear(colours: Picture) -> Picture:
    """sRGB as light (IEC 61966-2-1); 1 stays 1, and what is brighter goes on along the same curve."""
    return np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4).astype(np.float32)


def from_linear(light: Picture) -> Picture:
    """The opposite."""
    curve = 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055
    return np.where(light <= 0.0031308, light * 12.92, curve).astype(np.float32)


def _over_grey(image: Picture, form: Form) -> Picture:
    samples = unit(image)
    alpha = samples[..., 3:]
    return from_unit(samples[..., :3] * alpha + np.float32(GREY) * (1 - alpha), form)
