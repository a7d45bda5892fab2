"""The Wan 2.1 transformer, top-down: noisy latents, a timestep and a prompt go in, the flow comes out.

Submodules and parameters carry the names of the official checkpoints. They hold weights and mathematics; what depends
on the clip (the prompt's keys and values, the KV cache, rotations, hints of a VACE branch) comes as an argument.

Letters of shapes: B batch, F latents, C channels, H W latent height and width, L tokens (frame-major, then row, then
column), T text rows, N heads, D head width, d model width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from attrs import frozen
from einops import rearrange
from torch import Tensor, nn

from .attention import Attend, Group, attend, attend_in_groups
from .cache import KvCache
from .config import PATCH, DitConfig
from .rope import Rotation, rotate

_, PATCH_H, PATCH_W = PATCH


class TimeEmbedding(NamedTuple):
    """A timestep as the network sees it, float32. F is 1 where all latents share one timestep."""

    head: Tensor
    """[B, F, d]"""
    blocks: Tensor
    """[B, F, 6, d]"""


@frozen
class Nag:
    """Strengths of Normalized Attention Guidance (arXiv 2505.21179): a negative prompt without a second pass."""

    scale: float = 11.0
    """How far to step away from the negative prompt; 1 is the plain model."""
    tau: float = 2.5
    """The largest allowed ratio of a token's L1 norm after the step to the one before."""
    alpha: float = 0.25
    """Share of the result that is guided."""

    def as_tensor(self, device: torch.device | str = "cpu") -> Tensor:
        """The three, float32 [3]. Compiled code would be compiled again for every other number, not for a tensor's."""
        return torch.tensor((self.scale, self.tau, self.alpha), device=device)


class TextKv(NamedTuple):
    """A prompt as one layer's cross-attention sees it, computed once per prompt."""

    k: Tensor
    """[B, T, N, D]"""
    v: Tensor
    negative: tuple[Tensor, Tensor] | None = None
    """The negative prompt's k and v, where attention guidance is on."""
    nag: Tensor | None = None
    """Its strengths, `Nag.as_tensor`."""


