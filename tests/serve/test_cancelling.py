"""A worker that is told to stop in the middle of a frame makes no other. Run as a script, this page is that worker.

Nothing here is timed: the engine itself sends the Cancel and goes on once the worker has heard it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Generator

from fake_engines import INFO, choose, picture
from sfwire import messages as m
from sfwire.codec import decode_to_client, encode

from sfserver.config import ServerConfig, load_config
from sfserver.engine.base import Chunk, Engine, Event, Frame, Job, Step
from sfserver.serve import link
from sfserver.serve.worker import Worker

BLACK = bytes(32 * 32 * 3)
CANCELLED_AT = 4
EVENTS = {"a step": Step("counting", CANCELLED_AT, 20), "a frame": None}


def test_a_worker_that_hears_cancel_in_mid_frame_makes_no_other() -> None:
    for event in EVENTS:
        done = subprocess.run([sys.executable, __file__, event], capture_output=True, text=True, timeout=200)
        *made, frames = done.stdout.split() or [done.stderr]
        assert made == ["made", str(CANCELLED_AT), "cancelled"]
        assert int(frames) < CANCELLED_AT, "those before it may be dropped on their way"


class Cancelling:
    """An engine that is cancelled while it makes its fourth frame, and hands out `event` next."""

    info = INFO

    def __init__(self, event: str) -> None:
        self.event = event
        self.made = 0
        source, self.to_worker = (os.fdopen(fd, mode) for fd, mode in zip(os.pipe(), ("rb", "wb"), strict=True))
        self.from_worker, sink = (os.fdopen(fd, mode) for fd, mode in zip(os.pipe(), ("rb", "wb"), strict=True))
        self.worker = Worker(self, load_config({}, {}), link.Pipe(source, sink))

    def describe_all(self, config: ServerConfig) -> tuple[m.EngineInfo, ...]:
        return (INFO,)

    def load(self, engine_id: str, config: ServerConfig) -> Engine:
        return self

    choose = staticmethod(choose)

    def open(self, job: Job) -> Generator[Event, None, None]:
        for index in job.wanted():
            self.made += 1
            if index == CANCELLED_AT:
                link.write(self.to_worker, encode(m.Cancel("r1")))
                while not self.worker._known["r1"]._cancelled:
                    time.sleep(0.001)
            frame = Chunk((Frame(index, picture(job.seed, index, job.width, job.height), 0.5),))
            yield EVENTS[self.event] or frame if index == CANCELLED_AT else frame

    def run(self) -> m.Done:
        threading.Thread(target=self.worker.run, daemon=True).start()
        keyframes = (m.Keyframe(0, 0, 32, 32),)
        link.write(self.to_worker, encode(m.Generate("r1", "fake", 32, 32, 20, keyframes, 1, credit=64), [BLACK]))
        while True:
            message, _ = decode_to_client(list(link.read(self.from_worker)))
            if isinstance(message, m.Done):
                return message


if __name__ == "__main__":
    engine = Cancelling(sys.argv[1])
    done = engine.run()
    print("made", engine.made, done.outcome, done.frames, flush=True)  # noqa: T201
    os._exit(0)
