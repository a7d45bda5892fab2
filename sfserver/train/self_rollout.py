"""Self Forcing: the model learns on clips that it rolls out itself, through the cache that it will be used with.

The rollout is `engine.rollout`'s. Which pass ends a block is drawn for each batch, gradient flows through that pass,
and with `exit+memory` through the keys and values that keyframes and finished blocks leave behind as well: at small
sizes the weights that write them would otherwise drift (Self Gradient Forcing, arXiv 2607.20368, is the same at full
size). The loss here compares with the true clip; `dmd` has the other one. Source: Self Forcing (arXiv 2506.08009).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from attrs import evolve, frozen
from torch import Generator, Tensor

from ..engine.geometry import Geometry, plan
from ..engine.noise import Noise, Schedule
from ..engine.rollout import Graph, Guide, Made, Memory, Networks, Prompt, Rollout, Sampling
from ..model.cache import GraphCache
from ..model.dit import EAGER, Dit, How
from .latents import Latents, draw_known, draw_latents
from .passes import ON_CPU, Passes, device_of, precision
from .teacher import near_weights


def roll_out(
    dit: Dit,
    text: Tensor,
    known: Mapping[int, Tensor],
    geometry: Geometry,
    schedule: Schedule,
    noise: Noise,
    graph: Graph = "none",
    dtype: torch.dtype = torch.float32,
    how: How = EAGER,
) -> Tensor:
    """The latents of a clip between its first and its last, [B, F - 2, C, H, W].

    `text` is [B, T, text_dim]. `known` has keyframes [B, 1, C, H, W] by position, 0 among them; those in the middle
    come out as they are. `dtype` is that of keys and values.
    """
    last = geometry.latents - 1
    rollout = Rollout(
        Networks(dit, how=how),
        geometry,
        Sampling(schedule),
        [Prompt(dit.embed_prompt(text))],
        noise,
        Guide(known=known),
        Memory(window=geometry.latents, sink=1),
        device=text.device,
        dtype=dtype,
        graph=graph,
        new_cache=GraphCache,
        batch=len(text),
    )
    made: list[Tensor] = []
    for event in rollout.run():
        if isinstance(event, Made) and event.block.start > 0:
            made.append(event.latents)
            if event.block.stop >= last:  # what comes after is the end keyframe itself
                break
    return torch.cat(made, 1)[:, : last - 1]


def clip_geometry(latents: Tensor, per_block: int = 1) -> Geometry:
    """Of clips [B, F, C, H, W] that begin with a given latent."""
    height, width = (8 * side for side in latents.shape[-2:])
    return plan(width, height, 4 * (latents.shape[1] - 1) - 2, per_block, given=[1])


def batch_noise(latents: Tensor, geometry: Geometry, random: Generator) -> Noise:
    """Normal noise for a block of each clip, whichever pass asks."""

    def draw(block: int, step: int) -> Tensor:
        shape = (len(latents), geometry.made[block].count, *latents.shape[2:])
        return torch.randn(shape, generator=random).to(latents.device)

    return draw


@frozen(eq=False)
class Drawn:
    """Clips of a batch, and which of their latents are told: keyframes' positions, in order of time."""

    latents: Latents
    known: tuple[int, ...]

    @property
    def made(self) -> list[int]:
        """Positions that a rollout makes; without an end keyframe, up to its place all the same."""
        return [position for position in range(1, self.latents.clean.shape[1] - 1) if position not in self.known]