class Dit(nn.Module):
    """Causal or bidirectional, with the same weights: causal is who calls it block by block with a cache."""

    def __init__(self, config: DitConfig):
        super().__init__()
        self.config = config
        d = config.dim
        self.patch_embedding = PatchEmbedding(config.in_channels, d)
        self.text_embedding = nn.Sequential(nn.Linear(config.text_dim, d), nn.GELU("tanh"), nn.Linear(d, d))
        self.time_embedding = nn.Sequential(nn.Linear(config.freq_dim, d), nn.SiLU(), nn.Linear(d, d))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(d, 6 * d))
        self.blocks = cast("Sequence[Block]", nn.ModuleList(Block(config) for _ in range(config.layers)))
        self.head = Head(config)

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        text: Sequence[TextKv],
        rotation: Rotation,
        cache: KvCache | None = None,
        hints: Sequence[Tensor] = (),
        how: How | None = None,
        groups: Sequence[Group] = (),
    ) -> Tensor:
        """The flow (noise minus clean) of latents x, [B, F, C, H, W] float32.

        `t` [B, F] or [B, 1] on the scale 0 to 1000, not rounded. `text` holds one entry a layer, from `embed_prompt`.
        With a `cache`, x is the block that was seated last, and attends to everything held; without one, to itself.
        `hints`, from a VACE branch, are added after the layers that the config names, in their order. `groups` of keys
        have biases in self-attention; without any, all that is held counts as it is.
        """
        how = how or EAGER
        tokens = self.embed_latents(x)  # [B, L, d]
        time = self.embed_time(t)
        modulations = modulations_of(self.blocks, time.blocks)
        hint_of = dict(zip(self.config.vace_layers, hints, strict=True)) if hints else {}
        for i, block in enumerate(self.blocks):
            tokens = block(tokens, modulations[i], text[i], rotation, how, cache, i, groups)
            if i in hint_of:
                tokens = tokens + hint_of[i]
        return self.to_latents(self.head(tokens, time.head), x.shape)

    def embed_latents(self, x: Tensor) -> Tensor:
        """[B, F, C, H, W] to the residual stream, [B, L, d] float32."""
        return self.patch_embedding(x)

    def embed_time(self, t: Tensor) -> TimeEmbedding:
        """Timesteps [B, F] to what modulates the blocks and the head."""
        head = self.time_embedding(sinusoid(t, self.config.freq_dim))
        return TimeEmbedding(head, self.time_projection(head).unflatten(-1, (6, -1)))

    def embed_text(self, embeds: Tensor) -> Tensor:
        """Output of the text encoder [B, T, text_dim] to [B, text_len, d]; rows beyond `text_len` are cut off.

        Missing rows are zeros here and a constant key afterwards; there is no mask, and the model counts on that.
        """
        padded = F.pad(embeds, (0, 0, 0, self.config.text_len - embeds.shape[1]))
        return self.text_embedding(padded.to(self.compute_dtype))

    def embed_prompt(self, embeds: Tensor, negative: Tensor | None = None, nag: Nag | None = None) -> list[TextKv]:
        """Each layer's keys and values of a prompt, once for all passes; with `negative`, attention guidance is on."""
        away_from = self.embed_text(negative) if negative is not None else None
        return text_keys(self.blocks, self.embed_text(embeds), away_from, nag)

    def to_latents(self, patches: Tensor, shape: torch.Size) -> Tensor:
        """The head's patches [B, L, 4 C], channel fastest, to [B, F, C, H, W]."""
        return rearrange(
            patches,
            "B (F h w) (p q C) -> B F C (h p) (w q)",
            F=shape[1],
            h=shape[3] // PATCH_H,
            p=PATCH_H,
            q=PATCH_W,
        )

    @property
    def compute_dtype(self) -> torch.dtype:
        """Of the large matrices, of keys and values."""
        return self.blocks[0].self_attn.q.weight.dtype

    def set_compute_dtype(self, dtype: torch.dtype) -> Dit:
        """Cast the large matrices to `dtype`. What handles time, gates and the residual stream stays float32."""
        for part in (self.patch_embedding, self.time_embedding, self.time_projection, self.head):
            part.float()
        self.text_embedding.to(dtype)
        for block in self.blocks:
            block.set_compute_dtype(dtype)
        return self


class Block(nn.Module):
    """Self-attention, attention to the prompt, feed-forward. The timestep modulates the first and the last."""

    def __init__(self, config: DitConfig):
        super().__init__()
        d = config.dim
        self.modulation = nn.Parameter(torch.zeros(1, 6, d))
        self.norm1 = LayerNorm(d, config.eps)
        self.self_attn = SelfAttention(config)
        self.norm3 = LayerNorm(d, config.eps, affine=True)
        self.cross_attn = CrossAttention(config)
        self.norm2 = LayerNorm(d, config.eps)
        self.ffn = nn.Sequential(nn.Linear(d, config.ffn_dim), nn.GELU("tanh"), nn.Linear(config.ffn_dim, d))

    def forward(
        self,
        x: Tensor,
        modulation: Tensor,
        text: TextKv,
        rotation: Rotation,
        how: How,
        cache: KvCache | None = None,
        layer: int = 0,
        groups: Sequence[Group] = (),
    ) -> Tensor:
        """The residual stream x [B, L, d] float32, one block further; `modulation` is its own of `modulations_of`.

        Only what lies between the two stages knows of the cache: they see the same shapes in every pass of a clip.
        """
        q, k, v = how.before_attention(self, x, modulation, rotation, rotate_keys=cache is None or not cache.relative)
        if cache is not None:
            k, v = cache.extend(layer, k, v)
        attended = attend_in_groups(q, k, v, groups) if groups else how.attend(q, k, v)
        return how.after_attention(self, x, attended, modulation, text, how.attend)

    def set_compute_dtype(self, dtype: torch.dtype) -> None:
        for part in (self.self_attn, self.cross_attn, self.ffn):
            part.to(dtype)
        self.norm3.float()
        self.modulation.data = self.modulation.data.float()


