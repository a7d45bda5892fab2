"""Rotary positions in three axes: frame, row, column. Tables are made once for a geometry and sliced ever after.

Each head's channels are adjacent pairs (2i, 2i+1), read as complex numbers. Of the D/2 pairs, a third turns with the
column, a third with the row and the rest with the frame; each axis counts its own exponents from 0 (Wan 2.1,
`rope_params`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

THETA = 10000.0


class Rotation(NamedTuple):
    """The turns of a run of tokens, as two factors that are cheap to apply: see `rotate`."""

    cos: Tensor
    """[L, 1, D] float32, each pair's cosine twice."""
    sin: Tensor
    """[L, 1, D] float32, each pair's sine twice, the first of them negated."""


def pairs_per_axis(head_dim: int) -> tuple[int, int, int]:
    """Channel pairs that turn with frame, row and column: (22, 21, 21) for heads of 128."""
    pairs = head_dim // 2
    return pairs - 2 * (pairs // 3), pairs // 3, pairs // 3


def axis_angles(positions: Tensor, pairs: int) -> Tensor:
    """Angles [P, pairs] of `positions` [P], in float64: float32 loses the far end of long clips."""
    exponents = torch.arange(pairs, dtype=torch.float64, device=positions.device) / pairs
    return torch.outer(positions.double(), THETA**-exponents)


class RopeTable:
    """Every rotation that the tokens of a clip can need; `rows` and `columns` of one latent are counted in patches."""

    def __init__(
        self,
        head_dim: int,
        latents: int,
        rows: int,
        columns: int,
        device: torch.device | str = "cpu",
        time_scale: float = 1.0,
    ):
        """Distances in time seem `time_scale` times as long as they are."""
        self.tokens_per_latent = rows * columns
        self.latents = latents
        scales = (time_scale, 1.0, 1.0)
        frame, row, column = (
            axis_angles(scale * torch.arange(size, dtype=torch.float64), pairs)
            for scale, size, pairs in zip(scales, (latents, rows, columns), pairs_per_axis(head_dim), strict=True)
        )
        self._frame = _factors(frame, device)
        within = torch.cat(
            (
                row[:, None].expand(rows, columns, -1),
                column[None].expand(rows, columns, -1),
            ),
            dim=-1,
        )
        self._within = _factors(within.flatten(0, 1), device)  # the same for every latent

    def at(self, start: int, count: int) -> Rotation:
        """Rotation of the tokens of latents `start` to `start + count`, frame-major, then row, then column."""
        assert start >= 0 and start + count <= self.latents, (start, count, self.latents)  # noqa: PT018
        cos, sin = (
            torch.cat(
                (
                    frame[start : start + count, None].expand(-1, self.tokens_per_latent, -1),
                    within[None].expand(count, -1, -1),
                ),
                dim=-1,
            ).flatten(0, 1)[:, None]
            for frame, within in zip(self._frame, self._within, strict=True)
        )
        return Rotation(cos, sin)

    def gather(self, positions: list[int]) -> Rotation:
        """Rotation of the tokens of latents in any order, as a cache holds them."""
        parts = [self.at(position, 1) for position in positions]
        return Rotation(torch.cat([p.cos for p in parts]), torch.cat([p.sin for p in parts]))


def _factors(angles: Tensor, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """[P, pairs] float64 angles to the two factors of `rotate`, [P, 2 * pairs] float32 each, on `device`."""
    cos, sin = angles.cos(), angles.sin()
    twice = torch.stack((cos, cos), dim=-1).flatten(-2)
    signed = torch.stack((-sin, sin), dim=-1).flatten(-2)
    return twice.float().to(device), signed.float().to(device)


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn x [B, L, N, D] by its tokens' rotations [L, 1, D]. Computed in float32, returned in x's dtype."""
    partner = x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)  # (a, b) -> (b, a)
    return torch.addcmul(x * rotation.cos, partner, rotation.sin).to(x.dtype)
