"""Shapes of one colour, found again by colour, area and outline: what has no texture has no matches.

Pixels of nearly one colour that touch are a region. A region of A is one of B's where the similarity that brings their
middles, areas and outlines together lays one on the other. On copies of half the planning size.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from attrs import frozen
from numpy.typing import NDArray
from torch import Tensor

from ..model.motion import blurred
from .cutouts import Candidate
from .path import Size, field, sampled

SHRINK = 2
STEP = 0.03
"""Neighbours whose colours differ by less are of one region."""
GRAIN_BLUR_PX = 0.7
LEAST_AREA_PX, MOST_SHARE, MOST_REGIONS = 30, 0.4, 16
"""Of the copy; regions are the largest ones of each keyframe that no motion explains."""
UNEXPLAINED = 0.06
"""Mean difference along a motion from which on it does not explain a region."""
SAME_COLOUR, MOST_GROWTH, LEAST_OVERLAP = 0.06, 2.5, 0.8
FARTHER_IS_WORSE = 5e-4
"""What a pixel of distance takes from the overlap: of twins the nearer one is meant."""
DIRECTIONS = 72
ROUND = 0.06
"""Relative spread of the radius below which a shape has no direction."""
NEARLY_BEST = 0.97
"""Of turns that fit about as well, the smallest is meant."""
SPEAKERS = 200
"""Places that speak for a region."""


@frozen(eq=False)
class _Region:
    colour: Tensor
    """[3]"""
    places: Tensor
    """[n, 2]: its pixels' middles, in pixels of the copy."""
    middle: Tensor
    """[2]"""

    @property
    def area_px(self) -> int:
        return len(self.places)


def flat_shapes(pictures: Tensor, known: list[Tensor]) -> list[Candidate]:
    """[2, 3, h, w] -> motions of regions which none of the `known` motions, [3, 3], explains."""
    small = F.avg_pool2d(pictures, SHRINK)
    scale = torch.diag(torch.tensor((1 / SHRINK, 1 / SHRINK, 1), dtype=torch.float64))
    back = torch.linalg.inv(scale)
    a, b = (_regions(small, side, [scale @ matrix @ back for matrix in known]) for side in (0, 1))
    size = small.shape[-2], small.shape[-1]
    found: list[Candidate] = []
    for one, other, matrix in _pairs(a, b, size):
        matrix = back @ matrix @ scale
        found.append(Candidate(matrix, _speakers(one) * SHRINK, _speakers(other) * SHRINK))
    return found


def _regions(small: Tensor, side: int, known: list[Tensor]) -> list[_Region]:
    """Of A (side 0) or B, the largest first."""
    picture, other = small[side], small[1 - side : 2 - side]
    labels = _connected(blurred(picture[None], GRAIN_BLUR_PX)[0])
    height, width = labels.shape
    size = height, width
    left_over = torch.full((height, width), torch.inf)
    for matrix in known:
        places = field(matrix if side == 0 else torch.linalg.inv(matrix), size, size, small.device)
        left_over = torch.minimum(left_over, (picture - sampled(other, places, size)[0]).abs().mean(0))
    ids, index, areas = torch.unique(labels, return_inverse=True, return_counts=True)
    unexplained = torch.zeros(len(ids)).index_add_(0, index.flatten(), left_over.clamp(max=1).flatten()) / areas
    fit = (areas >= LEAST_AREA_PX) & (areas <= MOST_SHARE * labels.numel()) & (unexplained > UNEXPLAINED)
    (fit,) = torch.nonzero(fit, as_tuple=True)
    largest = fit[areas[fit].argsort(descending=True, stable=True)][:MOST_REGIONS]
    regions: list[_Region] = []
    for k in largest.tolist():
        y, x = torch.nonzero(index == k, as_tuple=True)
        places = torch.stack((x, y), 1).double() + 0.5
        regions.append(_Region(picture[:, y, x].mean(1), places, places.mean(0)))
    return regions


def _connected(picture: Tensor) -> Tensor:
    """[3, h, w] -> [h, w]: a number that all pixels of a region share, the smallest of theirs.

    Each takes the smallest number of its run in the row, of its run in the column, then the number of whom it points
    to, until nothing changes.
    """
    height, width = picture.shape[-2:]
    right = (picture[:, :, 1:] - picture[:, :, :-1]).abs().amax(0) < STEP
    below = (picture[:, 1:] - picture[:, :-1]).abs().amax(0) < STEP
    in_rows, in_columns = _runs(right.numpy()), _runs(below.T.numpy())
    labels = np.arange(height * width).reshape(height, width)
    while True:
        before = labels
        labels = _least_of_runs(labels, in_rows)
        labels = _least_of_runs(labels.T, in_columns).T
        labels = labels.ravel()[labels]
        if np.array_equal(labels, before):
            return torch.from_numpy(labels)


