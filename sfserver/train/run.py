"""A recipe from its first stage to a model folder. Broken off anywhere, it goes on there."""

from __future__ import annotations

import math
from collections.abc import Collection, Generator, Mapping
from contextlib import closing, nullcontext
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..engine.noise import Schedule, make_schedule
from ..engine.presets import SMALL_WORLD
from ..model.tae import Tae
from . import loop
from .codec import SMALL_TAE, CodecStage, decode, new_tae
from .export import export
from .latents import encode_clips, read_shards, write_shards
from .log import Log
from .loop import averages_of, step_random
from .place import ALONE, Place
from .recipe import CODECS, PoolRecipe, Recipe, StageRecipe
from .showing import Showing, show
from .small import SMALL_DIT, Words, new_dit, new_words
from .stages import Built, LeftBy, Material, build
from .world import captions, clips, every_caption

POOL_FOLDER = "pool"
MODEL_FOLDER = "model"
SHEETS_FOLDER = "sheets"


class Progressed(NamedTuple):
    """Where the training is: a stage's name, or `pool`; steps or clips done, and of how many."""

    what: str
    done: int
    of: int
    loss: float = math.nan
    """Averaged over the last steps."""


def train(
    recipe: Recipe, folder: Path, only: str = "", place: Place = ALONE, material: Material | None = None
) -> Generator[Progressed, None, None]:
    """All stages in turn, or `only` one. Closing it keeps what was learnt.

    Without `material` the recipe is the small world's, and its model comes last, in `folder/model`. Raises UserError
    where numbers stop being finite.
    """
    words = new_words() if recipe.pool else None
    for stage in recipe.stage:
        if only and stage.name != only:
            continue
        if stage.kind not in CODECS and words and recipe.pool:
            if not place.rank:
                yield from _make_pool(recipe, recipe.pool, folder, stage.frames)
            place.wait()
            material = small_material(recipe, folder, words, place)
        yield from _run_stage(recipe, stage, folder, place, material)
        place.wait()
    if words and not only and not place.rank:
        write_model(recipe, folder, words)


def write_model(recipe: Recipe, folder: Path, words: Words | None = None) -> Path:
    """The folder that `sfserver models` lists, of what the last stages have left."""
    last = {stage.kind: stage for stage in recipe.stage}
    codec = averages_of(folder / last["decoder"].name)
    dit = averages_of(folder / (last.get("rollout") or last["teacher"]).name)
    export(folder / MODEL_FOLDER, dit, SMALL_DIT, codec, words or new_words())
    return folder / MODEL_FOLDER


def _run_stage(
    recipe: Recipe, stage: StageRecipe, folder: Path, place: Place, material: Material | None
) -> Generator[Progressed, None, None]:
    def left_by(name: str) -> Mapping[str, Tensor]:
        return averages_of(folder / name)

    home, built = folder / stage.name, None
    if stage.kind in CODECS:
        learnt, beside = _codec_stage(recipe, stage, left_by), None
    else:
        assert material, "clips come from a pool or a folder"
        others = {other.name: other for other in recipe.stage}
        built = build(stage, others, material, left_by, recipe.seed)
        learnt, beside = built.stage, built.beside
    reports = loop.train(learnt, stage.pace, home, recipe.seed, beside, place)
    with closing(reports), nullcontext() if place.rank else Log(home) as log:
        for report in reports:
            if log:
                log.add(report)
                if built and material:
                    _show(stage, report.step + 1, built, material, home)
            yield Progressed(stage.name, report.step + 1, stage.pace.steps, log.smooth_loss if log else report.loss)


def _show(stage: StageRecipe, steps: int, built: Built, material: Material, home: Path) -> None:
    """A sheet of what the model makes of the shortest clips that are held out, where the recipe wants one now."""
    if stage.sheet_steps and steps % stage.sheet_steps == 0:
        showing = material.showing(min(stage.frames))
        if showing:
            show(built.dit, built.rolling, showing, home / SHEETS_FOLDER / f"{steps:06}.png")


def _codec_stage(recipe: Recipe, stage: StageRecipe, left_by: LeftBy) -> CodecStage:
    tae = _tae(left_by(stage.after) if stage.after else None, recipe.seed)
    return CodecStage(tae, freeze_encoder=stage.kind == "decoder", batch=stage.batch)


def small_material(recipe: Recipe, folder: Path, words: Words, place: Place) -> Material:
    """What the small world's transformers learn from."""
    assert recipe.pool

    def showing(frames: int) -> Showing:
        tae = _tae(averages_of(folder / pool.after), recipe.seed).eval().requires_grad_(False)
        random = step_random(recipe.seed, -2)
        batch = clips(4, frames, random)
        latents = encode_clips(tae, batch, captions(batch, random))
        return Showing(latents, sentences, lambda latents: decode(tae, latents.cpu()), small_schedule(), scale=2)

    pool, sentences = recipe.pool, sentence_table(words)
    return Material(
        new_dit=lambda _, frozen: new_dit(SMALL_DIT, step_random(recipe.seed, -1)).to(place.device),
        pools=lambda lengths: tuple(read_shards(folder / POOL_FOLDER, frames) for frames in lengths),
        sentences=sentences,
        negative=torch.zeros(SMALL_DIT.text_len, SMALL_DIT.text_dim),
        schedule=small_schedule(),
        per_block=SMALL_WORLD.per_block,
        place=place,
        showing=showing,
    )


def sentence_table(words: Words) -> Tensor:
    """Embeddings of every caption [S, text_len, text_dim], in their order."""
    table = words.table(every_caption())
    return torch.stack([table[sentence] for sentence in every_caption()])


def small_schedule() -> Schedule:
    """The passes that the engine makes."""
    return make_schedule(SMALL_WORLD.steps, SMALL_WORLD.shift, SMALL_WORLD.warp)


def _tae(weights: Mapping[str, Tensor] | None, seed: int) -> Tae:
    tae = new_tae(SMALL_TAE, step_random(seed, -1))
    if weights:
        tae.load_state_dict(weights)
        tae.use_channels_last()
    return tae


def _make_pool(
    recipe: Recipe, pool: PoolRecipe, folder: Path, lengths: Collection[int]
) -> Generator[Progressed, None, None]:
    """The shards that a stage needs, as far as they are not there."""
    tae = _tae(averages_of(folder / pool.after), recipe.seed).eval().requires_grad_(False)
    of = sum(pool.shards[frames] for frames in lengths)
    done = 0
    for frames in lengths:
        for _ in write_shards(tae, folder / POOL_FOLDER, frames, pool.shards[frames], recipe.seed):
            done += 1
            yield Progressed("pool", done, of)
