"""The recipe travels with the result, and makes it again byte for byte or says what is another here."""

from __future__ import annotations

import json
import os
from pathlib import Path

import attrs
import pytest
from dissolving_engine import INFO, DissolvingEngine
from PIL import Image

from sfserver.cli import USER_ERROR, main
from sfserver.clip import recipe as recipes
from sfserver.engine import provenance, table


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def made(engine: DissolvingEngine, pair, tmp_path: Path) -> Path:
    """A folder, with everything set that a recipe holds."""
    Image.new("RGB", (64, 48), (90, 10, 10)).save(tmp_path / "middle.png")
    words = ["--prompt", 'a fox\'s "tale"', "--prompt-at", "5:it rains — ü", "--negative-prompt", "blur"]
    sets = ["--set", "style=loud", "--set", "gain=1.5", "--set", "mirror=yes", "--seed", "7", "--fps", "29.97"]
    further = ["--at", f"4:{tmp_path / 'middle.png'}", "--frames", "9", "--fit", "pad", "--size", "64x56"]
    assert main(["generate", *pair, *words, *sets, *further, "--out", str(tmp_path / "clip")]) == 0
    return tmp_path / "clip"


@pytest.mark.parametrize("carrier", ["recipe.json", "frames/0003.png", "clip.mp4"])
def test_a_recipe_makes_every_file_again_byte_for_byte(made: Path, carrier: str, tmp_path: Path) -> None:
    assert main(["generate", "--recipe", str(made / carrier), "--out", str(tmp_path / "again")]) == 0
    assert files(tmp_path / "again") == files(made)
    assert len(files(made)) == 12


@pytest.mark.parametrize(
    ("out", "more"),
    [
        ("clip.mov", ["--codec", "png", "--timecode", "01:00:00:00"]),
        ("clip.mov", []),
        ("shot.%04d.exr", ["--start-number", "1001"]),
        ("shot.%03d.png", ["--depth", "16"]),
        ("shot.%03d.tif", []),
    ],
)
def test_files_of_every_kind_are_made_again(
    out: str, more: list[str], engine: DissolvingEngine, pair, tmp_path: Path
) -> None:
    assert main(["generate", *pair, "--frames", "5", *more, "--out", str(tmp_path / "first" / out)]) == 0
    carrier = next(
        path for path in sorted((tmp_path / "first").iterdir()) if path.suffix in (".mov", ".png", ".exr", ".tif")
    )
    assert main(["generate", "--recipe", str(carrier), "--out", str(tmp_path / "second" / out)]) == 0
    assert files(tmp_path / "first") == files(tmp_path / "second")


def test_it_holds_what_decides_the_bytes(made: Path, pair) -> None:
    table = json.loads((made / "recipe.json").read_text())
    assert table["prompts"] == [[5, "it rains — ü"]]
    assert table["params"] == {"style": "loud", "level": 3, "gain": 1.5, "mirror": True}
    assert table["fps"] == "30000/1001"
    assert table["keyframes"][0]["file"] == pair[0]
    assert len({one["pixels"] for one in table["keyframes"]}) == 3
    assert all(
        recipes.read(path).text() == recipes.read(made / "recipe.json").text()
        for path in made.rglob("*.png")
        if path.parent.name == "frames"
    )


def test_its_command_can_be_typed(made: Path, tmp_path: Path, engine: DissolvingEngine) -> None:
    import shlex

    words = shlex.split(recipes.read(made / "recipe.json").command)
    assert words[0] == "sfserver"
    assert main([*words[1:], "--out", str(tmp_path / "typed")]) == 0
    first, second = files(made), files(tmp_path / "typed")
    assert {name for name in first if first[name] != second[name]} == set(), "the command of a command is itself"


def test_pictures_that_moved_are_named_anew_or_found_beside_the_recipe(made: Path, pair, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for path in (*pair, str(tmp_path / "middle.png")):
        os.rename(path, other / Path(path).name)
    (other / "recipe.json").write_bytes((made / "recipe.json").read_bytes())
    assert main(["generate", "--recipe", str(other / "recipe.json"), "--out", str(tmp_path / "again")]) == 0
    assert files(tmp_path / "again") == files(made)


def refused(recipe: Path, capsys, tmp_path: Path, *more: str) -> str:
    capsys.readouterr()
    assert main(["generate", *more, "--recipe", str(recipe), "--out", str(tmp_path / "again")]) == USER_ERROR
    assert not (tmp_path / "again").exists()
    (line,) = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("note: ")]
    return line


