"""Clips that were filmed: a camera and a thing that grow faster, with frames given before and after the gap.

How well the in-betweens join on to them is seen where they meet: how much more the speed changes there, from one frame
to the next, than in the true clip.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from attrs import frozen
from numpy.typing import NDArray
from torch import Tensor

from ..engine.base import Chunk, Engine, Job, Keyframe, checked
from ..model.motion import match, motions, moved
from ..model.rife import from_rgb8
from ..model.ssim import ssim
from . import stills
from .scenes import HEIGHT, WIDTH, CutOut, Pose, Scene, View, moving, still

Picture = NDArray[np.uint8]
GAP = 12
BEFORE, AFTER = 4, 3
"""Frames that are given beyond the keyframes."""


@frozen(eq=False)
class Filmed:
    """A clip whose every frame is known."""

    name: str
    at: Callable[[int], Picture]
    """By frame: 0 is the keyframe before the gap, GAP the one after it."""
    where: Callable[[Picture, Picture], tuple[float, float]]
    """How far, x and y in pixels, what moves has moved from one picture to the next."""


@frozen(eq=False)
class Joined:
    name: str
    jump_px: float
    """Change of speed at the worse end, beyond that of the true clip: pixels a frame."""
    ssim: float
    """Mean over the frames next to the keyframes and the middle one."""


def filmed() -> list[Filmed]:
    """A pan that grows faster, and a disc that is thrown."""
    rocks = stills.rocks()
    disc, ground = stills.disc(), still(rocks, View(640, 380, 640))

    def pan(k: int) -> Picture:
        view = View(480 + 7 * k + 0.35 * k * k, 360 + 2 * k, 640)
        return Scene("", moving(rocks, view, view)).at(0)

    def thrown(k: int) -> Picture:
        pose = Pose(120 + 13 * k, 150 - 12 * k + 0.95 * k * k)
        return Scene("", ground, (CutOut(disc, pose, pose),)).at(0)

    return [Filmed("a pan that grows faster", pan, _by_ground), Filmed("a disc that is thrown", thrown, _by_colour)]


def joined(engine: Engine, clip: Filmed, with_runs: bool) -> Joined:
    """With the frames before and after, or with the two keyframes alone."""
    first, last = (-BEFORE, GAP + AFTER) if with_runs else (0, GAP)
    given = [k for k in range(first, last + 1) if not 0 < k < GAP]
    keyframes = tuple(Keyframe(k - first, clip.at(k)) for k in given)
    job = checked(Job(WIDTH, HEIGHT, last - first + 1, keyframes), engine.info)
    made = {f.index + first: f.image for event in engine.open(job) if isinstance(event, Chunk) for f in event.frames}

    def step(k: int, pictures: Callable[[int], Picture]) -> tuple[float, float]:
        return clip.where(pictures(k), pictures(k + 1))

    def shown(k: int) -> Picture:
        return made[k] if 0 < k < GAP else clip.at(k)

    jumps = [np.subtract(step(k, shown), step(k, clip.at)) for k in (0, GAP - 1)]
    likeness = [ssim(_tensor(made[k]), _tensor(clip.at(k))).item() for k in (1, GAP // 2, GAP - 1)]
    return Joined(clip.name, float(max(np.hypot(*jump) for jump in jumps)), float(np.mean(likeness)))


def _by_ground(before: Picture, after: Picture) -> tuple[float, float]:
    (ground, *_) = motions(match(from_rgb8(np.stack((before, after)), torch.device("cpu"))))
    middle = torch.tensor((WIDTH / 2, HEIGHT / 2), dtype=torch.float64)
    x, y = (moved(ground.matrix, middle) - middle).tolist()
    return x, y


def _by_colour(before: Picture, after: Picture) -> tuple[float, float]:
    (a, b), (x, y) = _middle_of_red(before), _middle_of_red(after)
    return x - a, y - b


def _middle_of_red(picture: Picture) -> tuple[float, float]:
    """The stone is nowhere so red."""
    red, green, blue = np.moveaxis(picture.astype(float), -1, 0)
    weight = (red - green - blue).clip(min=0)
    y, x = np.indices(weight.shape)
    return float((weight * x).sum() / weight.sum()), float((weight * y).sum() / weight.sum())


def _tensor(picture: Picture) -> Tensor:
    return from_rgb8(picture[None].copy(), torch.device("cpu"))[0]
