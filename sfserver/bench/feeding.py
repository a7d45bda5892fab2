"""How many GPUs one front can feed: what a frame and what a client that only listens cost its process.

Counted is the processor's time of the front alone, libzmq's thread that encrypts included, so that other programs on
the machine change little: one divided by it is what a core that the front has for itself can do.
"""

from __future__ import annotations

import statistics
import time

import psutil
from attrs import frozen
from sfwire.client import Client
from sfwire.request import Request

from .road import PAIRS, WIRE_FRAMES, WIRE_SIZE, server

ASKED = 2000
"""Questions for the state of things, each a message and its answer, as Ping and Pong are."""


@frozen
class Feeding:
    frame_bytes: int
    frame_cpu_s: float
    """Of the front, median of the rounds."""
    frames_per_s: float
    """As it was here, the other processes beside it on the same cores."""
    question_cpu_s: float

    @property
    def bytes_per_core_s(self) -> float:
        return self.frame_bytes / self.frame_cpu_s


def measure() -> Feeding:
    width, height = WIRE_SIZE
    with server("sfserver.bench.blank") as served:
        front = next(p for p in served.family if "sfserver.serve.front" in p.cmdline())
        request = _request(width, height, WIRE_FRAMES + 2)
        _costs(served.client, front, request)  # everything is cold
        rounds = [_costs(served.client, front, request) for _ in range(PAIRS)]
        before = _cpu_s(front)
        for _ in range(ASKED):
            served.client.status(timeout_s=60.0)
        question_cpu_s = (_cpu_s(front) - before) / ASKED
    cpu_s = statistics.median(cpu for cpu, _ in rounds)
    return Feeding(width * height * 3, cpu_s, statistics.median(rate for _, rate in rounds), question_cpu_s)


def _costs(client: Client, front: psutil.Process, request: Request) -> tuple[float, float]:
    """(seconds of the front's processor for a frame, frames a second) of one clip."""
    began, cpu_s = time.perf_counter(), _cpu_s(front)
    with client.submit(request) as stream:
        count = sum(1 for _ in stream)
    return (_cpu_s(front) - cpu_s) / count, count / (time.perf_counter() - began)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _request(width: int, height: int, num_frames: int) -> Request:
    black = bytes(width * height * 3)
    return Request(((0, black), (num_frames - 1, black)), width, height, num_frames, engine="blank")
