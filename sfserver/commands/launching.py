"""`sfserver serve --ray`: what is typed becomes what a launcher is told, and a server whose workers all dial in."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from attrs import evolve
from sfwire import limits as L

from ..serve import by_ray
from ..serve.launcher import Launcher

_NUMBERS = re.compile(r"([0-9]{1,2})(?::([0-9]{1,2}))?")
_OF_WORKERS = "devices", "device", "precision"
"""Settings that the server has for workers of its own, and a worker on another machine from there."""


def bounds_of(text: str) -> tuple[int, int]:
    """N, or MIN:MAX, of workers."""
    found = _NUMBERS.fullmatch(text)
    least, most = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= least <= most <= L.MAX_WORKERS:
        sentence = f"{text!r}: with --ray it is N or MIN:MAX, from 1 to {L.MAX_WORKERS}"
        raise typer.BadParameter(sentence, param_hint="--workers")
    return least, most


def by_ray_at(
    address: str,
    gpus: float,
    flags: Mapping[str, Any],
    command: Sequence[str] = by_ray.JOIN_COMMAND,
    idle_s: float = by_ray.IDLE_S,
) -> tuple[dict[str, Any], Launcher]:
    """(settings for the server, who brings its workers). Raises UserError where Ray cannot be used."""
    least, most = bounds_of(str(flags.get("workers") or "1"))
    for name in _OF_WORKERS:
        if flags.get(name) is not None:
            sentence = f"with --ray workers have it from the machines they are on; set SFSERVER_{name.upper()} there"
            raise typer.BadParameter(sentence, param_hint=f"--{name}")
    by_ray.require_ray(address)
    wish = by_ray.Wish(address, "", b"", least, most, gpus, idle_s=idle_s, command=tuple(command))

    def tells(connection_file: Path, join: bytes) -> bytes:
        return evolve(wish, connection_file=str(connection_file), join=join).pack()

    here = flags.get("workers_from") or f"tcp://{_seen_from(address)}:0"
    launcher = Launcher([sys.executable, "-m", "sfserver.serve.by_ray"], tells)
    return {**flags, "workers": "0", "workers_from": here}, launcher


def _seen_from(address: str) -> str:
    """This machine's address on the way to the cluster's head, by which its workers can come back."""
    with by_ray.reach(address) as connection:
        found = str(connection.getsockname()[0])
    return f"[{found}]" if ":" in found else found