@frozen(eq=False)
class Rolling:
    """How clips of `pools`, drawn by their `shares`, are rolled out between their keyframes."""

    pools: tuple[Latents, ...]
    sentences: Tensor
    """Embeddings of every caption [S, T, text_dim]."""
    schedule: Schedule
    shares: tuple[float, ...] = (1.0,)
    batch: int = 24
    per_block: int = 1
    graph: Graph = "exit+memory"
    end_share: float = 0.8
    """Of batches that are told their end keyframe."""
    middle_share: float = 0.3
    """Of those that are told keyframes in between, where the pool has them."""
    dtype: torch.dtype = torch.bfloat16
    passes: Passes = ON_CPU

    def draw(self, random: Generator, device: torch.device) -> Drawn:
        latents = draw_latents(self.pools, self.shares, self.batch, random, device)
        return Drawn(latents, draw_known(latents, self.end_share, self.middle_share, random))

    def text(self, drawn: Drawn) -> Tensor:
        """Embeddings of the captions [B, T, text_dim], where the clips are."""
        return self.sentences[drawn.latents.sentence].to(drawn.latents.clean.device)

    def made(self, dit: Dit, drawn: Drawn, random: Generator, graph: Graph) -> Tensor:
        """What the model makes between start and end, broken off after a pass that is drawn, [B, F - 2, C, H, W]."""
        clean = drawn.latents.clean
        passes = 1 + int(torch.randint(len(self.schedule), (1,), generator=random))
        geometry = clip_geometry(clean, self.per_block)
        with precision(clean.device, self.dtype):
            made = roll_out(
                dit,
                self.text(drawn),
                {position: drawn.latents.keyframe(position) for position in drawn.known},
                geometry,
                ends_after(self.schedule, passes),
                batch_noise(clean, geometry, random),
                graph,
                self.dtype,
                self.passes.plain() if graph == "none" else self.passes.learning(),
            )
        return made.float()


@frozen(eq=False)
class SelfRolloutStage:
    """Rollouts against the truth. What leaves something open is rolled out twice, see `error_of`."""

    network: Dit
    rolling: Rolling
    near_weight: float = 4.0

    def loss(self, random: Generator) -> Tensor:
        drawn, twins = with_twins(self.rolling.draw(random, device_of(self.network)))
        made = self.rolling.made(self.network, drawn, random, self.rolling.graph)
        return error_of(made, drawn, twins, self.near_weight)


def with_twins(drawn: Drawn) -> tuple[Drawn, Tensor]:
    """The batch, at its end once more every clip whose sentence leaves something open, and those clips' rows [P]."""
    latents = drawn.latents
    if latents.other is None:
        return drawn, torch.empty(0, dtype=torch.long)
    opened = (latents.other != latents.clean).flatten(1).any(1).nonzero()[:, 0].cpu()  # sentences are on the CPU
    return evolve(drawn, latents=latents.pick(torch.cat((torch.arange(len(latents)), opened)))), opened


def error_of(made: Tensor, drawn: Drawn, twins: Tensor, near_weight: float) -> Tensor:
    """Squared error of what lies between the keyframes, [B + P, F - 2, C, H, W] made for a batch `with_twins`.

    Two clips satisfy an open sentence. Their mean does not, and the nearer of them is always the same one once the
    model leans to it. So twins, told the same and with noise of their own, are compared with both: one with each,
    whichever way round is less. The noise must then decide, and evenly. It is the squared 2-Wasserstein distance
    between two samples and the two clips that the sentence means.
    """
    latents, there = drawn.latents, [position - 1 for position in drawn.made]
    weights = near_weights(latents, near_weight)

    def apart(clip: Tensor) -> Tensor:
        return ((made - clip[:, 1:-1]) ** 2 * weights)[:, there].flatten(1).mean(1)

    error = apart(latents.clean)
    if not len(twins):
        return error.mean()
    assert latents.other is not None
    other = apart(latents.other)
    clips, again = len(error) - len(twins), slice(len(error) - len(twins), None)
    both = torch.minimum(error[twins] + other[again], other[twins] + error[again])
    closed = torch.ones(clips, dtype=torch.bool, device=error.device).index_fill(0, twins.to(error.device), False)
    return (error[:clips][closed].sum() + both.sum()) / len(error)


def ends_after(schedule: Schedule, passes: int) -> Schedule:
    """The same schedule, broken off: the last pass's estimate is the block."""
    return evolve(schedule, timesteps=schedule.timesteps[:passes], sigmas=schedule.sigmas[:passes])
