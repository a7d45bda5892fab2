"""From where a thing is in one keyframe to where it is in the next, the way an editor keys it.

A motion between two pictures does not say how it went on. What people key is a size, an angle and a place: the angle
changes evenly, the size by equal factors, and a point that the eye follows runs along a straight line. For a camera
that is the middle of what it sees, for a thing its own middle. What of the motion is no similarity (a tilted plane)
grows evenly with it. The real power of the matrix, which is as smooth, swings the picture round a far centre instead.

Places are in pixels of the planning copy, from its upper left corner: see `model.motion`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from attrs import frozen
from torch import Tensor

from ..model.motion import moved

Size = tuple[int, int]
"""Height and width, in pixels."""
EVEN_SIZE = 1e-3
"""A size that changes by less is no zoom."""
FLAT = 1e-9
"""A plane that tilts by less is a plain one: half the arithmetic."""


@frozen(eq=False)
class Path:
    """Where things are on their way from A to B."""

    matrix: Tensor
    """[3, 3] float64: places in A to places in B."""
    anchor: Tensor
    """[2] float64, a place in A: the middle of the picture for a camera, else the thing's own."""
    is_camera: bool

    def places(self, t: float) -> tuple[Tensor, Tensor]:
        """Two matrices [3, 3]: places at time t to places in A, and in B."""
        to_a = torch.linalg.inv(self._from_a(t))
        return to_a, self.matrix @ to_a

    @property
    def turn(self) -> float:
        """How far it turns, in radians."""
        return math.atan2(*self._rotation()[::-1])

    @property
    def size(self) -> float:
        """How many times as large it becomes."""
        return math.hypot(*self._rotation())

    def _rotation(self) -> tuple[float, float]:
        """Cosine and sine of the turn, times the size, where the anchor is."""
        (xx, xy), (yx, yy) = slopes(self.matrix, self.anchor).tolist()
        return (xx + yy) / 2, (yx - xy) / 2

    def _from_a(self, t: float) -> Tensor:
        turn, size, end = self.turn, self.size, moved(self.matrix, self.anchor)
        whole = _similarity(turn, size, self.anchor, end)
        rest = torch.linalg.inv(whole) @ self.matrix
        rest = rest / rest[2, 2]
        if self.is_camera:  # a view of half the width crosses half the distance in the same time: the picture is even
            share = t if abs(size - 1) < EVEN_SIZE else (size**-t - 1) / (1 / size - 1)
            seen_last = moved(torch.linalg.inv(whole), self.anchor)
            similar = _similarity(turn * t, size**t, torch.lerp(self.anchor, seen_last, share), self.anchor)
        else:
            similar = _similarity(turn * t, size**t, self.anchor, torch.lerp(self.anchor, end, t))
        return similar @ torch.lerp(torch.eye(3, dtype=rest.dtype), rest, t)


def standing() -> Path:
    """A camera that does not move."""
    return Path(torch.eye(3, dtype=torch.float64), torch.zeros(2, dtype=torch.float64), True)


def slopes(matrix: Tensor, place: Tensor) -> Tensor:
    """[2, 2]: how the motion acts close to a place."""
    steps = torch.eye(2, dtype=place.dtype) / 2
    return (moved(matrix, place + steps) - moved(matrix, place - steps)).T


def _similarity(turn: float, size: float, at: Tensor, to: Tensor) -> Tensor:
    """Turns and sizes around `at` and brings it to `to`."""
    cos, sin = size * math.cos(turn), size * math.sin(turn)
    linear = at.new_tensor(((cos, -sin), (sin, cos)))
    return torch.cat((torch.cat((linear, (to - linear @ at)[:, None]), 1), at.new_tensor(((0, 0, 1),))))


# Pictures of any size


@frozen
class Box:
    """Some of a picture's rows and columns, the last ones not counted; it may reach beyond the picture."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def of(self) -> tuple[slice, slice]:
        """Index of the last two axes."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


def whole(size: Size) -> Box:
    return Box(0, 0, *size)


def field(matrix: Tensor, size: Size, planned: Size, device: torch.device, box: Box | None = None) -> Tensor:
    """[H, W, 2] float32: where `matrix` takes the middle of each pixel of a picture of `size`, or of a part of it, as
    the planning copy of size `planned` counts places."""
    box = box or whole(size)
    x = (torch.arange(box.left, box.right, device=device, dtype=torch.float32) + 0.5) * (planned[1] / size[1])
    y = (torch.arange(box.top, box.bottom, device=device, dtype=torch.float32) + 0.5) * (planned[0] / size[0])
    y = y[:, None]
    (a, b, c), (d, e, f), (g, h, i) = matrix.tolist()
    if (abs(g) + abs(h)) * max(planned) < FLAT * abs(i):
        to_x, to_y = (a * x + c) / i + (b / i) * y, (d * x + f) / i + (e / i) * y
    else:
        w = (g * x + i) + h * y
        to_x, to_y = ((a * x + c) + b * y) / w, ((d * x + f) + e * y) / w
    return torch.stack((to_x, to_y), -1)


def sampled(pictures: Tensor, places: Tensor, planned: Size, mode: str = "bilinear", outside: str = "border") -> Tensor:
    """[B, C, H, W] of any size, read at places [h, w, 2] -> [B, C, h, w]."""
    grid = 2 * places / places.new_tensor((planned[1], planned[0])) - 1
    grid = grid.expand(len(pictures), *grid.shape)
    return F.grid_sample(pictures, grid, mode=mode, padding_mode=outside, align_corners=False)


def size_of(pictures: Tensor) -> Size:
    """Of [..., h, w]."""
    height, width = pictures.shape[-2:]
    return height, width


def inside(places: Tensor, planned: Size) -> Tensor:
    """[h, w, 2] -> [1, h, w] bool: which of them lie in the picture."""
    x, y = places.unbind(-1)
    return ((x >= 0) & (x <= planned[1]) & (y >= 0) & (y <= planned[0]))[None]
