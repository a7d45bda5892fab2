"""Schedules as checkpoints' authors write them, and noise that a seed decides."""

from __future__ import annotations

import pytest
import torch

from sfserver.engine.geometry import plan
from sfserver.engine.noise import even_schedule, make_schedule, mix, seeded_noise


def test_published_steps_are_warped() -> None:
    steps = (1000, 750, 500, 250)
    assert make_schedule(steps, shift=5.0).timesteps == pytest.approx((1000, 937.5, 833.3333, 625), abs=1e-3)
    assert make_schedule(steps, shift=8.0).timesteps == pytest.approx((1000, 960, 888.889, 727.273), abs=1e-3)


def test_unwarped_steps_are_told_as_they_are() -> None:
    schedule = make_schedule((1000, 757, 522), shift=8.0, warp=False)
    assert schedule.timesteps == (1000.0, 757.0, 522.0)
    assert schedule.sigmas == pytest.approx((1.0, 0.757, 0.522), abs=2e-3)


def test_exact_flow_leads_any_schedule_to_the_clean_latent() -> None:
    clean, noise = torch.randn(2, 1, 2, 16, 4, 4)
    for schedule in (make_schedule((1000, 750, 500, 250), 5.0), even_schedule(12, 3.0)):
        x, fresh = noise, noise
        for i in range(len(schedule)):
            fresh_next = torch.randn_like(noise) if schedule.sampler == "renoise" else fresh
            x = schedule.advance(i, x, fresh - clean, lambda fresh_next=fresh_next: fresh_next)
            fresh = fresh_next
        torch.testing.assert_close(x, clean, atol=1e-5, rtol=1e-5)


def test_mix_at_sigma_1_is_pure_noise() -> None:
    clean, noise = torch.randn(2, 3)
    assert torch.equal(mix(clean, noise, 1.0), noise)
    assert torch.equal(mix(clean, noise, 0.0), clean)


def test_noise_depends_on_seed_block_and_step_alone() -> None:
    geometry = plan(64, 48, 25, 3)
    noise = seeded_noise(7, geometry)
    backwards = {(b, s): noise(b, s) for b in (1, 0) for s in (2, 1, 0)}
    again = seeded_noise(7, plan(64, 48, 13, 3))
    assert torch.equal(again(0, 1), backwards[0, 1]), "a longer clip begins with the same noise"
    drawn = [*backwards.values(), seeded_noise(8, geometry)(0, 0)]
    assert len({float(x.sum()) for x in drawn}) == len(drawn)


def test_noise_is_normal() -> None:
    noise = seeded_noise(2**63 - 1, plan(416, 240, 9, 3))(0, 0)
    assert noise.shape == (1, 3, 16, 30, 52)
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02
