"""UniPC, step by step against diffusers' own, on a flow that bends and tensors of a few numbers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
import pytest
import torch
import toy
from torch import Tensor

from sfserver.engine import unipc
from sfserver.engine.base import checked
from sfserver.engine.noise import Schedule, even_schedule, unipc_schedule
from sfserver.engine.presets import WAN_VACE
from sfserver.model.config import TOY_VACE

NOISE = torch.linspace(-2, 2, 24).reshape(1, 2, 1, 3, 4)


def bent(x: Tensor, t: float) -> Tensor:
    """A flow that depends on both in ways that no step takes exactly."""
    return x.sin() * 1.3 + math.cos(t / 300) * x - 0.2


def ours(schedule: Schedule, flow: Callable[[Tensor, float], Tensor] = bent) -> list[Tensor]:
    x, xs, advance = NOISE, [], schedule.begin()
    for i, t in enumerate(schedule.timesteps):
        x = advance(i, x, flow(x, t), lambda: NOISE)
        xs.append(x)
    return xs


def theirs(count: int, shift: float) -> tuple[list[float], list[Tensor]]:
    """diffusers at the noise levels that Wan's own code begins with; it has a last one of 0.001 instead."""
    schedulers = pytest.importorskip("diffusers.schedulers")
    scheduler = schedulers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
    )
    scheduler.set_timesteps(sigmas=np.linspace(unipc.MOST_NOISE, 0, count + 1)[:-1])
    x, xs = NOISE, []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for t in scheduler.timesteps:
            x = scheduler.step(bent(x, float(t)), t, x).prev_sample
            xs.append(x)
    return [float(t) for t in scheduler.timesteps], xs


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("count", "shift"), [(1, 5.0), (2, 3.0), (3, 16.0), (8, 5.0), (50, 16.0)])
def test_every_step_is_that_of_diffusers(count: int, shift: float) -> None:
    timesteps, expected = theirs(count, shift)
    schedule = unipc_schedule(count, shift)
    assert list(schedule.timesteps) == timesteps
    for one, other in zip(ours(schedule), expected, strict=True):
        torch.testing.assert_close(one, other, atol=2e-4, rtol=2e-4)


@pytest.mark.timeout(60)
def test_the_control_without_the_corrector_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    _, expected = theirs(8, 5.0)
    monkeypatch.setattr(unipc, "_corrected", lambda sigmas, i, x, clean, before: x)
    assert (ours(unipc_schedule(8, 5.0))[-1] - expected[-1]).abs().max() > 0.01


def test_a_flow_that_is_straight_leads_to_the_clean_latent() -> None:
    clean = torch.randn(NOISE.shape, generator=torch.Generator().manual_seed(1))
    x, advance = NOISE, unipc_schedule(7, 16.0).begin()
    for i in range(7):
        x = advance(i, x, NOISE - clean, lambda: NOISE)
    torch.testing.assert_close(x, clean, atol=5e-3, rtol=0)  # it begins just below pure noise


def test_in_as_many_steps_it_comes_nearer_to_where_the_flow_ends_than_euler_s_do() -> None:
    def error(make: Any) -> float:
        end, made = (ours(make(count, 3.0), steady)[-1] for count in (500, 24))
        return float((made - end).abs().mean())

    assert error(unipc_schedule) < error(even_schedule) / 8  # .0007 and .017


def steady(x: Tensor, t: float) -> Tensor:
    return bent(x, 0.0)


def test_two_blocks_share_no_past() -> None:
    schedule = unipc_schedule(5, 5.0)
    assert all(torch.equal(a, b) for a, b in zip(ours(schedule), ours(schedule), strict=True))


def test_the_yardstick_samples_as_published_and_can_be_asked_for_plain_steps() -> None:
    preset = attrs.evolve(WAN_VACE, dit=TOY_VACE, even_steps=3)
    engine = toy.engine(preset)

    def made(**params: Any) -> Any:
        return toy.pixels(toy.run(toy.job(9, (0, 8), params=params), engine))

    assert np.array_equal(made(), made(sampler="unipc"))
    assert not np.array_equal(made(), made(sampler="euler"))
    assert engine._sampling(checked(toy.job(9, (0, 8)), engine.info)).schedule.sampler == "unipc"
