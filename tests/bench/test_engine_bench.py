"""What the benchmark divides by is right, both ways to make a clip give the same clip, and no GPU is a sentence."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from sfserver.bench import clips, engine, full, pace, ready, speed
from sfserver.bench.flops import decode_flops, pass_flops
from sfserver.bench.goals import GOALS
from sfserver.bench.gpu import Scale, measure_on
from sfserver.bench.report import read_json, write_json
from sfserver.cli import USER_ERROR, main
from sfserver.errors import UserError
from sfserver.model.config import TOY, WAN_1_3B
from sfserver.model.tae import Tae, TaeConfig
from sfserver.model.vae import VaeConfig, WanVae


@pytest.mark.parametrize("held", [3, 21])
def test_flops_of_a_pass_are_the_budget_s(budget: ModuleType, held: int) -> None:
    expected = sum(budget.pass_flops(budget.MODELS["wan1.3b"], 3 * 1560, held * 1560).values())
    assert pass_flops(WAN_1_3B, 3 * 1560, held * 1560) == expected


@pytest.mark.parametrize(("kind", "network"), [("wan", WanVae), ("tae", Tae)])
def test_flops_of_decoding_are_the_budget_s(budget: ModuleType, kind: str, network: type[WanVae] | type[Tae]) -> None:
    with torch.device("meta"):
        decoder = WanVae(VaeConfig()) if network is WanVae else Tae(TaeConfig())
    assert decode_flops(decoder, 64, 48, 3) == pytest.approx(budget.vae_flops(kind, 64, 48, 3), rel=1e-3)


def test_blocks_of_equal_cost_make_the_published_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "pass_flops", lambda config, queries, keys: 1)
    for blocks in (4, 100):
        with_last_clean_pass = engine.saved_flops(blocks, 1, steps=4) * (5 * blocks - 1) / (5 * blocks)
        assert with_last_clean_pass == pytest.approx(0.4 * (blocks + 1))


def test_a_clip_made_without_a_cache_is_the_same_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "CACHED_SIZE", (32, 32))
    clip = engine.Clip()
    cached = clip.cached()
    torch.testing.assert_close(cached, clip.recomputed(), atol=1e-5, rtol=1e-5)
    monkeypatch.setattr(engine, "block_causal", lambda tokens: engine.attend)
    assert (cached - clip.recomputed()).abs().max() > 1e-4, "the control: the past sees the future"


def record(work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """A device that plays what it was given by doing it again."""
    answer = work()

    def play() -> None:
        answer.copy_(work())

    return play, answer


def test_gpu_measures_run_whole_at_toy_size_on_a_cpu_and_fill_every_row_of_the_page(
    tmp_path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ready, "STARTS", 1)
    monkeypatch.setattr(full, "MEASURED", 1)
    monkeypatch.setattr(clips, "recorder", lambda device, graphs: record)
    scale = Scale(
        dit=TOY,
        vae=VaeConfig(dim=2),
        tae=TaeConfig(decoder_widths=(16, 12, 8, 8), encoder_width=8),
        sizes=((32, 32), (16, 16)),
        held=(3, 15),
        latents=6,
        repeats=2,
        long_blocks=6,
        compared=(2, 4),
        window=6,
        matmul=64,
    )
    stages: list[str] = []
    device, trace = torch.device("cpu"), tmp_path / "trace.json"
    measures = measure_on(device, torch.float32, scale, stages.append, trace, against=checkout)
    measures.append(full.first_picture(32, 32, 9, "toy"))
    assert stages[0] == "CPU, matrix products"
    names = [m.name for m in measures]
    assert {
        "pass, KV 15, 32x32",
        "decode by TAE, 32x32",
        "clip, Wan VAE, 32x32",
        "end keyframe",
        "growth",
        "recorded passes",
    } <= set(names)
    assert len(set(names)) == len(names)
    assert all(math.isfinite(m.value) and m.value > 0 for m in measures if not m.name.startswith("peak memory"))
    shares = [m.value for m in measures if m.name.startswith("stage: ")]
    assert sum(shares) == pytest.approx(1)
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"]

    write_json(measures, tmp_path / "figures.json", {"card": "a CPU in its place"})
    page = speed.page([read_json(tmp_path / "figures.json")])
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in page.splitlines() if line.startswith("| G")}
    answered = {m.goal for m in measures if m.goal}
    assert ("8 bits" in names) == ("G2" in answered) == (importlib.util.find_spec("torchao") is not None)
    assert rows.keys() == {goal.id for goal in GOALS}
    assert answered | {"G2"} == rows.keys()
    assert all(("not measured" in row) == (name not in answered) for name, row in rows.items())
    assert "a CPU in its place" in page


def test_the_control_what_was_not_given_is_shown_as_not_measured() -> None:
    rows = [line for line in speed.page([({"card": "one"}, [])]).splitlines() if line.startswith("| G")]
    assert len(rows) == len(GOALS)
    assert all("not measured" in row for row in rows)


def test_a_paced_device_is_measured_through_a_server_by_the_road_and_by_one_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """How fast is for `make bench`; here, that both workers deliver every picture in both encodings."""
    monkeypatch.setattr(pace, "SIZE", (32, 32))
    monkeypatch.setattr(pace, "BLOCKS", 2)
    monkeypatch.setattr(pace, "ROUNDS", 1)
    monkeypatch.setattr(pace, "slower_than_the_real_thing", lambda: 0.05)
    measures = {measure.name: measure for measure in pace.measure()}
    assert len(measures) == 5
    assert measures["road at a device's pace, png"].target == 0.97
    assert measures["one thread at a device's pace, raw"].target is None
    assert all(measure.value > 0 for measure in measures.values())


def test_a_file_that_holds_no_figures_is_one_sentence(tmp_path: Path) -> None:
    for text in ("", "[]", '{"machine": {}}', '{"machine": {}, "measures": [{"name": 1}]}'):
        (tmp_path / "figures.json").write_text(text)
        with pytest.raises(UserError, match="is no file of figures from sfserver bench --out"):
            read_json(tmp_path / "figures.json")


def test_the_page_of_figures_is_what_its_files_make_of_it() -> None:
    docs = Path(__file__).parents[2] / "docs"
    files = [read_json(path) for path in sorted((docs / "figures").glob("*.json"))]
    assert (docs / "speed.md").read_text("utf-8") == speed.page(files), "run: make speed"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, which would be measured for minutes")
def test_without_a_gpu_its_bench_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--gpu"]) == USER_ERROR
    (line,) = capsys.readouterr().err.splitlines()
    assert "needs a GPU" in line
