"""A recipe from its first stage to a model folder. Broken off anywhere, it goes on there."""

from __future__ import annotations

import math
from collections.abc import Collection, Generator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..engine.noise import Schedule, make_schedule
from ..engine.presets import SMALL_WORLD
from ..model.tae import Tae
from . import loop
from .codec import SMALL_TAE, CodecStage, new_tae
from .export import export, export_transformer
from .latents import read_shards, write_shards
from .loop import Stage, averages_of, step_random
from .recipe import Recipe, StageRecipe
from .self_rollout import SelfRolloutStage
from .small import SMALL_DIT, Words, new_dit, new_words
from .teacher import TeacherStage
from .world import every_caption

METRICS_EVERY_STEPS = 25
POOL_FOLDER = "pool"
MODEL_FOLDER = "model"


class Progressed(NamedTuple):
    """Where the training is: a stage's name, or `pool`; steps or clips done, and of how many."""

    what: str
    done: int
    of: int
    loss: float = math.nan
    """Averaged over the last steps."""


def train(recipe: Recipe, folder: Path, only: str = "") -> Generator[Progressed, None, None]:
    """All stages in turn, or `only` one, then the model in `folder/model`. Closing it keeps what was learnt.

    Raises UserError where numbers stop being finite.
    """
    words = new_words()
    for stage in recipe.stage:
        if only and stage.name != only:
            continue
        if stage.kind in ("teacher", "rollout"):
            yield from _make_pool(recipe, folder, stage.frames)
        yield from _run_stage(recipe, stage, folder, words)
    if not only:
        write_model(recipe, folder, words)


def write_model(recipe: Recipe, folder: Path, words: Words | None = None) -> Path:
    """The folder that `sfserver models` lists, of what the last stages have left; controls lie beside it."""
    last = {stage.kind: stage for stage in recipe.stage if not stage.control}
    codec = averages_of(folder / last["decoder"].name)
    dit = averages_of(folder / (last.get("rollout") or last["teacher"]).name)
    export(folder / MODEL_FOLDER, dit, SMALL_DIT, codec, words or new_words())
    for control in (stage.name for stage in recipe.stage if stage.control):
        export_transformer(folder / f"{MODEL_FOLDER}-{control}", averages_of(folder / control), SMALL_DIT)
    return folder / MODEL_FOLDER


def _run_stage(recipe: Recipe, stage: StageRecipe, folder: Path, words: Words) -> Generator[Progressed, None, None]:
    built = build_stage(recipe, stage, folder, words)
    smooth = math.nan
    with closing(loop.train(built, stage.pace, folder / stage.name, recipe.seed)) as reports:
        for report in reports:
            smooth = report.loss if math.isnan(smooth) else 0.98 * smooth + 0.02 * report.loss
            if (report.step + 1) % METRICS_EVERY_STEPS == 0:
                loop.write_metrics(folder / stage.name, report, smooth_loss=smooth)
            yield Progressed(stage.name, report.step + 1, stage.pace.steps, smooth)


def build_stage(recipe: Recipe, stage: StageRecipe, folder: Path, words: Words) -> Stage:
    """The stage with its networks as they are before its first step."""
    before = averages_of(folder / stage.after) if stage.after else None
    if stage.kind in ("codec", "decoder"):
        tae = _tae(before, recipe.seed)
        return CodecStage(tae, freeze_encoder=stage.kind == "decoder", batch=stage.batch)
    dit = new_dit(SMALL_DIT, step_random(recipe.seed, -1))
    if before:
        dit.load_state_dict(before)
    sentences = sentence_table(words)
    pools = tuple(read_shards(folder / POOL_FOLDER, frames) for frames in stage.frames)
    drawn = partial(dict, pools=pools, sentences=sentences, shares=tuple(stage.frames.values()), batch=stage.batch)
    if stage.kind == "teacher":
        return TeacherStage(dit, **drawn())
    return SelfRolloutStage(dit, **drawn(schedule=small_schedule(), graph=stage.graph))


@torch.no_grad()
def sentence_table(words: Words) -> Tensor:
    """Embeddings of every caption [S, text_len, text_dim], in their order."""
    return words.table(every_caption())


def small_schedule() -> Schedule:
    """The passes that the engine makes."""
    return make_schedule(SMALL_WORLD.steps, SMALL_WORLD.shift, SMALL_WORLD.warp)


def _tae(weights: Mapping[str, Tensor] | None, seed: int) -> Tae:
    tae = new_tae(SMALL_TAE, step_random(seed, -1))
    if weights:
        tae.load_state_dict(weights)
        tae.use_channels_last()
    return tae


def _make_pool(recipe: Recipe, folder: Path, lengths: Collection[int]) -> Generator[Progressed, None, None]:
    """The shards that a stage needs, as far as they are not there."""
    tae = _tae(averages_of(folder / recipe.pool.after), recipe.seed).eval().requires_grad_(False)
    of = sum(recipe.pool.shards[frames] for frames in lengths)
    done = 0
    for frames in lengths:
        for _ in write_shards(tae, folder / POOL_FOLDER, frames, recipe.pool.shards[frames], recipe.seed):
            done += 1
            yield Progressed("pool", done, of)
