"""Timesteps and the noise that belongs to them.

Flow matching: a noisy latent is x = (1 - sigma) clean + sigma noise, the network answers with the flow noise - clean,
so clean = x - sigma flow. A timestep t is what the network is told, 0 to 1000; sigma is looked up where it was trained.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from .geometry import Geometry
from .unipc import Past, step, unipc_sigmas

TRAINING_STEPS = 1000
Sampler = Literal["renoise", "euler", "unipc"]
Advance = Callable[[int, Tensor, Tensor, Callable[[], Tensor]], Tensor]
"""(i, x, flow, fresh noise) -> x for step i + 1; after the last step, the clean latent."""

Noise = Callable[[int, int], Tensor]
"""(block, step) -> normal noise [B, F, C, H, W] for that block: step 0 starts it, step i comes after i passes."""


@frozen
class Schedule:
    """The passes that make one block: what the network is told, and how noisy that is."""

    timesteps: tuple[float, ...]
    sigmas: tuple[float, ...]
    sampler: Sampler = "renoise"
    """`renoise` mixes each estimate of the clean latent with fresh noise, which few-step distilled models expect;
    `euler` follows the flow, `unipc` too, with an eye on the steps before."""

    def __len__(self) -> int:
        return len(self.timesteps)

    def clean(self, i: int, x: Tensor, flow: Tensor) -> Tensor:
        """The network's estimate of the clean latent at step i."""
        return x - self.sigmas[i] * flow

    def begin(self) -> Advance:
        """The steps of one block, taken in order. What one must remember of those before lives and ends with it."""
        if self.sampler != "unipc":
            return self.advance
        past, sigmas = Past(), (*self.sigmas, 0.0)
        return lambda i, x, flow, fresh_noise: step(sigmas, i, x, flow, past)

    def advance(self, i: int, x: Tensor, flow: Tensor, fresh_noise: Callable[[], Tensor]) -> Tensor:
        """As `Advance`, by the samplers that look at nothing but this step."""
        assert self.sampler != "unipc", "its steps belong together: see begin"
        if i + 1 == len(self):
            return self.clean(i, x, flow)
        if self.sampler == "euler":
            return x + (self.sigmas[i + 1] - self.sigmas[i]) * flow
        return mix(self.clean(i, x, flow), fresh_noise(), self.sigmas[i + 1])


def mix(clean: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """A clean latent made noisy."""
    return (1 - sigma) * clean + sigma * noise


def training_sigmas(shift: float) -> Tensor:
    """[1000] float32, falling from 1: evenly spaced, then shifted towards noise (flow matching's timestep shift)."""
    even = torch.linspace(1, 0, TRAINING_STEPS + 1)[:-1]
    return shift * even / (1 + (shift - 1) * even)


def make_schedule(steps: Sequence[float], shift: float, warp: bool = True, sampler: Sampler = "renoise") -> Schedule:
    """A schedule of `steps`, from 1000 down, as a checkpoint's authors write them.

    With `warp` a step k means the k-th training timestep from the end, so 750 at shift 5 is told as 937.5; without, it
    is told as it is. Its sigma is that of the nearest training timestep either way.
    """
    sigmas = training_sigmas(shift)
    timesteps = TRAINING_STEPS * sigmas
    if warp:
        with_end = torch.cat((timesteps, torch.zeros(1)))
        told = [float(with_end[TRAINING_STEPS - int(k)]) for k in steps]
    else:
        told = [float(k) for k in steps]
    return Schedule(tuple(told), tuple(float(sigmas[(timesteps - t).abs().argmin()]) for t in told), sampler)


def even_schedule(count: int, shift: float, sampler: Sampler = "euler") -> Schedule:
    """`count` steps evenly spaced before the shift, for models that were not distilled."""
    even = torch.linspace(1, 0, count + 1)[:-1]
    sigmas = shift * even / (1 + (shift - 1) * even)
    return Schedule(tuple((TRAINING_STEPS * sigmas).tolist()), tuple(sigmas.tolist()), sampler)


def unipc_schedule(count: int, shift: float) -> Schedule:
    """The steps of Wan 2.1's own `generate.py`, which tells the network whole timesteps, cut off."""
    sigmas = unipc_sigmas(count, shift)[:-1]
    return Schedule(tuple(float(int(TRAINING_STEPS * sigma)) for sigma in sigmas), sigmas, "unipc")


def seeded_noise(seed: int, geometry: Geometry, device: torch.device | str = "cpu") -> Noise:
    """Noise that depends on (seed, block, step) alone: the same on every device, in any order, after a resume."""

    def draw(block: int, step: int) -> Tensor:
        shape = geometry.latent_shape(geometry.made[block].count)
        values = torch.from_numpy(np.random.default_rng((seed, block, step)).standard_normal(shape, dtype=np.float32))
        if torch.device(device).type == "cuda":  # from pageable memory, the copy would wait for the pass under way
            return values.pin_memory().to(device, non_blocking=True)
        return values.to(device)

    return draw
