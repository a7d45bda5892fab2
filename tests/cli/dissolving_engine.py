"""An engine of a few lines that needs no weights, and ways to make things happen while it runs."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator

import numpy as np
from sfwire.errors import ErrorCode, RequestError
from sfwire.messages import EngineInfo, Parameter

from sfserver.engine.base import Chunk, Event, Frame, Job, Step

INFO = EngineInfo(
    id="fake",
    title="Fake",
    summary="Dissolves",
    version="1",
    licence="none",
    uses_prompt=False,
    uses_negative_prompt=False,
    available=True,
    size_multiple=8,
    max_pixels=512 * 512,
    max_frames=300,
    parameters=(
        Parameter("style", "choice", "plain", "How it looks", choices=("plain", "loud")),
        Parameter("level", "int", 3, "How much", low=0, high=9),
        Parameter("gain", "float", 1.0, "How strong", low=0, high=2),
        Parameter("mirror", "bool", False, "The other way round"),
    ),
)


class DissolvingEngine:
    """A dissolve in chunks of two. `at(index)` is called before each frame, so that a test can make things happen."""

    info = INFO

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.closed = False
        self.confidence: float | None = None
        self.finding = ""
        self.at: Callable[[int], None] = lambda index: None

    def open(self, job: Job) -> Generator[Event, None, None]:
        self.jobs.append(job)
        try:
            yield Step("looking", 0, 1)
            wanted = job.wanted()
            for i in range(0, len(wanted), 2):
                if self.finding:
                    yield Step(f"found: {self.finding}", i, len(wanted))
                frames = []
                for index in wanted[i : i + 2]:
                    self.at(index)
                    frames.append(Frame(index, dissolve(job, index), self.confidence))
                yield Chunk(tuple(frames))
                yield Step("dissolving", i, len(wanted))
        finally:
            self.closed = True


def dissolve(job: Job, index: int) -> np.ndarray:
    first, last = job.keyframes[0].image, job.keyframes[-1].image
    t = index / (job.num_frames - 1)
    return np.round(first * (1 - t) + last * t).astype(np.uint8)


def out_of_memory(index: int) -> Callable[[int], None]:
    def fail(at: int) -> None:
        if at == index:
            raise RequestError(ErrorCode.OUT_OF_MEMORY, "the device has no memory left; try 256x256")

    return fail


def ctrl_c(index: int) -> Callable[[int], None]:
    def press(at: int) -> None:
        if at == index:
            os.kill(os.getpid(), signal.SIGINT)

    return press