def test_a_changed_picture_is_named(made: Path, pair, capsys, tmp_path: Path) -> None:
    Image.new("RGB", (64, 48), (1, 2, 3)).save(pair[1])
    line = refused(made / "recipe.json", capsys, tmp_path)
    assert f"the picture at frame 8 ({pair[1]}) had pixels" in line
    assert "the picture at frame 0" not in line
    assert "sfserver generate" in line


def test_a_changed_version_is_named(made: Path, capsys, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(table, "describe_all", lambda config: (attrs.evolve(INFO, version="2"),))
    assert "engine fake was 1, here it is 2" in refused(made / "recipe.json", capsys, tmp_path)


def test_changed_weights_and_libraries_are_named(made: Path, capsys, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("sfserver.clip.planning.weights_of", lambda *_: {"dit": "ab" * 32})
    monkeypatch.setattr(recipes, "version", lambda name: "0.0.1")
    line = refused(made / "recipe.json", capsys, tmp_path)
    assert "weights dit: none there, abababababab here" in line
    assert "library torch: " in line


def test_a_parameter_that_came_since_is_named(made: Path, capsys, tmp_path: Path, monkeypatch) -> None:
    more = (*INFO.parameters, attrs.evolve(INFO.parameters[1], name="later"))
    monkeypatch.setattr(table, "describe_all", lambda config: (attrs.evolve(INFO, parameters=more),))
    assert "parameter later was None, here it is 3" in refused(made / "recipe.json", capsys, tmp_path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda text: "{}", "is no recipe"),
        (lambda text: "[1]", "carries no recipe"),
        (lambda text: text.replace('"seed": 7', '"seed": true'), "is no recipe"),
        (lambda text: text.replace('"seed": 7', '"seed": 7, "more": 1'), "is no recipe"),
        (lambda text: text.replace('"format": 1', '"format": 2'), "update sfserver"),
        (lambda text: text.replace("30000/1001", "1/0"), "is no rate"),
        (lambda text: "{" * 100_000, "is no recipe"),
        (lambda text: text.replace('"num_frames": 9', '"num_frames": 900000000'), "first or the last frame"),
    ],
)
def test_a_strangers_recipe_is_one_line(made: Path, change, sentence: str, capsys, tmp_path: Path) -> None:
    strange = tmp_path / "strange.json"
    strange.write_text(change((made / "recipe.json").read_text()))
    assert sentence in refused(strange, capsys, tmp_path)


def test_what_a_recipe_says_cannot_be_said_twice(made: Path, capsys, tmp_path: Path) -> None:
    line = refused(made / "recipe.json", capsys, tmp_path, "--prompt", "x")
    assert "--prompt" in line
    assert "a recipe says all of that itself" in line


def test_no_recipe_leaves_no_word_in_any_file(engine: DissolvingEngine, pair, tmp_path: Path) -> None:
    words = ["--prompt", "the secret fox", "--frames", "5", "--no-recipe", "--out", str(tmp_path / "clip")]
    assert main(["generate", *pair, *words]) == 0
    contents = files(tmp_path / "clip")
    assert "recipe.json" not in contents
    assert not [name for name, content in contents.items() if b"secret" in content]


def test_weights_are_those_of_the_manifests(machine: Path) -> None:
    from sfserver.config import load_config
    from sfserver.engine import draft, small_world
    from sfserver.weights.files import sha256_of

    config = load_config()
    assert provenance.weights_of("draft", config) == {"flownet": sha256_of(draft.WEIGHTS)}
    hashes = provenance.weights_of("small-world", config)
    assert hashes["dit"] == sha256_of(small_world.FOLDER / "dit.safetensors")
    assert {"dit", "tae", "text"} <= hashes.keys()
    assert provenance.weights_of("self-forcing", config) == {}
