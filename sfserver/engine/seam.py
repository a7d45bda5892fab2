"""The correction at the keyframes.

A VAE shifts colours a little. Where a generated frame meets the user's own picture, that shows as a jump. What the
shift is like is known at the keyframes, from what becomes of them on the way through the VAE and back; its low
frequencies, blended in time from keyframe to keyframe, are taken out of the frames in between.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

CELL_PX = 32
"""Differences finer than this are detail that a VAE has lost, and not a shift of colour."""


class Seam:
    """Corrections of one clip, from the keyframes that it was told of. Without any, frames stay as they are."""

    def __init__(self) -> None:
        self._corrections: dict[int, Tensor] = {}

    def learn(self, errors: Mapping[int, Tensor]) -> None:
        """Of keyframes by position: picture - its reconstruction, [3, H, W]."""
        corrections = self._corrections | {at: low_frequencies(error) for at, error in errors.items()}
        self._corrections = dict(sorted(corrections.items()))

    def correct(self, first_frame: int, pixels: Tensor) -> Tensor:
        """pixels [T, 3, H, W] in -1 to 1 of the frames from `first_frame` on, corrected and within the same bounds."""
        if not self._corrections:
            return pixels
        frames = range(first_frame, first_frame + len(pixels))
        return (pixels + torch.stack([self._at(frame) for frame in frames])).clamp(-1, 1)

    def _at(self, frame: int) -> Tensor:
        before = [at for at in self._corrections if at <= frame]
        after = [at for at in self._corrections if at > frame]
        if not before or not after:
            return self._corrections[before[-1] if before else after[0]]
        start, stop = before[-1], after[0]
        return torch.lerp(self._corrections[start], self._corrections[stop], (frame - start) / (stop - start))


def low_frequencies(x: Tensor) -> Tensor:
    """x [3, H, W] averaged over cells, and smooth between them."""
    height, width = x.shape[-2:]
    coarse = F.adaptive_avg_pool2d(x[None], (max(1, height // CELL_PX), max(1, width // CELL_PX)))
    return F.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)[0]
