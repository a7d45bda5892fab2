"""`sfserver compare`: every combination once, gone on with where it ended, and a page that works in a browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from dissolving_engine import INFO, DissolvingEngine, ctrl_c, out_of_memory
from PIL import Image
from sfwire.messages import EngineInfo, Parameter

from sfserver.cli import main
from sfserver.compare.measures import measure
from sfserver.engine import table
from sfserver.train.codec import SMALL_TAE, new_tae
from sfserver.train.export import export
from sfserver.train.small import SMALL_DIT, new_dit, new_words

EXAMPLES = Path(__file__).parents[2] / "examples"
BALL_AND_GROUND = ((32, 14), (2, 2))
"""Places in `world_start.png`."""
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> dict[str, DissolvingEngine]:
    """Two: one with strategies, one without."""
    strategy = Parameter("strategy", "choice", "near", "How", choices=("near", "far", "both"))
    infos = (attrs.evolve(INFO, id="steered", parameters=(*INFO.parameters, strategy)), attrs.evolve(INFO, id="plain"))
    engines = {info.id: steered(info) for info in infos}
    monkeypatch.setattr(table, "describe_all", lambda config: infos)
    monkeypatch.setattr(table, "load", lambda engine_id, config: engines[engine_id])
    return engines


def steered(info: EngineInfo) -> DissolvingEngine:
    engine = DissolvingEngine()
    engine.info = info
    return engine


def run(pair: tuple[str, str], out: Path, *more: str) -> int:
    return main(["compare", *pair, "--engines", "steered,plain", "--frames", "9", "--out", str(out), *more])


def made(engines: dict[str, DissolvingEngine]) -> list[tuple[str, object, int]]:
    return [(name, job.params.get("strategy"), job.seed) for name, engine in engines.items() for job in engine.jobs]


def test_every_combination_is_made_once_and_a_second_run_makes_none(engines, pair, tmp_path: Path) -> None:
    options = ("--strategies", "near,far", "--seeds", "1,2", "--set", "level=7", "--prompt", "</script><b>")
    assert run(pair, tmp_path, *options) == 0
    strategies = [("steered", "near", 1), ("steered", "near", 2), ("steered", "far", 1), ("steered", "far", 2)]
    assert made(engines) == [*strategies, ("plain", None, 1), ("plain", None, 2)]
    assert all(job.params["level"] == 7 for engine in engines.values() for job in engine.jobs)
    first = (tmp_path / "index.html").read_text()
    assert run(pair, tmp_path, *options) == 0
    assert len(made(engines)) == 6
    assert (tmp_path / "index.html").read_text() == first, "made from what lies there, seconds and all"
    assert run(pair, tmp_path, *options[:-3], "level=8", "--prompt", "x") == 0
    assert len(made(engines)) == 12, "other wishes are other clips"


def test_without_strategies_an_engine_shows_all_of_its_own(engines, pair, tmp_path: Path) -> None:
    assert run(pair, tmp_path) == 0
    assert [strategy for _, strategy, _ in made(engines)] == ["near", "far", "both", None]


def test_each_value_of_a_parameter_is_a_clip_of_engines_that_have_it(engines, pair, tmp_path: Path) -> None:
    options = ("--strategies", "near", "--vary", "level=7,9", "--vary", "nothing=1,2")
    assert run(pair, tmp_path, *options) == 0
    levels = [(name, job.params["level"]) for name, engine in engines.items() for job in engine.jobs]
    assert levels == [("steered", 7), ("steered", 9), ("plain", 7), ("plain", 9)]
    page = (tmp_path / "index.html").read_text()
    assert page.count("--set level=9") == 2
    table = (tmp_path / "table.md").read_text().splitlines()
    assert [line.split(" | ")[0] for line in table[2:]] == [
        *("| steered, near, level 7, seed 0", "| steered, near, level 9, seed 0"),
        *("| plain, level 7, seed 0", "| plain, level 9, seed 0"),
    ]
    assert all(line.count("|") == table[0].count("|") for line in table)
    with Image.open(tmp_path / "strips.png") as strips:
        assert strips.width == 9 * 100 + 4
        assert strips.height == 4 * (18 + 72 + 4) + 4


def test_ctrl_c_leaves_a_page_and_the_same_command_goes_on(engines, pair, tmp_path: Path, capsys) -> None:
    engines["plain"].at = ctrl_c(4)
    assert run(pair, tmp_path) == 0
    assert "goes on from here" in capsys.readouterr().err
    assert (tmp_path / "index.html").read_text().count('"command"') == 3
    engines["plain"].at = lambda index: None
    assert run(pair, tmp_path) == 0
    assert (tmp_path / "index.html").read_text().count('"command"') == 4
    assert [name for name, _, _ in made(engines)] == ["steered"] * 3 + ["plain"] * 2


def test_a_cell_that_was_not_finished_is_made_anew(engines, pair, tmp_path: Path) -> None:
    assert run(pair, tmp_path) == 0
    (tmp_path / "cells" / "plain_seed0" / "cell.json").write_text("{")
    assert run(pair, tmp_path) == 0
    assert len(engines["plain"].jobs) == 2
    assert len(engines["steered"].jobs) == 3


def test_what_cannot_be_made_is_said_and_left_out(engines, pair, tmp_path: Path, capsys) -> None:
    engines["steered"].at = out_of_memory(3)
    assert run(pair, tmp_path) == 0
    assert "steered_near_seed0: the device has no memory left" in capsys.readouterr().err
    assert (tmp_path / "index.html").read_text().count('"command"') == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--engines", "nothing"), "there is no engine 'nothing'"),
        (("--engines", "steered", "--strategies", "sideways"), "they have both, far, near"),
        (("--seeds", "one"), "are not numbers"),
        (("--frames", "400"), "nothing could be made"),
    ],
)
def test_what_the_user_can_mend_is_one_line(options, said, engines, pair, tmp_path: Path, capsys) -> None:
    assert run(pair, tmp_path, *options) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "index.html").exists()


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here; apt install chromium")
def test_in_a_browser_one_slider_moves_every_clip_and_nothing_is_asked_of_a_network(
    engines, pair, tmp_path: Path
) -> None:
    assert run(pair, tmp_path, "--prompt", "a fox </script> <b>") == 0
    assert "http" not in re.sub(r"<meta http-equiv", "", (tmp_path / "index.html").read_text())
    dom = browsed(tmp_path / "index.html", frame=7)
    views = dom[dom.index('id="views"') : dom.index("<table")]
    assert len(re.findall(r"<figure>", views)) == 4
    positions = re.findall(r"background-position: (-?\d+)px (-?\d+)px", views)
    assert positions == [("-448", "0")] * 4, "the eighth of nine frames of 64 pixels in a row"
    assert "frame 7 of 8" in dom
    assert "a fox &lt;/script&gt; &lt;b&gt;" in dom
    assert len(re.findall(r'<tr class="row">', dom)) == 4
    assert "sfserver generate" in dom
    assert ("0", "0") in re.findall(
        r"background-position: (-?\d+)px (-?\d+)px", browsed(tmp_path / "index.html", frame=0)
    ), "the control"


@pytest.fixture
def toy_folder(machine: Path) -> str:
    """The small world's model before it was trained, as a folder of one's own."""
    random = torch.Generator().manual_seed(0)
    dit, tae = new_dit(SMALL_DIT, random), new_tae(SMALL_TAE, random)
    export(machine / "models" / "untrained", dit.state_dict(), SMALL_DIT, tae.state_dict(), new_words())
    return "untrained"


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here; apt install chromium")
def test_real_engines_and_a_toy_folder_are_seen_side_by_side_in_a_browser(toy_folder, tmp_path: Path) -> None:
    pair = [str(EXAMPLES / f"world_{which}.png") for which in ("start", "end")]
    options = ["--engines", f"draft,small-world,{toy_folder}", "--frames", "9", "--prompt", "a red ball jumps over"]
    assert main(["compare", *pair, *options, "--out", str(tmp_path)]) == 0
    start, end = (photographed(tmp_path / "index.html", frame) for frame in (0, 8))
    assert (start != end).any(), "the slider moves"
    ball, ground = (np.asarray(Image.open(pair[0]).convert("RGB"))[at] for at in BALL_AND_GROUND)
    for colour in (ball, ground):
        near = np.abs(start.astype(int) - colour).max(axis=2) < 24
        columns = np.flatnonzero(near.sum(axis=0))
        assert near.sum() > 3 * 50, "three clips, and strips of them"
        assert np.ptp(columns) > 2 * 64, "side by side"


def photographed(page: Path, frame: int) -> np.ndarray:
    """What the browser shows, [H, W, 3] uint8."""
    shot = page.with_name(f"shot{frame}.png")
    browse(page, frame, "--window-size=1280,1000", f"--screenshot={shot}")
    with Image.open(shot) as picture:
        return np.asarray(picture.convert("RGB"))


def browsed(page: Path, frame: int) -> str:
    """The document as it is once its script has run."""
    return browse(page, frame, "--dump-dom")


def browse(page: Path, frame: int, *wish: str) -> str:
    assert BROWSER
    profile = page.parent / "profile"
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={profile}",
        "--virtual-time-budget=2000",
    ]
    command = [BROWSER, *options, *wish, f"{page.as_uri()}#{frame}"]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=240).stdout


# Measures


def pan(step: float, num_frames: int = 13) -> np.ndarray:
    """A ramp that moves `step` grey levels a frame, [T, 64, 64, 3]."""
    ramp = np.arange(64, dtype=np.float32)[None, :, None] * 2 + 20
    return np.stack([np.broadcast_to(ramp + step * i, (64, 64, 3)) for i in range(num_frames)]).astype(np.uint8)


def test_even_motion_is_1_at_both_ends_and_has_no_seam_and_no_flicker() -> None:
    measured = measure(pan(4))
    assert measured.motion_at_start == measured.motion_at_end == pytest.approx(1)
    assert measured.end_error == pytest.approx(4 / 255, rel=1e-3)
    assert measured.seam == pytest.approx(0, abs=1e-6)
    assert measured.flicker == pytest.approx(0, abs=1e-6)


def test_an_end_that_stands_still_is_seen() -> None:
    clip = pan(4)
    clip[9:12] = clip[8]
    assert measure(clip).motion_at_end == 0
    assert measure(clip).motion_at_start == pytest.approx(1)


def test_a_jump_of_colours_at_a_keyframe_is_a_seam() -> None:
    clip = pan(4)
    clip[1:-1] += 10
    assert measure(clip).seam == pytest.approx(10 / 255, rel=0.01)


def test_every_other_frame_lighter_is_flicker() -> None:
    clip = pan(4)
    clip[1:-1:2] += 8
    assert measure(clip).flicker == pytest.approx(8 / 255, rel=0.01)


def test_the_shortest_clip_has_no_middle() -> None:
    assert measure(pan(4, num_frames=3)).motion_at_end == 0
