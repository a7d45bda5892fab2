"""Names what happens in a clip of the world from its frames alone, to judge a model by.

The shape is tracked by its colour against the ground; the verb whose exact clip between the same keyframes is nearest
is the answer. It is told the scene (what the keyframes show) and never the caption.
"""

from __future__ import annotations

import torch
from attrs import frozen
from torch import Tensor

from .verbs import VERBS
from .world import LEAST_CONTRAST, SIDE_PX, Scenes, allowed, colours, grounds, of_verbs, posts

CORE_PX = 20
"""Pixels that the shape covers most: their mean says how solid it is."""
LEAST_COVER_PX = 4.0
"""Less than this of a shape in a frame, and it was not found."""
_AXIS = torch.arange(SIDE_PX) + 0.5
_UNITS = torch.tensor((6.0, 5.0, 0.25, 0.3))
"""What counts as one step of difference in x and y (pixels), size and solidity (of the first frame's)."""


@frozen(eq=False)
class Sighting:
    """What was seen of the shape in each frame, [B, T, ...]. Size and solidity are relative to the first frame."""

    traits: Tensor
    """[B, T, 4]: x, y, size, solidity."""
    cover: Tensor
    """[B, T, H, W], how much of each pixel it covers."""
    found: Tensor
    """[B, T] bool."""

    @property
    def centre(self) -> Tensor:
        """[B, T, 2] in pixels."""
        return self.traits[..., :2]


def observe(pixels: Tensor, scenes: Scenes) -> Sighting:
    """Track the shape in pixels [B, T, 3, H, W], 0 to 1."""
    ground = grounds(scenes)
    towards = colours(scenes) - ground  # the way from the ground to the shape's colour
    cover = ((pixels - ground) * towards).sum(2) / (towards * towards).sum(2).clamp(min=LEAST_CONTRAST**2)
    cover = cover * (1 - posts(scenes))  # [B, T, H, W]; before a post nothing is seen
    cover = cover - cover.flatten(2).median(-1).values[..., None, None]
    first = cover[:, :1].flatten(2).topk(CORE_PX, -1).values.mean(-1)[..., None, None]
    cover = ((cover / first.clamp(min=0.25)) - 0.12).clamp(0, 1) / 0.88
    mass = cover.sum((-1, -2))
    x = (cover * _AXIS).sum((-1, -2)) / mass.clamp(min=1e-3)
    y = (cover * _AXIS[:, None]).sum((-1, -2)) / mass.clamp(min=1e-3)
    solid = cover.flatten(2).topk(CORE_PX, -1).values.mean(-1)
    size = (cover / solid[..., None, None].clamp(min=0.05)).clamp(0, 1).sum((-1, -2)).sqrt()
    traits = torch.stack((x, y, size / size[:, :1].clamp(min=1), solid), -1)
    return Sighting(traits, cover, mass > LEAST_COVER_PX)


def distances(seen: Sighting, scenes: Scenes, num_frames: int) -> Tensor:
    """How far the clip is from each verb's exact one between the same keyframes, [B, verbs]; infinitely far from what
    cannot be seen in its scene."""
    can = allowed(scenes)
    apart = torch.full(can.shape, torch.inf)
    for verb in range(len(VERBS)):
        rows = can[:, verb].nonzero()[:, 0]
        there = scenes.pick(rows)
        exact = observe(of_verbs(there, torch.full((len(rows),), verb), num_frames).pixels, there)
        step = (seen.traits[rows] - exact.traits) / _UNITS
        both = (seen.found[rows] & exact.found).float()[..., None]
        step = torch.cat((step[..., :3] * both, step[..., 3:]), -1)  # what was not found has no place, only no solidity
        of_frame = (step**2).sum(-1) + 0.01 * ((seen.cover[rows] - exact.cover) ** 2).sum((-1, -2))
        apart[rows, verb] = of_frame[:, 1:-1].mean(1)
    return apart


AT_ONCE = 24
"""Clips whose exact versions are drawn together: each wants one for every verb."""


def name_verbs(pixels: Tensor, scenes: Scenes) -> Tensor:
    """The verb that each clip [B, T, 3, H, W] shows, [B], an index into VERB_NAMES.

    A shape that is lost in the middle counts as fading only where its exact fading clip loses it too.
    """
    named: list[Tensor] = []
    for some in torch.arange(len(scenes)).split(AT_ONCE):
        there = scenes.pick(some)
        named.append(distances(observe(pixels[some], there), there, pixels.shape[1]).argmin(1))
    return torch.cat(named)
