"""What the dials of a keyframe cost: passes of a clip with each of them over the same passes with none."""

from __future__ import annotations

import statistics
import time
from functools import partial

import torch
from attrs import evolve

from ..engine.geometry import Geometry, plan
from ..engine.guide import Focus, Guide, Pull
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
FOCUS = Focus(strength=1.0, time_scale=0.8)


def measure() -> list[Measure]:
    """A measure for each dial, in share of the passes' time."""
    dit = tiny.randomised(Dit(tiny.CONFIG), 1)
    by_block = partial(plan, *SIZE, 4 * LATENTS - 3)
    streamed, whole = by_block(tiny.PRESET.per_block, [1]), by_block(None)
    first, last = (torch.randn(streamed.latent_shape(1), generator=torch.Generator().manual_seed(i)) for i in (1, 2))
    plain = Guide(known={0: first, LATENTS - 1: last}, keyframes=frozenset({0, LATENTS - 1}))
    measures = [_cost(dit, streamed, f"pull: {name}", evolve(plain, pull=pull), plain) for name, pull in DIALS.items()]
    seen = evolve(plain, known={})
    return [*measures, _cost(dit, whole, "focus", evolve(seen, focus=FOCUS), seen)]


def _cost(dit: Dit, geometry: Geometry, name: str, turned: Guide, plain: Guide) -> Measure:
    _seconds(dit, geometry, turned)  # warm
    ratios = [_seconds(dit, geometry, turned) / _seconds(dit, geometry, plain) for _ in range(PAIRS)]
    tokens = geometry.longest * geometry.tokens_per_latent
    how = f"passes of {tokens} tokens with it over the same without, a clip of {geometry.latents} latents"
    return Measure(f"keyframe's {name}", statistics.median(ratios), 1.03, "low", "x", how)


def _seconds(dit: Dit, geometry: Geometry, guide: Guide) -> float:
    """Of the process, all passes over one clip; without a cache where it is one block."""
    text = Prompt(dit.embed_prompt(torch.zeros(1, 1, tiny.CONFIG.text_dim)))
    sampling = Sampling(make_schedule((1000, 500), 5.0))
    noise, memory = seeded_noise(0, geometry), Memory(geometry.latents, sink=1) if guide.known else None
    rollout = Rollout(Networks(dit), geometry, sampling, [text], noise, guide, memory)
    began = time.process_time()  # what else runs on the machine takes part in neither
    for _ in rollout.run():
        pass
    return time.process_time() - began