def modulations_of(blocks: Sequence[Block], time: Tensor) -> Tensor:
    """What modulates each of the blocks at the timesteps `time` [B, F, 6, d]: [blocks, B, F, 6, d], which are a shift,
    one plus a scale and a gate, twice. For all blocks at once: for each by itself it would be four small kernels.
    """
    modulations = torch.stack([block.modulation for block in blocks])[:, :, None] + time
    modulations[..., 1::3, :].add_(1)
    return modulations


def before_attention(
    block: Block, x: Tensor, modulation: Tensor, rotation: Rotation, rotate_keys: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values [B, L, N, D] of x [B, L, d] under its `modulation` [B, F, 6, d]."""
    shift, factor, *_ = modulation.unbind(-2)
    q, k, v = block.self_attn.project(modulate(block.norm1(x), shift, factor))
    return rotate(q, rotation), rotate(k, rotation) if rotate_keys else k, v


def after_attention(
    block: Block, x: Tensor, attended: Tensor, modulation: Tensor, text: TextKv, attend: Attend
) -> Tensor:
    """The rest of the block: x [B, L, d] and its self-attention's answer [B, L, N, D] to the next x."""
    _, _, gate, ffn_shift, ffn_factor, ffn_gate = modulation.unbind(-2)
    x = add_gated(x, block.self_attn.o(attended.flatten(-2)), gate)
    x = x + block.cross_attn(block.norm3(x), text, attend)
    return add_gated(x, block.ffn(modulate(block.norm2(x), ffn_shift, ffn_factor).to(attended.dtype)), ffn_gate)


@frozen(eq=False)
class How:
    """How a pass is executed, not what it computes: the attention kernel, and the stages as they are or compiled."""

    attend: Attend = attend
    before_attention: Callable[..., tuple[Tensor, Tensor, Tensor]] = before_attention
    after_attention: Callable[..., Tensor] = after_attention

    @classmethod
    def compiled(cls, attend: Attend = attend, backend: str = "inductor") -> How:
        """The stages through torch.compile. Their shapes are static: one compilation serves all layers and blocks.

        Every size of picture is one more compilation, and more than torch allows by default are wanted: beyond its
        limit it would silently run uncompiled.
        """
        torch._dynamo.config.recompile_limit = max(COMPILATIONS, torch._dynamo.config.recompile_limit)
        compiler = partial(torch.compile, dynamic=False, backend=backend)
        return cls(attend, compiler(before_attention), compiler(after_attention))


COMPILATIONS = 64
"""Of each stage in one process: sizes of picture, times the handful of shapes that a clip of one size needs."""
EAGER = How()


class SelfAttention(nn.Module):
    """The projections around self-attention. Queries and keys are normalised over all heads together."""

    def __init__(self, config: DitConfig):
        super().__init__()
        self.heads = config.heads
        self.q, self.k, self.v, self.o = (nn.Linear(config.dim, config.dim) for _ in range(4))
        self.norm_q, self.norm_k = (RmsNorm(config.dim, config.eps) for _ in range(2))

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, L, d] to q, k, v [B, L, N, D], not rotated."""
        x = to_weights(x, self.q)  # once for all three
        q, k, v = self.norm_q(self.q(x)), self.norm_k(self.k(x)), self.v(x)
        return split_heads(q, self.heads), split_heads(k, self.heads), split_heads(v, self.heads)


class CrossAttention(SelfAttention):
    """Attention to the prompt, whose keys and values were computed beforehand by `embed`."""

    def embed(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """Text rows [B, T, d] to k, v [B, T, N, D]."""
        return split_heads(self.norm_k(self.k(text)), self.heads), split_heads(self.v(text), self.heads)

    def forward(self, x: Tensor, text: TextKv, attend: Attend) -> Tensor:
        """[B, L, d] to what the prompt adds to it."""
        q = split_heads(self.norm_q(project(self.q, x)), self.heads)
        z = attend(q, text.k, text.v).flatten(-2)
        if text.negative is not None and text.nag is not None:
            z = guide_attention(z, attend(q, *text.negative).flatten(-2), text.nag)
        return self.o(z)


def guide_attention(z: Tensor, z_negative: Tensor, nag: Tensor) -> Tensor:
    """Step from the negative prompt's answer away, no further than tau allows. All [B, L, d], z's dtype; nag [3]."""
    scale, tau, alpha = nag.unbind()
    positive = z.float()
    guided = positive * scale - z_negative.float() * (scale - 1)
    limit = tau * positive.abs().sum(-1, keepdim=True)
    norm = guided.abs().sum(-1, keepdim=True)
    guided = guided * (limit / norm.clamp(min=1e-12)).clamp(max=1.0)
    return torch.lerp(positive, guided, alpha).to(z.dtype)


class Head(nn.Module):
    """The last norm and projection, under the timestep before its projection to six."""

    def __init__(self, config: DitConfig):
        super().__init__()
        self.modulation = nn.Parameter(torch.zeros(1, 2, config.dim))
        self.norm = LayerNorm(config.dim, config.eps)
        self.head = nn.Linear(config.dim, PATCH_H * PATCH_W * config.out_channels)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """[B, L, d] and time [B, F, d] to patches [B, L, 4 C] float32."""
        shift, scale = (self.modulation + time[..., None, :]).unbind(-2)
        return self.head(modulate(self.norm(x), shift, 1 + scale))


class PatchEmbedding(nn.Module):
    """A convolution whose stride is its kernel, hence one matrix product over patches of 2 x 2."""

    def __init__(self, channels: int, dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(dim, channels, *PATCH))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        """[B, F, C, H, W] to [B, L, d] float32."""
        patches = rearrange(x, "B F C (h p) (w q) -> B (F h w) (C p q)", p=PATCH_H, q=PATCH_W)
        return F.linear(patches.float(), self.weight.flatten(1), self.bias)


class LayerNorm(nn.Module):
    """Over the model width, in float32; without weights unless `affine`."""

    def __init__(self, dim: int, eps: float, affine: bool = False):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim)) if affine else None
        self.bias = nn.Parameter(torch.zeros(dim)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)


class RmsNorm(nn.Module):
    """Root mean square over the model width. The weight comes after the cast back: Wan's order, seen in bfloat16."""

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], eps=self.eps) * self.weight