def _runs(linked: NDArray[np.bool_]) -> NDArray[np.intp]:
    """[h, w - 1], whether a pixel is linked to the next in its row -> where runs begin, row after row."""
    return np.flatnonzero(np.pad(~linked, ((0, 0), (1, 0)), constant_values=True))


def _least_of_runs(labels: NDArray[np.intp], starts: NDArray[np.intp]) -> NDArray[np.intp]:
    """[h, w] -> the same, each the smallest of its run."""
    lengths = np.diff(starts, append=labels.size)
    return np.repeat(np.minimum.reduceat(labels.ravel(), starts), lengths).reshape(labels.shape)


def _pairs(a: list[_Region], b: list[_Region], size: Size) -> list[tuple[_Region, _Region, Tensor]]:
    """Regions that are each other's best, and the motion [3, 3] of each."""
    score = torch.zeros(len(a), len(b))
    matrices: dict[tuple[int, int], Tensor] = {}
    for i, one in enumerate(a):
        for j, other in enumerate(b):
            if not _may_be_one(one, other):
                continue
            matrices[i, j] = matrix = _similarity(one, other)
            overlap = _overlap(one, other, matrix, size)
            if overlap > LEAST_OVERLAP:
                score[i, j] = overlap - FARTHER_IS_WORSE * (one.middle - other.middle).norm()
    return [
        (a[i], b[j], matrix)
        for (i, j), matrix in matrices.items()
        if score[i, j] > 0 and score[i, j] == score[i].max() == score[:, j].max()
    ]


def _may_be_one(one: _Region, other: _Region) -> bool:
    growth = other.area_px / one.area_px
    alike = bool((one.colour - other.colour).abs().max() < SAME_COLOUR)
    return alike and 1 / MOST_GROWTH < growth < MOST_GROWTH


def _similarity(one: _Region, other: _Region) -> Tensor:
    """[3, 3]: middle to middle, area to area, outline to outline."""
    size = math.sqrt(other.area_px / one.area_px)
    turn = _turn(_outline(one), _outline(other))
    linear = size * torch.tensor(((math.cos(turn), -math.sin(turn)), (math.sin(turn), math.cos(turn)))).double()
    matrix = torch.eye(3, dtype=torch.float64)
    matrix[:2, :2], matrix[:2, 2] = linear, other.middle - linear @ one.middle
    return matrix


def _outline(region: _Region) -> Tensor:
    """[DIRECTIONS]: how far it reaches from its middle, in parts of the radius of a disc of its area."""
    x, y = (region.places - region.middle).T
    direction = (torch.atan2(y, x) / math.tau * DIRECTIONS).round().long() % DIRECTIONS
    reach = torch.zeros(DIRECTIONS, dtype=torch.float64)
    reach.scatter_reduce_(0, direction, torch.hypot(x, y), "amax")
    return reach / math.sqrt(region.area_px / math.pi)


def _turn(outline: Tensor, other: Tensor) -> float:
    """Radians that bring one outline to the other best, -pi to pi."""
    a, b = outline - outline.mean(), other - other.mean()
    if a.std() < ROUND and b.std() < ROUND:
        return 0.0
    alike = torch.fft.irfft(torch.fft.rfft(a).conj() * torch.fft.rfft(b), DIRECTIONS)
    steps = torch.arange(DIRECTIONS)
    steps = torch.where(steps > DIRECTIONS // 2, steps - DIRECTIONS, steps)
    good = alike >= NEARLY_BEST * alike.max()
    step = steps[good][steps[good].abs().argmin()]
    return float(step) / DIRECTIONS * math.tau


def _overlap(one: _Region, other: _Region, matrix: Tensor, size: Size) -> float:
    """Of `one`, brought to `other`: what they share, of what either has."""

    def drawn(places: Tensor) -> Tensor:
        shape = torch.zeros(size)
        x, y = places.long().T
        shape[y, x] = 1
        return shape

    there = field(matrix, size, size, other.places.device)
    shape, its = drawn(one.places), sampled(drawn(other.places)[None, None], there, size, outside="zeros")[0, 0]
    return float((shape * its).sum() / torch.maximum(shape, its).sum())


def _speakers(region: _Region) -> Tensor:
    """[n, 2]: some of its places, evenly."""
    return region.places[:: max(1, region.area_px // SPEAKERS)]
