"""The recipe that travels with a result: all that decides its bytes, as JSON beside the frames and inside of them.

Whoever has the recipe and the keyframes makes the same bytes again on the same machine, or learns what is another here.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs
import cattrs
import numpy as np
from attrs import field, frozen
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile
from sfwire.messages import Value
from sfwire.regular import open_regular

from .. import __version__
from ..errors import UserError
from ..media.container import open_film
from ..media.exr import is_exr, text_of
from ..media.files import Picture, appearing
from ..media.outputs import USUAL, Keeping
from ..media.stills import TEXT_KEY, TIFF_DESCRIPTION

if TYPE_CHECKING:
    from .order import Order
    from .planning import Plan

FILE = "recipe.json"
TAG = TEXT_KEY
"""In a PNG, and among the tags of a Matroska file."""
MOVIE_TAG = "comment"
"""What MP4 and MOV keep of a movie's metadata without being asked for more."""
FORMAT = 1
_MAX_BYTES = 256 * 1024
_LIBRARIES = ("torch", "numpy", "av", "pillow")
"""Whose other version may give other bytes."""
_SHORT = 12
"""Letters of a hash that a sentence shows."""


class RecipeError(UserError):
    """A recipe that cannot be read or followed: one sentence with the remedy."""


@frozen
class KeyframeOf:
    """A picture that was given."""

    at: int
    file: str
    """As it was typed."""
    pixels: str
    """SHA-256 of what was read from it."""


@frozen
class Recipe:
    """How frames were made."""

    engine: str
    engine_version: str
    weights: Mapping[str, str]
    """SHA-256 by role."""
    width: int
    height: int
    num_frames: int
    keyframes: tuple[KeyframeOf, ...]
    seed: int
    prompt: str
    negative_prompt: str
    prompts: tuple[tuple[int, str], ...]
    params: Mapping[str, Value]
    """All of the engine's, those by default as well."""
    fit: Literal["crop", "pad", "stretch"]
    fps: str
    """As in 24 or 30000/1001."""
    between_only: bool
    files: Mapping[str, str] = field(factory=dict[str, str])
    """How the files were written, by option: codec and the like."""
    sfserver: str = __version__
    libraries: Mapping[str, str] = field(factory=lambda: libraries())
    command: str = ""
    """What makes it again, without --out."""
    format: int = FORMAT

    @property
    def key(self) -> str:
        """A hash of what was asked for: not the names of files, nor which versions of programs did it."""
        kept = attrs.asdict(attrs.evolve(self, command="", sfserver="", libraries={}))
        kept["keyframes"] = [[one.at, one.pixels] for one in self.keyframes]
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()

    def text(self) -> str:
        """JSON on one line, as it is put into files: ASCII alone, so that no container spoils it."""
        return json.dumps(cattrs.unstructure(self), sort_keys=True)


def recipe_of(order: Order, plan: Plan, images: Mapping[int, Picture], weights: Mapping[str, str]) -> Recipe:
    """What `plan` makes of `order`; `images` are the keyframes as they were read, by their frame."""
    job, fps = plan.job, str(order.fps)
    files = {0: order.start, order.num_frames - 1: order.end, **dict(order.further)}
    options = [
        *(("--at", f"{at}:{path}") for at, path in order.further),
        ("--frames", str(order.num_frames)),
        ("--size", f"{job.width}x{job.height}"),
        ("--fit", order.fit),
        ("--fps", fps),
        ("--engine", plan.info.id),
        *(("--set", f"{name}={value}") for name, value in sorted(job.params.items())),
        ("--seed", str(order.seed)),
        *((f"--{name.replace('_', '-')}", value) for name, value in _files(order.keeping).items()),
        ("--prompt", order.prompt),
        ("--negative-prompt", order.negative_prompt),
        *(("--prompt-at", f"{at}:{text}") for at, text in order.prompts),
    ]
    words = ["sfserver", "generate", str(order.start), str(order.end)]
    return Recipe(
        engine=plan.info.id,
        engine_version=plan.info.version,
        weights=weights,
        width=job.width,
        height=job.height,
        num_frames=order.num_frames,
        keyframes=tuple(KeyframeOf(at, str(files[at]), picture_hash(images[at])) for at in sorted(images)),
        seed=order.seed,
        prompt=order.prompt,
        negative_prompt=order.negative_prompt,
        prompts=order.prompts,
        params=job.params,
        fit=order.fit,
        fps=fps,
        between_only=order.between_only,
        files=_files(order.keeping),
        command=command([*words, *(["--between-only"] if order.between_only else [])], options),
    )


def _files(keeping: Keeping) -> dict[str, str]:
    """What of it is not usual, by the name of the option."""
    asked = attrs.asdict(keeping)
    return {name: str(value) for name, value in asked.items() if value != getattr(USUAL, name)}


def keeping_of(recipe: Recipe) -> Keeping:
    """How the recipe's files were kept. Raises RecipeError."""
    try:
        numbers = {name: int(recipe.files[name]) for name in ("depth", "start_number") if name in recipe.files}
        return Keeping(**{**recipe.files, **numbers})
    except (TypeError, ValueError):
        raise RecipeError(f"the recipe keeps files in ways that are not known here: {dict(recipe.files)}") from None


def libraries() -> dict[str, str]:
    """What is installed of those that decide bytes."""
    found: dict[str, str] = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # vendored without its metadata
            continue
    return found


