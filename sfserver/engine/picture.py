"""One in-between: the ground as its camera saw it, what else moves as RIFE sees it, cut-outs on top.

ground's path -> where each pixel lies in both keyframes, and which of them shows it
              -> RIFE begins from there and finds what moves besides
              -> where the keyframes agree on the ground, their own pixels; RIFE blurs even what is aligned
cut-outs      -> taken out of the keyframes first, drawn over the ground last, each on its own path

Without a camera and without cut-outs the picture is RIFE's, bit for bit.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from attrs import field as attr
from attrs import frozen
from torch import Tensor

from ..model.rife import IFNet, Pair, Start
from .path import Path, Size, field, inside, sampled, size_of, standing

SURE, ODD = 0.03, 0.06
"""Mean difference of the keyframes on the ground up to which their own pixels count fully; from the second on they do
not count at all."""
AROUND_PX = 4
"""How far around a pixel that difference is taken."""
NEAR_PX, COARSE = 64, 4
"""Within this distance of something odd RIFE knows better, unless it says the same; seen on a grid so much coarser."""
SAME, SAME_AROUND_PX = 0.03, 6
COVERED = 0.25
"""Share of a cut-out's edge from which on it hides the ground."""
GROWN_PX = 3
"""How far around its shape a cut-out is taken out of the ground: its edge is mixed with it."""
APART = 0.1
"""Difference of a cut-out's two looks from which on only the nearer keyframe's is shown: a blend would be a ghost."""


@frozen(eq=False)
class CutOut:
    """A thing that moves as one, in front of the ground."""

    path: Path
    shapes: Tensor
    """[2, 1, h, w]: 1 where it is in A and in B, at planning size."""

    @property
    def soft(self) -> Tensor:
        """The same with an edge of two pixels."""
        return averaged(F.max_pool2d(self.shapes, 3, 1, 1), 1)

    @property
    def area_px(self) -> float:
        return float(self.shapes.sum())


@frozen(eq=False)
class Layers:
    """What is known of the motion between two keyframes."""

    pictures: Tensor
    """[2, 3, h, w]: the planning copies of A and B."""
    ground: Path = attr(factory=standing)
    moves: bool = False
    """The ground has a camera that moves."""
    is_exact: bool = False
    """The keyframes' own pixels may be shown where they agree along the ground's path."""
    cut_outs: tuple[CutOut, ...] = ()
    """From the front to the back."""

    @property
    def planned(self) -> Size:
        return size_of(self.pictures)


@frozen(eq=False)
class Drawn:
    """A picture at a time, and what each keyframe alone would have made of it."""

    picture: Tensor
    """[3, H, W]"""
    sides: Tensor
    """[2, 3, H, W]"""


def between(
    net: IFNet, pair: Pair, layers: Layers, t: float, both_ways: bool = False, ground: Pair | None = None
) -> Drawn:
    """The picture at time t, of the size of `pair`; `layers` may be planned at any other.

    `ground` is `ground_of` the same, which is as good for all times; it is made where it is not given.
    """
    ground = ground or ground_of(net, pair, layers)
    start = start_of(ground, layers, t) if layers.moves or layers.cut_outs else None
    estimate = net.estimate(ground, t, start, both_ways)
    sides = net.sides(ground, estimate, start)
    drawn = Drawn(net.mixed(ground, estimate, sides), sides)
    if layers.is_exact:
        drawn = _with_exact_ground(drawn, ground, layers, t)
    for cut_out in reversed(layers.cut_outs):
        drawn = _with_cut_out(drawn, pair, cut_out, layers.planned, t)
    return drawn


def ground_of(net: IFNet, pair: Pair, layers: Layers) -> Pair:
    """The pair without its cut-outs: where neither keyframe shows what is behind one, what lies around it goes on."""
    if not layers.cut_outs:
        return pair
    size = pair.height, pair.width
    covered = torch.stack([cut_out.shapes for cut_out in layers.cut_outs]).amax(0).to(pair.looks.device)
    covered = F.interpolate(F.max_pool2d(covered, 2 * GROWN_PX + 1, 1, GROWN_PX), size=size, mode="nearest")
    return net.pair(_filled(pair.looks[:, :3, : pair.height, : pair.width], 1 - covered))


def _filled(pictures: Tensor, known: Tensor) -> Tensor:
    """[B, 3, H, W], [B, 1, H, W] -> the same where `known` is 1, else the mean of the nearest that is."""
    if bool(known.all()) or min(pictures.shape[-2:]) == 1:
        return pictures
    share = F.avg_pool2d(known, 2, ceil_mode=True)
    coarse = F.avg_pool2d(pictures * known, 2, ceil_mode=True) / share.clamp(min=1e-6)
    coarse = _filled(coarse, (share > 0).float())
    fine = F.interpolate(coarse, size=pictures.shape[-2:], mode="bilinear")
    return torch.lerp(fine, pictures, known)


def start_of(pair: Pair, layers: Layers, t: float) -> Start:
    """Where RIFE begins: the flow of the ground, and who sees it."""
    size, device, padded = (pair.height, pair.width), pair.looks.device, size_of(pair.looks)
    unit = torch.eye(3, dtype=torch.float64)
    here = field(unit, size, layers.planned, device, padded)
    there = [field(matrix, size, layers.planned, device, padded) for matrix in layers.ground.places(t)]
    per_px = here.new_tensor((pair.width / layers.planned[1], pair.height / layers.planned[0]))
    flow = torch.cat([(places - here) * per_px for places in there], -1).permute(2, 0, 1)[None]
    return Start(flow, _seen(there, layers, inside(here, layers.planned)))


