"""What lies between two keyframes: the ground's camera, the cut-outs, how much of it all explains, and a line that
says so.

motions found by matching -> the ground's among them -> is RIFE better off with it? -> what moves in front of it
                          -> how alike the two keyframes are when both are brought to the middle
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from attrs import evolve, frozen
from torch import Tensor

from ..model.motion import Motion, match, motions, moved, spread
from ..model.rife import IFNet, Pair
from ..model.ssim import ssim_map
from .cutouts import Candidate, far_from, is_lost, is_one_thing, shapes_of
from .flat import flat_shapes
from .limbs import with_limbs
from .path import Path, Size, size_of
from .picture import Layers, between, staged

PLANNED_PIXELS = 512 * 288
"""A larger pair is planned on a copy of about this size: what it tells does not get better with more."""
JUDGED_PIXELS = 256 * 144
"""And what comes of it is judged on one of this size, where small faults of what moved do not count."""
CELL_PX, LEAST_CELLS, RIVAL = 48, 4, 0.6
"""A ground is seen in this many cells, and in this share of those of the motion that is seen in most."""
MOVES_PX, STANDS_PX = 6.0, 1.0
"""Below the first RIFE follows by itself; below the second nothing moves at all."""
BETTER = 0.8
"""With the camera the keyframes differ by less than this share of what they do without."""
UNLIKE = 0.5
"""Likeness below which a place counts as not explained."""


@frozen(eq=False)
class Plan:
    """All that is decided about a pair of keyframes before any frame of it is made."""

    layers: Layers
    distance: float
    """1 - SSIM of A and B, both brought to the middle: 0 where they are one picture."""
    unexplained: float
    """Share of the picture where they do not look alike."""

    @property
    def findings(self) -> str:
        """One line for people."""
        count = len(self.layers.cut_outs)
        cut_outs = [f"{count} cut-out{'s' if count > 1 else ''}"] if count else []
        return "; ".join([_camera_said(self.layers), *cut_outs, f"{100 * self.unexplained:.0f} % unexplained"])


@torch.inference_mode()
def plan(net: IFNet, pair: Pair) -> Plan:
    """Looks at the two keyframes of `pair`: matching on the CPU, RIFE where its weights are.

    Raises FloatingPointError where the network makes values that are not finite.
    """
    small = at_most(pair.looks[:, :3, : pair.height, : pair.width], PLANNED_PIXELS)
    judge = Judge(net, pair if size_of(small) == (pair.height, pair.width) else net.pair(small))
    on_cpu = small.cpu()
    found = motions(match(on_cpu))
    best = judge(_standing(on_cpu, found))
    camera = _camera(on_cpu, found)
    if camera is not None:
        best = judge.better(best, _with_cut_outs(judge, camera, found), BETTER)
    if not best.layers.moves:
        best = judge.better(best, _with_cut_outs(judge, best.layers, found))
    return best


def at_most(pictures: Tensor, pixels: int) -> Tensor:
    """[2, 3, H, W], or a smaller copy of about so many pixels."""
    height, width = pictures.shape[-2:]
    shrink = math.sqrt(pixels / (width * height))
    if shrink >= 1:
        return pictures
    size = max(1, round(height * shrink)), max(1, round(width * shrink))
    return F.interpolate(pictures, size=size, mode="bilinear", antialias=True)


class Judge:
    """Says how alike the two keyframes are when both are brought to the middle: by all of RIFE, on a small copy."""

    def __init__(self, net: IFNet, planned: Pair) -> None:
        self.net = net
        self.planned = planned
        pictures = planned.looks[:, :3, : planned.height, : planned.width]
        self.pair = net.pair(at_most(pictures, JUDGED_PIXELS))

    def __call__(self, layers: Layers) -> Plan:
        likeness = ssim_map(*between(self.net, staged(self.net, self.pair, layers), 0.5).sides)
        if not torch.isfinite(likeness).all():
            raise FloatingPointError("the network's pictures are not finite")
        return Plan(layers, 1 - likeness.mean().item(), (likeness < UNLIKE).float().mean().item())

    def better(self, plan: Plan, layers: Layers, share: float = 1.0) -> Plan:
        """What is known of `layers` if it leaves less than this share of what `plan` does."""
        other = self(layers) if layers is not plan.layers else plan
        return other if other.distance < share * plan.distance else plan


# The ground


def _standing(pictures: Tensor, found: list[Motion]) -> Layers:
    """No camera; where the ground stands still, its own pixels may be shown."""
    ground = ground_among(found, size_of(pictures))
    stands = ground is not None and moves_px(ground, size_of(pictures)) < STANDS_PX
    return Layers(pictures, is_exact=stands)


def _camera(pictures: Tensor, found: list[Motion]) -> Layers | None:
    """The camera that moves, where there is one."""
    height, width = size_of(pictures)
    ground = ground_among(found, (height, width))
    if ground is None or moves_px(ground, (height, width)) <= MOVES_PX:
        return None
    middle = torch.tensor((width / 2, height / 2), dtype=torch.float64)
    return Layers(pictures, Path(ground, middle, True), moves=True, is_exact=True)


def ground_among(found: list[Motion], size: Size) -> Tensor | None:
    """Of the motions that are seen widely, the one that moves least."""
    cells = [spread(motion.a, CELL_PX) for motion in found]
    least = max(LEAST_CELLS, RIVAL * max(cells, default=0))
    wide = [motion.matrix for motion, count in zip(found, cells, strict=True) if count >= least]
    return min(wide, key=lambda matrix: moves_px(matrix, size), default=None)


def moves_px(matrix: Tensor, size: Size) -> float:
    """How far the motion moves a picture of that size: root mean square."""
    y, x = (torch.arange(side / 32, side, side / 16, dtype=torch.float64) for side in size)
    places = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)
    return (moved(matrix, places) - places).square().sum(-1).mean().sqrt().item()


# Cut-outs


def _with_cut_outs(judge: Judge, layers: Layers, found: list[Motion]) -> Layers:
    pictures, ground = layers.pictures, layers.ground.matrix
    candidates = [Candidate.of(motion) for motion in found]
    candidates += flat_shapes(pictures, [ground, *(one.matrix for one in candidates)])
    candidates = far_from(ground, candidates)
    if not candidates:
        return layers
    shapes = shapes_of(pictures, ground, candidates)
    rigid = [with_limbs(pictures, ground, one) for one in shapes if is_one_thing(pictures, one)]
    if not rigid:
        return layers
    middle = between(judge.net, staged(judge.net, judge.planned, layers), 0.5).picture.cpu()
    lost = tuple(one for one in rigid if is_lost(pictures, one, middle))
    return evolve(layers, cut_outs=lost) if lost else layers


# What is said of it


def _camera_said(layers: Layers) -> str:
    if not layers.moves:
        return "camera: still" if layers.is_exact else "camera: none"
    ground, (height, width) = layers.ground, layers.planned
    to_left, to_top = (ground.anchor - moved(ground.matrix, ground.anchor)).tolist()
    parts: list[str] = []
    if abs(math.log(ground.size)) > math.log(1.03):
        parts.append(f"push {ground.size:.1f}x" if ground.size > 1 else f"pull {1 / ground.size:.1f}x")
    if abs(ground.turn) > math.radians(1):
        parts.append(f"roll {abs(math.degrees(ground.turn)):.0f}°")
    if max(abs(to_left) / width, abs(to_top) / height) > 0.02 or not parts:
        across = abs(to_left) >= abs(to_top)
        way = ("right" if to_left > 0 else "left") if across else ("down" if to_top > 0 else "up")
        share = abs(to_left) / width if across else abs(to_top) / height
        parts.append(f"{'pan' if across else 'tilt'} {100 * share:.0f} % {way}")
    return "camera: " + ", ".join(parts[:2])
