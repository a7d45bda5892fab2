"""Where a training runs and what it writes down: one process is one of several, and looking on changes nothing."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
import torch
from attrs import evolve, frozen
from tiny import sentences, tiny_clips, tiny_dit
from torch import Tensor

from sfserver.engine.noise import make_schedule
from sfserver.errors import UserError
from sfserver.train import place as places
from sfserver.train.log import Log
from sfserver.train.loop import Pace, Report, train
from sfserver.train.place import ALONE, Accelerated, Place, choose_place
from sfserver.train.self_rollout import Rolling
from sfserver.train.showing import Showing, held_out, show
from sfserver.train.teacher import TeacherStage

PACE = Pace(steps=3, learning_rate=1e-3, warm_up_steps=1)
SCHEDULE = make_schedule((1000, 500), 5.0)


def losses(folder: Path, place: Place = ALONE, pace: Pace = PACE) -> list[float]:
    stage = TeacherStage(tiny_dit(), (tiny_clips(32),), sentences(), batch=2)
    with closing(train(stage, pace, folder, seed=3, place=place)) as reports:
        return [report.loss for report in reports]


@pytest.mark.skipif(not importlib.util.find_spec("accelerate"), reason="needs the extra train")
def test_one_process_under_accelerate_is_a_process_alone(tmp_path: Path) -> None:
    place = Accelerated(on_cpu=True)
    assert (place.rank, place.device.type) == (0, "cpu")
    assert losses(tmp_path / "one", place) == losses(tmp_path / "alone")
    place.wait()


@frozen
class Second:
    """The second of two processes; the mean of the gradients is said to be zero."""

    device: torch.device = ALONE.device
    rank: int = 1

    def average(self, tensors: Sequence[Tensor]) -> None:
        assert tensors
        for tensor in tensors:
            tensor.zero_()

    def wait(self) -> None:
        pass


def test_a_second_process_sees_other_clips_and_writes_nothing(tmp_path: Path) -> None:
    assert losses(tmp_path / "second", Second())[0] != losses(tmp_path / "first")[0]
    assert not list((tmp_path / "second").iterdir())


def test_a_step_is_made_of_the_mean_of_all_processes(tmp_path: Path) -> None:
    """Of means that are zero no step is made: each batch meets the weights of the first."""
    pace = evolve(PACE, weight_decay=0.0)
    still = losses(tmp_path / "still", Second(), pace)
    one_by_one = [losses(tmp_path / str(n), Second(), evolve(pace, learning_rate=0.0))[n] for n in range(3)]
    assert still == one_by_one
    alone = losses(tmp_path / "alone", evolve(ALONE, rank=1), pace)
    assert alone[0] == still[0]
    assert alone[1:] != still[1:]


def test_accumulated_batches_are_one(tmp_path: Path) -> None:
    """The first step's loss is the mean over two batches, the first of which is what it would be by itself."""
    one, two = (losses(tmp_path / str(n), pace=evolve(PACE, accumulate=n))[0] for n in (1, 2))
    assert one != two
    assert two == pytest.approx(one, rel=0.5)


def test_a_device_that_is_not_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_place("auto").device.type == "cpu"
    with pytest.raises(UserError, match="no CUDA device"):
        choose_place("cuda")
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setattr(places.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'sfserver\[train\]'"):
        choose_place("cpu")


@pytest.mark.parametrize("there", [True, False])
def test_steps_are_written_down_with_a_board_or_without(
    there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if there and not importlib.util.find_spec("tensorboard"):
        pytest.skip("needs the extra train")
    if not there:
        monkeypatch.setattr("sfserver.train.log.importlib.util.find_spec", lambda name: None)
    with Log(tmp_path) as log:
        for step in range(50):
            log.add(Report(step, loss=2.0 - step / 50, rate=1e-3, grad_norm=1.0))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert [line["step"] for line in lines] == [24, 49]
    assert lines[1]["loss"] < lines[1]["smooth_loss"] < 2.0
    assert "beside_loss" not in lines[0]
    assert bool(list(tmp_path.glob("board/events*"))) == there


def showing() -> Showing:
    _, apart = held_out(tiny_clips(20))
    return Showing(apart, sentences(), lambda latents: latents[0, :, :3].repeat(1, 1, 8, 8)[None] / 6 + 0.5, SCHEDULE)


def test_clips_that_are_shown_are_none_that_are_learnt() -> None:
    clips = tiny_clips(20)
    kept, apart = held_out(clips)
    assert (len(kept), len(apart)) == (18, 2)
    assert torch.equal(torch.cat((kept.clean, apart.clean)), clips.clean)
    assert len(held_out(tiny_clips(5))[1]) == 0


def test_a_sheet_differs_by_the_model_alone(tmp_path: Path) -> None:
    rolling = Rolling((tiny_clips(4),), sentences(), SCHEDULE)
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        show(tiny_dit(seed, 0.05), rolling, showing(), tmp_path / f"{name}.png")
    first, again, other = ((tmp_path / f"{name}.png").read_bytes() for name in ("first", "again", "other"))
    assert first == again
    assert first != other
