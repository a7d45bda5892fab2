"""How a pass is executed while training: which attention, in which precision, and what is computed twice.

With `checkpointed`, a layer keeps what goes into its two stages and computes the rest again for backward. The stages
alone, and not the whole layer: what lies between them writes into the cache, and a pass must not do that twice.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..model import attention
from ..model.attention import Attend
from ..model.dit import How, after_attention, before_attention


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Attention by two plain products, [B, L, N, D]: on a CPU, torch's own kernel is slow backward in bfloat16."""
    heads = q.shape[2]
    q, k, v = (rearrange(x, "B L N D -> (B N) L D") for x in (q, k, v))
    zero = bias.to(q.dtype)[None] if bias is not None else q.new_zeros(1)
    scores = torch.baddbmm(zero, q, k.transpose(1, 2), alpha=q.shape[-1] ** -0.5)
    return rearrange(torch.bmm(scores.softmax(-1).to(v.dtype), v), "(B N) L D -> B L N D", N=heads)


def training_how(device: torch.device, checkpointed: bool = False) -> How:
    """How a pass with a graph runs on a device."""
    kernel: Attend = attend if device.type == "cpu" else attention.attend
    if not checkpointed:
        return How(kernel)
    return How(kernel, _twice(before_attention), _twice(after_attention))


def _twice(stage: Callable) -> Callable:
    return partial(checkpoint, stage, use_reentrant=False, preserve_rng_state=False)


def device_of(network: nn.Module) -> torch.device:
    """Where its first parameter is, hence where its inputs belong."""
    return next(network.parameters()).device


def precision(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Matrix products in `dtype`; float32 leaves all as it is."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
