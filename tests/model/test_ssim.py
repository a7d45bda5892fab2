"""SSIM against its formula, written out for one window."""

import numpy as np
import pytest
import torch

from sfserver.model.ssim import ssim, ssim_map


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_it_is_the_published_formula():
    a, b = noise(3, 14, 13), noise(3, 14, 13, seed=1)
    row, column = 2, 1
    taps = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    weight = np.outer(taps, taps) / taps.sum() ** 2
    alike = []
    for colour in range(3):
        x, y = (v[colour, row : row + 11, column : column + 11].numpy() for v in (a, b))
        mean_x, mean_y = (weight * x).sum(), (weight * y).sum()
        spread_x, spread_y = (weight * (x - mean_x) ** 2).sum(), (weight * (y - mean_y) ** 2).sum()
        together = (weight * (x - mean_x) * (y - mean_y)).sum()
        c1, c2 = 0.01**2, 0.03**2
        alike.append(
            (2 * mean_x * mean_y + c1)
            * (2 * together + c2)
            / ((mean_x**2 + mean_y**2 + c1) * (spread_x + spread_y + c2))
        )
    found = ssim_map(a, b)
    assert found.shape == (4, 3)
    assert found[row, column].item() == pytest.approx(np.mean(alike), abs=1e-12)


def test_a_picture_is_like_itself_alone():
    a, b = noise(3, 32, 48), noise(3, 32, 48, seed=1)
    assert ssim(a, a).item() == pytest.approx(1)
    assert ssim(a, b) < 0.1
    assert ssim(a, (a + b) / 2) > ssim(a, b)
