"""A job as a folder: what is to be made, the pictures it is made from, and the frames as far as they are made.

    FOLDER/job.json          the recipe of what is to be made, its pictures by names inside the folder
    FOLDER/keyframes/0000.*  those pictures, as they were given
    FOLDER/frames/0000.png   the clip's frames: each appears when it is whole
    FOLDER/recipe.json       what has made them

`run` makes what is missing and stops. It may be broken off at any moment and run any number of times, on any machine
that sees the folder: whoever goes on must have the engine and the weights that made the first frames.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Generator, Mapping
from pathlib import Path, PurePosixPath

import attrs
from attrs import evolve, frozen
from sfwire.client import Client

from ..config import ServerConfig
from ..media.files import Picture, appearing, claim, let_go, make_folder, remove_folders, write_error
from ..media.sequence import Numbering, SequenceWriter
from . import recipe as recipes
from .again import order_from
from .making import Clip, Result, Watcher, broken_off, follow, note_unsure
from .order import Order, OrderError, check
from .planning import Notes, Prepared, connected, prepare
from .recipe import Recipe, RecipeError
from .sources import Event, frames_from_here, frames_from_server

JOB = "job.json"
KEYFRAMES = "keyframes"
FRAMES = "frames"


@frozen
class Saved:
    """What was saved."""

    engine: str
    num_frames: int


def save(order: Order, folder: Path, config: ServerConfig, watcher: Notes) -> Saved:
    """Write the job that `order` is; nothing is made, and the engine need not be complete here.

    Raises OrderError, MediaError and WireError, and leaves no job then.
    """
    check(order)
    if order.keeping.codec or order.keeping.timecode:
        raise OrderError("a job holds frames, and --codec and --timecode are of movies; leave them out")
    if (folder / JOB).exists():
        raise OrderError(f"{folder}: holds a job already; run it, or name another folder with --save-job")
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(connected(config)) if order.connect else None
        ready = prepare(order, config, client, watcher, runs_here=False)
    made = make_folder(folder / KEYFRAMES)
    try:
        files: dict[int, str] = {}
        for one in ready.recipe.keyframes:
            files[one.at] = f"{KEYFRAMES}/{one.at:04d}{Path(one.file).suffix.lower()}"
            _copy(Path(one.file), folder / files[one.at])
        recipes.write(_inside(ready.recipe, files), folder / JOB)
    except BaseException:
        remove_folders(made)
        raise
    return Saved(ready.plan.info.id, order.num_frames)


def run(folder: Path, config: ServerConfig, watcher: Watcher, *, connect: bool = False, keeps: bool = True) -> Result:
    """Make the frames that are missing. `connect`: by the running server. `keeps`: the recipe goes into the frames.

    Raises OrderError, RecipeError, MediaError and WireError for what the user or the machine can mend.
    """
    job = _job_in(folder)
    lock = claim(folder)
    try:
        with contextlib.ExitStack() as stack:
            client = stack.enter_context(connected(config)) if connect else None
            return _run(folder, job, config, client, keeps, watcher)
    finally:
        let_go(lock)


def _run(
    folder: Path, job: Recipe, config: ServerConfig, client: Client | None, keeps: bool, watcher: Watcher
) -> Result:
    began = time.monotonic()
    files = {one.at: one.file for one in job.keyframes}
    order = order_from(job, {at: folder / file for at, file in files.items()}, folder / JOB, folder)
    order = evolve(order, connect=client is not None, keeps_recipe=keeps)
    check(order)
    there = _There(folder / FRAMES, order)
    positions = [at for at in range(order.num_frames) if not (order.between_only and at in files)]
    if all(map(there.has, positions)):
        return Result(0, 0, 0, False, time.monotonic() - began, job.engine)
    ready = prepare(order, config, client, watcher)
    recipe = _inside(ready.recipe, files)
    _require_the_same(job, recipe, folder, watcher)
    with there.writing(recipe.text() if keeps else ""):
        if keeps:
            recipes.write(recipe, folder / recipes.FILE)
        missing = [at for at in ready.plan.job.wanted() if not there.has(at)]
        start = missing[0] if missing else order.num_frames
        clip = Clip(evolve(ready.plan.job, resume_from=start), there, order.between_only)
        cancelled, failure = follow(_source(ready, start, client), clip, watcher)
    if failure is not None:
        raise broken_off(failure, clip, folder / FRAMES) from failure
    note_unsure(clip, watcher)
    return Result(there.written, clip.made, clip.wanted, cancelled, time.monotonic() - began, ready.plan.info.id)


def _source(ready: Prepared, start: int, client: Client | None) -> Generator[Event, None, None]:
    if start == ready.order.num_frames:
        return _nothing()
    if client is not None:
        return frames_from_server(client, evolve(ready.plan.request, start_from=start, priority="batch"))
    return frames_from_here(ready.choice, evolve(ready.plan.job, resume_from=start))


def _nothing() -> Generator[Event, None, None]:
    yield from ()


class _There:
    """The frames of a job: those that are there stay as they are."""

    def __init__(self, folder: Path, order: Order) -> None:
        self._folder, self._depth = folder, order.keeping.depth
        self._numbering = Numbering(first=order.keeping.start_number)
        self._writer: SequenceWriter | None = None
        self.written = 0

    def has(self, index: int) -> bool:
        return (self._folder / self._numbering.name(index)).is_file()

    @contextlib.contextmanager
    def writing(self, text: str) -> Generator[None, None, None]:
        """`text` goes into each frame."""
        self._writer = SequenceWriter(self._folder, text, self._numbering, self._depth, goes_on=True)
        try:
            yield
        finally:
            self._writer.close()

    def write(self, index: int, image: Picture) -> None:
        assert self._writer is not None, "`writing` comes first"
        if not self.has(index):
            self._writer.write(index, image)
            self.written += 1


def _job_in(folder: Path) -> Recipe:
    if not (folder / JOB).is_file():
        raise OrderError(f"{folder}: holds no {JOB}; make a job with: sfserver generate … --save-job {folder}")
    for inner in (folder / KEYFRAMES, folder / FRAMES):
        if inner.is_symlink():
            raise RecipeError(f"{inner}: is a link, and may lead anywhere; put the folder itself in its place")
    job = recipes.read(folder / JOB)
    for one in job.keyframes:
        path = PurePosixPath(one.file)
        if path.is_absolute() or ".." in path.parts or "\\" in one.file or ":" in one.file:
            raise RecipeError(f"{folder / JOB}: names {one.file!r}, which is not in the folder; save the job anew")
    return job


def _inside(recipe: Recipe, files: Mapping[int, str]) -> Recipe:
    """The same wherever the folder lies: frames that two machines make must not differ in what they carry."""
    keyframes = tuple(evolve(one, file=files[one.at]) for one in recipe.keyframes)
    return evolve(recipe, keyframes=keyframes, command="sfserver run .")


def _require_the_same(job: Recipe, here: Recipe, folder: Path, watcher: Notes) -> None:
    """Raises RecipeError where the pictures are not those of the job, or others made the first frames."""
    found = recipes.differences(evolve(here, keyframes=job.keyframes), here)
    if found:
        raise RecipeError(f"{folder}: {'; '.join(found)}; save the job anew")
    path = folder / recipes.FILE
    if not path.is_file():
        return
    before = recipes.read(path)
    weights = before.weights if here.weights else {}  # of a server's engine that is not here they are not known
    found = recipes.differences(
        evolve(before, sfserver=here.sfserver, libraries=here.libraries, weights=weights or here.weights), here
    )
    if found:
        remedy = f"run it where that is as it was, or remove {folder / FRAMES} and {path}"
        raise RecipeError(f"{folder}: the frames that are there were made otherwise: {'; '.join(found)}; {remedy}")
    if attrs.asdict(before)["libraries"] != here.libraries:
        watcher.note("other versions of libraries made the first frames: bytes may differ a little from theirs")


def _copy(source: Path, target: Path) -> None:
    try:
        with appearing(target) as part:
            shutil.copyfile(source, part)
    except OSError as error:
        raise write_error(target, error) from error
