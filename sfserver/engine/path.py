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
BRIEF = 1e-4
"""Of the whole way: over so much of it speed is taken."""
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
    bends: Tensor | None = None
    """[2, 4] float64: how much faster it leaves A, and reaches B, than it would by itself; None where it does not. In
    units of `state` for the whole way."""

    def state(self, t: float) -> Tensor:
        """[4] float64: what is keyed at time t, and before and after the keyframes too. For a camera the place in A at
        the middle of its view, for a thing where its anchor is; then the logarithm of the size, and the turn."""
        turn, size, point = self._at(t)
        return torch.cat((point, point.new_tensor((math.log(size), turn))))

    def slope(self, t: float) -> Tensor:
        """[4]: how fast that changes."""
        return (self.state(t + BRIEF) - self.state(t - BRIEF)) / (2 * BRIEF)

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
        rest = torch.linalg.inv(self._whole()) @ self.matrix
        rest = rest / rest[2, 2]
        turn, size, point = self._at(t)
        from_at, to_at = (point, self.anchor) if self.is_camera else (self.anchor, point)
        similar = _similarity(turn, size, from_at, to_at)
        return similar @ torch.lerp(torch.eye(3, dtype=rest.dtype), rest, t)

    def _whole(self) -> Tensor:
        """The similarity that it is about its anchor."""
        return _similarity(self.turn, self.size, self.anchor, moved(self.matrix, self.anchor))

    def _at(self, t: float) -> tuple[float, float, Tensor]:
        """Turn, size and point of `state`."""
        turn, size = self.turn * t, self.size**t
        if self.is_camera:  # a view of half the width crosses half the distance in the same time: the picture is even
            share = t if abs(self.size - 1) < EVEN_SIZE else (self.size**-t - 1) / (1 / self.size - 1)
            point = torch.lerp(self.anchor, moved(torch.linalg.inv(self._whole()), self.anchor), share)
        else:
            point = torch.lerp(self.anchor, moved(self.matrix, self.anchor), t)
        if self.bends is None:
            return turn, size, point
        leaving, reaching = hermite(t)
        more = leaving * self.bends[0] + reaching * self.bends[1]
        return turn + float(more[3]), size * math.exp(float(more[2])), point + more[:2]


def hermite(t: float) -> tuple[float, float]:
    """What one more of slope at the start, and at the end, adds to a cubic at t."""
    return t * (1 - t) ** 2, -(t**2) * (1 - t)


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
