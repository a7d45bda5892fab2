"""One in-between: the ground as its camera saw it, what else moves as RIFE sees it, cut-outs on top.

ground's path -> where each pixel lies in both keyframes, and which of them shows it
              -> where the keyframes agree on the ground, their own pixels; RIFE blurs even what is aligned
RIFE          -> begins from there and finds what moves besides; where all agrees it is not asked at all
cut-outs      -> taken out of the keyframes first, drawn over the ground last, each on its own path

What is as good for every time is made once: the stage. Without a camera and without cut-outs the picture is RIFE's, bit
for bit.

Pictures have RGB, from which alone everything is decided, and perhaps n channels that move along (`looks.py`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from attrs import evolve, frozen
from attrs import field as attr
from torch import Tensor

from ..model.motion import moved
from ..model.rife import COLOURS, IFNet, Pair, Start
from ..model.windows import averaged, widened
from .path import Box, Path, Size, field, hermite, inside, sampled, size_of, standing, whole

SURE, ODD = 0.03, 0.06
"""Mean difference of the keyframes on the ground up to which their own pixels count fully; from the second on they do
not count at all."""
AROUND_PX = 4
"""How far around a pixel that difference is taken."""
NEAR_PX = 64
"""Within this distance of something odd RIFE knows better, unless it says the same."""
SAME, SAME_AROUND_PX = 0.03, 6
ENOUGH = 0.5
"""Where the keyframes' own pixels count for more than this all over, RIFE is not asked."""
COVERED, EDGE_PX = 0.25, 3
"""Share of a cut-out's edge from which on it hides the ground, and how far around its shape that reaches: pixels there
are mixed of both."""
MOST_PACE = 3.0
"""A cubic from 0 to 1 that starts and ends no faster than this never turns back."""
APART = 0.1
"""Difference of a cut-out's two looks from which on only the nearer keyframe's is shown: a blend would be a ghost."""


@frozen(eq=False)
class CutOut:
    """A thing that moves as one, in front of the ground."""

    path: Path
    shapes: Tensor
    """[2, 1, h, w]: 1 where it is in A and in B, at planning size."""

    @property
    def area_px(self) -> float:
        return float(self.shapes.sum())


@frozen
class Pace:
    """How RIFE's share of the way goes with time: even, or faster or slower at the ends."""

    leaving: float = 1.0
    reaching: float = 1.0
    """Speed at A and at B, in parts of the even one."""

    @classmethod
    def of(cls, leaving: float, reaching: float) -> Pace:
        """Within what never turns back."""
        return cls(min(max(leaving, 0.0), MOST_PACE), min(max(reaching, 0.0), MOST_PACE))

    def at(self, t: float) -> float:
        at_start, at_end = hermite(t)
        return t + at_start * (self.leaving - 1) + at_end * (self.reaching - 1)


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
    pace: Pace = Pace()
    """Of what neither camera nor cut-out moves."""

    @property
    def planned(self) -> Size:
        return size_of(self.pictures)


@frozen(eq=False)
class Stage:
    """Two keyframes and their layers, made ready: all that does not ask for a time."""

    given: Pair
    ground: Pair
    """The pair without its cut-outs."""
    layers: Layers
    small: Tensor
    """[2, 3, h, w]: the ground at planning size."""
    hidden: Tensor | None
    """[2, 1, h, w]: 1 where a cut-out hides the ground of A and of B; None without cut-outs."""
    sprites: tuple[_Sprite, ...]
    """The cut-outs, from the back to the front."""
    standing: _Ground | None
    """The ground at any time, where its camera does not move."""

    @property
    def size(self) -> Size:
        return self.given.height, self.given.width

    @property
    def carries_more(self) -> bool:
        """Channels that move along beside the colours."""
        return self.given.pictures.shape[1] > COLOURS


@frozen(eq=False)
class Drawn:
    """A picture at a time, and what each keyframe alone would have made of it."""

    picture: Tensor
    """[3 + n, H, W]"""
    sides: Tensor
    """[2, 3 + n, H, W]"""


@frozen(eq=False)
class _Ground:
    """What the camera alone says of a time."""

    start: Start | None
    """Where RIFE begins: the flow of the ground, and who sees it. None where it begins from nothing."""
    own: _OwnPixels | None
    """None where the keyframes' pixels may not be shown."""


@frozen(eq=False)
class _OwnPixels:
    """The ground out of each keyframe, brought to a time, where one is blind the other's."""

    sides: Tensor
    """[2, 3 + n, H, W]"""
    small: Tensor
    """[2, 3, h, w]: the same at planning size."""
    trust: Tensor
    """[1, 1, h, w], 0 to 1: how far both show the same."""
    near: Tensor
    """[1, 1, h, w]: 1 close to where they do not."""

    @property
    def agree(self) -> bool:
        """Everywhere: RIFE has nothing to add."""
        return bool((self.trust * (1 - self.near)).min() > ENOUGH)

    def drawn(self, t: float) -> Drawn:
        return Drawn(torch.lerp(self.sides[0], self.sides[1], t), self.sides)


