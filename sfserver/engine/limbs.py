"""Thin parts of a cut-out: legs, a tail, an outline. Smoothed costs lose them, single pixels do not.

A pixel is the thing's own where it fits its motion and does not fit the ground's, in both keyframes, or in one where
the other does not show that ground: a wall beside it fits the ground, and what it uncovers fits nothing of it. Such
pixels are taken in as far as they hang together with the shape that is known.
"""

from __future__ import annotations

import torch
from attrs import evolve
from torch import Tensor

from ..model.windows import widened
from .cutouts import middle_of
from .fit import fitted
from .path import Path, field, inside, sampled, size_of
from .picture import CutOut

ODD, SAME = 0.06, 0.05
"""Mean difference from which on a pixel is no ground; and up to which it fits the thing's motion."""
STEP_PX, STEPS = 4, 16
"""Gaps up to this many pixels are crossed, so many times."""


def with_limbs(pictures: Tensor, ground: Tensor, cut_out: CutOut) -> CutOut:
    """[2, 3, h, w] and the ground's motion [3, 3] -> the cut-out with all that hangs on it."""
    size = size_of(pictures)
    matrix = fitted(pictures, cut_out.path.matrix, cut_out.shapes[0])
    odd, unseen, fits, there = [], [], [], []
    for side in (0, 1):
        here, other = pictures[side], pictures[1 - side : 2 - side]
        by_ground, by_thing = (
            field(way if side == 0 else torch.linalg.inv(way), size, size, pictures.device) for way in (ground, matrix)
        )
        off = (here - sampled(other, by_ground, size)[0]).abs().mean(0)
        own = (here - sampled(other, by_thing, size)[0]).abs().mean(0)
        outside = ~inside(by_ground, size)[0]
        odd.append(((off > ODD) & ~outside).float()[None, None])
        unseen.append(outside.float()[None, None])
        fits.append((own < SAME) & inside(by_thing, size)[0])
        there.append(by_thing)
    its: list[Tensor] = []
    for k in (0, 1):
        here, unseen_here = (x[k] > 0 for x in (odd, unseen))
        away, unseen_away = (sampled(x[1 - k], there[k], size) > 0.5 for x in (odd, unseen))
        no_ground = (here | unseen_here) & (away | unseen_away) & (here | away)
        its.append(no_ground[0, 0] & fits[k])
    shapes = torch.stack([_closed(_reached(cut_out.shapes[k], its[k].float()[None]), fits[k]) for k in (0, 1)])
    path = Path(fitted(pictures, matrix, shapes[0]), middle_of(shapes[0, 0]), False)
    return evolve(cut_out, shapes=shapes, path=path)


def _reached(shape: Tensor, open_to: Tensor) -> Tensor:
    """[1, h, w] of 0 and 1: `shape`, and of `open_to` what can be reached from it."""
    for _ in range(STEPS):
        wider = torch.maximum(shape, widened(shape[None], STEP_PX)[0] * open_to)
        if torch.equal(wider, shape):
            break
        shape = wider
    return shape


def _closed(shape: Tensor, fits: Tensor) -> Tensor:
    """[1, h, w]: `shape` and the gaps between its parts, where what `fits` may well be its own."""
    closed = -widened(-widened(shape[None], STEP_PX), STEP_PX)[0]
    return torch.maximum(shape, closed * fits)
