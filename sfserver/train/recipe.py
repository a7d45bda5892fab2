"""What to train, in which stages and for how long, as a TOML file says it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import cattrs
from attrs import frozen

from ..engine.presets import find
from ..engine.rollout import Graph
from ..errors import UserError
from .bidirectional import Told
from .loop import Pace

RECIPES = Path(__file__).parent.parent / "data" / "recipes"
Kind = Literal["codec", "decoder", "teacher", "bidirectional", "rollout"]
CODECS = ("codec", "decoder")


@frozen
class DmdRecipe:
    """Of a rollout that learns by distribution matching, see `dmd`."""

    teacher: str
    """A bidirectional stage before it, or the id of a model that was fetched. The critic begins as it."""
    critic_learning_rate: float
    critic_updates: int = 5
    """Before each update of the model itself."""
    guidance: float = 3.0
    told: Told = "clean"
    """How teacher and critic see keyframes."""


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
    loud: float = 0.0
    """Of a rollout: how clearly noise says, at the most, which of two clips an open sentence means; see
    `self_rollout.louder`."""
    control: bool = False
    """Not on the way to the model: its transformer is left beside the model, to compare with."""
    dmd: DmdRecipe | None = None
    """Of a rollout: it learns by distribution matching; without, from the true clips."""
    lora_rank: int = 0
    """Above 0, additions of this rank learn and the weights themselves stay; see `lora`."""
    recompute: bool = False
    """Layers keep their inputs alone and are computed again for backward: less memory, a third more time."""
    offload: bool = False
    """Where additions learn: the matrices of the weights wait in the machine's memory; see `passes`."""
    sheet_steps: int = 0
    """Above 0, after so many steps each a strip of pictures for held-out clips is made; see `showing`."""
    begins: str = ""
    """The id of a model that was fetched, to begin with another than the recipe's; `after` is on top of it."""


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
    """The id of the model that is trained, which says how it is sampled; `small-world` begins from nothing."""
    seed: int
    stage: tuple[StageRecipe, ...]
    pool: PoolRecipe | None = None
    """None where clips come from a folder, see `sfserver train prepare`."""

    def __attrs_post_init__(self) -> None:
        known: dict[str, StageRecipe] = {}
        for stage in self.stage:
            _check_stage(stage, known, self.pool)
            known[stage.name] = stage
        if self.pool and self.pool.after not in known:
            raise ValueError(f"the pool comes after {self.pool.after!r}, which is no stage")
        if not self.pool and not find(self.model):
            raise ValueError(f"there is no model {self.model!r} to begin with, and no pool to begin from nothing")


def _check_stage(stage: StageRecipe, known: Mapping[str, StageRecipe], pool: PoolRecipe | None) -> None:
    """Raises ValueError where a stage does not go with those before it."""
    if stage.after and stage.after not in known:
        before = ", ".join(known) or "none"
        raise ValueError(f"stage {stage.name} comes after {stage.after!r}; before it there are: {before}")
    missing = set(stage.frames) - set(pool.shards) if pool and stage.kind not in CODECS else set()
    if missing:
        raise ValueError(f"stage {stage.name} wants clips of {min(missing)} frames, and the pool has none")
    if stage.after and known[stage.after].lora_rank not in (0, stage.lora_rank):
        rank = known[stage.after].lora_rank
        raise ValueError(f"stage {stage.name} comes after additions of rank {rank}; give it lora_rank = {rank}")
    if stage.offload and not stage.lora_rank:
        raise ValueError(f"stage {stage.name} has its weights elsewhere and yet learns them; give it a lora_rank")
    if stage.begins and not find(stage.begins):
        raise ValueError(f"stage {stage.name} begins with {stage.begins!r}, which is no model that can be fetched")
    teacher = stage.dmd.teacher if stage.dmd else ""
    if teacher and not find(teacher) and (teacher not in known or known[teacher].kind != "bidirectional"):
        raise ValueError(f"stage {stage.name} has the teacher {teacher!r}, which is no bidirectional stage before it")
    if stage.sheet_steps and stage.kind != "rollout":
        raise ValueError(
            f"stage {stage.name} is a {stage.kind} and has no sheet_steps; a rollout makes what can be seen"
        )
    if stage.loud and (stage.kind != "rollout" or stage.dmd or not pool):
        raise ValueError(
            f"stage {stage.name} has loud = {stage.loud}; only a rollout against clips of a pool learns by it"
        )
    if stage.dmd and stage.kind != "rollout":
        raise ValueError(f"stage {stage.name} is a {stage.kind} and learns by no dmd; a rollout does")


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
