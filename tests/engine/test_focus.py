"""Passes that see all of a clip, and what makes them keep to its keyframes. Toy networks, the real loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import toy
from hypothesis import given
from hypothesis import strategies as st
from test_steering import THREE, biased_plainly, latents, prompt
from torch import Tensor

from sfserver.engine.conditioning import Dials, Strategy, guide
from sfserver.engine.geometry import plan
from sfserver.engine.guide import AT_EASE, Focus, Guide, encoded
from sfserver.engine.noise import seeded_noise
from sfserver.engine.rollout import Made, Memory, Networks, Rollout, Sampling
from sfserver.model.rope import RopeTable

LATENTS = 7


def make(focus: Focus, end: int = 9, anchor: bool = False, lookahead: bool = False) -> Tensor:
    """All latents of a clip whose VACE context is nothing but noise; the end is a latent of its own where anchored."""
    geometry = plan(48, 32, 4 * LATENTS - 3, 3 if lookahead else None, [])
    context = torch.randn(1, LATENTS, 96, 4, 6, generator=torch.Generator().manual_seed(3))
    context[:, -1] = torch.randn(96, 4, 6, generator=torch.Generator().manual_seed(end))
    told = Guide(
        known={LATENTS - 1: latents(end)} if anchor else {},
        context=encoded(context),
        lookahead=LATENTS - 3 if lookahead else 0,
        focus=focus,
        keyframes=frozenset({0, LATENTS - 1}),
    )
    loaded = toy.weights()
    memory = Memory(64) if anchor or lookahead else None
    networks, noise = Networks(loaded.dit, loaded.vace), seeded_noise(0, geometry)
    rollout = Rollout(networks, geometry, Sampling(THREE), [prompt()], noise, told, memory)
    return torch.cat([event.latents for event in rollout.run() if isinstance(event, Made)], dim=1)


WAYS: list[dict[str, Any]] = [{}, {"anchor": True}, {"lookahead": True}]


@pytest.mark.parametrize("way", WAYS)
def test_at_rest_it_is_the_plain_pass(way: dict[str, Any]) -> None:
    assert torch.equal(make(Focus(0.0, 1.0), **way), make(AT_EASE, **way))
    assert (make(Focus(2.0), **way) - make(AT_EASE, **way)).abs().max() > 1e-3, "the control"
    assert (make(Focus(0.0, 0.5), **way) - make(AT_EASE, **way)).abs().max() > 1e-3, "the control"


@pytest.mark.parametrize("way", WAYS)
def test_a_focus_is_what_a_mask_would_add(way: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """In the transformer and in the VACE branch, against plain attention with the bias on its logits."""
    ours = make(Focus(1.5), **way)
    monkeypatch.setattr("sfserver.model.dit.attend_in_groups", biased_plainly)
    torch.testing.assert_close(ours, make(Focus(1.5), **way), atol=5e-5, rtol=1e-4)


@given(position=st.integers(0, 20), keyframes=st.sets(st.integers(0, 20), min_size=1, max_size=4))
def test_all_of_it_is_given_and_the_nearer_keyframe_gets_more(position: int, keyframes: set[int]) -> None:
    biases = {key: bias[position] for key, bias in Focus(3.0).biases(range(21), keyframes).items()}
    assert sum(biases.values()) == pytest.approx(3.0)
    before = max((key for key in keyframes if key <= position), default=None)
    after = min((key for key in keyframes if key > position), default=None)
    assert {key for key, bias in biases.items() if bias} <= {before, after}
    if before is not None and after is not None:
        nearer = before if position - before < after - position else after
        assert biases[nearer] >= 1.5


def test_keyframes_that_a_pass_does_not_see_have_no_part_in_it() -> None:
    assert Focus(1.0).biases(range(3, 6), {0, 4, 9}) == {4: (1.0, 1.0, 1.0)}
    assert Focus(1.0).biases(range(3, 6), {0, 9}) == Focus().biases(range(3), {1}) == {}


def test_which_picture_is_the_end_matters_the_more_to_those_before_it_the_firmer_the_focus() -> None:
    def moved(strength: float) -> float:
        one, other = (make(Focus(strength), end)[:, -3:-1] for end in (9, 10))
        return float((one - other).square().mean().sqrt())

    felt = [moved(strength) for strength in (0.0, 2.0, 4.0)]
    assert felt == sorted(felt)
    assert felt[2] > 1.5 * felt[0]


def test_time_that_is_rescaled_brings_latents_nearer() -> None:
    half, whole = (RopeTable(32, 9, 2, 3, time_scale=scale) for scale in (0.5, 1.0))
    assert all(torch.equal(a, b) for a, b in zip(half.at(4, 1), whole.at(2, 1), strict=True))
    assert not torch.equal(half.at(3, 1).cos, whole.at(3, 1).cos)


@pytest.mark.parametrize("strategy", ["joint", "lookahead", "joint+anchor", "lookahead+anchor", "chunk", "anchor"])
def test_it_is_for_strategies_that_see_all_of_the_clip(strategy: str) -> None:
    def made(**params: Any) -> Any:
        return toy.pixels(toy.run(toy.job(13, (0, 12), params={"strategy": strategy, **params})))

    same = np.array_equal(made(), made(keyframe_focus=3.0, keyframe_nearness=0.5))
    assert same == (strategy in ("chunk", "anchor"))


def test_a_guide_is_told_where_keyframes_are() -> None:
    told = guide(Strategy.parse("joint", has_vace=True), plan(48, 32, 13, None), [], None, Dials(focus=Focus(1.0)))
    assert told.focus == Focus(1.0)
    assert told.keyframes == frozenset()
