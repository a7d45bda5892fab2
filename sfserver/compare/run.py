"""All combinations, one after the other; an engine is loaded once, and only if something is left for it to make."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from itertools import groupby
from pathlib import Path

import attrs
import numpy as np
import psutil
from attrs import field, frozen
from sfwire.errors import ErrorCode, RequestError, WireError
from sfwire.messages import EngineInfo

from ..clip.planning import typed
from ..config import ServerConfig
from ..engine import base, table
from ..media import FitRule, clip_size, fit_all, read_picture
from ..samples import Form, conformed
from .cells import Cell, Outcome, asked, clip_in, combinations, keep, outcome_in
from .measures import Clip, measure
from .page import Row, write_page
from .paper import write_strips, write_table

PAGE, STRIPS, TABLE = "index.html", "strips.png", "table.md"


@frozen
class Wish:
    """What shall be compared."""

    start: Path
    end: Path
    out: Path
    engines: tuple[str, ...]
    strategies: tuple[str, ...] = ()
    """Names; none are all that an engine has."""
    seeds: tuple[int, ...] = (0,)
    prompt: str = ""
    negative_prompt: str = ""
    num_frames: int = 33
    size: tuple[int, int] | None = None
    fit: FitRule = "crop"
    settings: Mapping[str, str] = field(factory=dict[str, str])
    """As typed; for each engine, those that it has."""
    varied: Mapping[str, tuple[str, ...]] = field(factory=dict[str, tuple[str, ...]])
    """Values of parameters, each of which is a clip; for each engine, those that it has."""


Tell = Callable[[str], None]


def compare(wish: Wish, config: ServerConfig, tell: Tell) -> int:
    """Make what is missing and write the page; how many rows it has. What cannot be made is told and left out.

    Ctrl-C ends it with a page of what there is. Raises WireError or MediaError where nothing can be made at all.
    """
    infos = _infos(wish, config)
    pictures = [conformed(read_picture(path).image, Form()) for path in (wish.start, wish.end)]
    cells = combinations(infos, wish.strategies, wish.seeds, wish.varied)
    if not cells:
        known = sorted({name for info in infos for p in info.parameters if p.name == "strategy" for name in p.choices})
        message = f"none of the engines has strategy {', '.join(wish.strategies)}; they have {', '.join(known)}"
        raise RequestError(ErrorCode.BAD_VALUE, message, "strategies")
    rows: list[Row] = []
    try:
        for engine_id, own in groupby(cells, key=lambda cell: cell.engine):
            info = next(info for info in infos if info.id == engine_id)
            _rows_of(info, list(own), wish, pictures, config, tell, rows)
    except KeyboardInterrupt:
        tell("cancelled; the same command goes on from here")
    if rows:
        write_page(wish.out / PAGE, wish.prompt, rows)
        write_strips(wish.out / STRIPS, rows)
        write_table(wish.out / TABLE, rows)
    return len(rows)


def _infos(wish: Wish, config: ServerConfig) -> list[EngineInfo]:
    there = {info.id: info for info in table.describe_all(config)}
    for name in wish.engines:
        if name not in there:
            message = f"there is no engine {name!r}; there are: {', '.join(there)}"
            raise RequestError(ErrorCode.UNKNOWN_ENGINE, message, "engine")
    return [there[name] for name in wish.engines]


def _rows_of(
    info: EngineInfo,
    cells: Sequence[Cell],
    wish: Wish,
    pictures: Sequence[base.Picture],
    config: ServerConfig,
    tell: Tell,
    rows: list[Row],
) -> None:
    """Those of one engine."""
    engine: base.Engine | None = None
    for cell in cells:
        folder = wish.out / "cells" / cell.name
        try:
            job = _job(cell, info, wish, pictures)
            wanted = asked(info, job)
            outcome = outcome_in(folder, wanted)
            if outcome is None:
                tell(f"{cell.name}: being made")
                engine = engine or table.load(info.id, config)
                clip, outcome = _made(engine, job, wanted)
                keep(folder, clip, outcome)
        except WireError as error:
            tell(f"{cell.name}: {error}")
            continue
        rows.append(Row(cell.title, clip_in(folder), outcome, command(cell, wish, info)))


def _job(cell: Cell, info: EngineInfo, wish: Wish, pictures: Sequence[base.Picture]) -> base.Job:
    """Raises RequestError for what the engine cannot do."""
    width, height = wish.size or clip_size(pictures[0], info.size_multiple, info.min_side_px, info.max_pixels)
    fitted, _ = fit_all(pictures, width, height, wish.fit)
    known = {p.name for p in info.parameters}
    params = {name: typed(text, name, info) for name, text in _settings(cell, wish).items() if name in known}
    params |= {"strategy": cell.strategy} if cell.strategy else {}
    keyframes = (base.Keyframe(0, fitted[0]), base.Keyframe(wish.num_frames - 1, fitted[1]))
    prompts = (wish.prompt, wish.negative_prompt)
    return base.checked(base.Job(width, height, wish.num_frames, keyframes, *prompts, cell.seed, params), info)


def _settings(cell: Cell, wish: Wish) -> Mapping[str, str]:
    return {**wish.settings, **dict(cell.settings)}


def _made(engine: base.Engine, job: base.Job, wanted: str) -> tuple[Clip, Outcome]:
    memory, began, first_s = _Memory(), time.perf_counter(), 0.0
    frames = {keyframe.at: keyframe.image for keyframe in job.keyframes}
    with closing(engine.open(job)) as events:
        for event in events:
            memory.look()
            if isinstance(event, base.Chunk):
                first_s = first_s or time.perf_counter() - began
                frames |= {frame.index: frame.image for frame in event.frames}
    seconds = time.perf_counter() - began
    clip = np.stack([frames[i] for i in range(job.num_frames)])
    return clip, Outcome(wanted, seconds, first_s, memory.most, measure(clip))


class _Memory:
    """The most that is held: on the GPU as its allocator knows it, or by this process as it is looked at."""

    def __init__(self) -> None:
        import torch

        self._cuda = torch.cuda if torch.cuda.is_available() else None
        self._process = psutil.Process()
        self.most = 0
        if self._cuda:
            self._cuda.reset_peak_memory_stats()

    def look(self) -> None:
        held = self._cuda.max_memory_allocated() if self._cuda else self._process.memory_info().rss
        self.most = max(self.most, held)


def command(cell: Cell, wish: Wish, info: EngineInfo) -> str:
    """What makes this clip again, to be pasted."""
    known = {p.name for p in info.parameters}
    settings = {**({"strategy": cell.strategy} if cell.strategy else {}), **_settings(cell, wish)}
    words = ["sfserver", "generate", str(wish.start), str(wish.end), "--engine", cell.engine]
    words += ["--frames", str(wish.num_frames), "--seed", str(cell.seed)]
    words += ["--size", f"{wish.size[0]}x{wish.size[1]}"] if wish.size else []
    words += ["--fit", wish.fit] if wish.fit != attrs.fields(Wish).fit.default else []
    words += ["--prompt", wish.prompt] if wish.prompt else []
    words += ["--negative-prompt", wish.negative_prompt] if wish.negative_prompt else []
    for name, value in settings.items():
        words += ["--set", f"{name}={value}"] if name in known else []
    return shlex.join([*words, "--out", "clip"])
