"""A machine of its own for each test, and an engine that counts from one picture's number to the other's."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from pathlib import Path

import barcodes
import pytest
from sfwire.messages import EngineInfo

from sfserver.engine import table
from sfserver.engine.base import Chunk, Event, Frame, Job, Step

INFO = EngineInfo(
    id="counting",
    title="Counting",
    summary="Counts from one picture to the other",
    version="1",
    licence="none",
    uses_prompt=True,
    uses_negative_prompt=True,
    available=True,
    max_frames=300,
)


class CountingEngine:
    """Between pictures that say 5 and 9 it makes 6, 7 and 8. `at(index)` is called before each frame."""

    info = INFO

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.at: Callable[[int], None] = lambda index: None

    def open(self, job: Job) -> Generator[Event, None, None]:
        self.jobs.append(job)
        start, end = (barcodes.number(keyframe.image) for keyframe in job.keyframes)
        yield Step("looking", 0, 1)
        for index in job.wanted():
            self.at(index)
            which = start + round((end - start) * index / (job.num_frames - 1))
            yield Chunk((Frame(index, barcodes.picture(which)[: job.height, : job.width]),))


@pytest.fixture(autouse=True)
def machine(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing of the real user's settings, servers or folders is seen."""
    home = tmp_path_factory.mktemp("home")
    for name in [name for name in os.environ if name.startswith(("SFSERVER_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    monkeypatch.setenv("SFSERVER_CONNECTION_FILE", str(home / "run" / "connection.json"))
    for name in ("MODELS", "CACHE", "LOG"):
        monkeypatch.setenv(f"SFSERVER_{name}_DIR", str(home / name.lower()))
    return home


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> CountingEngine:
    """The one engine of this machine."""
    counting = CountingEngine()
    monkeypatch.setattr(table, "describe_all", lambda config: (INFO,))
    monkeypatch.setattr(table, "load", lambda engine_id, config: counting)
    return counting
