"""An animatic for a farm: a job folder for each gap, made by `sfserver run` on any machine, then put together.

    python animatic_jobs.py save board.otio jobs/                  # prints the folders' names, one a line
    sfserver run jobs/NAME                                         # one task each, anywhere, any number of times
    python animatic_jobs.py put board.otio jobs/ --out filled.otio

`put` makes each gap's movie of its frames and leaves the rest to `sfserver animatic`, which makes nothing again that is
there. So both commands must be given the same options. Where frames are missing `put` says of which, and puts nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from attrs import evolve
from sfwire.errors import WireError

from sfserver.animatic import board as boards
from sfserver.animatic.holes import find
from sfserver.animatic.jobs import Pictures, Reel, Task, Wish, made_already, size_of, task_of
from sfserver.cli import main as sfserver
from sfserver.clip import job_folder
from sfserver.clip.again import order_from
from sfserver.clip.order import Order
from sfserver.clip.planning import choose_engine
from sfserver.commands.terminal import say
from sfserver.commands.typed import setting_of
from sfserver.config import load_config
from sfserver.engine.base import Frame
from sfserver.engine.choice import Wanted
from sfserver.engine.provenance import weights_of
from sfserver.errors import UserError
from sfserver.media import read_picture
from sfserver.media.codecs import codec_named
from sfserver.media.files import make_folder
from sfserver.media.stills import write_still


class Said:
    """Notes go where progress goes."""

    def note(self, sentence: str) -> None:
        say(f"note: {sentence}", err=True)


def main() -> int:
    asked = arguments()
    try:
        return save_all(asked) if asked.what == "save" else put(asked)
    except (UserError, WireError, OSError) as error:
        say(f"animatic_jobs: {error}", err=True)
        return 2


def save_all(asked: argparse.Namespace) -> int:
    for name, (task, pictures) in {task.name: (task, pictures) for task, pictures in tasks(asked)}.items():
        if not (asked.jobs / name / job_folder.JOB).exists():
            save(task, pictures, asked.jobs / name, asked)
        say(name)
    return 0


def put(asked: argparse.Namespace) -> int:
    missing = [task.name for task, _ in tasks(asked) if not take(task, asked.jobs / task.name, asked)]
    for name in missing:
        say(f"frames are missing: sfserver run {asked.jobs / name}", err=True)
    if missing:
        return 2
    same = [f"--{name.replace('_', '-')}={value}" for name, value in options(asked).items()]
    settings = [word for setting in asked.settings for word in ("--set", setting)]
    return sfserver(["animatic", str(asked.board), "--out", str(asked.out), *same, *settings])


def options(asked: argparse.Namespace) -> dict[str, object]:
    return {name: vars(asked)[name] for name in ("engine", "prompt", "negative_prompt", "hold", "seed", "codec")}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Job folders of an animatic's gaps, for a farm")
    parser.add_argument("what", choices=["save", "put"])
    parser.add_argument("board", type=Path)
    parser.add_argument("jobs", type=Path)
    parser.add_argument("--out", type=Path, help="with put: the filled timeline, as for sfserver animatic")
    parser.add_argument("--engine", default="draft", help="not auto: every machine is to take the same one")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--prompt", default="")
    parser.add_argument("--negative-prompt", default="")
    parser.add_argument("--hold", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--codec", default="h264")
    asked = parser.parse_args()
    if asked.what == "put" and asked.out is None:
        parser.error("put needs --out")
    return asked


def wish_of(asked: argparse.Namespace) -> Wish:
    return Wish(
        prompt=asked.prompt,
        negative_prompt=asked.negative_prompt,
        settings=dict(map(setting_of, asked.settings)),
        seed=asked.seed,
        codec=codec_named(asked.codec),
    )


def tasks(asked: argparse.Namespace) -> Iterator[tuple[Task, Pictures]]:
    """Of each gap that can be filled, as `sfserver animatic` has them, and the pictures that were read for them."""
    config, notes, pictures = load_config(), Said(), Pictures()
    with tempfile.TemporaryDirectory() as scratch:
        board = boards.read(asked.board, Path(scratch), 24.0)
        holes, unfilled = find(board.timeline, board.folder, asked.hold, ())
        for one in unfilled:
            notes.note(f"not filled: {one}")
        if not holes:
            return
        width, height = size_of(holes, pictures)
        whole = Order(start=asked.board, end=asked.board, out=asked.board, engine=asked.engine)
        longest = max(hole.num_frames for hole in holes) + 2
        choice, settings = choose_engine(whole, Wanted(width, height, longest, 2), config, None, notes)
        wish, weights = wish_of(asked).with_defaults(settings), weights_of(choice.info.id, config, None)
        for hole in holes:
            yield task_of(hole, wish, choice, weights, pictures, notes), pictures


def save(task: Task, pictures: Pictures, folder: Path, asked: argparse.Namespace) -> None:
    """The pictures go along; a frame of a movie as PNG, which has its alpha and its 16 bits."""
    with tempfile.TemporaryDirectory() as scratch:
        files: dict[int, Path] = {}
        for at, moment in ((0, task.hole.first), (task.recipe.num_frames - 1, task.hole.last)):
            files[at] = moment.path if moment.time is None else Path(scratch) / f"{at}.png"
            if moment.time is not None:
                write_still(files[at], pictures.read(moment).image, ".png")
        order = order_from(evolve(task.recipe, files={}), files, asked.board, folder)
        job_folder.save(order, folder, load_config(), Said())


def take(task: Task, folder: Path, asked: argparse.Namespace) -> bool:
    """Make the gap's movie of the folder's frames; whether it is there now."""
    wish, movies = wish_of(asked), boards.media_folder(asked.out)
    if made_already(task, movies, wish.codec.suffixes[0]):
        return True
    frames = [folder / job_folder.FRAMES / f"{at:04d}.png" for at in range(1, task.recipe.num_frames - 1)]
    if not all(frame.is_file() for frame in frames):
        return False
    make_folder(movies)
    reel = Reel(task, movies, wish)
    for index, frame in enumerate(frames, start=1):
        reel.add(Frame(index, read_picture(frame).image))
    reel.close()
    return True


if __name__ == "__main__":
    sys.exit(main())
