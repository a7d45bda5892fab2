"""The loop: a run that is killed goes on as if nothing had been, and what is not finite is named."""

from __future__ import annotations

from contextlib import closing
from itertools import islice
from pathlib import Path

import pytest
import torch
from attrs import frozen
from tiny import sentences, tiny_clips, tiny_dit
from torch import Tensor, nn

from sfserver.errors import UserError
from sfserver.train.loop import Pace, averages_of, step_random, train
from sfserver.train.teacher import TeacherStage

PACE = Pace(steps=12, learning_rate=1e-3, checkpoint_steps=4)


def stage() -> TeacherStage:
    return TeacherStage(tiny_dit(), (tiny_clips(32),), sentences(), batch=4)


def losses(folder: Path, pace: Pace = PACE, stop_after: int | None = None) -> list[float]:
    with closing(train(stage(), pace, folder, seed=3)) as reports:
        return [report.loss for report in islice(reports, stop_after)]


def test_a_run_that_was_closed_goes_on_bit_by_bit(tmp_path: Path) -> None:
    whole = losses(tmp_path / "whole")
    assert losses(tmp_path / "broken", stop_after=5) + losses(tmp_path / "broken") == whole
    for name, value in averages_of(tmp_path / "whole").items():
        assert torch.equal(value, averages_of(tmp_path / "broken")[name]), name


def test_a_run_that_was_killed_repeats_the_steps_since_its_checkpoint(tmp_path: Path) -> None:
    whole = losses(tmp_path / "whole")
    reports = train(stage(), PACE, tmp_path / "killed", seed=3)
    list(islice(reports, 6))
    kept = (tmp_path / "killed" / "checkpoint.pt").read_bytes()  # of step 4
    reports.close()
    (tmp_path / "killed" / "checkpoint.pt").write_bytes(kept)
    assert losses(tmp_path / "killed") == whole[4:]


def test_the_control_another_seed_is_another_run(tmp_path: Path) -> None:
    with closing(train(stage(), PACE, tmp_path / "other", seed=4)) as reports:
        assert [report.loss for report in reports] != losses(tmp_path / "whole")


def test_what_is_finished_is_not_done_again(tmp_path: Path) -> None:
    losses(tmp_path)
    assert losses(tmp_path) == []


def test_steps_have_generators_of_their_own() -> None:
    drawn = {float(torch.rand((), generator=step_random(seed, step))) for seed in (0, 1) for step in range(50)}
    assert len(drawn) == 100


@frozen(eq=False)
class Explodes:
    """A loss whose gradient is infinite at zero."""

    network: nn.Linear

    def loss(self, random: torch.Generator) -> Tensor:
        return (self.network.weight * 0).abs().sqrt().sum()


def test_a_gradient_that_is_not_finite_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"step 0: the gradient of weight is not finite"):
        next(train(Explodes(nn.Linear(2, 2, bias=False)), PACE, tmp_path))


def test_the_rate_rises_stays_and_falls() -> None:
    pace = Pace(steps=1000, learning_rate=1.0, warm_up_steps=10, decay_from=0.5, final_rate=0.1)
    assert pace.rate(0) == pytest.approx(0.1)
    assert pace.rate(400) == 1.0
    assert pace.rate(999) == pytest.approx(0.1, abs=1e-3)
