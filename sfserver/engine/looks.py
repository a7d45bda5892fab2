"""What the draft engine's network is shown of two keyframes, what moves along with it, and the way back.

shown        -> RGB from 0 to 1, over grey where something is transparent: motion is found in it as ever
moves along  -> colours multiplied by alpha, and alpha: only where something is transparent or brighter than 1
drawn        -> the same of an in-between; colours are divided by alpha again

Multiplied, because a pixel that nobody sees has a colour too: moved and mixed as it is, it would show as a fringe.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .. import samples
from ..model.rife import COLOURS, from_rgb8, to_rgb8
from ..samples import Form, Picture

ALONG = 4
"""Channels that move along, where any do."""


def may_carry_more(*images: Picture) -> bool:
    """More than colours from 0 to 1: something transparent, or floats, of which some may be brighter."""
    return any(samples.form_of(image).depth == 32 or samples.hides(image) for image in images)


def shown(images: Picture, device: torch.device) -> Tensor:
    """[B, H, W, 3 or 4] of any depth -> [B, 3, H, W], or [B, 3 + ALONG, H, W] where that says more."""
    form = samples.form_of(images[0])
    hides = any(samples.hides(image) for image in images)
    if form.depth == 8 and not hides:
        return from_rgb8(np.array(images[..., :COLOURS]), device)
    of_unit = np.stack([samples.unit(image) for image in images])
    colours = of_unit[..., :COLOURS]
    if not hides and colours.max() <= 1:
        return _planes(colours, device)
    alpha = of_unit[..., COLOURS:] if form.has_alpha else np.ones_like(colours[..., :1])
    along = samples.premultiplied(np.concatenate((colours, alpha), axis=-1))
    over_grey = np.clip(along[..., :COLOURS] + np.float32(samples.GREY) * (1 - alpha), 0, 1)
    return _planes(np.concatenate((over_grey, along), axis=-1), device)


def picture(drawn: Tensor, form: Form) -> Picture:
    """[3 or 3 + ALONG, H, W] -> a picture. Raises FloatingPointError where a value is NaN or infinite."""
    if form == Form() and len(drawn) == COLOURS:
        return to_rgb8(drawn)
    if not torch.isfinite(drawn).all():
        raise FloatingPointError("the picture holds values that are not finite")
    kept = drawn.clamp(0, 1) if len(drawn) == COLOURS else _divided(drawn[COLOURS:], form)
    image = samples.from_unit(kept.permute(1, 2, 0).cpu().numpy(), samples.Form(len(kept), form.depth))
    return np.ascontiguousarray(samples.conformed(image, form))


def _divided(along: Tensor, form: Form) -> Tensor:
    """[4, H, W], colours without the alpha in them; black where alpha rounds to nothing."""
    alpha = along[COLOURS:].clamp(0, 1)
    least = 0.5 / samples.Form(depth=min(form.depth, 16)).most
    colours = (along[:COLOURS] / alpha.clamp(min=least)).clamp(min=0)
    return torch.cat((torch.where(alpha < least, 0, colours), alpha))


def _planes(pictures: Picture, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pictures)).to(device).permute(0, 3, 1, 2).contiguous()
