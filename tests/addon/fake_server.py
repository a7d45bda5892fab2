"""A server of the wire that does what a test tells it to, for faults that a real one does not show on demand.

Runs as a process of its own: `python fake_server.py CONNECTION_FILE`, with one JSON object a line on its input that
changes its behaviour and is answered by an empty line. Its pictures are of one colour that names the frame: (index,
seed, 77), each modulo 256; those of a draft (index, seed, 7).
"""

from __future__ import annotations

import json
import os
import struct
import sys
import threading
import time
import uuid
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zmq
from sfwire import connection, limits
from sfwire import messages as m
from sfwire.channel import ServerKeys, listen
from sfwire.codec import decode_to_server, encode
from sfwire.errors import BadMessage, ErrorCode


@dataclass
class Behaviour:
    """What it does; every field can be set from outside at any time."""

    frame_s: float = 0.001
    """Between two frames."""
    hold_at: int | None = None
    """Send no frame from this index on, until it is None again."""
    accept: bool = True
    """Answer a Generate at all."""
    fail_at: int | None = None
    """Answer this index with Failed."""
    fail_code: str = "internal"
    retryable: bool = False
    die_at: int | None = None
    """Exit at this index as if killed."""
    not_a_png_at: int | None = None
    wrong_size_at: int | None = None
    deaf: bool = False
    """Answer nothing at all."""
    drafts: bool = False
    """Offer an engine `draft` too. What is said of indices above holds for the other one."""
    draft_hold_at: int | None = None
    draft_fail_at: int | None = None
    found: str = ""
    """What both say that they saw in the keyframes."""
    found_times: int = 1
    because: str = "Fake: it has room"
    """Which it is under `auto`, and why."""
    engine: dict[str, Any] = field(default_factory=dict)
    """Fields of EngineInfo that differ."""


PARAMETERS = (
    m.Parameter("strength", "float", 0.5, "How far frames may leave the straight way", low=0.0, high=1.0),
    m.Parameter("passes", "int", 4, "How often each frame is gone over", low=1, high=8),
    m.Parameter("smooth", "bool", True, "Even out the motion"),
    m.Parameter("style", "choice", "plain", "The look of the frames", choices=("plain", "ink", "wash")),
)


NO_COMPRESSION = 0
"""For large frames, so that their files are as large as those of real pictures."""


def png(width: int, height: int, colour: tuple[int, int, int]) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + bytes(colour) * width) * height, NO_COMPRESSION if width > 500 else 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@dataclass
class Job:
    ask: m.Generate
    wanted: list[int]
    credit: int
    sent: int = 0
    next_at: float = 0.0


