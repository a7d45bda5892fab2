"""The VACE branch: a second, shorter stack of blocks that reads the keyframes and whispers hints to the first.

Official names again (`vace_patch_embedding`, `vace_blocks`), in a module of its own: a checkpoint's `vace_*` tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .attention import Group
from .config import DitConfig
from .dit import EAGER, Block, How, PatchEmbedding, TextKv, modulations_of, project, text_keys
from .rope import Rotation

MASK_CELL = 8
"""Pixels of a mask that one latent pixel stands for, per side; they become its 64 channels."""


class Vace(nn.Module):
    """One block for each of the config's `vace_layers`. Sees the noisy latents too, so hints differ in every pass."""

    def __init__(self, config: DitConfig):
        super().__init__()
        assert config.vace_layers, "this config has no VACE branch"
        self.config = config
        self.vace_patch_embedding = PatchEmbedding(config.vace_in_channels, config.dim)
        blocks = (VaceBlock(config, first=i == 0) for i in range(len(config.vace_layers)))
        self.vace_blocks = cast("Sequence[VaceBlock]", nn.ModuleList(blocks))

    def forward(
        self,
        tokens: Tensor,
        time: Tensor,
        context: Tensor,
        text: Sequence[TextKv],
        rotation: Rotation,
        how: How = EAGER,
        groups: Sequence[Group] = (),
    ) -> list[Tensor]:
        """Hints [B, L, d], one per entry of `vace_layers`.

        `tokens` are the noisy latents' embedding [B, L, d], `time` their blocks' time embedding [B, F, 6, d], `context`
        what is known of the same latents, [B, F, 96, H, W]. All of them attend to each other; there is no cache here.
        `groups` of the tokens have biases, as in `Dit.forward`.
        """
        enter = self.vace_blocks[0].before_proj
        assert enter is not None
        stream = tokens + project(enter, self.vace_patch_embedding(context))
        hints = []
        modulations = modulations_of(self.vace_blocks, time)
        for block, modulation, text_kv in zip(self.vace_blocks, modulations, text, strict=True):
            stream = block(stream, modulation, text_kv, rotation, how, groups=groups)
            hints.append(project(block.after_proj, stream))
        return hints

    def embed_prompt(self, text: Tensor) -> list[TextKv]:
        """Keys and values of a prompt for each block, from `Dit.embed_text` [B, T, d]."""
        return text_keys(self.vace_blocks, text)

    def set_compute_dtype(self, dtype: torch.dtype) -> Vace:
        """As `Dit.set_compute_dtype`: float32 where little is computed, `dtype` for the large matrices."""
        self.vace_patch_embedding.float()
        for block in self.vace_blocks:
            block.set_compute_dtype(dtype)
        return self


class VaceBlock(Block):
    """A block with a projection out of its stream, and for the first one a projection into it."""

    def __init__(self, config: DitConfig, first: bool):
        super().__init__(config)
        self.before_proj = nn.Linear(config.dim, config.dim) if first else None
        self.after_proj = nn.Linear(config.dim, config.dim)

    def set_compute_dtype(self, dtype: torch.dtype) -> None:
        super().set_compute_dtype(dtype)
        self.after_proj.to(dtype)
        if self.before_proj is not None:
            self.before_proj.to(dtype)


def vace_context(inactive: Tensor, reactive: Tensor, folded: Tensor) -> Tensor:
    """What VACE is told: [B, F, 16, H, W] twice and a folded mask [B, F, 64, H, W] to [B, F, 96, H, W].

    `inactive` are the latents of what is kept, `reactive` of what is to change. A mask of one cell, [B, F, 64, 1, 1],
    stands for frames that are kept or changed as a whole.
    """
    return torch.cat((inactive, reactive, folded.to(inactive).expand(-1, -1, -1, *inactive.shape[-2:])), dim=2)


def fold_mask(mask: Tensor, latents: int) -> Tensor:
    """A mask [B, T, 8 H, 8 W] to [B, F, 64, H, W]: cells become channels (row major), latents sample the nearest frame.

    It is 1 where something is to change. For T = 1 + 4 (F - 1) the sampled frames are like 1, 5, 9, ..., never the
    first: a single known frame 0 leaves no trace in the mask. VACE was trained with it so (Wan 2.1,
    `vace_encode_masks`).
    """
    cells = rearrange(mask.float(), "B T (H y) (W x) -> B (y x) T H W", y=MASK_CELL, x=MASK_CELL)
    sampled = F.interpolate(cells, size=(latents, *cells.shape[-2:]), mode="nearest-exact")
    return rearrange(sampled, "B C F H W -> B F C H W")
