"""A motion brought to a fraction of a pixel, by the pixels themselves.

Matches lie where corners are and miss a small thing's size by a percent, which is a pixel at its feet. From there the
colours of its own pixels lead on: the step by which a turn, a size and a shift would bring them nearest to the other
keyframe's, again and again (Lucas and Kanade, "An iterative image registration technique", IJCAI 1981).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..model.motion import moved
from .path import Size, sampled, size_of

ROUNDS = 5
HALF_PX = 0.5
FOREIGN = 0.15
"""A pixel that differs by more shows something else: it has no say."""
DAMPING = 1e-4
"""Per pixel, so that what has no texture stays where it is."""
MOST_PX = 4.0
"""A motion that is led farther away than this is lost, and stays as it was."""


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
        normal = (slopes[:, :, None] * slopes[:, None]).sum(0) + DAMPING * len(places) * torch.eye(
            4, dtype=torch.float64
        )
        size, turn, right, lower = torch.linalg.solve(normal, (slopes * off[:, None]).sum(0)).tolist()
        size, turn = size / float(reach_px), turn / float(reach_px)
        step = torch.tensor(((1 + size, -turn, right), (turn, 1 + size, lower), (0, 0, 1)), dtype=torch.float64)
        to_middle = torch.eye(3, dtype=torch.float64)
        to_middle[:2, 2] = middle
        found = found @ to_middle @ step @ torch.linalg.inv(to_middle)
    far = (moved(best, places) - moved(matrix, places)).norm(dim=1).max()
    return best if far < MOST_PX else matrix


def _colours(picture: Tensor, places: Tensor) -> Tensor:
    """[3, h, w] at [N, 2] -> [N, 3] float64."""
    size: Size = size_of(picture)
    return sampled(picture[None], places[None].float(), size)[0, :, 0].T.double()
