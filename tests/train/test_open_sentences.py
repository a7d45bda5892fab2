"""A sentence that leaves something open: two clips do as it says, and the noise decides."""

from __future__ import annotations

import pytest
import torch
from attrs import evolve
from tiny import LATENTS, sentences, tiny_clips, tiny_dit
from torch import Tensor

from sfserver.engine.noise import Noise, Schedule, make_schedule
from sfserver.train import self_rollout
from sfserver.train.latents import Latents
from sfserver.train.self_rollout import QUIETEST, Drawn, Rolling, SelfRolloutStage, louder, meant

SCHEDULE = make_schedule((1000, 750, 500, 250), 5.0)


def open_clips(count: int) -> Latents:
    """Clips that another one satisfies as well: their mirror images."""
    latents = tiny_clips(count)
    return evolve(latents, other=latents.clean.flip(-1), first=torch.arange(count) % 2 == 0)


def noise_of(means: list[float]) -> Tensor:
    """Of a first block, [B, 1, C, H, W]: so much more or less than nothing in the first channel, all else is loud."""
    noise = torch.randn(len(means), 1, 16, 4, 4, generator=torch.Generator().manual_seed(3)) * 3
    noise[:, :, 0] += (
        torch.tensor(means)[:, None, None, None] - noise[:, :, 0].mean((1, 2, 3), keepdim=True)[:, 0, None]
    )
    return noise


def test_the_noise_says_which_of_two_clips_is_meant_whichever_of_them_was_drawn() -> None:
    latents = open_clips(4)
    assert latents.other is not None
    assert latents.first is not None
    clips = meant(latents, noise_of([0.1, 0.1, -0.1, -0.1]))
    want = (latents.clean[0], latents.other[1], latents.other[2], latents.clean[3])
    assert torch.equal(clips, torch.stack(want))
    turned = evolve(latents, clean=latents.other, other=latents.clean, first=~latents.first)
    assert torch.equal(meant(turned, noise_of([0.1, 0.1, -0.1, -0.1])), clips)


def test_where_nothing_is_open_the_noise_says_nothing() -> None:
    latents = evolve(open_clips(2), other=tiny_clips(2).clean.clone())
    for means in ([0.1, 0.1], [-0.1, -0.1]):
        assert torch.equal(meant(latents, noise_of(means)), latents.clean)


def test_an_open_sentence_is_learnt_as_a_choice_that_the_noise_makes() -> None:
    """The best answer to what is asked is the mean of the targets under a noise: one clip for each sign. The control,
    clips as they were drawn, has the same mean under both."""
    random = torch.Generator().manual_seed(8)
    noise = torch.randn(2000, 1, 16, 4, 4, generator=random)
    one, other = tiny_clips(1).clean, tiny_clips(1).clean.flip(-1)
    first = torch.rand(2000, generator=random) > 0.5
    drawn = torch.where(first[:, None, None, None, None], one, other)
    left = torch.where(first[:, None, None, None, None], other, one)
    clips = evolve(tiny_clips(1), clean=drawn, other=left, first=first)

    def spread(clips: Tensor) -> float:
        """How much of what sets the two clips apart is told by the sign of the noise."""
        heads = noise[:, :, 0].mean((1, 2, 3)) > 0
        apart = clips[heads].mean(0) - clips[~heads].mean(0)
        return float(apart.norm() / (one - other).norm())

    assert spread(meant(clips, noise)) == pytest.approx(1.0, abs=1e-5)
    assert spread(clips.clean) < 0.1


@pytest.mark.parametrize("turned", [False, True])
def test_a_stage_holds_a_rollout_to_what_its_own_noise_means(turned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rollout that makes what its noise stands for is right; the control makes the other clip."""
    latents = open_clips(6)
    rolling = Rolling((latents,), sentences(), SCHEDULE, batch=6)
    monkeypatch.setattr(Rolling, "draw", lambda *_: Drawn(latents, (0, LATENTS - 1)))

    def follows(_dit, _text, _known, _geometry, schedule: Schedule, noise: Noise, *_: object) -> Tensor:
        last = noise(0, len(schedule) - 1)
        return meant(latents, -last if turned else last)[:, 1:-1]

    monkeypatch.setattr(self_rollout, "roll_out", follows)
    loss = float(SelfRolloutStage(tiny_dit(stirred=0.05), rolling).loss(torch.Generator().manual_seed(1)))
    assert (loss > 0.1) is turned


def noise_for(latents: Latents, loud: float = 0.0) -> Noise:
    rolling = Rolling((latents,), sentences(), SCHEDULE, batch=len(latents), loud=loud)
    return rolling.noise(Drawn(latents, (0, LATENTS - 1)), torch.Generator().manual_seed(5))


def test_a_choice_made_louder_is_the_same_choice_and_all_else_is_the_noise_itself() -> None:
    latents = open_clips(8)
    plain = noise_for(latents)
    loud = louder(plain, 8.0)
    for step in (0, 1):
        assert torch.equal(meant(latents, loud(0, step)), meant(latents, plain(0, step)))
        assert (loud(0, step)[:, :, 0].mean((1, 2, 3)).abs() > 8.0).all()
        assert torch.equal(loud(0, step)[:, :, 1:], plain(0, step)[:, :, 1:])
    assert torch.equal(loud(1, 0), plain(1, 0)), "later blocks follow the first"


def test_a_stage_draws_how_loud_from_its_most_to_less_than_nothing() -> None:
    latents = open_clips(8)
    quiet = noise_for(latents)(0, 0)
    assert torch.equal(quiet, noise_for(latents)(0, 0))
    assert (noise_for(latents, 1e4)(0, 0)[:, :, 0].mean((1, 2, 3)).abs() > QUIETEST * 1e4 - 1).all()
    assert (quiet[:, :, 0].mean((1, 2, 3)).abs() < 1).all(), "the control: of itself it is one number in a thousand"
