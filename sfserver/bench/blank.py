"""A worker whose engine costs nothing: what is measured with it is the road alone."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterable
from typing import cast

import numpy as np
from sfwire.messages import EngineInfo

from ..config import ServerConfig
from ..engine.base import Chunk, Engine, Event, Frame, Job, Step
from ..engine.choice import Choice, Wanted

INFO = EngineInfo(
    id="blank",
    title="Blank",
    summary="The same picture again and again",
    version="1",
    licence="Apache-2.0",
    uses_prompt=False,
    uses_negative_prompt=False,
    available=True,
    can_skip=True,
)


class BlankEngine:
    info = INFO

    def open(self, job: Job) -> Generator[Event, None, None]:
        image = np.full((job.height, job.width, 3), 128, np.uint8)
        for index in job.wanted():
            yield Step("blank", index, job.num_frames)
            yield Chunk((Frame(index, image),))


def describe_all(config: ServerConfig) -> tuple[EngineInfo, ...]:
    return (INFO,)


def load(engine_id: str, config: ServerConfig) -> Engine:
    return BlankEngine()


def choose(infos: Iterable[EngineInfo], config: ServerConfig) -> tuple[str, str]:
    return INFO.id, "nothing else is measured"


def choose_for(infos: Iterable[EngineInfo], config: ServerConfig, clip: Wanted) -> Choice:
    return Choice(*choose(infos, config))


if __name__ == "__main__":
    from ..serve.worker import Engines, run

    run(cast(Engines, sys.modules["__main__"]))