class Fake:
    def __init__(self, socket: Any, behaviour: Behaviour) -> None:
        self.socket = socket
        self.behaviour = behaviour
        self.boot = uuid.uuid4().hex
        self.jobs: dict[tuple[bytes, str], Job] = {}

    def welcome(self) -> m.Welcome:
        about: dict[str, Any] = {
            "id": "fake",
            "title": "Fake",
            "summary": "Frames of one colour",
            "version": "1",
            "licence": "CC0",
            "uses_prompt": True,
            "uses_negative_prompt": True,
            "available": True,
            "parameters": PARAMETERS,
        }
        engines = [m.EngineInfo(**(about | self.behaviour.engine))]
        if self.behaviour.drafts:
            engines.append(m.EngineInfo(**(about | {"id": "draft", "title": "Draft", "parameters": ()})))
        return m.Welcome(limits.PROTOCOL, self.boot, "fake", tuple(engines), "fake", "Fake: the only one")

    def send(self, peer: bytes, message: Any, *buffers: bytes) -> None:
        with suppress(zmq.ZMQError):  # the peer is gone
            self.socket.send_multipart([peer, *encode(message, buffers)], zmq.NOBLOCK)

    def turn(self) -> None:
        if self.socket.poll(2):
            peer, *parts = self.socket.recv_multipart()
            try:
                message, _ = decode_to_server(parts)
            except BadMessage as error:
                self.send(peer, m.Failed(error.id, ErrorCode.BAD_MESSAGE, str(error)))
            else:
                if not self.behaviour.deaf:
                    self.receive(peer, message)
        if not self.behaviour.deaf:
            for (peer, _), job in list(self.jobs.items()):
                self.work(peer, job)

    def receive(self, peer: bytes, message: Any) -> None:
        match message:
            case m.Hello():
                self.send(peer, self.welcome())
            case m.Ping():
                yours = tuple(m.LiveRequest(id, job.sent) for (p, id), job in self.jobs.items() if p == peer)
                self.send(peer, m.Pong(message.nonce, self.boot, len(self.jobs), 0, ("idle",), yours))
            case m.Generate() if self.behaviour.accept:
                held = {k.at for k in message.keyframes}
                wanted = [i for i in range(message.resume_from, message.num_frames) if i not in held]
                self.jobs[peer, message.id] = Job(message, wanted, message.credit)
                self.send(peer, m.Accepted(message.id, 0))
                if message.engine == limits.AUTO:
                    self.send(peer, m.Progress(message.id, f"auto: {self.behaviour.because}", 0, 1))
                self.send(peer, m.Progress(message.id, "reading", 1, 2))
                for _ in range(self.behaviour.found_times if self.behaviour.found else 0):
                    self.send(peer, m.Progress(message.id, f"found: {self.behaviour.found}", 1, 2))
            case m.Credit() if (peer, message.id) in self.jobs:
                job = self.jobs[peer, message.id]
                job.credit = max(job.credit, message.total)
            case m.Cancel() if (peer, message.id) in self.jobs:
                job = self.jobs.pop((peer, message.id))
                self.send(peer, m.Done(message.id, "cancelled", job.sent, job.ask.seed, job.ask.engine, "1"))
            case _:
                pass

    def work(self, peer: bytes, job: Job) -> None:
        b, ask, now = self.behaviour, job.ask, time.monotonic()
        if not job.wanted:
            del self.jobs[peer, ask.id]
            made_by = "fake" if ask.engine == limits.AUTO else ask.engine
            self.send(peer, m.Done(ask.id, "finished", job.sent, ask.seed, made_by, "1"))
            return
        index = job.wanted[0]
        draft = ask.engine == "draft"
        hold_at, fail_at = (b.draft_hold_at, b.draft_fail_at) if draft else (b.hold_at, b.fail_at)
        if job.sent >= job.credit or now < job.next_at or (hold_at is not None and index >= hold_at):
            return
        if b.die_at is not None and index >= b.die_at and not draft:
            os._exit(9)
        if fail_at is not None and index >= fail_at:
            del self.jobs[peer, ask.id]
            self.send(peer, m.Failed(ask.id, ErrorCode(b.fail_code), "as the test asked", "", b.retryable))
            return
        picture = self.picture(ask, index)
        self.send(peer, m.Progress(ask.id, "drawing", index, ask.num_frames))
        self.send(peer, m.Frame(ask.id, index, ask.width, ask.height, "png"), picture)
        job.wanted.pop(0)
        job.sent += 1
        job.next_at = now + b.frame_s

    def picture(self, ask: m.Generate, index: int) -> bytes:
        if ask.engine == "draft":
            return png(ask.width, ask.height, (index % 256, ask.seed % 256, 7))
        if index == self.behaviour.not_a_png_at:
            return b"GIF89a"
        width = 16 if index == self.behaviour.wrong_size_at else ask.width
        return png(width, ask.height, (index % 256, ask.seed % 256, 77))


def answer() -> None:
    """The test waits for it."""
    sys.stdout.write("\n")
    sys.stdout.flush()


def main() -> None:
    behaviour = Behaviour()

    def obey() -> None:
        for line in sys.stdin:
            for name, value in json.loads(line).items():
                setattr(behaviour, name, value)
            answer()
        os._exit(0)  # the test has ended

    first = sys.stdin.readline()
    for name, value in json.loads(first).items():
        setattr(behaviour, name, value)
    answer()
    threading.Thread(target=obey, daemon=True).start()
    keys, client_secret = ServerKeys.generate()
    with listen(zmq.Context(), keys, "127.0.0.1", 0) as (socket, endpoint):
        there = connection.Connection(endpoint, keys.public, keys.client_public, client_secret, os.getpid())
        connection.write(there, Path(sys.argv[1]))
        fake = Fake(socket, behaviour)
        while True:
            fake.turn()


if __name__ == "__main__":
    main()
