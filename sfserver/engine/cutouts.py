"""Which parts of two keyframes move as one in front of the ground, and which of those RIFE would lose.

Each motion found besides the ground's bids for the pixels of both keyframes: what it costs is how badly it brings one
to the other, smoothed along the colours of the picture so that shapes end at their edges (He, Sun and Tang, "Guided
image filtering", IEEE TPAMI 35(6), 2013; its lines are fitted on a smaller copy, as in their "Fast guided filter",
2015), and more the farther a pixel lies from the matches that speak for it. Both
keyframes must give the same shape. Everything at planning size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from attrs import frozen
from torch import Tensor

from ..model.motion import Motion, blurred, moved
from ..model.windows import averaged
from .path import Path, Size, field, inside, sampled, size_of
from .picture import CutOut

FAR_PX = 30.0
"""What moves less than this against the ground RIFE follows by itself."""
WORST = 0.24
"""A cost beyond this says no more than this does."""
UNSEEN_GROUND = 0.06
"""Cost of ground that the other keyframe does not show."""
PRICE, PRICE_PER_PX, FREE_PX = 0.015, 0.004, 14.0
"""What a motion bids more than the ground, and what a pixel farther than FREE_PX from its matches adds."""
DISPUTED, ROUNDS = 0.06, 3
"""Cost of a pixel whose counterpart in the other keyframe has another label; how often that is asked."""
GUIDE_REACH_PX, GUIDE_EPSILON = 12, 2e-4
SHRINK, COARSE_PX = 2, 4
"""How much smaller the copies are on which motions are compared; the grid on which distances are taken."""
LEAST_AREA_PX, MOST_SHARE = 80, 0.4
LEAST_OVERLAP, MOST_DIFFERENCE = 0.8, 0.05
"""One rigid thing: its two shapes lie on each other, and show the same."""
LOST_CORRELATION, LOST_DIFFERENCE, LOST_BLUR_PX, PLAIN = 0.75, 0.04, 2.5, 0.02
"""RIFE has lost it: its middle picture shows something else there. What varies by less than the last is plain, and
correlates with anything."""


@frozen(eq=False)
class Candidate:
    """A motion and the places [n, 2] in A and in B that speak for it."""

    matrix: Tensor
    a: Tensor
    b: Tensor

    @classmethod
    def of(cls, motion: Motion) -> Candidate:
        return cls(motion.matrix, motion.a, motion.b)


@frozen(eq=False)
class Bids:
    """What K motions bid for the pixels of a picture, as lines over its colours: shapes then end at its edges."""

    slopes: Tensor
    """[3, K, h, w], on a small copy."""
    offsets: Tensor
    """[K, h, w]"""

    @classmethod
    def of(cls, costs: Tensor, guide: Tensor) -> Bids:
        """[K, h, w], fitted around each pixel of [3, h, w]. The 3 x 3 inverses are written out: batched ones take ten
        seconds."""

        def mean(x: Tensor) -> Tensor:
            return averaged(x[None], GUIDE_REACH_PX // SHRINK)[0]

        r, g, b = guide
        middle, middle_cost = mean(guide), mean(costs)
        products = mean(torch.stack((r * r, r * g, r * b, g * g, g * b, b * b)))
        of_means = torch.stack([middle[i] * middle[j] for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))])
        rr, rg, rb, gg, gb, bb = products - of_means
        rr, gg, bb = rr + GUIDE_EPSILON, gg + GUIDE_EPSILON, bb + GUIDE_EPSILON
        first = gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg
        second = first[1], rr * bb - rb * rb, rg * rb - rr * gb
        third = first[2], second[2], rr * gg - rg * rg
        determinant = rr * first[0] + rg * first[1] + rb * first[2]
        x, y, z = (mean(colour * costs) - one * middle_cost for colour, one in zip(guide, middle, strict=True))
        slopes = torch.stack([(a * x + b * y + c * z) / determinant for a, b, c in (first, second, third)])
        offsets = middle_cost - (slopes * middle[:, None]).sum(0)
        return cls(torch.stack([mean(slope) for slope in slopes]), mean(offsets))

    def along(self, picture: Tensor) -> Tensor:
        """[K, *]: the bids for each pixel of the picture, [3, *], or of a larger one of the same."""
        offset, *slopes = (_resized(x, size_of(picture)) for x in (self.offsets, *self.slopes))
        for slope, colour in zip(slopes, picture, strict=True):
            offset = torch.addcmul(offset, slope, colour)
        return offset


def far_from(ground: Tensor, candidates: list[Candidate]) -> list[Candidate]:
    """Those that move against the ground."""

    def against_px(one: Candidate) -> float:
        a = one.a.double()
        return (moved(one.matrix, a) - moved(ground, a)).square().sum(1).mean().sqrt().item()

    return [one for one in candidates if against_px(one) >= FAR_PX]


def shapes_of(pictures: Tensor, ground: Tensor, candidates: list[Candidate]) -> list[CutOut]:
    """[2, 3, h, w] and motions [3, 3] -> what has a shape in both keyframes, the smallest first.

    Motions are compared on copies of half the size; only the last word is spoken at full size, along its colours.
    """
    matrices = [ground, *(one.matrix for one in candidates)]
    small = _halved(pictures)
    planned, seen = size_of(pictures), size_of(small)
    both_ways = matrices, [torch.linalg.inv(matrix) for matrix in matrices]
    places = [[field(matrix, seen, planned, small.device) for matrix in ways] for ways in both_ways]
    bids: list[Bids] = []
    for side in (0, 1):
        speakers = [(one.a, one.b)[side] for one in candidates]
        costs = _costs(pictures, side, both_ways[side], speakers)
        bids.append(Bids.of(costs, small[side]))
    labels = [_labels(bid.along(picture)) for bid, picture in zip(bids, small, strict=True)]
    disputed = [torch.zeros_like(label) for label in labels]
    for _ in range(ROUNDS):
        for side in (0, 1):
            for k in range(1, len(matrices)):
                there = sampled(labels[1 - side][None, k : k + 1], places[side][k], planned, outside="zeros")
                disputed[side][k] = DISPUTED * (1 - there[0, 0])
        labels = [_labels(bid.along(one) + more) for bid, one, more in zip(bids, small, disputed, strict=True)]
    disputed = [_resized(more, planned) for more in disputed]
    labels = [_labels(bid.along(one) + more) for bid, one, more in zip(bids, pictures, disputed, strict=True)]
    found: list[CutOut] = []
    for k, matrix in enumerate(matrices[1:], 1):
        shapes = torch.stack([label[k : k + 1] for label in labels])
        areas = shapes.sum((1, 2, 3))
        if areas.min() >= LEAST_AREA_PX and areas.max() <= MOST_SHARE * shapes[0].numel():
            found.append(CutOut(Path(matrix, middle_of(shapes[0, 0]), False), shapes))
    return sorted(found, key=lambda one: one.area_px)


def is_one_thing(pictures: Tensor, cut_out: CutOut) -> bool:
    """Do both shapes and what they show lie on each other?"""
    (places,) = _places([cut_out.path.matrix], pictures)
    in_both = inside(places, size_of(pictures)).float()
    here = cut_out.shapes[0] * in_both
    there = sampled(cut_out.shapes[1:], places, size_of(pictures), outside="zeros")[0] * in_both
    common = here * there
    overlap = common.sum() / torch.maximum(here, there).sum().clamp(min=1)
    difference = (pictures[0] - sampled(pictures[1:], places, size_of(pictures))[0]).abs().mean(0, keepdim=True)
    return bool(overlap > LEAST_OVERLAP and (difference * common).sum() < MOST_DIFFERENCE * common.sum().clamp(min=1))


def is_lost(pictures: Tensor, cut_out: CutOut, middle: Tensor) -> bool:
    """Does the picture [3, h, w] half way not show it where it must be?"""
    there = _places(list(cut_out.path.places(0.5)), pictures)
    sides, shapes = (
        torch.cat([sampled(x[i : i + 1], places, size_of(x)) for i, places in enumerate(there)])
        for x in (pictures, cut_out.shapes)
    )
    shape = (shapes[0] * shapes[1] > 0.5).float()
    expected, made = blurred(torch.stack((sides.mean(0), middle)), LOST_BLUR_PX)
    area = shape.sum().clamp(min=1)
    difference = ((expected - made).abs().mean(0, keepdim=True) * shape).sum() / area
    centred = [(x - (x * shape).sum((1, 2), keepdim=True) / area) * shape for x in (expected, made)]
    correlation = (centred[0] * centred[1]).sum() / (centred[0].norm() * centred[1].norm() + 1e-6)
    is_plain = centred[0].norm() < PLAIN * (area * len(middle)).sqrt()
    return bool((correlation < LOST_CORRELATION or is_plain) and difference > LOST_DIFFERENCE)


def _costs(pictures: Tensor, side: int, matrices: list[Tensor], matched: list[Tensor]) -> Tensor:
    """[K, h, w] for pictures of twice that: what the ground, then each motion, costs at each pixel of one keyframe."""
    here, there = pictures[side], pictures[1 - side : 2 - side]
    costs: list[Tensor] = []
    for k, to in enumerate(_places(matrices, pictures)):
        cost = (here - sampled(there, to, size_of(pictures))[0]).abs().mean(0).clamp(max=WORST)
        cost = _halved(torch.where(inside(to, size_of(pictures))[0], cost, WORST if k else UNSEEN_GROUND)[None])[0]
        if k:
            far = _distance_px(matched[k - 1], size_of(pictures), size_of(cost))
            cost = cost + PRICE + (far - FREE_PX).clamp(min=0) * PRICE_PER_PX
        costs.append(cost)
    return torch.stack(costs)


def _distance_px(places: Tensor, planned: Size, size: Size) -> Tensor:
    """[n, 2] -> [*size]: how far the nearest of the places is, as planned; exact at the middles of a coarse grid."""
    rows, columns = (-(-side // COARSE_PX) for side in planned)
    grid = field(torch.eye(3, dtype=torch.float64), (rows, columns), planned, places.device)
    coarse = torch.cdist(grid.flatten(0, 1), places.float()).amin(1).view(1, rows, columns)
    return _resized(coarse, size)[0]


def _labels(costs: Tensor) -> Tensor:
    """[K, h, w] -> the same, 1 for the cheapest among the neighbours' too, else 0."""

    def won(index: Tensor) -> Tensor:
        return torch.stack([index == k for k in range(len(costs))]).float()

    among = averaged(won(costs.min(0).indices)[None], 1)[0]  # `argmin` over the first axis takes eight times as long
    return won(among.max(0).indices)


def _halved(x: Tensor) -> Tensor:
    """[..., h, w]: the means of every four pixels."""
    height, width = size_of(x)
    return F.adaptive_avg_pool2d(x, (-(-height // SHRINK), -(-width // SHRINK)))


def _resized(x: Tensor, size: Size) -> Tensor:
    """[C, h, w] -> [C, *size]"""
    return F.interpolate(x[None], size=size, mode="bilinear")[0]


def middle_of(shape: Tensor) -> Tensor:
    """[h, w] -> [2] float64: x and y."""
    y, x = (torch.arange(side, dtype=torch.float64) + 0.5 for side in shape.shape)
    weight = shape.double() / shape.sum()
    return torch.stack(((weight.sum(0) * x).sum(), (weight.sum(1) * y).sum()))


def _places(matrices: list[Tensor], pictures: Tensor) -> list[Tensor]:
    return [field(matrix, size_of(pictures), size_of(pictures), pictures.device) for matrix in matrices]
