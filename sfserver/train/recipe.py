"""What to train, in which stages and for how long, as a TOML file says it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import cattrs
from attrs import frozen

from ..engine.rollout import Graph
from ..errors import UserError
from .loop import Pace

RECIPES = Path(__file__).parent.parent / "data" / "recipes"
Kind = Literal["codec", "decoder", "teacher", "rollout"]


@frozen
class StageRecipe:
    """One stage."""

    name: str
    kind: Kind
    pace: Pace
    after: str = ""
    """The stage whose averaged weights it begins with; none begins anew."""
    frames: Mapping[int, float] = {18: 1.0}
    """Lengths of clips, and how often each is drawn beside the others."""
    batch: int = 4
    """Clips in a step, of the shortest; longer ones come in smaller batches."""
    graph: Graph = "exit+memory"
    """Of a rollout: which passes gradient goes through."""
    control: bool = False
    """Not on the way to the model: its transformer is left beside the model, to compare with."""


@frozen
class PoolRecipe:
    """The clips that transformers learn from."""

    after: str
    shards: Mapping[int, int]
    """How many, by length in frames."""


@frozen
class Recipe:
    """A whole training."""

    model: str
    seed: int
    pool: PoolRecipe
    stage: tuple[StageRecipe, ...]

    def __attrs_post_init__(self) -> None:
        known: list[str] = []
        for stage in self.stage:
            if stage.after and stage.after not in known:
                before = ", ".join(known) or "none"
                raise ValueError(f"stage {stage.name} comes after {stage.after!r}; before it there are: {before}")
            missing = set(stage.frames) - set(self.pool.shards) if stage.kind in ("teacher", "rollout") else set()
            if missing:
                raise ValueError(f"stage {stage.name} wants clips of {min(missing)} frames, and the pool has none")
            known.append(stage.name)
        if self.pool.after not in known:
            raise ValueError(f"the pool comes after {self.pool.after!r}, which is no stage")


def recipe_path(name: str) -> Path:
    """A recipe that comes with the package, or a file. Raises UserError where there is neither."""
    built_in = RECIPES / f"{name}.toml"
    if built_in.is_file():
        return built_in
    if Path(name).is_file():
        return Path(name)
    known = ", ".join(sorted(path.stem for path in RECIPES.glob("*.toml")))
    raise UserError(f"{name}: is neither a recipe that comes with sfserver ({known}) nor a file")


def read_recipe(path: Path) -> Recipe:
    """Raises UserError for what is no recipe, naming the entry."""
    try:
        table = tomllib.loads(path.read_text("utf-8"))
        return _CONVERTER.structure(table, Recipe)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is not TOML ({error}); correct it") from None
    except cattrs.BaseValidationError as error:
        what = "; ".join(cattrs.transform_error(error, path="recipe", format_exception=_said))
        raise UserError(f"{path}: {what}; correct it") from None
    except ValueError as error:
        raise UserError(f"{path}: {error}; correct it") from None


def _said(error: BaseException, kind: type | None) -> str:
    """What a class itself says of its values; for what cattrs found, its own words."""
    return str(error) if type(error) is ValueError else cattrs.v.format_exception(error, kind)


_CONVERTER = cattrs.Converter(forbid_extra_keys=True)
