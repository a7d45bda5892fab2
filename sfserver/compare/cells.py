"""The combinations that are made, each in a folder of its own: what it asks for, and how one knows that it is done.

A folder holds a clip as PNG files and, written last, `cell.json`. That names what was asked for, so a run that was
broken off goes on with what is missing, and one with other wishes makes anew what they change.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import attrs
import cattrs
import numpy as np
from attrs import frozen
from PIL import Image
from sfwire.messages import EngineInfo, Value

from ..engine.base import Job
from ..media.files import appearing
from .measures import Clip, Measured

DONE = "cell.json"
UNVARIED: Mapping[str, Sequence[str]] = {}


@frozen
class Cell:
    """One combination. `strategy` is empty for an engine that has none."""

    engine: str
    strategy: str
    seed: int
    settings: tuple[tuple[str, str], ...] = ()
    """Of the parameters that are varied, as typed."""

    @property
    def name(self) -> str:
        """Of its folder."""
        varied = (f"{name}{value}" for name, value in self.settings)
        parts = (self.engine, *([self.strategy] if self.strategy else []), *varied, f"seed{self.seed}")
        return re.sub(r"[^A-Za-z0-9.+_-]", "-", "_".join(parts))

    @property
    def title(self) -> str:
        """For people."""
        varied = (f"{name} {value}" for name, value in self.settings)
        return ", ".join((self.engine, *([self.strategy] if self.strategy else []), *varied, f"seed {self.seed}"))


@frozen
class Outcome:
    """What became of one. `asked` says for what."""

    asked: str
    seconds: float
    first_s: float
    """To the first in-between frame; loading the weights is not counted in either."""
    memory_bytes: int
    """The most that was held on the GPU, or by the process where there is none."""
    measured: Measured


def combinations(
    infos: Sequence[EngineInfo],
    strategies: Sequence[str],
    seeds: Sequence[int],
    varied: Mapping[str, Sequence[str]] = UNVARIED,
) -> list[Cell]:
    """Every engine with each of `strategies` that it knows, or with all of its own where none is named, and with each
    value of those `varied` parameters that it has.
    """
    cells: list[Cell] = []
    for info in infos:
        known = next((p.choices for p in info.parameters if p.name == "strategy"), ())
        chosen = [name for name in strategies or known if name in known] if known else [""]
        names = {p.name for p in info.parameters}
        values = [[(name, value) for value in given] for name, given in varied.items() if name in names]
        cells += [Cell(info.id, *which) for which in product(chosen, seeds, product(*values))]
    return cells


def asked(info: EngineInfo, job: Job) -> str:
    """A hash of all that decides the pixels of a clip."""
    words: Mapping[str, Any] = {
        "engine": [info.id, info.version],
        "clip": [job.width, job.height, job.num_frames, job.seed],
        "prompts": [job.prompt, job.negative_prompt, *map(list, job.prompts)],
        "params": dict[str, Value](job.params),
    }
    digest = hashlib.sha256(json.dumps(words, sort_keys=True).encode())
    for keyframe in job.keyframes:
        digest.update(f"{keyframe.at} ".encode() + np.ascontiguousarray(keyframe.image).tobytes())
    return digest.hexdigest()


def outcome_in(folder: Path, wanted: str) -> Outcome | None:
    """Of a cell that is done as wanted; None where it is not."""
    try:
        found = cattrs.structure(json.loads((folder / DONE).read_text("utf-8")), Outcome)
    except (OSError, ValueError, cattrs.BaseValidationError):
        return None
    return found if found.asked == wanted else None


def keep(folder: Path, clip: Clip, outcome: Outcome) -> None:
    """Raises MediaError where the folder cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DONE).unlink(missing_ok=True)
    for stale in folder.glob("*.png"):
        stale.unlink()
    for i, frame in enumerate(clip):
        Image.fromarray(frame).save(folder / f"{i:04}.png", compress_level=1)
    with appearing(folder / DONE) as part:
        part.write_text(json.dumps(attrs.asdict(outcome), indent=1), "utf-8")


def clip_in(folder: Path) -> Clip:
    """The frames of a cell that is done."""
    return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.glob("*.png"))])
