"""What a pass costs, counted: FLOPs against the budget, calls a layer, waits for the device, compilations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from attrs import evolve
from networks import COLUMNS, ROWS, at, latents, prompt, random_weights, table, toy_dit
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from sfserver.model.cache import CacheShape, KvCache
from sfserver.model.config import TOY_VACE, WAN_1_3B, WAN_1_3B_VACE, DitConfig
from sfserver.model.dit import EAGER, Dit, How, Nag, TextKv
from sfserver.model.rope import RopeTable
from sfserver.model.vace import Vace

MAX_CALLS_PER_LAYER = 250
WAITS = {"aten::_local_scalar_dense", "aten::item", "aten::nonzero", "aten::is_nonzero"}


def text_of(config: DitConfig, blocks: int) -> list[TextKv]:
    kv = torch.empty(1, config.text_len, config.heads, config.head_dim, device="meta")
    return [TextKv(kv, kv)] * blocks


@pytest.mark.parametrize(("held", "layers"), [(3, 4), (12, 4), (21, 30)])
def test_flops_of_a_cached_pass_equal_the_budget(budget: ModuleType, held: int, layers: int) -> None:
    rows, columns = 30, 52  # 832 x 480
    config = evolve(WAN_1_3B, layers=layers)
    with torch.device("meta"):
        dit = Dit(config).requires_grad_(False)
        rope = RopeTable(128, 21, rows, columns, device="meta")
        shape = CacheShape(layers, 12, 128, rows * columns, window=held)
        cache = KvCache(shape, rope, device="meta", dtype=torch.float32)
        for start in range(0, held, 3):
            cache.seat(start, 3)
        with FlopCounterMode(display=False) as counter:
            flow = dit(torch.empty(1, 3, 16, 60, 104), at(625.0), text_of(config, layers), cache.rotation, cache)
    assert flow.shape == (1, 3, 16, 60, 104)
    model = budget.MODELS["wan1.3b"] | {"N": layers}
    expected = sum(budget.pass_flops(model, 3 * 1560, held * 1560).values())
    assert counter.get_total_flops() == pytest.approx(expected, rel=1e-3)


def test_flops_of_the_vace_branch_equal_the_budget(budget: ModuleType) -> None:
    rows, columns = 30, 52
    tokens = 3 * rows * columns
    with torch.device("meta"):
        vace = Vace(WAN_1_3B_VACE).requires_grad_(False)
        rope = RopeTable(128, 3, rows, columns, device="meta")
        context = torch.empty(1, 3, 96, 60, 104)
        stream, time = torch.empty(1, tokens, 1536), torch.empty(1, 1, 6, 1536)
        with FlopCounterMode(display=False) as counter:
            vace(stream, time, context, text_of(WAN_1_3B_VACE, 15), rope.at(0, 3))
    flops = budget.pass_flops(budget.MODELS["wan1.3b"], tokens, tokens, vace=15, vace_text_cached=True)
    entering = tokens * 2 * (1536 * 1536 + 4 * 96 * 1536)  # the budget leaves the way in out
    assert counter.get_total_flops() == pytest.approx(flops["vace_linear"] + flops["vace_attn"] + entering, rel=1e-3)


class Calls(TorchDispatchMode):
    """Counts the ATen calls made while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names[f"{func.namespace}::{func._opname}"] += 1
        return func(*args, **(kwargs or {}))


def count_calls(**guidance: Any) -> tuple[Calls, int]:
    """ATen calls of one pass over a block in mid-clip, and the number of layers."""
    dit, rope = toy_dit(), table(6)
    config = dit.config
    shape = CacheShape(config.layers, config.heads, config.head_dim, ROWS * COLUMNS, window=6)
    cache, text = KvCache(shape, rope), dit.embed_prompt(prompt(), **guidance)
    cache.seat(0, 3)
    dit(latents(3), at(0.0), text, cache.rotation, cache)
    x, t = latents(3), at(937.5)
    with Calls() as calls:
        cache.seat(3, 3)
        dit(x, t, text, cache.rotation, cache)
    return calls, config.layers


@pytest.mark.parametrize("negative", [None, prompt(1)], ids=["plain", "guided"])
def test_a_layer_makes_few_calls_and_never_waits_for_the_device(negative: torch.Tensor | None) -> None:
    calls, layers = count_calls(negative=negative)
    assert calls.names.total() / layers <= MAX_CALLS_PER_LAYER
    assert not WAITS & set(calls.names)


def test_counter_sees_a_wait() -> None:
    with Calls() as calls:
        torch.ones(1).item()
    assert WAITS & set(calls.names)


@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no GPU: a wait shows only where there is something to wait for"
)
def test_on_a_gpu_a_pass_and_its_noise_never_wait() -> None:
    gpu = torch.device("cuda")
    dit = random_weights(Dit(TOY_VACE), 1).to(gpu).set_compute_dtype(torch.bfloat16)
    rope = RopeTable(TOY_VACE.head_dim, 6, ROWS, COLUMNS, gpu)
    shape = CacheShape(TOY_VACE.layers, TOY_VACE.heads, TOY_VACE.head_dim, ROWS * COLUMNS, window=6)
    cache, text = KvCache(shape, rope, device=gpu, dtype=torch.bfloat16), dit.embed_prompt(prompt().to(gpu))
    x = latents(3).to(gpu)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for start in (0, 3):
            cache.seat(start, 3)
            dit(x, torch.full((1, 1), 937.5, device=gpu), text, cache.rotation, cache)
            latents(3).pin_memory().to(gpu, non_blocking=True)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.fixture
def compiled() -> Iterator[How]:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield How.compiled(backend="eager")
    torch._dynamo.reset()


@pytest.mark.parametrize("guided", [False, True])
def test_nothing_is_compiled_again_over_30_blocks(compiled: How, guided: bool) -> None:
    dit, blocks = toy_dit(), 30
    config = dit.config
    rope = table(3 * blocks)
    shape = CacheShape(config.layers, config.heads, config.head_dim, ROWS * COLUMNS, window=10, sink=1)
    cache, graphs = KvCache(shape, rope), []
    for block in range(blocks):
        text = dit.embed_prompt(prompt(block), *((prompt(1), Nag()) if guided else ()))  # another request, as it were
        cache.seat(3 * block, 3)
        for t in (1000.0, 937.5, 0.0):
            flow = dit(latents(3, seed=block), at(t), text, cache.rotation, cache, how=compiled)
            if block == 0:
                torch.testing.assert_close(
                    flow, dit(latents(3, seed=block), at(t), text, cache.rotation, cache, how=EAGER)
                )
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert graphs[0] == 2, "one graph for each stage, shared by all layers"
    assert graphs[-1] == graphs[0]
