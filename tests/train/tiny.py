"""A transformer and clips of latents so small that a test can train on them."""

from __future__ import annotations

import torch

from sfserver.model.config import DitConfig
from sfserver.model.dit import Dit
from sfserver.train.latents import Latents
from sfserver.train.small import new_dit

TINY = DitConfig(dim=64, ffn_dim=128, layers=2, heads=2, text_dim=8, text_len=4, freq_dim=32)
LATENTS = 5
"""Of a clip, both keyframes counted."""
SENTENCES = 4


def tiny_dit(seed: int = 0, stirred: float = 0.0) -> Dit:
    """As training begins, or `stirred` so that nothing in it is near zero."""
    dit = new_dit(TINY, torch.Generator().manual_seed(seed))
    random = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in dit.parameters():
            parameter.add_(stirred * torch.randn(parameter.shape, generator=random))
    return dit


def sentences() -> torch.Tensor:
    """[S, text_len, text_dim], well apart."""
    return torch.eye(8)[:SENTENCES, None].repeat(1, 4, 1) * 2


def tiny_clips(count: int, seed: int = 0) -> Latents:
    """Clips that follow from both keyframes and the sentence: a straight way, and a detour that the sentence names."""
    random = torch.Generator().manual_seed(seed)
    start, end = torch.randn(2, count, 1, 16, 4, 4, generator=random)
    detours = torch.randn(SENTENCES, 1, 16, 1, 1, generator=torch.Generator().manual_seed(99))
    sentence = torch.randint(SENTENCES, (count,), generator=random)
    t = torch.linspace(0, 1, LATENTS)[None, :, None, None, None]
    clean = start * (1 - t) + end * t + 2 * (torch.pi * t).sin() * detours[sentence]
    return Latents(clean, torch.ones(count, LATENTS - 2, 4, 4, dtype=torch.bool), sentence)
