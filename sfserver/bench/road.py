"""The road from engine to client: what the wire moves, what the server adds, how fast it reacts, whether it leaks."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
from attrs import frozen
from sfwire.client import Client
from sfwire.connection import Connection
from sfwire.request import Request

from ..config import load_config
from ..engine import table
from ..engine.base import Chunk, Job, Keyframe, checked
from .bare import BarePair
from .report import Measure

WIRE_SIZE = 832, 480
WIRE_FRAMES = 200
DRAFT_SIZE = 512, 288
DRAFT_FRAMES = 33
"""31 to be made, and two keyframes."""
PAIRS = 5
"""Of measurements that are alternated; their median counts."""
JOBS = 1000


def measure(on_stage: Callable[[str], None]) -> list[Measure]:
    """All measures of the road. `on_stage` is told the name of each part as it begins."""
    measures: list[Measure] = []
    with server("sfserver.bench.blank") as served:
        on_stage("wire")
        measures += _throughput(served.client)
        on_stage("1,000 jobs")
        measures += _leaks(served.client, served.family)
    with server("sfserver.serve.worker") as served:
        on_stage("draft, here and served")
        measures += _draft(served.client)
    return measures


def _throughput(through_server: Client) -> list[Measure]:
    """A bare pair, the wire alone and the whole server take turns, so that a busy moment meets all three."""
    width, height = WIRE_SIZE
    bare = BarePair(width * height * 3)
    wire: list[float] = []
    road: list[float] = []
    with _bare_sender() as wire_alone:
        for round_ in range(PAIRS + 1):
            yardstick = bare.frames_per_second(WIRE_FRAMES)
            wire.append(_frames_per_second(wire_alone, WIRE_FRAMES) / yardstick)
            road.append(_frames_per_second(through_server, WIRE_FRAMES) / yardstick)
            if round_ == 0:  # everything is cold
                wire.clear()
                road.clear()
    bare.close()
    how = f"frames/s over a bare pyzmq CURVE pair's, {width}x{height} RGB8"
    return [
        Measure("wire throughput", statistics.median(wire), 0.8, "high", "x", f"sfwire at both ends: {how}"),
        Measure("road throughput", statistics.median(road), None, "high", "x", f"from a worker's engine on: {how}"),
    ]


@contextmanager
def _bare_sender() -> Iterator[Client]:
    """A client of the wire's server end with no server behind it."""
    sender = subprocess.Popen([sys.executable, "-m", "sfserver.bench.sender"], stdout=subprocess.PIPE, text=True)
    assert sender.stdout is not None
    with sender.stdout, Client(Connection(**json.loads(sender.stdout.readline())), name="bench", window=16) as client:
        client.wait_ready()
        yield client
    sender.wait(10)


def _frames_per_second(client: Client, count: int) -> float:
    with client.submit(_request(*WIRE_SIZE, count + 2, "blank")) as stream:
        pictures = iter(stream)
        next(pictures)
        began = time.perf_counter()
        rest = sum(1 for _ in pictures)
        return rest / (time.perf_counter() - began)