@frozen(eq=False)
class _Sprite:
    """A cut-out ready to be drawn."""

    path: Path
    soft: Tensor
    """[2, 1, h, w]: its shapes with an edge of two pixels."""
    corners: tuple[Tensor, Tensor]
    """[4, 2] each: of the smallest rectangle around it in A and in B."""


def between(net: IFNet, stage: Stage, t: float, both_ways: bool = False) -> Drawn:
    """The picture at time t, of the size of the given pair."""
    ground = stage.standing or _ground(stage, t)
    own = ground.own
    drawn = own.drawn(t) if own and own.agree else _by_rife(net, stage, ground, t, both_ways)
    for sprite in stage.sprites:
        drawn = _with_cut_out(drawn, stage, sprite, t)
    return drawn


def staged(net: IFNet, pair: Pair, layers: Layers) -> Stage:
    """`pair` and what is known of it, ready for `between`; `layers` may be planned at any other size."""
    pictures, hidden = layers.pictures.to(pair.looks.device), None
    ground, small = pair, pictures
    if layers.cut_outs:
        shapes = torch.stack([one.shapes for one in layers.cut_outs]).amax(0).to(pair.looks.device)
        hidden = widened(shapes, EDGE_PX)
        ground = net.pair(_without(pair.pictures[..., : pair.height, : pair.width], hidden))
        small = _without(pictures, hidden)
    sprites = tuple(_sprite(one, pair.looks.device) for one in reversed(layers.cut_outs))
    stage = Stage(pair, ground, layers, small, hidden, sprites, None)
    return stage if layers.moves else evolve(stage, standing=_ground(stage, 0))


# The ground


def _without(pictures: Tensor, hidden: Tensor) -> Tensor:
    """[2, 3 + n, H, W] without what is `hidden`, [2, 1, h, w]: what lies around it goes on."""
    return _filled(pictures, 1 - F.interpolate(hidden, size=size_of(pictures), mode="nearest"))


def _filled(pictures: Tensor, known: Tensor) -> Tensor:
    """[B, C, H, W], [B, 1, H, W] -> the same where `known` is 1, else the mean of the nearest that is."""
    if bool(known.all()) or min(pictures.shape[-2:]) == 1:
        return pictures
    share = F.avg_pool2d(known, 2, ceil_mode=True)
    coarse = F.avg_pool2d(pictures * known, 2, ceil_mode=True) / share.clamp(min=1e-6)
    coarse = _filled(coarse, (share > 0).float())
    fine = F.interpolate(coarse, size=pictures.shape[-2:], mode="bilinear")
    return torch.lerp(fine, pictures, known)


def _ground(stage: Stage, t: float) -> _Ground:
    layers, looks, size = stage.layers, stage.ground.looks, stage.size
    matrices = layers.ground.places(t)
    there = [field(matrix, size, layers.planned, looks.device, whole(size_of(looks))) for matrix in matrices]
    seen = _seen(there, stage, whole(size))
    start = Start(_flow(there, stage), seen) if layers.moves or layers.cut_outs else None
    if not layers.is_exact:
        return _Ground(start, None)
    rows, columns = whole(size).of
    places = [one[rows, columns] for one in there]
    sides = _brought(stage.ground.pictures[..., rows, columns], places, seen[..., rows, columns], layers)
    small = sides[:, :COLOURS]
    if size != layers.planned:
        places = [field(matrix, layers.planned, layers.planned, looks.device) for matrix in matrices]
        small = _brought(stage.small, places, _seen(places, stage), layers)
    difference = averaged((small[0] - small[1]).abs().mean(0)[None, None], AROUND_PX)
    trust = ((ODD - difference) / (ODD - SURE)).clamp(0, 1)
    return _Ground(start, _OwnPixels(sides, small, trust, widened((difference >= ODD).float(), NEAR_PX)))


def _flow(there: list[Tensor], stage: Stage) -> Tensor:
    """[1, 4, H, W], padded: from each pixel to its places in A and B, in pixels of the picture."""
    (height, width), planned, padded = stage.size, stage.layers.planned, whole(size_of(stage.ground.looks))
    here = field(torch.eye(3, dtype=torch.float64), stage.size, planned, there[0].device, padded)
    per_px = here.new_tensor((width / planned[1], height / planned[0]))
    return torch.cat([(places - here) * per_px for places in there], -1).permute(2, 0, 1)[None]


def _seen(there: list[Tensor], stage: Stage, in_picture: Box | None = None) -> Tensor:
    """[2, 1, H, W]: 1 where a keyframe shows the ground, and where neither does or no picture is, in both."""
    seen = torch.stack([inside(places, stage.layers.planned) for places in there])
    if stage.hidden is not None:
        for side, places in enumerate(there):
            seen[side] &= sampled(stage.hidden[side : side + 1], places, stage.layers.planned)[0] < COVERED
    nowhere = ~seen.any(0)
    if in_picture is not None:
        nowhere[..., in_picture.bottom :, :] = True
        nowhere[..., in_picture.right :] = True
    return (seen | nowhere).float()


