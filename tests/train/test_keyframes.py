"""Keyframes in training are those of inference: start always, end often, and some between where the clips have them."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
import torch
from attrs import evolve
from tiny import LATENTS, sentences, tiny_clips, tiny_dit
from torch import Generator, Tensor

from sfserver.engine.noise import make_schedule
from sfserver.engine.rollout import Guide, Made, Memory, Networks, Prompt, Rollout, Sampling
from sfserver.train.latents import Latents, draw_known
from sfserver.train.self_rollout import Drawn, Rolling, SelfRolloutStage, batch_noise, clip_geometry, roll_out

SCHEDULE = make_schedule((1000, 500), 5.0)
LAST = LATENTS - 1


def clips(count: int = 2) -> Latents:
    """With a keyframe that could be told at each latent, not what the clip shows there."""
    plain = tiny_clips(count)
    stills = torch.randn(plain.clean.shape, generator=Generator().manual_seed(8))
    return evolve(plain, stills=stills)


def drawn(latents: Latents, count: int = 400) -> list[tuple[int, ...]]:
    random = Generator().manual_seed(0)
    return [draw_known(latents, 0.8, 0.3, random) for _ in range(count)]


def test_the_start_is_always_told_and_the_others_with_their_shares() -> None:
    told = drawn(clips())
    assert all(positions[0] == 0 and all(a < b for a, b in pairwise(positions)) for positions in told)
    between = [sum(0 < position < LAST for position in positions) for positions in told]
    assert sum(LAST in positions for positions in told) / len(told) == pytest.approx(0.8, abs=0.06)
    assert sum(count > 0 for count in between) / len(told) == pytest.approx(0.3, abs=0.06)
    assert set(between) == {0, 1, 2}, "three between would leave nothing to make"
    assert {p for positions in told for p in positions} == set(range(LATENTS))


def test_a_pool_without_stills_has_keyframes_at_its_ends_alone() -> None:
    assert Counter(len(positions) for positions in drawn(tiny_clips(2))).keys() == {1, 2}


def rolled(latents: Latents, known: tuple[int, ...], per_block: int) -> Tensor:
    geometry = clip_geometry(latents.clean, per_block)
    return roll_out(
        tiny_dit(stirred=0.05),
        sentences()[latents.sentence],
        {position: latents.keyframe(position) for position in known},
        geometry,
        SCHEDULE,
        batch_noise(latents.clean, geometry, Generator().manual_seed(5)),
        graph="exit",
    ).detach()


@torch.no_grad()
def in_use(latents: Latents, known: tuple[int, ...], per_block: int) -> Tensor:
    """By the engine's own cache, as a job runs."""
    geometry, dit = clip_geometry(latents.clean, per_block), tiny_dit(stirred=0.05)
    rollout = Rollout(
        Networks(dit),
        geometry,
        Sampling(SCHEDULE),
        [Prompt(dit.embed_prompt(sentences()[latents.sentence]))],
        batch_noise(latents.clean, geometry, Generator().manual_seed(5)),
        Guide(known={position: latents.keyframe(position) for position in known}),
        Memory(window=geometry.latents, sink=1),
        batch=len(latents),
    )
    made = [event.latents for event in rollout.run() if isinstance(event, Made)]
    return torch.cat(made, 1)[:, 1:-1]


@pytest.mark.parametrize("per_block", [1, 3])
@pytest.mark.parametrize("known", [(0,), (0, LAST), (0, 2, LAST), (0, 1, 3)])
def test_a_rollout_is_told_what_a_job_is_told(known: tuple[int, ...], per_block: int) -> None:
    latents = clips()
    made = rolled(latents, known, per_block)
    torch.testing.assert_close(made, in_use(latents, known, per_block), atol=1e-5, rtol=1e-5)
    for position in known[1:]:
        if position < LAST:
            assert torch.equal(made[:, position - 1 : position], latents.keyframe(position))


def test_what_is_made_before_a_keyframe_looks_at_it() -> None:
    latents = clips()
    assert latents.stills is not None
    other = evolve(latents, stills=latents.stills + 1)
    first = slice(0, 1)
    assert not torch.equal(rolled(latents, (0, 2), 1)[:, first], rolled(other, (0, 2), 1)[:, first])
    assert torch.equal(rolled(latents, (0,), 1)[:, first], rolled(other, (0,), 1)[:, first])


def test_the_loss_is_over_what_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another truth where a keyframe is told changes nothing; elsewhere it does."""
    latents = clips()

    def loss(truth: Tensor) -> float:
        rolling = Rolling((latents,), sentences(), SCHEDULE, batch=2, dtype=torch.float32)
        batch = Drawn(evolve(latents, clean=truth), (0, 2, LAST))
        monkeypatch.setattr(Rolling, "draw", lambda self, random, device: batch)
        return float(SelfRolloutStage(tiny_dit(), rolling).loss(Generator().manual_seed(1)).detach())

    at_keyframe, beside_it = latents.clean.clone(), latents.clean.clone()
    at_keyframe[:, 2] += 1
    beside_it[:, 3] += 1
    assert loss(at_keyframe) == loss(latents.clean)
    assert loss(beside_it) != loss(latents.clean)
