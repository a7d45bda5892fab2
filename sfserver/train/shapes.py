"""What stands and moves in the small world, as distances to an outline: three plain shapes and three drawn figures.

A distance is in pixels, negative inside. Every function takes dx and dy, pixels from the shape's centre in its own
upright frame (x to where it looks, y down), and its radius, and broadcasts over them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Outline = Callable[[Tensor, Tensor, Tensor], Tensor]


def _ball(dx: Tensor, dy: Tensor, r: Tensor) -> Tensor:
    return (dx * dx + dy * dy).sqrt() - r


def _box(dx: Tensor, dy: Tensor, r: Tensor) -> Tensor:
    return torch.maximum(dx.abs(), dy.abs()) - 0.86 * r


def _triangle(dx: Tensor, dy: Tensor, r: Tensor) -> Tensor:
    """Equilateral, on its side."""
    slope = math.sqrt(3) / 2
    return torch.maximum(torch.maximum(dy, slope * dx - dy / 2), -slope * dx - dy / 2) - 0.62 * r


def _fish(dx: Tensor, dy: Tensor, r: Tensor) -> Tensor:
    """A body that tapers to the nose, and a tail behind."""
    body = (((dx - 0.2 * r) / 0.95) ** 2 + (dy / 0.62) ** 2).sqrt() - r
    behind = -dx - 0.2 * r  # how far behind the body's middle
    tail = torch.maximum(dy.abs() - 0.85 * behind, behind - 1.1 * r)
    return torch.minimum(body * 0.7, tail)


def _cat(dx: Tensor, dy: Tensor, r: Tensor) -> Tensor:
    """A head with two pointed ears."""
    head = ((dx / 1.05) ** 2 + ((dy - 0.15 * r) / 0.85) ** 2).sqrt() - r
    across = (dx.abs() - 0.62 * r).abs()
    ear = torch.maximum(0.9 * across - 0.45 * (dy + 1.2 * r), dy)
    return torch.minimum(head * 0.85, ear)


def _car(dx: Tensor, dy: Tensor, r: Tensor) -> Tensor:
    """A hood in front, a cabin, and two wheels."""
    hull = torch.maximum(dx.abs() - 1.15 * r, (dy - 0.1 * r).abs() - 0.38 * r)
    cabin = torch.maximum((dx + 0.25 * r).abs() - 0.55 * r, (dy + 0.35 * r).abs() - 0.4 * r)
    wheel = ((dx.abs() - 0.65 * r) ** 2 + (dy - 0.5 * r) ** 2).sqrt() - 0.3 * r
    return torch.minimum(torch.minimum(hull, cabin), wheel)


SHAPES: dict[str, Outline] = {
    "ball": _ball,
    "box": _box,
    "triangle": _triangle,
    "fish": _fish,
    "cat": _cat,
    "car": _car,
}
SHAPE_NAMES = tuple(SHAPES)
TURNING = torch.tensor([name != "ball" for name in SHAPES])
"""Whether a turn of the shape can be seen."""
TURNING_TWICE = torch.tensor([name not in ("ball", "box", "triangle") for name in SHAPES])
"""Whether two turns can be told from one: what looks the same after a third of a turn is seen too seldom."""


def outside(shape: Tensor, dx: Tensor, dy: Tensor, radius: Tensor) -> Tensor:
    """Distance to the outline of each row's shape, `shape` [B] an index into SHAPE_NAMES, the others [B, ...]."""
    distance = torch.empty(torch.broadcast_shapes(dx.shape, dy.shape, radius.shape))
    for index, outline in enumerate(SHAPES.values()):
        rows = shape == index
        if rows.any():
            distance[rows] = outline(dx[rows], dy[rows], radius[rows])
    return distance
