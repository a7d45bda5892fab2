"""A device that computes nothing and takes its time, driven through the real pipeline: what holds it up is the road.

    one block: five passes on the main line, 344 ms together (a published figure of one H100 for 12 frames of 832x480),
    and beside them decoding and copying, which take 60 ms more until the pictures are there

Run as a script it is a server's worker. The slower it is asked to be, the weaker the machine around it may be.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar, cast

import numpy as np
import torch
from attrs import frozen
from sfwire.messages import EngineInfo, Parameter
from torch import Tensor

from ..config import ServerConfig
from ..engine.base import Chunk, Engine, Event, Frame, Job, Step
from ..engine.geometry import Block
from ..engine.pipeline import Mark, Pipeline

T = TypeVar("T")
PASSES = 5
BLOCK_FRAMES = 12
BLOCK_S = 0.344
BESIDE_S = 0.060
ONE_THREAD = "one-thread"
"""An argument of the script: the worker as it was before pictures had a road of their own."""

INFO = EngineInfo(
    id="paced",
    title="Paced",
    summary="Pictures at the pace of a device that is not there",
    version="1",
    licence="Apache-2.0",
    uses_prompt=False,
    uses_negative_prompt=False,
    available=True,
    parameters=(
        Parameter("slower", "float", 1.0, "How many times as long everything takes", low=0.001, high=1000.0),
        Parameter("in_turn", "bool", False, "Wait for each block's pictures before anything else is queued"),
    ),
)


@frozen
class _At:
    when: float
    now: Callable[[], float]

    def reached(self) -> bool:
        return self.now() >= self.when


class PacedLine:
    """A main line of work and one beside it, by a clock. `idle_s` is how long the main line had nothing to do."""

    def __init__(
        self,
        now: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
        beside_s: float = 0.0,
    ) -> None:
        self._now, self._wait, self._beside_s = now, wait, beside_s
        self._free_at: float | None = None
        self._beside_free_at = 0.0
        self.idle_s = 0.0

    def queue(self, seconds: float) -> None:
        """Work for the main line."""
        now = self._now()
        begins = now if self._free_at is None else max(now, self._free_at)
        self.idle_s += begins - (begins if self._free_at is None else self._free_at)
        self._free_at = begins + seconds

    def mark(self) -> Mark:
        return _At(self._free_at or 0.0, self._now)

    def beside(self, work: Callable[[], T]) -> T:
        return work()

    def fetch(self, tensors: Sequence[Tensor]) -> tuple[list[Tensor], Mark]:
        begins = max(self._now(), self._free_at or 0.0, self._beside_free_at)
        self._beside_free_at = begins + self._beside_s
        return list(tensors), _At(self._beside_free_at, self._now)

    def join(self) -> None:
        pass

    def pause(self) -> None:
        self._wait(0.001)

    def take_turns(self, turns: bool) -> None:
        pass


class PacedEngine:
    """Twelve pictures a block, all of them noise on a ground: what a PNG encoder finds in a film."""

    info = INFO

    def __init__(self) -> None:
        self._blocks: dict[tuple[int, int], Tensor] = {}

    def open(self, job: Job) -> Generator[Event, None, None]:
        slower, in_turn = float(job.params["slower"]), bool(job.params["in_turn"])
        line = PacedLine(beside_s=0.0 if in_turn else slower * BESIDE_S)
        yield from run(job, line, self._pictures(job), slower * BLOCK_S / PASSES, in_turn)

    def _pictures(self, job: Job) -> Tensor:
        size = job.height, job.width
        if size not in self._blocks:
            self._blocks[size] = torch.from_numpy(film(job.width, job.height, BLOCK_FRAMES))
        return self._blocks[size]


def film(width: int, height: int, count: int) -> np.ndarray:
    """[T, H, W, 3] uint8, smooth with a little grain: as hard to encode as generated frames are."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    ground = np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)], -1)
    grain = random.integers(-2, 3, (count, height, width, 3))
    return (ground + grain).clip(0, 255).astype(np.uint8)


def run(job: Job, line: PacedLine, block: Tensor, pass_s: float, in_turn: bool) -> Generator[Event, None, None]:
    """A rollout's events without a rollout; `in_turn` as it is done where nothing overlaps."""
    pipeline = Pipeline(line)
    total = -(-job.num_frames // len(block))
    finite = torch.ones(())
    for index in range(total):
        for step in range(PASSES):
            line.queue(pass_s)
            yield from _chunks(job, pipeline)
            yield Step("denoising", index * PASSES + step, total * PASSES)
        for leaving in pipeline.rest():
            yield _chunk(job, leaving.first, leaving.pictures)
        pipeline.add(Block(index, index, 1), index * len(block), finite, finite, block)
        if in_turn:
            for leaving in pipeline.rest():
                yield _chunk(job, leaving.first, leaving.pictures)
    for leaving in pipeline.rest():
        yield _chunk(job, leaving.first, leaving.pictures)


def _chunks(job: Job, pipeline: Pipeline) -> Generator[Chunk, None, None]:
    for leaving in pipeline.after_pass():
        yield _chunk(job, leaving.first, leaving.pictures)


def _chunk(job: Job, first: int, pictures: Tensor) -> Chunk:
    numbered = enumerate(pictures.numpy(), first)
    return Chunk(tuple(Frame(at, picture) for at, picture in numbered if job.wants(at)))


def describe_all(config: ServerConfig) -> tuple[EngineInfo, ...]:
    return (INFO,)


def load(engine_id: str, config: ServerConfig) -> Engine:
    return PacedEngine()


def choose(infos: object, config: ServerConfig) -> tuple[str, str]:
    return INFO.id, "nothing else is measured"


if __name__ == "__main__":
    from ..serve.worker import Engines
    from ..serve.worker import run as work
    from .one_thread import OneThreadWorker

    engines = cast(Engines, sys.modules["__main__"])
    work(engines, OneThreadWorker) if ONE_THREAD in sys.argv else work(engines)
