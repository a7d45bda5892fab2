"""`sfserver run`: a job as a folder, from the command line of any scheduler."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..config import ServerConfig, load_config
from ..errors import CANCELLED
from .bars import Bar
from .terminal import say

if TYPE_CHECKING:
    from ..clip.order import Order


def run(
    folder: Annotated[Path, typer.Argument(help="As `sfserver generate … --save-job FOLDER` wrote it")],
    connect: Annotated[bool, typer.Option("--connect", help="Let the running server do it")] = False,
    no_recipe: Annotated[
        bool, typer.Option("--no-recipe", help="Leave prompts and settings out of the frames")
    ] = False,
) -> int:
    """Make what is missing of a job that was saved as a folder, and stop; the same command goes on."""
    from ..clip import job_folder

    with Bar() as bar:
        result = job_folder.run(folder, load_config(), bar, connect=connect, keeps=not no_recipe)
    if result.cancelled:
        say(f"sfserver: cancelled; {result.made} frames more are in {folder}, the same command goes on", err=True)
        return CANCELLED
    if not result.wanted and not result.written:
        say(f"all frames are in {folder} already")
    else:
        say(f"{result.written} frames more in {folder}, made by {result.engine} in {result.seconds:.1f} s")
    return 0


def saved(order: Order, folder: Path, config: ServerConfig, bar: Bar) -> int:
    """`sfserver generate --save-job`."""
    from ..clip import job_folder

    job = job_folder.save(order, folder, config, bar)
    say(f"{folder} is a job of {job.num_frames} frames for {job.engine}; make it with: sfserver run {folder}")
    return 0
