"""Speed at the ends: where frames before and after a gap are given, the motion goes on as they move.

A gap between two stills says nothing of speed, and everything moves evenly. Given runs do: where the camera and each
cut-out were in them, counted in the same size, angle and place as their paths, gives the slope with which each path
leaves the first keyframe and reaches the second (a cubic Hermite). What RIFE moves has no path: its share of the way is
read off its flow, and bends the time that it is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from attrs import evolve, frozen
from torch import Tensor

from ..model.motion import match, motions
from ..model.rife import FLOW, IFNet
from .fit import followed
from .path import Path
from .picture import CutOut, Layers, Pace
from .plan import JUDGED_PIXELS, at_most, ground_among

MOST_BEFORE, MOST_AFTER = 4, 3
"""Frames of a run that are looked at, its keyframe not counted."""
Follow = Callable[[Tensor, Tensor], Tensor | None]
"""A keyframe and a given frame, [3, h, w] -> the motion [3, 3] from one to the other."""
STEADY = 1e-3
"""Mean square flow, in pixels, below which nothing moves."""


@frozen(eq=False)
class Near:
    """A given frame close to a keyframe."""

    frames: int
    """How many before A, or after B."""
    picture: Tensor
    """[3, h, w], at planning size, on the CPU."""


@frozen(eq=False)
class Runs:
    """What is given beyond the two keyframes."""

    before: tuple[Near, ...]
    after: tuple[Near, ...]
    gap: int
    """Frames from A to B."""

    @classmethod
    def of(cls, before: list[Tensor], after: list[Tensor], gap: int) -> Runs:
        """The frames of each run, from the keyframe outwards: the farthest, and one half way to it."""

        def chosen(run: list[Tensor]) -> tuple[Near, ...]:
            return tuple(Near(k, run[k - 1]) for k in sorted({(len(run) + 1) // 2, len(run)}) if k)

        return cls(chosen(before), chosen(after), gap)


@torch.inference_mode()
def going_on(net: IFNet, layers: Layers, runs: Runs) -> Layers:
    """The same layers, on paths that begin and end at the speed of the runs, where those tell one."""
    if not runs.before and not runs.after:
        return layers
    a, b = layers.pictures.cpu()
    size = layers.planned

    def ground(one: Tensor, other: Tensor) -> Tensor | None:
        return ground_among(motions(match(torch.stack((one, other)))), size)

    if layers.moves:
        return evolve(layers, ground=_bent(layers.ground, a, b, runs, (ground, ground)), cut_outs=_things(layers, runs))
    return evolve(layers, pace=_pace(net, layers, runs), cut_outs=_things(layers, runs))


def _things(layers: Layers, runs: Runs) -> tuple[CutOut, ...]:
    a, b = layers.pictures.cpu()
    bent: list[CutOut] = []
    for one in layers.cut_outs:
        of_a, of_b = (
            lambda here, there, shape=shape: followed(torch.stack((here, there)), shape) for shape in one.shapes.cpu()
        )
        bent.append(evolve(one, path=_bent(one.path, a, b, runs, (of_a, of_b))))
    return tuple(bent)


def _bent(path: Path, a: Tensor, b: Tensor, runs: Runs, follow: tuple[Follow, Follow]) -> Path:
    """The path with the slopes of the runs at its ends; where one cannot be followed that end stays as it is."""
    ways = (
        (0.0, -1, [(near.frames, follow[0](a, near.picture)) for near in runs.before]),
        (1.0, 1, [(near.frames, follow[1](b, near.picture)) for near in runs.after]),
    )
    bends = torch.zeros(2, 4, dtype=torch.float64)
    for side, (at, sign, seen) in enumerate(ways):
        here = path.state(at)
        points: list[tuple[float, Tensor]] = []
        for frames, matrix in seen:
            if matrix is not None:
                there = evolve(path, matrix=matrix @ path.matrix if side else matrix).state(1.0)
                there[3] += math.tau * torch.round((here[3] - there[3]) / math.tau)
                points.append((at + sign * frames / runs.gap, there))
        if points:
            bends[side] = slope(at, here, points) - path.slope(at)
    return evolve(path, bends=bends) if bends.any() else path


def slope(at: float, here: Tensor, points: list[tuple[float, Tensor]]) -> Tensor:
    """Of the line or parabola through `here` and one or two points more, at the first of them."""
    (first, one), *further = points
    line = (one - here) / (first - at)
    if not further:
        return line
    (second, other), *_ = further
    bow = ((other - one) / (second - first) - line) / (second - at)
    return line + bow * (at - first)


def _pace(net: IFNet, layers: Layers, runs: Runs) -> Pace:
    """Of what RIFE moves: the share of the way that its flow has come by each given frame."""
    device = net.encode.cnn0.weight.device
    slopes: list[float] = []
    for side, (run, sign) in enumerate(((runs.before, -1), (runs.after, 1))):
        here, there = layers.pictures[side].cpu(), layers.pictures[1 - side].cpu()
        whole = _flow(net, here, there, device)
        length = whole.square().mean()
        points: list[tuple[float, Tensor]] = []
        if length > STEADY:
            for near in run:
                share = (_flow(net, here, near.picture, device) * whole).mean() / length
                points.append((side + sign * near.frames / runs.gap, side - sign * share))
        slopes.append(float(slope(side, torch.tensor(float(side)), points)) if points else 1.0)
    return Pace.of(*slopes)


def _flow(net: IFNet, here: Tensor, there: Tensor, device: torch.device) -> Tensor:
    """[1, 2, H, W]: from each pixel of a small copy of one picture to where the other shows it."""
    pair = net.pair(at_most(torch.stack((here, there)), JUDGED_PIXELS).to(device))
    flow = net.estimate(pair, 0.0).flow[:, FLOW // 2 :, : pair.height, : pair.width]
    return flow.cpu().double()
