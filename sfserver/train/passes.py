"""How a pass is executed while training: which attention, in which precision, and where weights and activations wait.

With `recompute`, a layer keeps what goes into its two stages and computes the rest again for backward. The stages
alone, and not the whole layer: what lies between them writes into the cache, and a pass must not do that twice. With
`offload`, the large matrices of frozen transformers stay in the machine's memory and come for each stage that needs
them: their copies are part of the graph like any other value, and are dropped and fetched again by `recompute`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from attrs import frozen
from einops import rearrange
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from ..model import attention
from ..model.attention import Attend
from ..model.dit import Dit, How, after_attention, before_attention

_BEFORE = ("self_attn.q", "self_attn.k", "self_attn.v")
_AFTER = ("self_attn.o", "cross_attn.q", "cross_attn.o", "ffn.0", "ffn.2")
"""Layers whose matrices may wait elsewhere: nine tenths of a transformer, and what computes a prompt's keys is none."""


@frozen
class Passes:
    """How the passes of a stage run."""

    device: torch.device
    recompute: bool = False
    offload: bool = False

    def settle(self, dit: Dit) -> Dit:
        """The transformer with its weights where its passes look for them."""
        if not self.offload:
            return dit.to(self.device)
        waiting = {f"blocks.{i}.{name}.weight" for i in range(len(dit.blocks)) for name in (*_BEFORE, *_AFTER)}
        for name, parameter in dit.named_parameters():
            if name not in waiting:
                parameter.data = parameter.data.to(self.device)
            elif self.device.type == "cuda":
                parameter.data = parameter.data.cpu().pin_memory()
        return dit

    def plain(self) -> How:
        """Without a graph."""
        return self._how(attention.attend)

    def learning(self) -> How:
        """With one."""
        return self._how(attend if self.device.type == "cpu" else attention.attend, self.recompute)

    def _how(self, kernel: Attend, recompute: bool = False) -> How:
        before: Callable[..., Any] = before_attention
        after: Callable[..., Any] = after_attention
        if self.offload:
            before, after = _fetching(before, _BEFORE, self.device), _fetching(after, _AFTER, self.device)
        if recompute:
            before, after = _twice(before), _twice(after)
        return How(kernel, before, after)


ON_CPU = Passes(torch.device("cpu"))


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Attention by two plain products, [B, L, N, D]: on a CPU, torch's own kernel is slow backward in bfloat16."""
    heads = q.shape[2]
    q, k, v = (rearrange(x, "B L N D -> (B N) L D") for x in (q, k, v))
    zero = bias.to(q.dtype)[None] if bias is not None else q.new_zeros(1)
    scores = torch.baddbmm(zero, q, k.transpose(1, 2), alpha=q.shape[-1] ** -0.5)
    return rearrange(torch.bmm(scores.softmax(-1).to(v.dtype), v), "(B N) L D -> B L N D", N=heads)


def _twice(stage: Callable) -> Callable:
    return partial(checkpoint, stage, use_reentrant=False, preserve_rng_state=False)


class _Stage(nn.Module):
    """A stage of a layer as a module, so that it can be called with other tensors than the layer's own."""

    def __init__(self, block: nn.Module, stage: Callable[..., Any]):
        super().__init__()
        self.block = block
        self._stage = stage

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._stage(self.block, *args, **kwargs)


def _fetching(stage: Callable[..., Any], layers: Sequence[str], device: torch.device) -> Callable[..., Any]:
    """The stage, with the matrices of these layers copied to the device for it."""

    def run(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
        names = [f"{layer}.weight" for layer in layers]
        matrices = {f"block.{name}": block.get_parameter(name).to(device, non_blocking=True) for name in names}
        return functional_call(_Stage(block, stage), matrices, args, kwargs)

    return run


def device_of(network: nn.Module) -> torch.device:
    """Where its first parameter is, hence where its inputs belong."""
    return next(network.parameters()).device


def precision(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Matrix products in `dtype`; float32 leaves all as it is."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
