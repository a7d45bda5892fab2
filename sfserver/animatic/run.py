"""One run: board read, holes found, engine chosen, holes filled, movies put in place, timeline written."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from attrs import frozen
from sfwire.client import Client
from sfwire.errors import WireError

from ..clip.order import Order
from ..clip.planning import choose_engine, connected
from ..config import ServerConfig
from ..engine.choice import Wanted
from ..engine.provenance import weights_of
from ..media import MediaError
from ..media.files import make_folder, remove_folders
from . import board as boards
from .fill import Filled, Filling, Here, There, Watcher
from .holes import Hole, Unfilled, find
from .jobs import Pictures, Wish, record_of, size_of
from .place import Movie, put


@frozen
class Job:
    """What the user asked for."""

    board: Path
    out: Path
    wish: Wish
    hold: int = 0
    tracks: tuple[str, ...] = ()
    engine: str = "auto"
    connect: bool = False
    style: str = ""
    """relative, absolute, or as the clips beside them."""
    overwrite: bool = False
    rate: float = 24.0
    """Of timelines that do not say theirs: an EDL."""


@frozen
class Report:
    """How it ended."""

    holes: int
    filled: int
    """Those whose movie is in the timeline that was written, made now or before."""
    made: int
    """Movies that were made now."""
    frames: int
    """In the holes that are filled."""
    unfilled: tuple[Unfilled, ...]
    engine: str
    seconds: float
    is_written: bool
    cancelled: bool = False
    broken: WireError | MediaError | None = None


def run(job: Job, config: ServerConfig, watcher: Watcher) -> Report:
    """Fill `job.board` into `job.out`. Ctrl-C, or a server that is lost, keeps what is whole.

    Raises BoardError, MediaError, RequestError and WireError where nothing could be begun; nothing is written then.
    """
    boards.check_out(job.board, job.out, job.overwrite)
    began = time.monotonic()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sfserver-")))
        board = boards.read(job.board, scratch, job.rate)
        holes, unfilled = find(board.timeline, board.folder, job.hold, job.tracks)
        if not holes:
            return Report(0, 0, 0, 0, tuple(unfilled), "", time.monotonic() - began, is_written=False)
        client = stack.enter_context(connected(config)) if job.connect else None
        filled, title = _filled(job, holes, config, client, watcher)
        left = (*unfilled, *filled.unfilled)
        count = len(filled.done) + filled.stood
        if filled.done or (filled.stood and not filled.cancelled and not filled.broken):
            _write(job, board, filled, title, watcher)
            is_written = True
        else:
            is_written = False
            remove_folders([boards.media_folder(job.out)])
        frames = sum(task.hole.num_frames for task, _ in filled.done)
        seconds = time.monotonic() - began
    return Report(
        len(holes), count, filled.made, frames, left, title, seconds, is_written, filled.cancelled, filled.broken
    )


def _filled(
    job: Job, holes: list[Hole], config: ServerConfig, client: Client | None, watcher: Watcher
) -> tuple[Filled, str]:
    pictures = Pictures()
    longest = max(hole.num_frames for hole in holes) + 2
    width, height = job.wish.size or size_of(holes, pictures)
    order = Order(
        start=job.board,
        end=job.board,
        out=job.out,
        prompt=job.wish.prompt or next((hole.words.prompt for hole in holes if hole.words.prompt), ""),
        negative_prompt=job.wish.negative_prompt,
        engine=job.engine,
        settings=job.wish.settings,
        connect=job.connect,
    )
    prompts = 1 + max(len(hole.words.later) for hole in holes)
    clip = Wanted(width, height, longest, prompts=prompts, settings=job.wish.settings)
    choice, settings = choose_engine(order, clip, config, client, watcher)
    wish = job.wish.with_defaults(settings)
    folder = boards.media_folder(job.out)
    made = make_folder(folder)
    try:
        weights = weights_of(choice.info.id, config, Path(job.engine) if Path(job.engine).is_dir() else None)
        road = There(client) if client else Here(choice)
        return Filling(holes, wish, choice, weights, pictures, folder).run(road, watcher), choice.info.title
    except BaseException:
        remove_folders(made)
        raise


def _write(job: Job, board: boards.Board, filled: Filled, title: str, watcher: Watcher) -> None:
    boards.settle(board, job.out)
    put(
        Movie(
            task.hole,
            task.title,
            boards.url_of(path, job.out, task.url_beside, job.style),
            record_of(task, job.wish, title),
        )
        for task, path in filled.done
    )
    for note in boards.write(board, job.out, job.rate):
        watcher.note(note)
