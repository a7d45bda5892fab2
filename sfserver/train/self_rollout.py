"""Self Forcing: the model learns on clips that it rolls out itself, through the cache that it will be used with.

The rollout is `engine.rollout`'s. Which pass ends a block is drawn for each batch, gradient flows through that pass,
and with `exit+memory` through the keys and values that keyframes and finished blocks leave behind as well: at small
sizes the weights that write them would otherwise drift (Self Gradient Forcing, arXiv 2607.20368, is the same at full
size). The loss here compares with the true clip; `dmd` has the other one. Source: Self Forcing (arXiv 2506.08009).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

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
    """Normal noise for a block of each clip. Who asks for the same again gets the same."""

    @cache
    def draw(block: int, step: int) -> Tensor:
        shape = (len(latents), geometry.made[block].count, *latents.shape[2:])
        return torch.randn(shape, generator=random).to(latents.device)

    return draw


QUIETEST = 0.01
"""Of the loudest, what a choice may be made louder by at the least: less than it is of itself."""


def louder(noise: Noise, loudness: float) -> Noise:
    """The same choice, see `meant`, told so much more clearly in the first block.

    Of itself it is one number in a thousand. Gradient finds it there only once the model makes much of it, and the
    model makes nothing of it before. So a rollout begins where it cannot be overlooked.
    """

    @cache
    def draw(block: int, step: int) -> Tensor:
        its = noise(block, step)
        if block > 0:
            return its
        offset = torch.zeros_like(its)
        offset[:, :, 0] = loudness * its[:, :, 0].mean((1, 2, 3)).sign()[:, None, None, None]
        return its + offset

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
    loud: float = 0.0
    """The most by which the choice that noise makes is made louder, see `meant`; 0 leaves noise as it is."""
    dtype: torch.dtype = torch.bfloat16
    passes: Passes = ON_CPU

    def draw(self, random: Generator, device: torch.device) -> Drawn:
        latents = draw_latents(self.pools, self.shares, self.batch, random, device)
        return Drawn(latents, draw_known(latents, self.end_share, self.middle_share, random))

    def text(self, drawn: Drawn) -> Tensor:
        """Embeddings of the captions [B, T, text_dim], where the clips are."""
        return self.sentences[drawn.latents.sentence].to(drawn.latents.clean.device)

    def noise(self, drawn: Drawn, random: Generator) -> Noise:
        """What the batch is made from."""
        clean = drawn.latents.clean
        noise = batch_noise(clean, clip_geometry(clean, self.per_block), random)
        if not self.loud:
            return noise
        loudness = self.loud * QUIETEST ** float(torch.rand((), generator=random))
        return louder(noise, loudness)

    def passes_drawn(self, random: Generator) -> int:
        """After how many passes each block of a batch is broken off."""
        return 1 + int(torch.randint(len(self.schedule), (1,), generator=random))

    def made(self, dit: Dit, drawn: Drawn, noise: Noise, passes: int, graph: Graph) -> Tensor:
        """What the model makes between start and end with so many passes a block, [B, F - 2, C, H, W]."""
        clean = drawn.latents.clean
        with precision(clean.device, self.dtype):
            made = roll_out(
                dit,
                self.text(drawn),
                {position: drawn.latents.keyframe(position) for position in drawn.known},
                clip_geometry(clean, self.per_block),
                ends_after(self.schedule, passes),
                noise,
                graph,
                self.dtype,
                self.passes.plain() if graph == "none" else self.passes.learning(),
            )
        return made.float()


@frozen(eq=False)
class SelfRolloutStage:
    """Rollouts against the truth: where a sentence leaves something open, against the clip that its noise stands for,
    see `meant`."""

    network: Dit
    rolling: Rolling
    near_weight: float = 4.0

    def loss(self, random: Generator) -> Tensor:
        drawn = self.rolling.draw(random, device_of(self.network))
        passes, noise = self.rolling.passes_drawn(random), self.rolling.noise(drawn, random)
        made = self.rolling.made(self.network, drawn, noise, passes, self.rolling.graph)
        return error_of(made, meant(drawn.latents, noise(0, passes - 1)), drawn, self.near_weight)


def meant(latents: Latents, noise: Tensor) -> Tensor:
    """The clip that each of a batch shall be, [B, F, C, H, W], by the noise of its first block's last pass.

    Two clips satisfy an open sentence. A rollout held to one of them at random learns their mean, which is neither;
    held to the nearer one, it learns to make always the same. So each half of all noise is coupled to one clip: the
    sign of the first channel's mean says which. Then a seed is a choice, and either clip as likely as the other. What
    pairs noise with data beforehand is a coupling (arXiv 2304.14772); this is the coarsest one. The last pass's noise
    it is because each pass mixes its block with fresh noise, in which little is left of what the one before decided.
    """
    if latents.other is None or latents.first is None:
        return latents.clean
    heads = noise[:, :, 0].mean((1, 2, 3)) > 0
    as_drawn = heads == latents.first.to(heads.device)
    return torch.where(as_drawn[:, None, None, None, None], latents.clean, latents.other)


def error_of(made: Tensor, clips: Tensor, drawn: Drawn, near_weight: float) -> Tensor:
    """Squared error of what lies between the keyframes, [B, F - 2, C, H, W] made of `clips` [B, F, C, H, W]."""
    error = (made - clips[:, 1:-1]) ** 2 * near_weights(drawn.latents, near_weight)
    return error[:, [position - 1 for position in drawn.made]].mean()


def ends_after(schedule: Schedule, passes: int) -> Schedule:
    """The same schedule, broken off: the last pass's estimate is the block."""
    return evolve(schedule, timesteps=schedule.timesteps[:passes], sigmas=schedule.sigmas[:passes])
