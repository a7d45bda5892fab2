"""`sfserver generate --recipe`: the order that a recipe is, to be followed to the byte."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

from attrs import evolve

from . import recipe as recipes
from .order import Order
from .recipe import Recipe, RecipeError

_RATE = re.compile(r"[0-9]{1,9}(/[0-9]{1,9})?")
"""As a Fraction is written. One in scientific notation could be worked out for hours."""


def order_of(path: Path, out: Path, start: Path | None, end: Path | None, connect: bool, keeps_recipe: bool) -> Order:
    """What the recipe in `path` asks for; `start` and `end` say where the first and last picture are now.

    Raises RecipeError where there is no recipe, or a picture cannot be found.
    """
    recipe = recipes.read(path)
    last = recipe.num_frames - 1
    files = {one.at: _found(one.file, path) for one in recipe.keyframes}
    files |= {at: given for at, given in ((0, start), (last, end)) if given is not None}
    order = order_from(recipe, files, path, out)
    return evolve(order, connect=connect, keeps_recipe=keeps_recipe, again=recipe)


def order_from(recipe: Recipe, files: Mapping[int, Path], path: Path, out: Path) -> Order:
    """What the recipe read from `path` asks for, with `files` as its pictures, by frame. Raises RecipeError."""
    last = recipe.num_frames - 1
    if not {0, last} <= files.keys():
        raise RecipeError(f"{path}: names no picture for the first or the last frame; name both before --recipe")
    return Order(
        start=files[0],
        end=files[last],
        out=out,
        further=tuple((at, files[at]) for at in sorted(files) if at not in (0, last)),
        prompt=recipe.prompt,
        negative_prompt=recipe.negative_prompt,
        prompts=recipe.prompts,
        num_frames=recipe.num_frames,
        size=(recipe.width, recipe.height),
        fit=recipe.fit,
        engine=recipe.engine,
        settings={name: str(value) for name, value in recipe.params.items()},
        seed=recipe.seed,
        fps=_fps(recipe, path),
        between_only=recipe.between_only,
        keeping=recipes.keeping_of(recipe),
    )


def _found(file: str, recipe: Path) -> Path:
    """From where the command was typed, from where the recipe lies, or beside it."""
    places = (Path(file), recipe.parent / file, recipe.parent / Path(file).name, recipe.parent.parent / Path(file).name)
    return next((place for place in places if place.is_file()), places[0])


def _fps(recipe: Recipe, path: Path) -> Fraction:
    try:
        fps = Fraction(recipe.fps if _RATE.fullmatch(recipe.fps) else 0)
    except ZeroDivisionError:
        fps = Fraction(0)
    if not 1 <= fps <= 240:
        raise RecipeError(f"{path}: {recipe.fps!r} is no rate from 1 to 240; it was changed by hand")
    return fps
