"""Teacher forcing: one forward pass over clean and noisy latents under a mask, equal to block by block with a cache.

Every noisy latent sees both keyframes, the clean latents before it, and itself; every clean latent those before it and
itself. So one pass trains all latents of a clip as if each came right after a perfect past. Source: Self Forcing
(arXiv 2506.08009), its stage before the self rollout; `CausVid` (arXiv 2412.07772) for the mask.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch
from attrs import frozen
from torch import Generator, Tensor

from ..model.attention import Attend
from ..model.dit import Dit, How, TextKv, after_attention
from ..model.rope import RopeTable
from .latents import Latents, draw_known, draw_latents
from .passes import attend, device_of, precision

Kind = Literal["start", "end", "clean", "noisy"]


@frozen
class Row:
    """One latent of the pass: what it is, its position in the clip, and which of the noisy copies it belongs to."""

    kind: Kind
    position: int
    copy: int = 0

    def sees(self, other: Row) -> bool:
        if other.kind == "start":
            return True
        if other.kind == "end":
            return self.kind != "start"
        if other.kind == "clean":
            return self.kind in ("clean", "noisy") and other.position < self.position + (self.kind == "clean")
        return self == other


def rows_of(latents: int, copies: int, with_end: bool) -> tuple[Row, ...]:
    """The latents of a pass over a clip of `latents`, keyframes counted; `copies` noisy ones of each that is made."""
    last = latents - 1
    end = (Row("end", last),) if with_end else ()
    clean = (Row("clean", position) for position in range(1, last - 1))  # nobody looks back at the last
    noisy = (Row("noisy", position, copy) for copy in range(copies) for position in range(1, last))
    return (Row("start", 0), *end, *clean, *noisy)


@cache
def mask_of(latents: int, copies: int, with_end: bool) -> Tensor:
    """[R, R] bool: whether the row of the pass sees the column."""
    rows = rows_of(latents, copies, with_end)
    return torch.tensor([[row.sees(other) for other in rows] for row in rows])


def teacher_pass(
    dit: Dit, text: list[TextKv], clean: Tensor, noisy: Tensor, sigma: Tensor, with_end: bool = True
) -> Tensor:
    """The flow of noisy latents [B, K, F - 2, C, H, W] at `sigma` [B, K, F - 2], each after the clean ones before it.

    `clean` [B, F, C, H, W] are the clip's latents, keyframes first and last.
    """
    (batch, latents), copies = clean.shape[:2], noisy.shape[1]
    rows = rows_of(latents, copies, with_end)
    lead = len(rows) - noisy.shape[1] * noisy.shape[2]
    x = torch.cat((clean[:, [row.position for row in rows[:lead]]], noisy.flatten(1, 2)), 1)
    t = torch.cat((sigma.new_zeros(batch, lead), 1000 * sigma.flatten(1)), 1)
    height, width = clean.shape[-2] // 2, clean.shape[-1] // 2
    table = RopeTable(dit.config.head_dim, latents, height, width, clean.device)
    how = masked(mask_of(latents, copies, with_end).to(clean.device), height * width)
    flow = dit(x, t, text, table.gather([row.position for row in rows]), how=how)
    return flow[:, lead:].unflatten(1, (copies, latents - 2))


def masked(mask: Tensor, tokens_per_latent: int) -> How:
    """Self-attention under a mask [R, R] of latents; attention to the prompt as it is."""
    per_token = mask.repeat_interleave(tokens_per_latent, 0).repeat_interleave(tokens_per_latent, 1)
    bias = torch.zeros(per_token.shape, device=mask.device).masked_fill_(~per_token, -1e4)

    def self_attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend(q, k, v, bias)

    def rest(block, x: Tensor, attended: Tensor, modulation: Tensor, text: TextKv, _: Attend) -> Tensor:
        return after_attention(block, x, attended, modulation, text, attend)

    return How(attend=self_attend, after_attention=rest)


@frozen(eq=False)
class TeacherStage:
    """Flow matching on the clips of `pools`, drawn by their `shares`; see `teacher_pass`."""

    network: Dit
    pools: tuple[Latents, ...]
    sentences: Tensor
    """Embeddings of every caption [S, T, text_dim]."""
    shares: tuple[float, ...] = (1.0,)
    batch: int = 24
    copies: int = 2
    shift: float = 5.0
    end_share: float = 0.8
    """Of batches that are told their end keyframe."""
    pure_noise_share: float = 0.25
    """Of latents that are noise and nothing else, as every block begins."""
    near_weight: float = 4.0
    """What an error near the shape counts beyond one elsewhere."""
    dtype: torch.dtype = torch.bfloat16

    def loss(self, random: Generator) -> Tensor:
        device = device_of(self.network)
        latents = draw_latents(self.pools, self.shares, self.batch, random, device)
        with_end = len(draw_known(latents, self.end_share, 0.0, random)) > 1
        truth = latents.clean[:, None, 1:-1]  # [B, 1, F - 2, C, H, W]
        shape = (len(latents), self.copies, truth.shape[2])
        even = torch.rand(shape, generator=random)
        even[torch.rand(shape, generator=random) < self.pure_noise_share] = 1.0
        sigma = (self.shift * even / (1 + (self.shift - 1) * even)).to(device)
        per_latent = sigma[..., None, None, None]
        noise = torch.randn(*shape, *truth.shape[3:], generator=random).to(device)
        noisy = (1 - per_latent) * truth + per_latent * noise
        with precision(device, self.dtype):
            text = self.network.embed_prompt(self.sentences[latents.sentence].to(device))
            flow = teacher_pass(self.network, text, latents.clean, noisy, sigma, with_end).float()
        error = (noisy - per_latent * flow - truth) / per_latent.clamp(min=0.3)
        return (error**2 * near_weights(latents, self.near_weight)[:, None]).mean()


def near_weights(latents: Latents, near_weight: float) -> Tensor:
    """What each place counts, [B, F - 2, 1, H, W], 1 in the mean."""
    weights = 1 + near_weight * latents.near.float()[:, :, None]
    return weights / weights.mean()
