"""One job for one hole: its two pictures, the recipe, and the movie that it becomes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import cattrs
from attrs import evolve, field, frozen

from ..clip import recipe as recipes
from ..clip.order import Order
from ..clip.planning import Choice, Notes, Plan, plan_for
from ..clip.recipe import Recipe
from ..engine import base
from ..media import ClipWriter, FitRule, Loaded, MediaError, read_picture
from ..media.codecs import H264, Codec
from ..media.container import open_film
from ..media.movie import read_movie
from ..media.outputs import Keeping
from . import rates
from .holes import MARK, Hole
from .moments import Moment

_KEY_LETTERS = 12
"""Of the recipe's hash in a movie's name: what is there under a name was made by its recipe."""
_SLUG_LETTERS = 24
_USUAL_SIZE = 832, 480


@frozen
class Wish:
    """What is the same for every hole of a timeline."""

    prompt: str = ""
    negative_prompt: str = ""
    size: tuple[int, int] | None = None
    fit: FitRule = "crop"
    settings: Mapping[str, str] = field(factory=dict[str, str])
    seed: int = 0
    codec: Codec = H264
    keeps_recipe: bool = True
    """Recipes hold the prompts; some must not leave them in files."""

    def with_defaults(self, settings: Mapping[str, str], size: tuple[int, int] | None = None) -> Wish:
        """With what `auto` would set, and the size that fits the GPU, where nothing else was asked for."""
        return evolve(self, settings={**settings, **self.settings}, size=self.size or size)


@frozen(eq=False)
class Task:
    """A hole, ready to be made."""

    hole: Hole
    plan: Plan
    recipe: Recipe
    name: str
    """Of the clip and, with the suffix, of the movie."""

    @property
    def title(self) -> str:
        """What the clip is called on the timeline."""
        return self.name.rpartition("_")[0]

    @property
    def url_beside(self) -> str:
        """How the timeline names what the clip before shows."""
        media = self.hole.before.media_reference
        return getattr(media, "target_url", None) or getattr(media, "target_url_base", None) or ""


def task_of(
    hole: Hole, wish: Wish, choice: Choice, weights: Mapping[str, str], pictures: Pictures, watcher: Notes
) -> Task:
    """Read both pictures and check what the engine can do. Raises MediaError, RequestError and messages.Refused."""
    end = hole.num_frames + 1
    loaded = {0: pictures.read(hole.first), end: pictures.read(hole.last)}
    for one in loaded.values():
        for note in one.notes:
            watcher.note(note)
    images = {at: one.image for at, one in loaded.items()}
    order = Order(
        start=hole.first.path,
        end=hole.last.path,
        out=Path(),
        prompt=hole.words.prompt or wish.prompt,
        negative_prompt=wish.negative_prompt,
        prompts=tuple((at + 1, text) for at, text in hole.words.later),
        num_frames=hole.num_frames + 2,
        size=wish.size,
        fit=wish.fit,
        engine=choice.info.id,
        settings=wish.settings,
        seed=wish.seed,
        fps=rates.exact(hole.rate),
        between_only=True,
        keeping=Keeping(codec="" if wish.codec is H264 else wish.codec.name),
    )
    plan = plan_for(order, images, choice.info, watcher)
    recipe = recipes.recipe_of(order, plan, images, weights)
    key = recipe.key[:_KEY_LETTERS]
    return Task(hole, plan, recipe, f"{_slug(hole.first.path.stem)}-to-{_slug(hole.last.path.stem)}_{key}")


def size_of(holes: Sequence[Hole], pictures: Pictures) -> tuple[int, int]:
    """(width, height) of the first picture that can be read, for choosing an engine that can make such."""
    for hole in holes:
        with suppress(MediaError):
            height, width = pictures.read(hole.first).image.shape[:2]
            return width, height
    return _USUAL_SIZE


class Pictures:
    """Reads pictures, and keeps the last few of one run: a panel is the end of one hole and the start of the next."""

    def __init__(self) -> None:
        self.read = lru_cache(maxsize=4)(_read)


def _read(moment: Moment) -> Loaded:
    if moment.time is None:
        return read_picture(moment.path)
    return read_movie(moment.path, moment.time, moment.rate)


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[:_SLUG_LETTERS] or "picture"


def made_already(task: Task, folder: Path, suffix: str) -> Path | None:
    """The movie of the same recipe that is there and whole, whatever the pictures were called then."""
    with suppress(OSError):
        for path in sorted(folder.glob(f"*_{task.recipe.key[:_KEY_LETTERS]}{suffix}")):
            if _is_whole(path, task.hole.num_frames):
                return path
    return None


def _is_whole(path: Path, num_frames: int) -> bool:
    try:
        with open_film(path) as container:
            video = container.streams.video[0]
            return (video.frames or sum(1 for _ in container.demux(video)) - 1) == num_frames
    except (OSError, ValueError, IndexError):  # av's errors are among the first two
        return False


def record_of(task: Task, wish: Wish, engine_title: str) -> dict[str, Any]:
    """What the clip in the timeline says of itself."""
    record: dict[str, Any] = {"key": task.recipe.key, "engine": engine_title}
    if wish.keeps_recipe:
        record["recipe"] = cattrs.unstructure(task.recipe)
    return record


def stands_already(task: Task) -> bool:
    """The clip of ours that is in the hole was made by the very same recipe."""
    clip = task.hole.made_before
    return clip is not None and clip.metadata[MARK].get("key") == task.recipe.key


class Reel:
    """The movie of one task while it is being made. It appears when it is whole; `abort` leaves nothing."""

    def __init__(self, task: Task, folder: Path, wish: Wish) -> None:
        """Raises MediaError."""
        self.task = task
        self.path = folder / f"{task.name}{wish.codec.suffixes[0]}"
        self.made = 0
        job = task.plan.job
        comment = task.recipe.text() if wish.keeps_recipe else ""
        rate = rates.exact(task.hole.rate)
        self._writer = ClipWriter(self.path, job.width, job.height, rate, comment, wish.codec, form=task.plan.form)

    def add(self, frame: base.Frame) -> None:
        self._writer.write(frame.image)
        self.made += 1

    def close(self) -> None:
        self._writer.close()

    def abort(self) -> None:
        self._writer.abort()
