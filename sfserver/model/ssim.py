"""How alike two pictures are: Wang et al., "Image quality assessment: from error visibility to structural similarity",
IEEE Transactions on Image Processing 13(4), 2004. Gaussian window of 11 pixels, sigma 1.5, on each colour."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

REACH_PX = 5
SIGMA_PX = 1.5
STABLE = 0.01**2, 0.03**2


def ssim_map(a: Tensor, b: Tensor) -> Tensor:
    """[3, H, W] and the same, 0 to 1 -> [H - 10, W - 10], -1 to 1: the mean over colours around each pixel."""
    x = torch.stack((a, b, a * a, b * b, a * b)).flatten(0, 1)[:, None]  # [15, 1, H, W]
    taps = torch.arange(-REACH_PX, REACH_PX + 1, dtype=a.dtype, device=a.device)
    window = torch.exp(-taps.square() / (2 * SIGMA_PX**2))
    window = (window / window.sum()).view(1, 1, -1, 1)
    x = F.conv2d(F.conv2d(x, window), window.transpose(2, 3)).unflatten(0, (5, -1))[:, :, 0]
    mean_a, mean_b, square_a, square_b, product = x
    spread = square_a - mean_a.square() + square_b - mean_b.square()
    together = product - mean_a * mean_b
    c1, c2 = STABLE
    alike = (2 * mean_a * mean_b + c1) * (2 * together + c2)
    return (alike / ((mean_a.square() + mean_b.square() + c1) * (spread + c2))).mean(0)


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Scalar: the mean of `ssim_map`."""
    return ssim_map(a, b).mean()
