"""Sums and maxima of the square around each pixel, in a few passes however large the square is.

A window of 13 pixels is one of 8, one of 4 and one of 1 side by side, and each of these is two of half its size. For a
maximum the parts may overlap: two of 8 will do. Beyond its edges a picture goes on as it ends.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Join = Callable[[Tensor, Tensor], Tensor]


def averaged(x: Tensor, reach_px: int) -> Tensor:
    """[B, C, H, W] -> the same: the mean of the square that reaches so far from each pixel."""
    side = 2 * reach_px + 1
    x = F.pad(x, (reach_px,) * 4, mode="replicate")
    return _summed(_summed(x, -1, side), -2, side) / side**2


def widened(x: Tensor, reach_px: int) -> Tensor:
    """[B, C, H, W] -> the same: the largest value of the square that reaches so far from each pixel."""
    side = 2 * reach_px + 1
    x = F.pad(x, (reach_px,) * 4, mode="replicate")
    return _largest(_largest(x, -1, side), -2, side)


def _summed(x: Tensor, axis: int, side: int) -> Tensor:
    """Of every `side` neighbours along the axis; `side` is odd."""
    length = x.shape[axis] - side + 1
    total, width, taken = x.narrow(axis, 0, length), 1, 1
    while taken < side:
        x, width = _doubled(x, axis, width, torch.add), 2 * width
        if side & width:
            total = total + x.narrow(axis, taken, length)
            taken += width
    return total


def _largest(x: Tensor, axis: int, side: int) -> Tensor:
    """Of every `side` neighbours along the axis."""
    length, width = x.shape[axis] - side + 1, 1
    while 2 * width <= side:
        x, width = _doubled(x, axis, width, torch.maximum), 2 * width
    return torch.maximum(x.narrow(axis, 0, length), x.narrow(axis, side - width, length))


def _doubled(x: Tensor, axis: int, width: int, join: Join) -> Tensor:
    """Of windows of `width` neighbours, windows of twice as many."""
    length = x.shape[axis] - width
    return join(x.narrow(axis, 0, length), x.narrow(axis, width, length))
