"""What any first request would wait for is done before it comes. Run as a script, this page is a worker that warms up.

Nothing here is timed: the warm-up goes on once the worker has been asked for something, or has said that it is ready.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Generator

import attrs
import pytest
import torch
from fake_engines import INFO, choose, picture
from sfwire import messages as m
from sfwire.codec import decode_to_client, encode

from sfserver.config import ServerConfig, load_config
from sfserver.engine import table, wan, wan_load
from sfserver.engine.base import Chunk, Engine, Event, Frame, Job
from sfserver.serve import link
from sfserver.serve.worker import Worker

BLACK = bytes(32 * 32 * 3)


@pytest.mark.parametrize("how", ["asked meanwhile", "fails"])
def test_a_worker_is_ready_before_it_warms_up_and_serves_after_it(how: str) -> None:
    done = subprocess.run([sys.executable, __file__, how], capture_output=True, text=True, timeout=200)
    said = done.stdout.split()
    assert said[0] == "Welcome", done.stderr
    assert said[-2:] == ["Done", "finished"]
    assert said.count("warmed") == 1, "once, however many requests come"
    if how == "fails":
        assert "no such driver" in done.stderr
    else:
        loading, frame = said.index("Progress:loading"), said.index("Frame")
        assert loading < said.index("warmed") < frame, "who waits hears what for"


def test_warming_up_is_for_a_gpu_with_a_large_engine_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    warmed: list[torch.device] = []
    monkeypatch.setattr(wan_load, "warm_up", warmed.append)
    monkeypatch.setattr(wan_load, "choose_device", lambda config: torch.device("cuda"))
    config = ServerConfig()
    (large,) = (info for info in wan.describe(config) if info.id == "self-forcing")
    for is_there, memory in ((False, 8), (True, 0), (True, 8)):
        monkeypatch.setattr(table, "describe_all", lambda config, a=is_there: (attrs.evolve(large, available=a),))
        monkeypatch.setattr(table, "gpu_memory_bytes", lambda config, memory=memory: memory * 1024**3)
        table.warm_up(config)
    assert warmed == [torch.device("cuda")]


def test_each_library_is_called_once_and_nothing_stays() -> None:
    wan_load.warm_up(torch.device("cpu"))


class Warming:
    """A table of one engine, and a warm-up that waits until something was asked for."""

    def __init__(self, how: str) -> None:
        self.how = how
        self.asked = threading.Event()
        source, self.to_worker = (os.fdopen(fd, mode) for fd, mode in zip(os.pipe(), ("rb", "wb"), strict=True))
        self.from_worker, sink = (os.fdopen(fd, mode) for fd, mode in zip(os.pipe(), ("rb", "wb"), strict=True))
        self.worker = Worker(self, load_config({}, {}), link.Pipe(source, sink), self.warm_up)

    def warm_up(self, config: ServerConfig) -> None:
        self.asked.wait()
        say("warmed")
        if self.how == "fails":
            raise RuntimeError("no such driver")

    def describe_all(self, config: ServerConfig) -> tuple[m.EngineInfo, ...]:
        return (INFO,)

    def load(self, engine_id: str, config: ServerConfig) -> Engine:
        return self  # type: ignore[return-value]

    choose = staticmethod(choose)
    info = INFO

    def open(self, job: Job) -> Generator[Event, None, None]:
        for index in job.wanted():
            yield Chunk((Frame(index, picture(job.seed, index, job.width, job.height), 0.5),))

    def run(self) -> None:
        threading.Thread(target=self.worker.run, daemon=True).start()
        self.hear(m.Welcome)
        for name in ("r1", "r2"):
            keyframes = (m.Keyframe(0, 0, 32, 32),)
            link.write(self.to_worker, encode(m.Generate(name, "fake", 32, 32, 4, keyframes, 1, credit=64), [BLACK]))
            if name == "r1":
                self.hear(m.Progress)
                self.asked.set()
            self.hear(m.Done)

    def hear(self, until: type) -> None:
        while True:
            message, _ = decode_to_client(list(link.read(self.from_worker)))
            say(type(message).__name__ + (f":{message.stage}" if isinstance(message, m.Progress) else ""))
            if isinstance(message, until):
                if isinstance(message, m.Done):
                    say(message.outcome)
                return


def say(word: str) -> None:
    print(word, flush=True)  # noqa: T201


if __name__ == "__main__":
    Warming(sys.argv[1]).run()
