"""A frame of a worker that dialled in against one of a worker by pipe: two servers, by turns, in one run.

`python -m sfserver.bench.dialled` prints the three rows that `make scale` prints too.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen
from sfwire.client import Client
from sfwire.request import Request

from ..serve.join import beside
from .road import WIRE_FRAMES, WIRE_SIZE, server

ROUNDS = 9
_SERVE = (
    "import sys; from sfserver.config import load_config; from sfserver.serve.supervise import serve\n"
    "flags = {'connection_file': sys.argv[1], 'log_dir': sys.argv[2], 'workers': 0}\n"
    "sys.exit(serve(load_config(flags | {'workers_from': 'tcp://127.0.0.1:0'}, {})))"
)
_JOIN = (
    "import sys; from pathlib import Path\n"
    "from sfserver.config import load_config; from sfserver.serve.keeper import keep\n"
    "command = sys.executable, '-m', 'sfserver.bench.blank'\n"
    "sys.exit(keep(Path(sys.argv[1]), load_config({'log_dir': sys.argv[2]}, {}), command))"
)


@frozen
class Dialled:
    """Medians of the rounds; each round has a clip of both."""

    pipe_frame_s: float
    frame_s: float
    ratio: float

    def rows(self) -> list[list[str]]:
        return [
            ["a frame here, all processes on the same cores, worker by pipe", f"{self.pipe_frame_s * 1000:.2f} ms"],
            ["the same of a worker that dialled in on loopback", f"{self.frame_s * 1000:.2f} ms"],
            [f"dialled in over pipe, median of {ROUNDS} rounds of both", f"{self.ratio:.2f} x"],
        ]


def measure() -> Dialled:
    with server("sfserver.bench.blank") as by_pipe, dialled_in() as client:
        pairs = [(_frame_s(by_pipe.client), _frame_s(client)) for _ in range(ROUNDS + 1)][1:]  # the first is cold
    pipes, dialled = zip(*pairs, strict=True)
    ratio = statistics.median(far / near for near, far in pairs)
    return Dialled(statistics.median(pipes), statistics.median(dialled), ratio)


@contextmanager
def dialled_in() -> Generator[Client]:
    """The client of a server whose one worker has dialled in."""
    with tempfile.TemporaryDirectory() as folder:
        connection = Path(folder) / "connection.json"
        server = subprocess.Popen([sys.executable, "-c", _SERVE, connection, folder], stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        server.stdout.readline()  # where workers join
        joiner = subprocess.Popen([sys.executable, "-c", _JOIN, beside(connection), folder], stderr=subprocess.DEVNULL)
        try:
            with Client(connection, name="bench", window=16) as client:
                client.wait_ready(60)
                yield client
        finally:
            for process in (joiner, server):
                process.terminate()
                process.wait(15)
            server.stdout.close()


def _frame_s(client: Client) -> float:
    width, height = WIRE_SIZE
    black = bytes(width * height * 3)
    keyframes = (0, black), (WIRE_FRAMES + 1, black)
    with client.submit(Request(keyframes, width, height, WIRE_FRAMES + 2, engine="blank")) as stream:
        pictures = iter(stream)
        next(pictures)
        began = time.perf_counter()
        count = sum(1 for _ in pictures)
        return (time.perf_counter() - began) / count


if __name__ == "__main__":
    sys.stdout.write("\n".join(f"| {what} | {figure} |" for what, figure in measure().rows()) + "\n")
