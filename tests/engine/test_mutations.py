"""The golden files notice mistakes: each of these deliberate ones makes a comparison fail that passes without it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import golden_transformer
import pytest
import torch
from attrs import evolve
from golden_case import FOLDER, Case

from sfserver.engine import noise, rollout
from sfserver.model import cache, dit, rope, vace

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no golden files: {FOLDER} does not exist")
Patch = Callable[[pytest.MonkeyPatch], None]


def check(name: str) -> None:
    from test_golden import kind_of

    case = Case(FOLDER / f"{name}.json")
    with torch.no_grad():
        golden_transformer.RUNNERS[kind_of(case.sidecar)](case)


def exact_gelu(patch: pytest.MonkeyPatch) -> None:
    gelu = torch.nn.GELU
    patch.setattr(dit.nn, "GELU", lambda _approximate: gelu())


def truncated_timesteps(patch: pytest.MonkeyPatch) -> None:
    sinusoid = dit.sinusoid
    patch.setattr(dit, "sinusoid", lambda t, width: sinusoid(t.floor(), width))


def sines_first(patch: pytest.MonkeyPatch) -> None:
    sinusoid = dit.sinusoid
    patch.setattr(dit, "sinusoid", lambda t, width: sinusoid(t, width).roll(width // 2, -1))


def axes_share_their_exponents(patch: pytest.MonkeyPatch) -> None:
    angles = rope.axis_angles
    patch.setattr(rope, "axis_angles", lambda positions, pairs: angles(positions, pairs + 1)[:, :pairs])


def blocks_all_begin_at_0(patch: pytest.MonkeyPatch) -> None:
    at = rope.RopeTable.at
    patch.setattr(rope.RopeTable, "at", lambda table, start, count: at(table, 0, count))


def sink_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    init = cache.KvCache.__init__

    def without_sink(self: cache.KvCache, shape: cache.CacheShape, *args: Any, **kwargs: Any) -> None:
        init(self, evolve(shape, sink=0), *args, **kwargs)

    patch.setattr(cache.KvCache, "__init__", without_sink)


def window_is_endless(patch: pytest.MonkeyPatch) -> None:
    shape = rollout.cache_shape
    patch.setattr(
        rollout,
        "cache_shape",
        lambda config, geometry, *more: evolve(shape(config, geometry, *more), window=geometry.latents),
    )


def no_clean_pass(patch: pytest.MonkeyPatch) -> None:
    flow = rollout.Rollout._flow

    def still_noisy(
        self: rollout.Rollout, x: torch.Tensor, t: float, block: Any, *rest: Any, **more: Any
    ) -> torch.Tensor:
        return flow(self, x, 625.0 if t == rollout.CLEAN_T else t, block, *rest, **more)

    patch.setattr(rollout.Rollout, "_flow", still_noisy)


def no_warp(patch: pytest.MonkeyPatch) -> None:
    make = noise.make_schedule
    patch.setattr(golden_transformer, "make_schedule", lambda steps, shift, warp=True: make(steps, shift, warp=False))


def modulation_of_the_head_from_the_blocks(patch: pytest.MonkeyPatch) -> None:
    embed = dit.Dit.embed_time

    def swapped(self: dit.Dit, t: torch.Tensor) -> dit.TimeEmbedding:
        time = embed(self, t)
        return dit.TimeEmbedding(time.blocks[:, :, 0], time.blocks)

    patch.setattr(dit.Dit, "embed_time", swapped)


def gates_swapped(patch: pytest.MonkeyPatch) -> None:
    add = dit.add_gated
    patch.setattr(dit, "add_gated", lambda x, y, gate: add(x, y, gate.roll(1, -1)))


def hints_in_the_clean_pass(patch: pytest.MonkeyPatch) -> None:
    flow = rollout.Rollout._flow

    def told(
        self: rollout.Rollout, x: torch.Tensor, t: float, block: Any, view: Any = None, **more: Any
    ) -> torch.Tensor:
        if view is None:
            with pytest.raises(StopIteration) as stop:
                next(self._view(block))
            view = stop.value.value
        return flow(self, x, t, block, view, **more)

    patch.setattr(rollout.Rollout, "_flow", told)


def hints_before_their_layer(patch: pytest.MonkeyPatch) -> None:
    forward = vace.Vace.forward
    patch.setattr(vace.Vace, "forward", lambda *args, **kwargs: forward(*args, **kwargs)[::-1])


def text_padding_dropped(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(dit.Dit, "embed_text", lambda self, embeds: self.text_embedding(embeds[:, :-1]))


MISTAKES: tuple[tuple[Patch, str], ...] = (
    (exact_gelu, "dit_bidirectional"),
    (truncated_timesteps, "dit_bidirectional"),
    (sines_first, "dit_bidirectional"),
    (axes_share_their_exponents, "dit_bidirectional"),
    (modulation_of_the_head_from_the_blocks, "dit_bidirectional"),
    (gates_swapped, "dit_bidirectional"),
    (text_padding_dropped, "dit_bidirectional"),
    (blocks_all_begin_at_0, "causal_t2v"),
    (no_clean_pass, "causal_t2v"),
    (no_warp, "causal_t2v"),
    (sink_is_forgotten, "causal_local6_sink1"),
    (window_is_endless, "causal_local6_sink0"),
    (hints_in_the_clean_pass, "vace_causal"),
    (hints_before_their_layer, "vace_bidirectional"),
)


@pytest.mark.parametrize(("mistake", "name"), MISTAKES, ids=[mistake.__name__ for mistake, _ in MISTAKES])
def test_a_mistake_is_noticed(mistake: Patch, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mistake(monkeypatch)
    with pytest.raises(AssertionError):
        check(name)


@pytest.mark.parametrize("name", sorted({name for _, name in MISTAKES}))
def test_without_mistakes_the_same_comparisons_pass(name: str) -> None:
    check(name)
