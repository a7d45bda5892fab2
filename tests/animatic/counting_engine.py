"""An engine that counts from one picture's number to the other's."""

from __future__ import annotations

from collections.abc import Callable, Generator

import barcodes
from sfwire.messages import EngineInfo

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
