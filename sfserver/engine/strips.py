"""Decoding in strips that overlap: what a decoder works in at once shrinks with its strip.

    | strip 1 ......... |
                  | ......... strip 2 ......... |       each with a state of its own between blocks
                                        | ......... strip 3 |
                   ^ at its cut edge a strip sees zeros instead of its neighbour: within `SPOILED` latent pixels of it
                     the neighbour alone counts, in between both are blended

A convolution's answer depends on what is far off less and less, so the pictures are nearly those of the whole, and not
the same: how near, `tests/engine/test_strips.py` holds.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..model.tae import Tae
from ..model.vae import StreamState, WanVae
from .geometry import PIXELS_PER_LATENT, strips

SPOILED = 4
"""Latent pixels at a cut edge that are not looked at."""


class InStrips:
    """One stream of latents on its way through a decoder, and what each strip remembers of it."""

    def __init__(self, decoder: WanVae | Tae) -> None:
        self._decoder = decoder
        self.states: list[StreamState] = []

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """The next latents [B, F, C, H, W] -> pixels [B, T, 3, 8H, 8W], as `WanVae.decode` has them."""
        height, width = latents.shape[-2:]
        along = -1 if width >= height else -2
        parts = strips(max(width, height))
        self.states = self.states or [self._decoder.new_decoder_state() for _ in parts]
        pictures: Tensor | None = None
        for part, state in zip(parts, self.states, strict=True):
            strip = self._decoder.decode(latents.narrow(along, part.start, len(part)), state)
            pictures = strip if pictures is None else _joined(pictures, strip, along, PIXELS_PER_LATENT * part.start)
        assert pictures is not None
        return pictures


def _joined(before: Tensor, after: Tensor, along: int, start: int) -> Tensor:
    """Two neighbours as one; the later begins at pixel `start`, from where on both are of the same place."""
    shared = before.shape[along] - start
    alone, ours = before.split([start, shared], dim=along)
    theirs, rest = after.split([shared, after.shape[along] - shared], dim=along)
    share = _rising(shared, before.device).to(before.dtype)
    return torch.cat((alone, torch.lerp(ours, theirs, share if along == -1 else share[:, None]), rest), dim=along)


def _rising(shared: int, device: torch.device) -> Tensor:
    """[shared] from 0 to 1: how much the later of two neighbours counts."""
    spoiled = PIXELS_PER_LATENT * SPOILED
    blended = shared - 2 * spoiled
    return ((torch.arange(shared, device=device) + 0.5 - spoiled) / blended).clamp(0, 1)