def _seen(there: list[Tensor], layers: Layers, in_picture: Tensor) -> Tensor:
    """[2, 1, H, W]: 1 where a keyframe shows the ground, and where neither does or no picture is, in both."""
    seen = torch.stack([inside(places, layers.planned) for places in there])
    for cut_out in layers.cut_outs:
        grown = F.max_pool2d(cut_out.shapes, 5, 1, 2).to(seen.device)
        for side, places in enumerate(there):
            seen[side] &= sampled(grown[side : side + 1], places, layers.planned)[0] < COVERED
    nowhere = ~seen.any(0) | ~in_picture
    return (seen | nowhere).float()


def _with_exact_ground(drawn: Drawn, pair: Pair, layers: Layers, t: float) -> Drawn:
    """The keyframes' own pixels, blended by t, where both show the same."""
    size, planned = (pair.height, pair.width), layers.planned
    looks = pair.looks[:, :3, : pair.height, : pair.width]
    exact = _ground(looks, layers, t, size)
    small = exact if size == planned else _ground(layers.pictures.to(looks.device), layers, t, planned)
    blend = torch.lerp(small[0], small[1], t)
    trust = _trust(small, blend, _resized(drawn.picture, planned))
    trust = _resized(trust, size)
    picture = torch.lerp(drawn.picture, torch.lerp(exact[0], exact[1], t), trust)
    return Drawn(picture, torch.lerp(drawn.sides, exact, trust))


def _ground(looks: Tensor, layers: Layers, t: float, size: Size) -> Tensor:
    """[2, 3, H, W] -> [2, 3, *size]: the ground at time t out of each keyframe, or the other where it is blind."""
    there = [field(matrix, size, layers.planned, looks.device) for matrix in layers.ground.places(t)]
    sides = looks
    if layers.moves:
        sides = [sampled(looks[i : i + 1], places, layers.planned, "bicubic") for i, places in enumerate(there)]
        sides = torch.cat(sides).clamp(0, 1)
    seen = _seen(there, layers, torch.ones_like(there[0][None, ..., 0], dtype=torch.bool))
    return torch.lerp(sides.flip(0), sides, seen)


def _trust(sides: Tensor, blend: Tensor, by_rife: Tensor) -> Tensor:
    """[1, h, w], 0 to 1: how far the ground's own pixels are right, at planning size."""
    difference = averaged((sides[0] - sides[1]).abs().mean(0)[None, None], AROUND_PX)
    odd = (difference >= ODD).float()
    height, width = odd.shape[-2:]
    coarse = F.max_pool2d(odd, COARSE, ceil_mode=True)
    reach = NEAR_PX // COARSE
    coarse = F.max_pool2d(coarse, (1, 2 * reach + 1), 1, (0, reach))
    coarse = F.max_pool2d(coarse, (2 * reach + 1, 1), 1, (reach, 0))
    near = F.interpolate(coarse, scale_factor=COARSE, mode="nearest")[..., :height, :width] > 0
    same = averaged((by_rife - blend).abs().mean(0)[None, None], SAME_AROUND_PX) < SAME
    trust = ((ODD - difference) / (ODD - SURE)).clamp(0, 1)
    return (trust * (~near | same))[0]


def _with_cut_out(drawn: Drawn, pair: Pair, cut_out: CutOut, planned: Size, t: float) -> Drawn:
    size, device = (pair.height, pair.width), pair.looks.device
    looks = pair.looks[:, :3, : pair.height, : pair.width]
    there = [field(matrix, size, planned, device) for matrix in cut_out.path.places(t)]
    soft = cut_out.soft.to(device)
    seen = torch.stack([inside(places, planned) for places in there]).float()
    sides, shapes = (
        torch.cat([sampled(x[i : i + 1], there[i], planned) for i in range(len(there))]) for x in (looks, soft)
    )
    weights = shapes * seen * shapes.new_tensor((1 - t, t)).view(2, 1, 1, 1)  # [2, 1, H, W]
    known = seen * shapes.new_tensor((1 - t, t)).view(2, 1, 1, 1)
    alpha = (weights.sum(0) / known.sum(0).clamp(min=1e-6)).clamp(0, 1)
    apart = (sides[0] - sides[1]).abs().mean(0, keepdim=True) > APART
    farther = 1 if t < 0.5 else 0
    lone = weights.clone()
    lone[farther] = torch.where(apart, 0, weights[farther])
    total = lone.sum(0)
    colour = (sides * lone).sum(0) / total.clamp(min=1e-6)
    alpha = torch.where(total > 1e-4, alpha, 0)
    return Drawn(torch.lerp(drawn.picture, colour, alpha), torch.lerp(drawn.sides, sides, alpha))


def averaged(x: Tensor, reach_px: int) -> Tensor:
    """[B, C, H, W]: the mean of the square around each pixel; the edges go on outside.

    By differences of running sums, in float64 so that what is left of them is exact: many times as fast as pooling.
    """
    side = 2 * reach_px + 1
    x = F.pad(x, (reach_px + 1, reach_px) * 2, mode="replicate").double().cumsum(-1)
    x = (x[..., side:] - x[..., :-side]).cumsum(-2)
    return ((x[..., side:, :] - x[..., :-side, :]) / side**2).float()


def _resized(x: Tensor, size: Size) -> Tensor:
    """[C, H, W] -> [C, *size]"""
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x[None], size=size, mode="bilinear", antialias=True)[0]
