"""A motion brought to a fraction of a pixel, by the pixels themselves.

Matches lie where corners are and miss a small thing's size by a percent, which is a pixel at its feet. From there the
colours of its own pixels lead on: the step by which a turn, a size and a shift would bring them nearest to the other
keyframe's, again and again (Lucas and Kanade, "An iterative image registration technique", IJCAI 1981).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..model.motion import moved
from ..model.windows import widened
from .path import Size, sampled, size_of

ROUNDS = 5
HALF_PX = 0.5
FOREIGN = 0.15
"""A pixel that differs by more shows something else: it has no say."""
DAMPING = 1e-4
"""Per pixel, so that what has no texture stays where it is."""
MOST_PX = 4.0
"""A motion that is led farther away than this is lost, and stays as it was."""
COARSE, REACH, FARTHER = 4, 24, 1e-6
"""How much smaller the copy is on which a thing is looked for, how far, and what a pixel of distance costs."""
LEAST_AREA_PX, MOST_DIFFERENCE = 80, 0.06
"""A thing is found again where it is of this size and differs by less."""


def fitted(pictures: Tensor, matrix: Tensor, shape: Tensor) -> Tensor:
    """[2, 3, h, w], the motion [3, 3] from A to B of what `shape`, [1, h, w], is in A -> the motion, fitted."""
    y, x = torch.nonzero(shape[0] > 0.5, as_tuple=True)
    places = torch.stack((x, y), 1).double() + 0.5
    middle = places.mean(0)
    from_middle = places - middle
    reach_px = from_middle.square().sum(1).mean().sqrt().clamp(min=1)
    from_middle = from_middle / reach_px
    wanted = pictures[0][:, y, x].T
    found = matrix
    best, error = matrix, torch.inf
    for _ in range(ROUNDS):
        off = wanted - _colours(pictures[1], moved(found, places))  # [N, 3]
        own = (off.abs().mean(1, keepdim=True) < FOREIGN).double()
        now = float((off.abs() * own).sum() + FOREIGN * 3 * (1 - own).sum())
        if now >= error:
            break
        best, error = found, now
        across, down = (
            (_colours(pictures[1], moved(found, places + step)) - _colours(pictures[1], moved(found, places - step)))
            / (2 * HALF_PX)
            for step in HALF_PX * torch.eye(2, dtype=torch.float64)
        )
        u, v = from_middle[:, :1], from_middle[:, 1:]
        slopes = torch.stack((across * u + down * v, down * u - across * v, across, down), -1)  # [N, 3, 4]
        slopes, off = (slopes * own[..., None]).flatten(0, 1), (off * own).flatten()
        normal = slopes.T @ slopes + DAMPING * len(places) * torch.eye(4, dtype=torch.float64)
        size, turn, right, lower = torch.linalg.solve(normal, slopes.T @ off).tolist()
        size, turn = size / float(reach_px), turn / float(reach_px)
        step = torch.tensor(((1 + size, -turn, right), (turn, 1 + size, lower), (0, 0, 1)), dtype=torch.float64)
        to_middle = torch.eye(3, dtype=torch.float64)
        to_middle[:2, 2] = middle
        found = found @ to_middle @ step @ torch.linalg.inv(to_middle)
    far = (moved(best, places) - moved(matrix, places)).norm(dim=1).max()
    return best if far < MOST_PX else matrix


def followed(pictures: Tensor, shape: Tensor) -> Tensor | None:
    """[2, 3, h, w] -> the motion of what `shape`, [1, h, w], is in the first, to where it is in the second, or None.

    By its shift first, on a small copy, then by its pixels, from coarse to fine.
    """
    if float(shape.sum()) < LEAST_AREA_PX:
        return None
    rim = widened(shape[None], 1)[0]
    matrix = _shift(pictures, rim)
    for shrink in (2, 1):
        scale = torch.diag(torch.tensor((1 / shrink, 1 / shrink, 1), dtype=torch.float64))
        back = torch.linalg.inv(scale)
        small, its = (F.avg_pool2d(x, shrink) for x in (pictures, rim[None]))
        matrix = back @ fitted(small, scale @ matrix @ back, (its[0] > 0.5).float()) @ scale
    y, x = torch.nonzero(shape[0] > 0.5, as_tuple=True)
    there = _colours(pictures[1], moved(matrix, torch.stack((x, y), 1).double() + 0.5))
    return matrix if float((pictures[0][:, y, x].T - there).abs().mean()) < MOST_DIFFERENCE else None


def _shift(pictures: Tensor, shape: Tensor) -> Tensor:
    """[3, 3]: the shift that loses least of the shape's colours, to a part of a pixel."""
    (here, there), mask = F.avg_pool2d(pictures, COARSE), (F.avg_pool2d(shape[None], COARSE)[0, 0] > 0.5).float()
    y, x = torch.nonzero(mask, as_tuple=True)
    if not len(y):
        return torch.eye(3, dtype=torch.float64)
    top, bottom, left, right = (int(k) for k in (y.min(), y.max() + 1, x.min(), x.max() + 1))
    weight = mask[top:bottom, left:right].expand(1, 3, -1, -1)
    own = here[None, :, top:bottom, left:right] * weight
    field = F.pad(there[None], (REACH,) * 4, mode="replicate")
    field = field[..., top : bottom + 2 * REACH, left : right + 2 * REACH]
    lost = F.conv2d(field.square(), weight) - 2 * F.conv2d(field, own) + (own * own).sum()
    lost = (lost[0, 0] / weight.sum()).double()  # [2 REACH + 1, 2 REACH + 1]
    away = torch.arange(-REACH, REACH + 1, dtype=torch.float64)
    lost = lost + FARTHER * torch.hypot(away[:, None], away[None])
    row, column = divmod(int(lost.argmin()), 2 * REACH + 1)
    down = row - REACH + _vertex(lost[:, column], row)
    across = column - REACH + _vertex(lost[row], column)
    return torch.tensor(((1, 0, COARSE * across), (0, 1, COARSE * down), (0, 0, 1)), dtype=torch.float64)


def _vertex(values: Tensor, k: int) -> float:
    """Of the parabola through the least value and its neighbours, from the least: -0.5 to 0.5."""
    if not 0 < k < len(values) - 1:
        return 0.0
    before, here, after = (float(v) for v in values[k - 1 : k + 2])
    bow = before - 2 * here + after
    return 0.0 if bow <= 0 else max(-0.5, min(0.5, (before - after) / (2 * bow)))


def _colours(picture: Tensor, places: Tensor) -> Tensor:
    """[3, h, w] at [N, 2] -> [N, 3] float64."""
    size: Size = size_of(picture)
    return sampled(picture[None], places[None].float(), size)[0, :, 0].T.double()
