"""A server without workers of its own, and workers that dial in, in processes that never outlive a test."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
from attrs import define, field
from servers import HERE, Server, end_with_all, eventually

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
        end_with_all(process)


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
        end_with_all(process)
