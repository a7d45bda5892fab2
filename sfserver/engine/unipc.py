"""UniPC of second order along the flow (arXiv 2302.04867, the variant B(h) = e^h - 1 on estimates of the clean latent):
what Wan 2.1's own `generate.py` samples with, and so the yardstick of what the model can do.

Between two noise levels the exact step is x' = (s'/s) x + a' (1 - e^-h) m, were the estimate m of the clean latent the
same all the way; a = 1 - s, and h is how far log(a/s) rises. The predictor lets m change as it did in the step before,
the corrector mends that once the next estimate is known, at no further pass. First and last step are of first order.

All coefficients are numbers on the host, in float64; the device sees weighted sums.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from attrs import define, frozen
from torch import Tensor

MOST_NOISE = 0.999
"""The noisiest level before the shift. At 1 there would be nothing of the latent, and log(a/s) would have no value."""


def unipc_sigmas(count: int, shift: float) -> tuple[float, ...]:
    """Noise levels of `count` steps, as `generate.py` spaces them, and the 0 at the end."""
    even = (MOST_NOISE * (1 - i / count) for i in range(count + 1))
    return tuple(shift * u / (1 + (shift - 1) * u) for u in even)


@frozen
class _Way:
    """From one noise level to another, the second below the first."""

    start: float
    stop: float

    @property
    def h(self) -> float:
        """How far the logarithm of signal over noise rises; infinite where no noise is left."""
        return _log_snr(self.stop) - _log_snr(self.start)

    @property
    def growth(self) -> float:
        """B(h), which is negative: a step against the estimate's change."""
        return math.expm1(-self.h)

    def plain(self, x: Tensor, clean: Tensor) -> Tensor:
        """x at the end if the estimate stayed what it is."""
        return self.stop / self.start * x - (1 - self.stop) * self.growth * clean


@define(eq=False)
class Past:
    """What a block's next step needs of those before it. A block begins with an empty one."""

    clean: Sequence[Tensor] = ()
    """Estimates of the clean latent at the step before and the one before that."""
    x: Tensor | None = None
    """The corrected latent of the step before."""


def step(sigmas: Sequence[float], i: int, x: Tensor, flow: Tensor, past: Past) -> Tensor:
    """x [B, F, C, H, W] for step i + 1, or the clean latent after the last; `past` is brought up to date.

    `sigmas` end with a 0 behind the last step's.
    """
    clean = x - sigmas[i] * flow
    if past.x is not None:
        x = _corrected(sigmas, i, past.x, clean, past.clean)
    guess = _predicted(sigmas, i, x, clean, past.clean)
    past.clean, past.x = (clean, *past.clean[:1]), x
    return guess


def _predicted(sigmas: Sequence[float], i: int, x: Tensor, clean: Tensor, before: Sequence[Tensor]) -> Tensor:
    """x at level i + 1 from level i."""
    way = _Way(sigmas[i], sigmas[i + 1])
    if not before or i + 2 == len(sigmas):
        return way.plain(x, clean)
    ratio = _Way(sigmas[i], sigmas[i - 1]).h / way.h
    slope = (before[0] - clean) / ratio
    return torch.add(way.plain(x, clean), slope, alpha=-(1 - way.stop) * way.growth / 2)


def _corrected(sigmas: Sequence[float], i: int, x: Tensor, clean: Tensor, before: Sequence[Tensor]) -> Tensor:
    """x at level i, again from the level before, now that the estimate `clean` at level i is known."""
    way = _Way(sigmas[i - 1], sigmas[i])
    change = clean - before[0]
    if len(before) == 1:
        bend = change / 2
    else:
        ratio = _Way(sigmas[i - 1], sigmas[i - 2]).h / way.h
        first, second = _moments(way.h)
        of_slope = (second - first) / (ratio - 1)
        bend = of_slope * ((before[1] - before[0]) / ratio) + (first - of_slope) * change
    return torch.add(way.plain(x, before[0]), bend, alpha=-(1 - way.stop) * way.growth)


def _moments(h: float) -> tuple[float, float]:
    """What the two weights of the corrector must add up to: by themselves, and each times its place on the way."""
    first = math.expm1(-h) / -h - 1
    second = first / -h - 1 / 2
    return first / math.expm1(-h), 2 * second / math.expm1(-h)


def _log_snr(sigma: float) -> float:
    return math.log((1 - sigma) / sigma) if sigma > 0 else math.inf