def _brought(looks: Tensor, there: list[Tensor], seen: Tensor, layers: Layers) -> Tensor:
    """[2, C, H, W] -> [2, C, h, w]: the ground out of each keyframe, or the other where it is blind."""
    if layers.moves:
        sides = [sampled(looks[i : i + 1], places, layers.planned, "bicubic") for i, places in enumerate(there)]
        most = looks.amax((0, 2, 3)).clamp(min=1).view(-1, 1, 1)  # of light that moves along it may be more
        looks = torch.minimum(torch.cat(sides).clamp(min=0), most)
    return torch.lerp(looks.flip(0), looks, seen)


# What else moves


def _by_rife(net: IFNet, stage: Stage, ground: _Ground, t: float, both_ways: bool) -> Drawn:
    pair, start = stage.ground, ground.start
    estimate = net.estimate(pair, stage.layers.pace.at(t), start, both_ways)
    sides = net.sides(pair, estimate, start)
    picture = net.mixed(pair, estimate, sides)
    own = ground.own
    if own is None:
        return Drawn(picture, sides)
    off = (_resized(picture[:COLOURS], stage.layers.planned) - torch.lerp(own.small[0], own.small[1], t)).abs().mean(0)
    same = averaged(off[None, None], SAME_AROUND_PX) < SAME
    trust = _resized((own.trust * ((own.near == 0) | same))[0], stage.size)
    by_ground = own.drawn(t)
    return Drawn(torch.lerp(picture, by_ground.picture, trust), torch.lerp(sides, by_ground.sides, trust))


# Cut-outs


def _sprite(cut_out: CutOut, device: torch.device) -> _Sprite:
    soft = averaged(cut_out.shapes, 1)
    corners: list[Tensor] = []
    for shape in soft[:, 0]:
        y, x = (torch.nonzero(shape.amax(axis))[:, 0] for axis in (1, 0))
        (left, right), (top, bottom) = ((float(k.min()), float(k.max()) + 1) for k in (x, y))
        corners.append(torch.tensor(((left, top), (right, top), (left, bottom), (right, bottom)), dtype=torch.float64))
    return _Sprite(cut_out.path, soft.to(device), (corners[0], corners[1]))


def _box(sprite: _Sprite, stage: Stage, t: float) -> Box:
    """Where the sprite may be seen at time t."""
    back = [torch.linalg.inv(matrix) for matrix in sprite.path.places(t)]
    places = torch.cat([moved(matrix, corners) for matrix, corners in zip(back, sprite.corners, strict=True)])
    (height, width), planned = stage.size, stage.layers.planned
    x, y = (places / places.new_tensor((planned[1] / width, planned[0] / height))).unbind(1)
    left, right = (int(k.clamp(0, width)) for k in (x.min() - 1, x.max() + 2))
    top, bottom = (int(k.clamp(0, height)) for k in (y.min() - 1, y.max() + 2))
    return Box(top, left, bottom, right)


def _with_cut_out(drawn: Drawn, stage: Stage, sprite: _Sprite, t: float) -> Drawn:
    box, planned = _box(sprite, stage, t), stage.layers.planned
    if box.top >= box.bottom or box.left >= box.right:
        return drawn
    looks = stage.given.pictures[..., : stage.size[0], : stage.size[1]]
    there = [field(matrix, stage.size, planned, looks.device, box) for matrix in sprite.path.places(t)]
    seen = torch.stack([inside(places, planned) for places in there]).float()
    sides, shapes = (
        torch.cat([sampled(x[i : i + 1], there[i], planned) for i in range(len(there))]) for x in (looks, sprite.soft)
    )
    known = seen * seen.new_tensor((1 - t, t)).view(2, 1, 1, 1)  # [2, 1, h, w]
    weights = shapes * known
    alpha = (weights.sum(0) / known.sum(0).clamp(min=1e-6)).clamp(0, 1)
    apart = (sides[0] - sides[1])[:COLOURS].abs().mean(0, keepdim=True) > APART
    weights[1 if t < 0.5 else 0] *= ~apart
    total = weights.sum(0)
    colour = (sides * weights).sum(0) / total.clamp(min=1e-6)
    alpha = torch.where(total > 1e-4, alpha, 0)
    rows, columns = box.of
    drawn = Drawn(drawn.picture.clone(), drawn.sides.clone())
    for under, over in ((drawn.picture, colour), (drawn.sides, sides)):
        part = under[..., rows, columns]
        part.copy_(torch.lerp(part, over, alpha))
    return drawn


def _resized(x: Tensor, size: Size) -> Tensor:
    """[C, H, W] -> [C, *size]"""
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x[None], size=size, mode="bilinear", antialias=True)[0]
