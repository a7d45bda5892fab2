"""`sfserver generate` with the draft engine: alpha and depth of the keyframes reach the files, and their recipe."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfserver.cli import USER_ERROR, main
from sfserver.media import read_picture
from sfserver.media.stills import write_still
from sfserver.samples import Form, Picture, form_of


def panel(left: int) -> Picture:
    picture = np.zeros((64, 96, 4), np.uint16)
    picture[..., 1] = 65535  # what nobody sees is green
    picture[20:44, left : left + 24] = (51000, 15001, 10003, 65535)
    return picture


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("panels")
    for name, left in (("a", 20), ("b", 36)):
        write_still(folder / f"{name}.png", panel(left), ".png")
    return str(folder / "a.png"), str(folder / "b.png")


def test_alpha_and_depth_reach_the_files_and_are_made_again(pair, tmp_path: Path) -> None:
    draft = ["--engine", "draft", "--frames", "4"]
    assert main(["generate", *pair, *draft, "--out", str(tmp_path / "one" / "shot.%04d.png")]) == 0
    frames = [read_picture(tmp_path / "one" / f"shot.{i:04}.png").image for i in range(4)]
    assert {form_of(frame) for frame in frames} == {Form(4, 16)}
    assert np.array_equal(frames[0], panel(20))
    made = frames[1]
    assert made[32, 40].tolist() == pytest.approx([51000, 15001, 10003, 65535], abs=700)
    assert made[4, 4, 3] == 0
    seen = made[..., 3] > 6000
    assert made[seen][:, 1].max() < 20000, "no green at its edges"
    carrier = str(tmp_path / "one" / "shot.0001.png")
    assert main(["generate", "--recipe", carrier, "--out", str(tmp_path / "two" / "shot.%04d.png")]) == 0
    for i in range(4):
        name = f"shot.{i:04}.png"
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_another_alpha_is_another_keyframe_to_a_recipe(
    pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "clip"
    assert main(["generate", *pair, "--engine", "draft", "--frames", "3", "--out", str(out)]) == 0
    with Image.open(out / "frames" / "0001.png") as frame:
        assert frame.mode == "RGBA"
    other = panel(20)
    other[30, 30, 3] -= 1
    original = Path(pair[0]).read_bytes()
    try:
        write_still(Path(pair[0]), other, ".png")
        again = ["generate", "--recipe", str(out / "recipe.json"), "--out", str(tmp_path / "again")]
        assert main(again) == USER_ERROR
        assert "a.png" in capsys.readouterr().err
    finally:
        Path(pair[0]).write_bytes(original)


def test_a_wan_engine_gets_its_alpha_from_the_draft_engine_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The small one, which runs all that a large one does."""
    for name, left in (("a", 8), ("b", 24)):
        square = np.zeros((64, 64, 4), np.uint8)
        square[20:44, left : left + 24] = (200, 60, 40, 255)
        write_still(tmp_path / f"{name}.png", square, ".png")
    ends = [str(tmp_path / f"{name}.png") for name in "ab"]
    made: dict[str, list[Picture]] = {}
    for engine in ("small-world", "draft"):
        out = tmp_path / engine / "shot.%04d.png"
        assert main(["generate", *ends, "--engine", engine, "--frames", "6", "--out", str(out)]) == 0
        assert ("alpha is the draft engine's motion" in capsys.readouterr().err) == (engine == "small-world")
        made[engine] = [read_picture(tmp_path / engine / f"shot.{i:04}.png").image for i in range(6)]
    for mine, drafted in zip(made["small-world"], made["draft"], strict=True):
        assert form_of(mine) == Form(4, 8)
        assert np.array_equal(mine[..., 3], drafted[..., 3])
    assert any((a != b).any() for a, b in zip(made["small-world"], made["draft"], strict=True)), "its own colours"
