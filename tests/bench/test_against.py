"""The published pipeline is driven as its checkout wants to be. Here one of a few lines stands in its place, with the
names, arguments and shapes of the published one; that one itself has not been run here."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sfserver.bench.against import compare, published
from sfserver.cli import USER_ERROR, main
from sfserver.errors import UserError
from sfserver.model.config import TOY

CPU = torch.device("cpu")


def test_the_published_pipeline_makes_a_clip_with_random_weights_of_our_sizes(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = published(checkout, TOY, CPU, torch.float32)
    pixels = theirs.clip((1, 6, 16, 4, 4))
    model = theirs.pipeline.generator.model
    assert model.sizes == (TOY.dim, TOY.ffn_dim, TOY.heads, TOY.layers)
    assert model.weight.std() > 0, "drawn, and not loaded"
    assert [t for _, t in model.passes] == 2 * [1000, 750, 500, 250, 0]
    assert pixels.shape == (1, 6, 3, 4, 4)
    assert theirs.pipeline.generator.shift == 5.0
    assert capsys.readouterr().out == "", "what it prints is not ours"
    assert str(checkout) not in sys.path


def test_all_take_turns_and_the_cold_round_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    order: list[str] = []

    def taking(seconds: float, name: str) -> None:
        clock[0] += seconds if len(order) >= 3 else 1000
        order.append(name)

    def clip(shape: tuple[int, ...]) -> torch.Tensor:
        taking(6.0, "theirs")
        return torch.zeros(1)

    timed = SimpleNamespace(clip=clip)
    ours = {"G1": lambda: taking(2.0, "tae"), "G3": lambda: taking(4.0, "wan")}
    measures = compare(timed, (1, 6, 16, 4, 4), ours, lambda: None, pairs=3)  # type: ignore[arg-type]
    assert order == ["theirs", "tae", "wan"] * 4
    assert [(m.goal, m.value) for m in measures] == [("G1", 3.0), ("G3", 1.5)]


def test_a_folder_that_is_no_checkout_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"is no checkout of Self-Forcing, it lacks pipeline/causal_inference\.py"):
        published(tmp_path, TOY, CPU, torch.float32)
    assert main(["bench", "--against", str(tmp_path)]) == USER_ERROR
    assert "give --gpu as well" in capsys.readouterr().err
