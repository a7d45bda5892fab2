"""Self Forcing: the model learns on clips that it rolls out itself, through the cache that it will be used with.

The rollout is `engine.rollout`'s. Which pass ends a block is drawn for each batch, gradient flows through that pass,
and with `exit+memory` through the keys and values that keyframes and finished blocks leave behind as well: at small
sizes the weights that write them would otherwise drift (Self Gradient Forcing, arXiv 2607.20368, is the same at full
size). The loss compares with the true clip. Source: Self Forcing (arXiv 2506.08009).
"""

from __future__ import annotations

import torch
from attrs import evolve, frozen
from torch import Generator, Tensor

from ..engine.geometry import Geometry, plan
from ..engine.noise import Noise, Schedule
from ..engine.rollout import Graph, Guide, Made, Memory, Networks, Prompt, Rollout, Sampling
from ..model.cache import GraphCache
from ..model.dit import Dit, How
from .latents import Latents
from .teacher import attend, draw_latents, near_weights


def roll_out(
    dit: Dit,
    text: Tensor,
    keyframes: tuple[Tensor, Tensor | None],
    geometry: Geometry,
    schedule: Schedule,
    noise: Noise,
    graph: Graph = "none",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The latents between two keyframes [B, 1, C, H, W] each, [B, F - 2, C, H, W]; without an end one, up to its place.

    `text` is [B, T, text_dim]. `dtype` is that of keys and values.
    """
    start, end = keyframes
    last = geometry.latents - 1
    rollout = Rollout(
        Networks(dit, how=How(attend) if graph != "none" else How()),
        geometry,
        Sampling(schedule),
        [Prompt(dit.embed_prompt(text))],
        noise,
        Guide(known={0: start} if end is None else {0: start, last: end}),
        Memory(window=geometry.latents, sink=1),
        dtype=dtype,
        graph=graph,
        new_cache=GraphCache,
        batch=len(start),
    )
    made: list[Tensor] = []
    for event in rollout.run():
        if isinstance(event, Made) and event.block.start > 0:
            made.append(event.latents)
            if event.block.stop == last:  # what comes after is the end keyframe itself
                break
    return torch.cat(made, 1)


def clip_geometry(latents: Tensor) -> Geometry:
    """Of clips [B, F, C, H, W] that begin with a given latent and go on one by one."""
    height, width = (8 * side for side in latents.shape[-2:])
    return plan(width, height, 4 * (latents.shape[1] - 1) - 2, per_block=1, given=[1])


def batch_noise(latents: Tensor, random: Generator) -> Noise:
    """Normal noise for one latent of each clip, whichever pass asks."""
    shape = (len(latents), 1, *latents.shape[2:])
    return lambda block, step: torch.randn(shape, generator=random)


@frozen(eq=False)
class SelfRolloutStage:
    """Rollouts of the clips of `pools`, drawn by their `shares`, against the truth."""

    network: Dit
    pools: tuple[Latents, ...]
    sentences: Tensor
    schedule: Schedule
    shares: tuple[float, ...] = (1.0,)
    batch: int = 24
    graph: Graph = "exit+memory"
    end_share: float = 0.8
    near_weight: float = 4.0
    dtype: torch.dtype = torch.bfloat16

    def loss(self, random: Generator) -> Tensor:
        latents, with_end = draw_latents(self.pools, self.shares, self.batch, self.end_share, random)
        passes = 1 + int(torch.randint(len(self.schedule), (1,), generator=random))
        with torch.autocast("cpu", self.dtype, enabled=self.dtype != torch.float32):
            made = roll_out(
                self.network,
                self.sentences[latents.sentence],
                (latents.clean[:, :1], latents.clean[:, -1:] if with_end else None),
                clip_geometry(latents.clean),
                ends_after(self.schedule, passes),
                batch_noise(latents.clean, random),
                self.graph,
                self.dtype,
            )
        return nearest_error(made.float(), latents, self.near_weight)


def nearest_error(made: Tensor, latents: Latents, near_weight: float) -> Tensor:
    """Squared error of what lies between the keyframes, of each clip against the nearer of what its sentence allows.

    The mean of what is allowed is not allowed itself; against the nearest, the noise may decide which one it becomes.
    """
    weights = near_weights(latents, near_weight)
    apart = [
        ((made - allowed[:, 1:-1]) ** 2 * weights).flatten(1).mean(1) for allowed in (latents.clean, latents.other)
    ]
    return torch.minimum(*apart).mean()


def ends_after(schedule: Schedule, passes: int) -> Schedule:
    """The same schedule, broken off: the last pass's estimate is the block."""
    return evolve(schedule, timesteps=schedule.timesteps[:passes], sigmas=schedule.sigmas[:passes])
