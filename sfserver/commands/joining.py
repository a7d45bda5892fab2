"""`sfserver worker --join FILE`: this machine's devices at work for a server on another one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..config import load_config


def worker(
    join: Annotated[Path, typer.Option(help="The file that sfserver serve --workers-from wrote", metavar="FILE")],
    workers: Annotated[
        str | None, typer.Option(help="Requests that are worked on at the same time, or auto: one a device")
    ] = None,
    devices: Annotated[str | None, typer.Option(help="GPUs by number, as in 0,1; or all, or cpu")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps")] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file with these and further settings")] = None,
) -> int:
    """Work for the server of a join file until it ends, or until Ctrl-C."""
    from ..serve import keeper

    flags = {"workers": workers, "devices": devices, "device": device}
    return keeper.keep(join, load_config(flags, file=config))
