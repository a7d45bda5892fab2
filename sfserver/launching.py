"""`sfserver serve --ray`: what is typed becomes what a launcher is told, and a server whose workers all dial in."""

from __future__ import annotations

import re
import socket
import sys
from pathlib import Path
from typing import Any

import typer
from attrs import evolve

from .serve import by_ray
from .serve.launcher import Launcher

_MOST = 64
_NUMBERS = re.compile(r"([0-9]{1,2})(?::([0-9]{1,2}))?")


def bounds_of(text: str) -> tuple[int, int]:
    """N, or MIN:MAX, of workers."""
    found = _NUMBERS.fullmatch(text)
    least, most = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= least <= most <= _MOST:
        raise typer.BadParameter(f"{text!r}: with --ray it is N or MIN:MAX, from 1 to {_MOST}", param_hint="--workers")
    return least, most


def by_ray_at(address: str, gpus: float, flags: dict[str, Any]) -> tuple[dict[str, Any], Launcher]:
    """(settings for the server, who brings its workers). Raises UserError where Ray cannot be used."""
    least, most = bounds_of(flags["workers"] or "1")
    by_ray.require_ray(address)
    wish = by_ray.Wish(address, "", b"", least, most, gpus)

    def tells(connection_file: Path, join: bytes) -> bytes:
        return evolve(wish, connection_file=str(connection_file), join=join).pack()

    here = flags["workers_from"] or f"tcp://{_seen_from(address)}:0"
    launcher = Launcher([sys.executable, "-m", "sfserver.serve.by_ray"], tells)
    return flags | {"workers": "0", "workers_from": here}, launcher


def _seen_from(address: str) -> str:
    """This machine's address on the way to the cluster's head, by which its workers can come back."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=by_ray.REACH_S) as connection:
        found = str(connection.getsockname()[0])
    return f"[{found}]" if ":" in found else found