def picture_hash(image: Picture) -> str:
    """SHA-256 of a picture's size and pixels, [H, W, C]."""
    digest = hashlib.sha256(" ".join(map(str, image.shape)).encode())
    digest.update(np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()


def command(words: Sequence[str], options: Iterable[tuple[str, str]]) -> str:
    """A command line that can be pasted into a shell; options that are empty are left out."""
    parts = list(words)
    for name, value in options:
        parts += [name, value] if value else []
    return shlex.join(parts)


# In files


def write(recipe: Recipe, path: Path) -> None:
    """Raises MediaError."""
    with appearing(path) as part:
        part.write_text(json.dumps(cattrs.unstructure(recipe), sort_keys=True, indent=2) + "\n", "utf-8")


def read(path: Path) -> Recipe:
    """From recipe.json, or from a picture or movie that carries one. Raises RecipeError."""
    try:
        with open_regular(path) as file:
            beginning = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({(error.strerror or str(error)).lower()})") from None
    if beginning.startswith((b"\x89PNG", b"II*\0", b"MM\0*")):
        text = _of_picture(path)
    elif is_exr(path):
        text = text_of(path, TAG)
    elif beginning.lstrip()[:1] == b"{":
        text = beginning.decode("utf-8", "replace") if len(beginning) <= _MAX_BYTES else None
    else:
        text = _of_movie(path)
    if not text or len(text) > _MAX_BYTES:
        raise RecipeError(f"{path}: carries no recipe; name a recipe.json, or a picture or movie made with one")
    return _parsed(text, path)


def _of_picture(path: Path) -> str | None:
    try:
        with Image.open(path, formats=["PNG", "TIFF"]) as picture:
            found = (
                picture.tag_v2.get(TIFF_DESCRIPTION) if isinstance(picture, TiffImageFile) else picture.info.get(TAG)
            )
            return found if isinstance(found, str) else None
    except Exception:  # a boundary: decoders raise whatever they like about damaged files
        return None


def _of_movie(path: Path) -> str | None:
    try:
        with open_film(path) as container:
            return next((container.metadata[k] for k in (TAG, TAG.upper(), MOVIE_TAG) if k in container.metadata), None)
    except Exception:  # as above
        return None


def _parsed(text: str, path: Path) -> Recipe:
    try:
        table: Any = json.loads(text)
        if isinstance(table, dict) and isinstance(table.get("format"), int) and table["format"] > FORMAT:
            raise RecipeError(f"{path}: has format {table['format']}, this version reads {FORMAT}; update sfserver")
        if not isinstance(table, dict):
            raise TypeError("no map")
        return _CONVERTER.structure(table, Recipe)
    except (cattrs.BaseValidationError, ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, RecipeError):
            raise
        raise RecipeError(f"{path}: is no recipe of sfserver; name the recipe.json of a clip") from None


def _strict(value: Any, kind: type) -> Any:
    """As it is or not at all: `True` is no number, and a number no text."""
    if type(value) is not kind:
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value


def _value(value: Any, _: object) -> Value:
    if type(value) not in (bool, int, float, str):
        raise TypeError(f"{value!r} is no value of a parameter")
    return value


_CONVERTER = cattrs.Converter(forbid_extra_keys=True)
for _kind in (str, int, bool):
    _CONVERTER.register_structure_hook(_kind, _strict)
_CONVERTER.register_structure_hook(Value, _value)


# What is another here


def same(wanted: Recipe, here: Recipe) -> Recipe:
    """`wanted`, where `here` gives the same bytes. Raises RecipeError that says what is another."""
    found = differences(wanted, here)
    if found:
        remedy = f"the same without a promise: {here.command} --out …"  # what `wanted` has there may be anything
        raise RecipeError(f"the recipe cannot be followed here: {'; '.join(found)}; {remedy}")
    return wanted


def differences(wanted: Recipe, here: Recipe) -> list[str]:
    """What of `here` would give other bytes than `wanted`, a clause each that names both."""
    found: list[str] = []
    for what, there, now in (
        ("sfserver", wanted.sfserver, here.sfserver),
        (f"engine {wanted.engine}", wanted.engine_version, here.engine_version),
    ):
        if there != now:
            found.append(f"{what} was {there}, here it is {now}")
    found += _of_maps("weights", wanted.weights, here.weights)
    found += _of_maps("library", wanted.libraries, here.libraries)
    pictures = {one.at: one for one in here.keyframes}
    for one in wanted.keyframes:
        other = pictures.get(one.at)
        if other is None or other.pixels != one.pixels:
            now = f"{other.file} has {other.pixels[:_SHORT]}" if other else "there is none"
            found.append(f"the picture at frame {one.at} ({one.file}) had pixels {one.pixels[:_SHORT]}, {now}")
    for name in sorted({*wanted.params, *here.params}):
        if wanted.params.get(name) != here.params.get(name):
            found.append(f"parameter {name} was {wanted.params.get(name)}, here it is {here.params.get(name)}")
    return found


def _of_maps(what: str, there: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    return [
        f"{what} {name}: {there.get(name, 'none')[:_SHORT]} there, {here.get(name, 'none')[:_SHORT]} here"
        for name in sorted({*there, *here})
        if there.get(name) != here.get(name)
    ]
