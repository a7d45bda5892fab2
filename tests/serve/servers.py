"""Real servers in processes of their own, on loopback, that never outlive a test."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import psutil
from attrs import define
from fake_engines import picture
from sfwire.client import Client
from sfwire.request import Picture, Request

T = TypeVar("T")
SIDE = 32
HERE = Path(__file__).parent
BLACK = bytes(SIDE * SIDE * 3)


@define
class Server:
    process: subprocess.Popen[str]
    connection_file: Path
    log_dir: Path

    def client(self, **options: object) -> Client:
        return Client(self.connection_file, **options)  # type: ignore[arg-type]

    def front(self) -> psutil.Process:
        """The front process of now."""
        return eventually(lambda: next(iter(psutil.Process(self.process.pid).children()), None))

    def worker(self) -> psutil.Process:
        return eventually(lambda: next(iter(self.front().children()), None))

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)


@contextmanager
def running(folder: Path, **settings: object) -> Iterator[Server]:
    """A server that is ready. Everything it started is gone afterwards."""
    connection, logs = folder / "run" / "connection.json", folder / "log"
    command = [sys.executable, str(HERE / "run_server.py"), str(connection), str(logs)]
    process = subprocess.Popen(
        [*command, *(f"{name}={value}" for name, value in settings.items())], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "ready" in line, line + (logs / "front.log").read_text()
        yield Server(process, connection, logs)
    finally:
        end_with_all(process)


def end_with_all(process: subprocess.Popen[str]) -> None:
    """End it, and see that what it started goes with it."""
    family = _family(process.pid)
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(60)
    if process.stdout is not None:
        process.stdout.close()
    _, alive = psutil.wait_procs(family, timeout=60)
    for left in alive:
        left.kill()
    assert not alive, f"left behind: {alive}"


def _family(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def request(num_frames: int = 17, seed: int = 5, **params: object) -> Request:
    return Request(((0, BLACK), (num_frames - 1, BLACK)), SIDE, SIDE, num_frames, seed=seed, params=params)  # type: ignore[arg-type]


def assert_all_there(pictures: list[Picture], request: Request) -> None:
    """Every frame once, in order, the right bytes."""
    assert [p.index for p in pictures] == request.wanted()
    for p in pictures:
        assert bytes(p.data) == picture(request.seed, p.index, request.width, request.height).tobytes()


def eventually(look: Callable[[], T | None], timeout_s: float = 120.0) -> T:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            found = look()
        except psutil.NoSuchProcess:
            found = None
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {timeout_s} s")
