"""What the dials of a keyframe's pull cost: passes of a clip with each of them over the same passes with none."""

from __future__ import annotations

import statistics
import time

import torch

from ..engine.geometry import Geometry, plan
from ..engine.guide import AT_REST, Guide, Pull
from ..engine.noise import make_schedule, seeded_noise
from ..engine.rollout import Memory, Networks, Rollout, Sampling
from ..engine.script import Prompt
from ..model.dit import Dit
from . import tiny
from .report import Measure

SIZE, LATENTS = (320, 192), 10
"""A preview: 240 tokens a latent."""
PAIRS = 5
DIALS = {"strength and fade": Pull(strength=1.0, fade=0.5), "reach": Pull(reach=3)}


def measure() -> list[Measure]:
    """A measure for each dial, in share of the passes' time."""
    dit = tiny.randomised(Dit(tiny.CONFIG), 1)
    geometry = plan(*SIZE, num_frames=4 * LATENTS - 3, per_block=tiny.PRESET.per_block, given=[1])
    return [_cost(dit, geometry, name, pull) for name, pull in DIALS.items()]


def _cost(dit: Dit, geometry: Geometry, name: str, pull: Pull) -> Measure:
    _seconds(dit, geometry, pull)  # warm
    ratios = [_seconds(dit, geometry, pull) / _seconds(dit, geometry, AT_REST) for _ in range(PAIRS)]
    tokens = geometry.longest * geometry.tokens_per_latent
    how = f"passes of {tokens} tokens with it over the same without, a clip of {geometry.latents} latents"
    return Measure(f"keyframe's pull: {name}", statistics.median(ratios), 1.03, "low", "x", how)


def _seconds(dit: Dit, geometry: Geometry, pull: Pull) -> float:
    """All passes over one clip."""
    first, last = (torch.randn(geometry.latent_shape(1), generator=torch.Generator().manual_seed(i)) for i in (1, 2))
    guide = Guide(known={0: first, geometry.latents - 1: last}, pull=pull)
    text = Prompt(dit.embed_prompt(torch.zeros(1, 1, tiny.CONFIG.text_dim)))
    sampling = Sampling(make_schedule((1000, 500), 5.0))
    noise, memory = seeded_noise(0, geometry), Memory(geometry.latents, sink=1)
    rollout = Rollout(Networks(dit), geometry, sampling, [text], noise, guide, memory)
    began = time.perf_counter()
    for _ in rollout.run():
        pass
    return time.perf_counter() - began
