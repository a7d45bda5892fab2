"""Attention with one switch: which kernel computes it. All compute the same without masks, and all but one exactly."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

logger = logging.getLogger(__name__)

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(q [B, L, N, D], k [B, K, N, D], v [B, K, N, D]) -> [B, L, N, D], scaled by 1/sqrt(D)."""
Kernel = Literal["auto", "sdpa", "flash", "sage"]
"""`sage` computes in 8 bits and is never taken unless it is asked for; all others are exact."""

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


class Group(NamedTuple):
    """Some of the keys, and what is added to all logits with them."""

    rows: slice
    """Of k and v."""
    bias: tuple[float, ...] = (0.0,)
    """One for each latent of the queries, or one for all of them. -inf is as if the keys were not there."""


def grouped(places: Iterable[tuple[slice, tuple[float, ...]]]) -> list[Group]:
    """Rows of k with their biases, in order: neighbours of equal bias become one group, -inf is left out."""
    groups: list[Group] = []
    for rows, bias in places:
        if groups and groups[-1].bias == bias and groups[-1].rows.stop == rows.start:
            rows = slice(groups.pop().rows.start, rows.stop)
        groups.append(Group(rows, bias))
    return [group for group in groups if max(group.bias) > -math.inf]


def attend_in_groups(q: Tensor, k: Tensor, v: Tensor, groups: Sequence[Group]) -> Tensor:
    """Attention of q [B, L, N, D] to the groups of k, v [B, K, N, D], each with its bias: [B, L, N, D].

    Exact, and without a mask that would rule out the fast kernels: each group is attended to by itself, and the answers
    are blended by their shares of the softmax, one after the other. Has no gradient.
    """
    answer, normaliser = _attend_to_group(q, k, v, groups[0])
    for group in groups[1:]:
        other, its_own = _attend_to_group(q, k, v, group)
        weight = (its_own - normaliser).sigmoid().transpose(-1, -2)[..., None]  # [B, L, N, 1]
        answer = answer.lerp_(other, weight.to(q.dtype))  # in place: it is ours, and as large as the whole stream
        normaliser = torch.logaddexp(normaliser, its_own)
    return answer


def _attend_to_group(q: Tensor, k: Tensor, v: Tensor, group: Group) -> tuple[Tensor, Tensor]:
    """The answer [B, L, N, D], and the logarithm [B, N, L] of what its softmax was divided by, its bias added."""
    answer, normaliser = attend_with_normaliser(q, k[:, group.rows], v[:, group.rows])
    if len(group.bias) == 1:
        return answer, normaliser + group.bias[0]
    bias = _column(group.bias, q.device, normaliser.dtype)
    return answer, (normaliser.unflatten(-1, (len(group.bias), -1)) + bias).flatten(-2)


@lru_cache(maxsize=256)
def _column(bias: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """[F, 1]. Made once, and not again by each layer of each pass: a device waits for what is copied to it."""
    return torch.tensor(bias, device=device, dtype=dtype)[:, None]


def attend_with_normaliser(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """As `attend`, with the logarithm of the softmax's normaliser, [B, N, L] float32.

    By the kernels behind torch's attention, which know it and whose public face hides it.
    """
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    aten, kind = torch.ops.aten, q.device.type
    if kind == "cpu":
        answer, normaliser = aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)
    elif kind in ("cuda", "meta") and q.dtype in (torch.bfloat16, torch.float16):
        answer, normaliser, *_ = aten._scaled_dot_product_flash_attention(q, k, v)
    elif kind in ("cuda", "meta"):
        answer, normaliser, *_ = aten._scaled_dot_product_efficient_attention(q, k, v, None, True)
        normaliser = normaliser[..., : q.shape[2]]  # this kernel rounds it up to whole warps
    else:
        answer, normaliser = _attend_plainly(q, k, v)
    return answer.transpose(1, 2), normaliser


def _attend_plainly(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """The same written out, for devices whose kernels keep the normaliser to themselves. All [B, N, ..., D]."""
    logits = (q @ k.transpose(-1, -2)).float() * q.shape[-1] ** -0.5
    return logits.softmax(dim=-1).to(v.dtype) @ v, logits.logsumexp(dim=-1)


def choose_attention(kernel: Kernel, device: torch.device, dtype: torch.dtype) -> Attend:
    """The function behind `kernel`; `auto` takes FlashAttention where it is installed, works and fits device and dtype.

    Raises ImportError where `flash` or `sage` is asked for and no package of it can be used.
    """
    if kernel == "sage":
        return _attention_by_sage(device, dtype)
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


def _attention_by_sage(device: torch.device, dtype: torch.dtype) -> Attend:
    """Attention to a block's past in 8 bits; to the prompt, whose keys are few, exactly. Raises ImportError."""
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        raise ImportError(f"attention 'sage' is for CUDA in 16 bits, this is {device.type} in {dtype}; take 'auto'")
    try:
        sage = importlib.import_module("sageattention").sageattn
    except (ImportError, OSError, AttributeError) as error:
        message = f"attention 'sage' needs the package sageattention, which cannot be used ({error})"
        raise ImportError(f"{message}; install one made for this torch, or take 'auto'") from error

    def attend_by_sage(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if k.shape[1] < q.shape[1]:
            return attend(q, k, v)
        return sage(q, k, v, tensor_layout="NHD", is_causal=False)

    return attend_by_sage


def _flash_package() -> str | None:
    """FlashAttention 3 (Hopper) and 2 have modules of their own, and one function of the same name and layout."""
    for package in ("flash_attn_interface", "flash_attn"):
        if importlib.util.find_spec(package):
            return package
    return None


def kernel_preference() -> AbstractContextManager[object]:
    """While it is entered, torch tries its attention kernels in our order. For one pass, never across a yield."""
    return sdpa_kernel(_PREFERENCE, set_priority=True)
