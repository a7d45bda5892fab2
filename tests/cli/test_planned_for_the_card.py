"""A clip is planned for what the GPU has: by what is set, and by its size where nobody has asked for one."""

from __future__ import annotations

from pathlib import Path

import attrs
import numpy as np
import pytest
from PIL import Image
from sfwire.messages import EngineInfo

from sfserver.clip import planning
from sfserver.clip.order import Order
from sfserver.config import ServerConfig
from sfserver.engine import draft, table, wan

CONFIG = ServerConfig()
GIB = 1024**3


class Notes:
    def __init__(self) -> None:
        self.sentences: list[str] = []

    def note(self, sentence: str) -> None:
        self.sentences.append(sentence)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    paths = tmp_path / "a.png", tmp_path / "b.png"
    for path in paths:
        Image.fromarray(np.zeros((480, 832, 3), np.uint8)).save(path)
    return paths


@pytest.fixture(autouse=True)
def complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """Self Forcing is there with all its files."""

    def infos(config: ServerConfig) -> tuple[EngineInfo, ...]:
        model = next(info for info in wan.describe(config) if info.id == "self-forcing")
        decoder = attrs.evolve(next(p for p in model.parameters if p.name == "tiled"), name="decoder", kind="choice")
        decoder = attrs.evolve(decoder, default="wan", choices=("wan", "tae"))
        rest = [p for p in model.parameters if p.name != "decoder"]
        return attrs.evolve(model, available=True, missing=(), parameters=(*rest, decoder)), draft.describe(config)

    monkeypatch.setattr(table, "describe_all", infos)
    monkeypatch.setattr(planning, "weights_for", lambda order, choice, config: {})


def planned(
    pair: tuple[Path, Path], tmp_path: Path, gigabytes: int, monkeypatch: pytest.MonkeyPatch, **fields
) -> tuple[planning.Prepared, list[str]]:
    monkeypatch.setattr(table, "gpu_memory_bytes", lambda config: gigabytes * GIB)
    notes = Notes()
    order = Order(*pair, tmp_path / "out", num_frames=81, **fields)
    return planning.prepare(order, CONFIG, None, notes), notes.sentences


@pytest.mark.parametrize("engine", ["auto", "self-forcing"])
def test_on_8_gb_a_smaller_picture_is_made_and_one_line_says_so(engine: str, pair, tmp_path, monkeypatch) -> None:
    prepared, notes = planned(pair, tmp_path, 8, monkeypatch, engine=engine)
    job = prepared.plan.job
    assert prepared.choice.info.id == "self-forcing"
    assert 416 <= job.width < 832
    assert all(k.image.shape == (job.height, job.width, 3) for k in job.keyframes)
    assert (job.params["decoder"], job.params["tiled"]) == ("tae", True)
    (line,) = (note for note in notes if note.startswith("Self Forcing 1.3B: needs about "))
    assert f"at {job.width}x{job.height}, as 832x480 does not fit" in line


def test_a_size_that_was_asked_for_is_kept(pair, tmp_path, monkeypatch) -> None:
    prepared, notes = planned(pair, tmp_path, 8, monkeypatch, size=(832, 480))
    assert prepared.choice.info.id == "draft"
    assert (prepared.plan.job.width, prepared.plan.job.height) == (832, 480)
    assert any("would" in note for note in notes)
    by_name, _ = planned(pair, tmp_path, 8, monkeypatch, size=(832, 480), engine="self-forcing")
    assert by_name.choice.info.id == "self-forcing", "whoever names it may try"
    assert by_name.plan.job.params["window"] == 21


def test_settings_that_were_asked_for_are_kept(pair, tmp_path, monkeypatch) -> None:
    prepared, _ = planned(pair, tmp_path, 12, monkeypatch, engine="self-forcing", settings={"window": "21"})
    assert prepared.plan.job.params["window"] == 21
    assert prepared.plan.job.params["decoder"] == "tae"


def test_the_control_a_large_card_changes_nothing_and_says_nothing(pair, tmp_path, monkeypatch) -> None:
    prepared, notes = planned(pair, tmp_path, 24, monkeypatch, engine="self-forcing")
    assert (prepared.plan.job.width, prepared.plan.job.height) == (832, 480)
    assert prepared.plan.job.params["window"] == 21
    assert not notes


def test_without_a_gpu_an_engine_by_name_is_left_as_it_is(pair, tmp_path, monkeypatch) -> None:
    prepared, notes = planned(pair, tmp_path, 0, monkeypatch, engine="self-forcing")
    assert prepared.plan.job.width == 832
    assert not notes
    assert planned(pair, tmp_path, 0, monkeypatch)[0].choice.info.id == "draft"


def test_what_auto_mostly_means_is_a_model_where_a_smaller_window_fits(monkeypatch) -> None:
    for gigabytes, engine in ((2, "draft"), (8, "self-forcing"), (12, "self-forcing"), (24, "self-forcing")):
        monkeypatch.setattr(table, "gpu_memory_bytes", lambda config, gb=gigabytes: gb * GIB)
        assert table.choose(table.describe_all(CONFIG), CONFIG)[0] == engine
