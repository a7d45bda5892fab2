"""Attention with one switch: which kernel computes it. All of them compute the same, exactly and without masks."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

logger = logging.getLogger(__name__)

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(q [B, L, N, D], k [B, K, N, D], v [B, K, N, D]) -> [B, L, N, D], scaled by 1/sqrt(D)."""
Kernel = Literal["auto", "sdpa", "flash"]

_PREFERENCE = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
"""cuDNN first: on Hopper it is the fastest kernel that torch itself brings. Others are tried where it does not fit."""


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """torch's own attention; which kernel it takes is decided by the device and by `kernel_preference`."""
    out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return out.transpose(1, 2)


def choose_attention(kernel: Kernel, device: torch.device, dtype: torch.dtype) -> Attend:
    """The function behind `kernel`; `auto` takes FlashAttention where it is installed, works and fits device and dtype.

    Raises ImportError where `flash` is asked for and neither of its packages can be used.
    """
    if kernel == "auto" and (device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16)):
        kernel = "sdpa"
    if kernel == "sdpa":
        return attend
    package = _flash_package()
    if package is None:
        if kernel == "auto":
            return attend
        raise ImportError("attention kernel 'flash' needs the package flash-attn; install it or choose 'sdpa'")
    try:
        flash = importlib.import_module(package).flash_attn_func
    except (ImportError, OSError, AttributeError) as error:  # built for another torch or CUDA, or not built to the end
        message = f"{package} is installed but cannot be used ({error})"
        if kernel == "flash":
            raise ImportError(f"{message}; install a flash-attn made for this torch, or choose 'sdpa'") from error
        logger.warning("%s; torch's own attention is taken instead", message)
        return attend

    def attend_by_flash(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        answer = flash(q, k, v)
        return answer[0] if isinstance(answer, tuple) else answer  # some versions add the softmax's normaliser

    return attend_by_flash


def _flash_package() -> str | None:
    """FlashAttention 3 (Hopper) and 2 have modules of their own, and one function of the same name and layout."""
    for package in ("flash_attn_interface", "flash_attn"):
        if importlib.util.find_spec(package):
            return package
    return None


def kernel_preference() -> AbstractContextManager[object]:
    """While it is entered, torch tries its attention kernels in our order. For one pass, never across a yield."""
    return sdpa_kernel(_PREFERENCE, set_priority=True)
