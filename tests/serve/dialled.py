"""A server without workers of its own, and workers that dial in, in processes that never outlive a test."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
from attrs import define, field
from servers import HERE, Server, eventually

from sfserver.serve.join import beside


@define
class Joiner:
    """`sfserver worker --join`, and the process below it that works."""

    process: subprocess.Popen[str]
    log: Path

    def worker(self) -> psutil.Process:
        return eventually(lambda: next(iter(psutil.Process(self.process.pid).children()), None))

    def said(self) -> str:
        return self.log.read_text()


@define
class House:
    server: Server
    folder: Path
    _stack: ExitStack = field(factory=ExitStack)

    @property
    def join_file(self) -> Path:
        return beside(self.server.connection_file)

    def join(self, name: str, join_file: Path | None = None, **settings: object) -> Joiner:
        return self._stack.enter_context(joined(join_file or self.join_file, self.folder / name, settings))


@contextmanager
def joined(join_file: Path, folder: Path, settings: dict[str, object]) -> Iterator[Joiner]:
    folder.mkdir(parents=True)
    log = folder / "said.log"
    command = [sys.executable, str(HERE / "run_joiner.py"), str(join_file), str(folder)]
    with log.open("w") as stderr:
        process = subprocess.Popen([*command, *(f"{k}={v}" for k, v in settings.items())], stderr=stderr, text=True)
    try:
        yield Joiner(process, log)
    finally:
        family = [process.pid, *(p.pid for p in _family(process.pid))]
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(60)
        gone = [psutil.Process(pid) for pid in family[1:] if psutil.pid_exists(pid)]
        _, alive = psutil.wait_procs(gone, timeout=60)
        for left in alive:
            left.kill()
        assert not alive, f"left behind: {alive}"


def _family(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


@contextmanager
def listening(folder: Path, **settings: object) -> Iterator[House]:
    """A server that waits for workers. Everything it started is gone afterwards."""
    connection, logs = folder / "run" / "connection.json", folder / "log"
    given = {"workers": 0, "workers_from": "tcp://127.0.0.1:0", **settings}
    command = [sys.executable, str(HERE / "run_server.py"), str(connection), str(logs)]
    process = subprocess.Popen(
        [*command, *(f"{name}={value}" for name, value in given.items())], stdout=subprocess.PIPE, text=True
    )
    house = House(Server(process, connection, logs), folder)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "workers join at" in line, line + (logs / "front.log").read_text()
        eventually(connection.exists)
        with house._stack:
            yield house
    finally:
        family = _family(process.pid)
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(60)
        assert process.stdout is not None
        process.stdout.close()
        _, alive = psutil.wait_procs(family, timeout=60)
        for left in alive:
            left.kill()
        assert not alive, f"left behind: {alive}"
