"""Recipes: the one that comes along is sound, and what is wrong with another is one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from sfserver.errors import UserError
from sfserver.train.recipe import Recipe, read_recipe, recipe_path

SOUND = recipe_path("small-world").read_text("utf-8")


def read(text: str, folder: Path) -> Recipe:
    path = folder / "mine.toml"
    path.write_text(text, "utf-8")
    return read_recipe(path)


def test_the_recipe_that_comes_along_goes_from_a_codec_to_a_rollout(tmp_path: Path) -> None:
    stages = read(SOUND, tmp_path).stage
    kinds = [stage.kind for stage in stages if not stage.control]
    assert kinds == ["codec", "decoder", "teacher", "teacher", "rollout"]
    assert [stage.kind for stage in stages if stage.control] == ["teacher"]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('after = "teacher-18"', 'after = "nobody"', "stage teacher comes after 'nobody'"),
        ("learning_rate = 6e-4", "learning_rte = 6e-4", "learning_rte"),
        ("steps = 10000", 'steps = "many"', "steps"),
        ('kind = "rollout"', 'kind = "magic"', "kind"),
        ("34 = 9 }", "33 = 9 }", "wants clips of 34 frames"),
        ("[pool]", "[pool", "is not TOML"),
    ],
)
def test_what_is_wrong_is_named(old: str, new: str, says: str, tmp_path: Path) -> None:
    assert old in SOUND
    with pytest.raises(UserError, match=r"mine\.toml: .*correct it") as caught:
        read(SOUND.replace(old, new), tmp_path)
    assert says in str(caught.value)


def test_a_recipe_that_is_nowhere_names_those_that_are() -> None:
    with pytest.raises(UserError, match="small-world"):
        recipe_path("large-world")
