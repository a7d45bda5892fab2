"""`sfserver queue`: what waits for the running server, and a hand on it."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table
from sfwire import messages as m
from sfwire.limits import MAX_QUEUED

from ..config import load_config
from ..errors import UserError
from .terminal import safe, say

_MAX_OPERATOR_BYTES = 64


def queue(
    action: Annotated[
        Literal["list", "pause", "resume", "cancel", "move"],
        typer.Argument(help="pause frees the device within one pass; cancel and move want a JOB of the list"),
    ] = "list",
    job: Annotated[str, typer.Argument(help="As the list names it", metavar="[JOB]")] = "",
    to: Annotated[int, typer.Option(help="For move: how many shall come before it", min=0, max=MAX_QUEUED)] = 0,
) -> None:
    """Show or steer the queue of the running server."""
    from sfwire.regular import read_regular

    from ..clip.planning import connected
    from ..serve.endpoint import connection_path, operator_path

    if bool(job) != (action in ("cancel", "move")):
        raise typer.BadParameter("cancel and move name a job of: sfserver queue list; the others none")
    config = load_config()
    operator = ""
    with suppress(OSError):  # a copy of the connection file alone is enough to see it
        operator = read_regular(operator_path(connection_path(config)), _MAX_OPERATOR_BYTES).decode("ascii", "replace")
    with connected(config, "sfserver queue") as client:
        answer = client.steer(m.Steer(action, operator if action != "list" else "", job, to))
    if answer.refused:
        raise UserError(answer.refused)
    _show(answer)


def _show(answer: m.Queue) -> None:
    if answer.paused:
        say("paused: nothing is started until `sfserver queue resume`")
    if not answer.jobs:
        say("nothing is waiting or running")
        return
    grid = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("Job", "State", "Before it", "Frames", "Engine", "Priority", "Client"):
        grid.add_column(heading, no_wrap=True)
    for one in answer.jobs:
        before = str(one.position - 1) if one.position else ""
        frames = f"{one.first} of {one.num_frames}"
        grid.add_row(*map(safe, (one.job, one.state, before, frames, one.engine, one.priority, one.client)))
    Console(highlight=False).print(grid)