def modulate(x: Tensor, shift: Tensor, factor: Tensor) -> Tensor:
    """x [B, L, d] multiplied and shifted by its latent's vectors, [B, F, d] each with F a divisor of L."""
    per_latent = x.unflatten(1, (shift.shape[1], -1))
    return torch.addcmul(shift[:, :, None], per_latent, factor[:, :, None]).flatten(1, 2)


def add_gated(x: Tensor, y: Tensor, gate: Tensor) -> Tensor:
    """x + y * gate in float32; x, y [B, L, d], gate [B, F, d]."""
    frames = (gate.shape[1], -1)
    return torch.addcmul(x.unflatten(1, frames), y.unflatten(1, frames), gate[:, :, None]).flatten(1, 2)


def split_heads(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1))


def to_weights(x: Tensor, linear: nn.Linear) -> Tensor:
    """x in the precision that `linear` computes in."""
    return x.to(linear.weight.dtype)


def project(linear: nn.Linear, x: Tensor) -> Tensor:
    return linear(to_weights(x, linear))


def sinusoid(t: Tensor, width: int) -> Tensor:
    """Timesteps [...] to [..., width] float32, cosines first. Angles in float64: t reaches 1000 and is not whole."""
    half = width // 2
    precise = torch.float32 if t.device.type == "mps" else torch.float64  # MPS has no float64; the error is 1e-5
    frequencies = 10000.0 ** (-torch.arange(half, dtype=precise, device=t.device) / half)
    angles = t.to(precise)[..., None] * frequencies
    return torch.cat((angles.cos(), angles.sin()), dim=-1).float()


def text_keys(
    blocks: Sequence[Block], text: Tensor, negative: Tensor | None = None, nag: Nag | None = None
) -> list[TextKv]:
    """Each block's keys and values of embedded text [B, T, d]."""
    if negative is None:
        return [TextKv(*block.cross_attn.embed(text)) for block in blocks]
    strengths = (nag or Nag()).as_tensor(text.device)
    return [TextKv(*block.cross_attn.embed(text), block.cross_attn.embed(negative), strengths) for block in blocks]
