"""One pass over a whole clip, each latent seeing all others: what scores a clip, and how that is learnt.

Without a cache and with one block the transformer is the bidirectional Wan 2.1. Its keyframes are `clean`, at timestep
0, which is what this stage teaches; or `noisy` as the rest of the clip, which is all that a text-to-video model has
seen: what a published one says of a clip with clean latents in it, nobody knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from attrs import frozen
from torch import Generator, Tensor

from ..model.dit import Dit, How
from ..model.rope import RopeTable
from .latents import Latents
from .passes import device_of, precision
from .self_rollout import Drawn, Rolling

Told = Literal["clean", "noisy"]
SCORED_T = (0.02, 0.98)
"""Shares of noise within which clips are scored (Self Forcing, `min_step` and `max_step`)."""


@frozen(eq=False)
class Noised:
    """Clips made noisy, one amount for each clip."""

    x: Tensor
    """[B, F, C, H, W]"""
    noise: Tensor
    sigma: Tensor
    """[B, 1, 1, 1, 1]"""
    t: Tensor
    """[B, F], what the network is told: 0 for latents that are told clean."""


def noised(clips: Tensor, known: Sequence[int], told: Told, shift: float, random: Generator) -> Noised:
    """Clips [B, F, C, H, W] at noise drawn evenly, shifted towards more and kept within SCORED_T."""
    even = torch.rand(len(clips), generator=random)
    sigma = (shift * even / (1 + (shift - 1) * even)).clamp(*SCORED_T).to(clips.device)
    noise = torch.randn(clips.shape, generator=random).to(clips.device)
    amount = sigma[:, None, None, None, None]
    x = (1 - amount) * clips + amount * noise
    t = (1000 * sigma)[:, None].repeat(1, clips.shape[1])
    if told == "clean":
        there = list(known)
        x[:, there], t[:, there] = clips[:, there], 0.0
    return Noised(x, noise, amount, t)


def whole_pass(dit: Dit, text: Tensor, noisy: Noised, how: How) -> Tensor:
    """The flow of all latents of the clips, [B, F, C, H, W] float32, under `text` [B, T, text_dim]."""
    latents, _, height, width = noisy.x.shape[1:]
    table = RopeTable(dit.config.head_dim, latents, height // 2, width // 2, noisy.x.device)
    return dit(noisy.x, noisy.t, dit.embed_prompt(text), table.at(0, latents), how=how).float()


def clip_of(latents: Latents, known: Sequence[int], made: Tensor) -> Tensor:
    """Whole clips [B, F, C, H, W] of what was made [B, F - 2, C, H, W] and the keyframes; without an end one, up to its
    place."""
    last = latents.clean.shape[1] - 1
    parts = [latents.keyframe(0), made]
    parts += [latents.keyframe(last)] if last in known else []
    return torch.cat(parts, 1)


@frozen(eq=False)
class BidirectionalStage:
    """Flow matching on whole clips of the pools, keyframes told; some without their caption, for guidance."""

    network: Dit
    rolling: Rolling
    negative: Tensor
    """[T, text_dim], what stands for no caption."""
    negative_share: float = 0.1
    told: Told = "clean"
    shift: float = 5.0

    def loss(self, random: Generator) -> Tensor:
        rolling, device = self.rolling, device_of(self.network)
        drawn = rolling.draw(random, device)
        truth = drawn.latents.clean[:, 1:-1].clone()
        for position in set(drawn.known) - {0, drawn.latents.clean.shape[1] - 1}:
            truth[:, position - 1] = drawn.latents.keyframe(position)[:, 0]
        text = rolling.text(drawn)
        without = torch.rand(len(text), generator=random) < self.negative_share
        text = torch.where(without.to(device)[:, None, None], self.negative.to(text), text)
        return flow_loss(self.network, text, drawn, truth, self.told, self.shift, rolling, random)


def flow_loss(
    dit: Dit, text: Tensor, drawn: Drawn, made: Tensor, told: Told, shift: float, rolling: Rolling, random: Generator
) -> Tensor:
    """Flow matching on clips [B, F - 2, C, H, W] between their keyframes, over the latents that are made."""
    clips = clip_of(drawn.latents, drawn.known, made)
    noisy = noised(clips, drawn.known, told, shift, random)
    with precision(clips.device, rolling.dtype):
        flow = whole_pass(dit, text, noisy, rolling.passes.learning())
    there = drawn.made
    return ((flow - (noisy.noise - clips))[:, there] ** 2).mean()
