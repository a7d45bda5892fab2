"""A table of engines for tests: pictures whose bytes follow from (seed, index), and faults to order.

Run as a script it is a worker process: `python tests/serve/fake_engines.py`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterable

import numpy as np
from sfwire.errors import ErrorCode, RequestError
from sfwire.messages import EngineInfo, Parameter

from sfserver.config import ServerConfig
from sfserver.engine.base import Chunk, Engine, Event, Frame, Job, Step
from sfserver.engine.choice import Choice, Wanted

FAULTS = ("none", "die", "die_always", "hang", "raise", "refuse", "memory", "device")

INFO = EngineInfo(
    id="fake",
    title="Fake",
    summary="Counts",
    version="1",
    licence="none",
    uses_prompt=False,
    uses_negative_prompt=False,
    available=True,
    can_skip=True,
    parameters=(
        Parameter("delay_ms", "float", 0.0, "Time a frame takes", 0.0, 60_000.0),
        Parameter("fault", "choice", "none", "What goes wrong", choices=FAULTS),
        Parameter("fault_at", "int", 5, "Position at which it goes wrong", 0, 1000),
    ),
)
MISSING = EngineInfo(
    id="missing",
    title="Missing",
    summary="Never there",
    version="1",
    licence="none",
    uses_prompt=True,
    uses_negative_prompt=True,
    available=False,
    missing=("weights.safetensors; run: sfserver fetch missing",),
)


def picture(seed: int, index: int, width: int, height: int) -> np.ndarray:
    """[height, width, 3] uint8 that no other (seed, index) has."""
    first = np.random.default_rng((seed, index)).integers(0, 256, (8, 8, 3), np.uint8)
    return np.tile(first, (height // 8 + 1, width // 8 + 1, 1))[:height, :width]


class FakeEngine:
    info = INFO

    def open(self, job: Job) -> Generator[Event, None, None]:
        for index in job.wanted():
            if job.params["fault"] != "none" and index == job.params["fault_at"]:
                fail(str(job.params["fault"]), job)
            time.sleep(float(job.params["delay_ms"]) / 1000)
            yield Step("counting", index, job.num_frames)
            yield Chunk((Frame(index, picture(job.seed, index, job.width, job.height), 0.5),))


def fail(fault: str, job: Job) -> None:
    if fault == "die_always" or (fault == "die" and job.resume_from == 0):
        os._exit(9)
    if fault == "hang" and job.resume_from == 0:
        time.sleep(3600)
    if fault == "raise":
        raise ZeroDivisionError("a mistake of the engine")
    if fault == "refuse":
        raise RequestError(ErrorCode.NOT_FINITE, "the latents are not finite; try precision fp32", "engine")
    if fault == "memory":
        raise MemoryError
    if fault == "device":
        raise RuntimeError("CUDA error: an illegal memory access was encountered")


def describe_all(config: ServerConfig) -> tuple[EngineInfo, ...]:
    return (INFO, MISSING)


def load(engine_id: str, config: ServerConfig) -> Engine:
    return FakeEngine()


def choose(infos: Iterable[EngineInfo], config: ServerConfig) -> tuple[str, str]:
    return "fake", "the only one"


def choose_for(infos: Iterable[EngineInfo], config: ServerConfig, clip: Wanted) -> Choice:
    """Slower for a long clip, as a small window would be."""
    asked = [f"{name} set" for name in clip.settings] + [f"{clip.prompts} prompts"] * (clip.prompts > 1)
    reason = ", ".join([f"Fake: for {clip.num_frames} frames", *asked])
    return Choice("fake", reason, {"delay_ms": 1.0} if clip.num_frames > 20 else {})


if __name__ == "__main__":
    import sys

    from sfserver.serve.worker import run

    run(sys.modules["__main__"])
