"""Passes that are recorded and played make the same clip, with one launch for each. Played here by a fake: a record
that runs the work once more on the tensors it was recorded with, as a device would."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import numpy as np
import pytest
import torch
import toy
from torch import Tensor

from sfserver.engine import rollout, wan_load
from sfserver.engine.wan_engine import WanEngine
from sfserver.model import graphs
from sfserver.model.graphs import Played, recorder

STEPS = (1000, 750, 500, 250)
PRESET = attrs.evolve(toy.PRESET, steps=STEPS)


class Device:
    """Counts what it records and plays."""

    def __init__(self) -> None:
        self.recorded = self.played = 0

    def record(self, work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        self.recorded += 1
        answer = torch.zeros_like(work())

        def play() -> None:
            self.played += 1
            answer.copy_(work())

        return play, answer


def clip(record: graphs.Record | None, strategy: str = "anchor", **params: object) -> np.ndarray:
    engine = WanEngine(toy.engine(PRESET).info, PRESET, toy.weights(), toy.CPU, record=record)
    return toy.pixels(toy.run(toy.job(17, (0, 16), params={"strategy": strategy, "seam": False, **params}), engine))


@pytest.mark.parametrize("strategy", ["anchor", "chunk+anchor", "lookahead+anchor"])
def test_a_clip_of_played_passes_is_the_same_and_each_block_is_recorded_once(strategy: str) -> None:
    """Frames 1 to 16 are a block of three latents and one of a single latent, which is made although it is known."""
    device = Device()
    assert np.array_equal(clip(device.record, strategy), clip(None, strategy))
    assert device.recorded >= 1
    assert device.played == (len(STEPS) - 1) * device.recorded


def test_the_control_a_record_that_is_not_told_what_has_changed_makes_another_clip(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = Device()

    class Deaf(Played):
        def __call__(self, *given: Tensor) -> Tensor:
            return super().__call__(*(self._given or given))

    monkeypatch.setattr(rollout, "Played", Deaf)
    assert not np.array_equal(clip(device.record), clip(None))


def test_large_pictures_and_dials_that_come_from_the_host_are_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, dialled, large = Device(), Device(), Device()
    clip(plain.record)
    clip(dialled.record, anchor_strength=1.0)
    assert dialled.recorded == plain.recorded - 1, "the block that the keyframe lies ahead of"
    monkeypatch.setattr(rollout, "SMALL_TOKENS", 5)
    clip(large.record)
    assert large.recorded == 0


def test_a_pass_that_cannot_be_recorded_is_made_as_it_is_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    tried: list[str] = []

    def refuse(work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        tried.append("once")
        raise RuntimeError("operation not permitted when stream is capturing")

    played = Played(lambda x: x + 1, refuse)
    assert [float(played(torch.tensor(float(i)))) for i in range(4)] == [1, 2, 3, 4]
    assert tried == ["once"]
    assert len(caplog.records) == 1
    assert np.array_equal(clip(refuse), clip(None))


def test_nothing_is_recorded_unless_it_is_asked_for_on_cuda() -> None:
    assert recorder(torch.device("cuda"), "off") is None
    assert recorder(toy.CPU, "small") is None
    assert recorder(torch.device("cuda"), "small") is graphs.on_cuda
    assert wan_load.ServerConfig().graphs == "off"