def _leaks(client: Client, family: list[psutil.Process]) -> list[Measure]:
    """Memory and descriptors of client, front and worker, after a quarter of the jobs and after all of them."""
    request = _request(64, 64, 5, "blank")

    def jobs(count: int) -> None:
        for _ in range(count):
            assert sum(1 for _ in client.submit(request)) == 3

    jobs(JOBS // 4)
    before = [(p.memory_info().rss, _descriptors(p)) for p in family]
    jobs(JOBS - JOBS // 4)
    after = [(p.memory_info().rss, _descriptors(p)) for p in family]
    grown = max(b[0] / a[0] for a, b in zip(before, after, strict=True))
    more = max(b[1] - a[1] for a, b in zip(before, after, strict=True))
    how = f"of client, front or worker, whichever grew most, after {JOBS} jobs over after {JOBS // 4}"
    return [
        Measure("memory over 1,000 jobs", grown, 1.05, "low", "x", f"resident memory {how}"),
        Measure(
            "descriptors over 1,000 jobs", more, 0, "low", "", f"open file descriptors {how.replace('over', 'less')}"
        ),
    ]


def _descriptors(process: psutil.Process) -> int:
    return process.num_handles() if sys.platform == "win32" else process.num_fds()


def _draft(client: Client) -> list[Measure]:
    """The draft engine in this process against the same engine behind the server."""
    config = load_config({}, {})
    engine = table.load("draft", config)
    keyframes = pictures(*DRAFT_SIZE, DRAFT_FRAMES)
    job = checked(Job(*DRAFT_SIZE, DRAFT_FRAMES, keyframes), engine.info)
    request = Request(tuple((k.at, k.image.tobytes()) for k in keyframes), *DRAFT_SIZE, DRAFT_FRAMES, engine="draft")
    sum(1 for _ in engine.open(job))
    sum(1 for _ in client.submit(request))
    overheads: list[float] = []
    firsts: list[float] = []
    frame_s = 1.0
    for _ in range(PAIRS):
        began = time.perf_counter()
        frames = sum(len(event.frames) for event in engine.open(job) if isinstance(event, Chunk))
        here_s = time.perf_counter() - began
        assert frames == DRAFT_FRAMES - 2
        began = time.perf_counter()
        arrivals = [time.perf_counter() - began for _ in client.submit(request)]
        overheads.append(arrivals[-1] / here_s)
        frame_s = (arrivals[-1] - arrivals[0]) / (len(arrivals) - 1)
        firsts.append(arrivals[0] / frame_s)
    size = f"draft, {DRAFT_SIZE[0]}x{DRAFT_SIZE[1]}"
    return [
        Measure(
            "server and wire",
            statistics.median(overheads),
            1.05,
            "low",
            "x",
            f"{size}, 31 frames: served over in process",
        ),
        Measure(
            "first frame", statistics.median(firsts), 2.0, "low", "frame times", f"{size}: submit to first picture"
        ),
        _cancelling(client, request, frame_s),
    ]


def _cancelling(client: Client, request: Request, frame_s: float) -> Measure:
    """From `cancel` until the server has nothing in hand, beyond one frame's time."""
    beyond: list[float] = []
    for _ in range(PAIRS):
        with client.submit(request) as stream:
            pictures = iter(stream)
            next(pictures)
            next(pictures)
            began = time.perf_counter()
            stream.cancel()
            while client.status().jobs:
                time.sleep(0.01)  # asked more often, two cores are busy with answering and the frame takes longer
            beyond.append(time.perf_counter() - began - frame_s)
    worst_ms = max(beyond) * 1000
    return Measure("cancel to idle", worst_ms, 50, "low", "ms", "beyond one frame time, the worst of five")


@frozen(eq=False)
class Served:
    """A server of its own and a client of it."""

    client: Client
    family: list[psutil.Process]
    """The processes that move a frame: this one, front and worker."""
    folder: Path
    """For logs, and whatever a worker has to say besides."""


@contextmanager
def server(worker_module: str, *arguments: str) -> Iterator[Served]:
    """A server whose workers run a module, as long as the context lasts."""
    with tempfile.TemporaryDirectory() as folder:
        connection = Path(folder) / "connection.json"
        code = (
            "import sys; from sfserver.config import load_config; from sfserver.serve.supervise import serve\n"
            "flags = {'connection_file': sys.argv[1], 'log_dir': sys.argv[2]}\n"
            "sys.exit(serve(load_config(flags, {}), (sys.executable, '-m', *sys.argv[3:])))"
        )
        command = [sys.executable, "-c", code, str(connection), folder, worker_module, *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            process.stdout.readline()
            with Client(connection, name="bench", window=16) as client:
                client.wait_ready()
                family = [psutil.Process(), *psutil.Process(process.pid).children(recursive=True)]
                yield Served(client, family, Path(folder))
        finally:
            process.terminate()
            process.wait(15)
            if process.stdout:
                process.stdout.close()


def _request(width: int, height: int, num_frames: int, engine: str) -> Request:
    black = bytes(width * height * 3)
    return Request(((0, black), (num_frames - 1, black)), width, height, num_frames, engine=engine)


def pictures(width: int, height: int, num_frames: int) -> tuple[Keyframe, Keyframe]:
    """The ends of a clip: a striped ground with a disc that moves: something to find, and the same on every machine."""
    y, x = np.mgrid[:height, :width]
    ground = np.stack([(x // 16 % 2) * 80 + 60, (y // 16 % 2) * 60 + 80, np.full_like(x, 120)], -1).astype(np.uint8)

    def disc(centre_px: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        image = ground.copy()
        image[(x - centre_px) ** 2 + (y - height // 2) ** 2 < 50**2] = 230, 180, 60
        return image

    return Keyframe(0, disc(width // 2 - 20)), Keyframe(num_frames - 1, disc(width // 2 + 20))
