"""What one layer of a pass asks of torch: calls, kernels among them, and waits for the device, by its dispatcher.

On the meta device, for what is asked does not depend on who does it; attention and norm are one kernel each, as on
CUDA. `python -m sfserver.bench.counts docs/figures/counts.json` keeps the figures for the page.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from attrs import evolve
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from ..engine.capacity import USUAL_SIZE
from ..engine.geometry import plan
from ..model.cache import CacheShape, KvCache
from ..model.config import WAN_1_3B
from ..model.dit import Dit, How
from ..model.rope import RopeTable
from .report import Measure, write_json

WAITS = {"aten::_local_scalar_dense", "aten::item", "aten::nonzero", "aten::is_nonzero", "aten::equal"}
_MEMORY_ALONE = {"aten::empty", "aten::empty_like", "aten::empty_strided", "aten::new_empty", "aten::_unsafe_view"}
CALLS, KERNELS = 250, 40
"""Of a layer, at most. The published pipeline makes 540 calls and launches 93 kernels, and waits twice."""


class Calls(TorchDispatchMode):
    """Counts what is asked for while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.kernels: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = f"{func.namespace}::{func._opname}"
        self.calls[name] += 1
        if not _is_view(func) and name not in _MEMORY_ALONE:
            self.kernels[name] += 1
        return func(*args, **(kwargs or {}))

    @property
    def waits(self) -> int:
        return sum(self.calls[name] for name in WAITS)

    def one_kernel(self, name: str, like: Tensor) -> Tensor:
        """What would be a kernel on CUDA, and is taken apart elsewhere."""
        self.calls[name] += 1
        self.kernels[name] += 1
        with _disable_current_modes():
            return torch.empty_like(like)


def _is_view(func: Any) -> bool:
    """Whether what comes back shares the memory of what was given, and nothing is written."""
    shared = [returned.alias_info for returned in func._schema.returns]
    return any(info is not None and not info.is_write for info in shared)


def of_a_pass(layers: int) -> Calls:
    """A pass over a block in mid-clip of the 1.3B model, at its usual size."""
    config = evolve(WAN_1_3B, layers=layers)
    geometry = plan(*USUAL_SIZE, num_frames=81, per_block=3)
    table = RopeTable(config.head_dim, geometry.latents, geometry.rows, geometry.columns, "meta")
    shape = CacheShape(layers, config.heads, config.head_dim, geometry.tokens_per_latent, window=12)
    cache, counter, plain = KvCache(shape, table, device="meta", dtype=torch.bfloat16), Calls(), F.rms_norm
    with torch.device("meta"), torch.no_grad():
        dit = Dit(config).set_compute_dtype(torch.bfloat16)
        text = dit.embed_prompt(torch.zeros(1, 1, config.text_dim))
        x, t = torch.zeros(geometry.latent_shape(3)), torch.zeros(1, 1)
    cache.seat(0, 3)
    how = How(lambda q, k, v: counter.one_kernel("attention", q))
    try:
        F.rms_norm = lambda x, *rest, **options: counter.one_kernel("rms_norm", x)  # pyright: ignore
        with torch.no_grad(), counter:
            cache.seat(3, 3)
            dit(x, t, text, cache.rotation, cache, how=how)
    finally:
        F.rms_norm = plain
    return counter


def per_layer() -> tuple[int, int, int]:
    """(calls, kernels, waits) that one more layer asks for; waits are of a whole pass."""
    one, two = of_a_pass(1), of_a_pass(2)
    return two.calls.total() - one.calls.total(), two.kernels.total() - one.kernels.total(), two.waits


def measure() -> list[Measure]:
    calls, kernels, waits = per_layer()
    how = "asked of torch's dispatcher by a layer of the 1.3B model in one eager pass over a block"
    return [
        Measure("calls of a layer", calls, CALLS, "low", "", f"{how}; 540 in the published pipeline"),
        Measure("kernels of a layer", kernels, KERNELS, "low", "", f"{how}; 93 in the published pipeline"),
        Measure("waits for the device", waits, 0, "low", "", "of a whole pass; 2 a layer in the published pipeline"),
    ]


if __name__ == "__main__":
    write_json(measure(), Path(sys.argv[1]), {"counted on": "the meta device", "torch": torch.__version__})
