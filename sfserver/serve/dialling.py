"""A worker that dials in, from this machine or another one: the same worker, by a connection that it makes itself.

`Dealer` is its link: one connection, CURVE, and no other when that is lost. Then the worker stops what it had in hand,
keeps what it has loaded, and dials in again as somebody new: whatever it had been given is somebody else's by now. Both
sides beat once a second and are lost to each other after three; libzmq's threads see to the connection, the server's
word once a second to the server. How often nothing was heard is counted and not timed, so that a computer that slept,
or a process that was stopped, judges nobody.
"""

from __future__ import annotations

import json
import os
import platform
import socket as sockets
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, BinaryIO, Literal, Protocol
from uuid import uuid4

import attrs
import zmq
from attrs import frozen
from sfwire import limits as L
from sfwire.channel import LOST_AFTER_S, Context, Socket, connect
from sfwire.codec import Buffer
from sfwire.errors import RequestError
from sfwire.messages import WorkerStatus, fit
from zmq.utils.monitor import parse_monitor_message

from .. import __version__
from ..errors import USER_ERROR
from . import join as joins
from . import link as pipes
from .ends import pause_s
from .join import Join
from .link import Link
from .pieces import LAYOUT, MESSAGE, PIECE, Joined, cut

JOIN, WELCOME, BEAT, GO = b"j", b"w", b"b", b"g"
"""First part of what a worker that dials in and its server say to each other. The wire's own travels by `pieces`."""
Verdict = Literal["lost", "drop", "end", "refused"]
"""How a link ended: by itself; told to dial in anew; told to end; not let in, ever."""

_LOOK_S = 0.5
_SILENT_LOOKS = round(LOST_AFTER_S / _LOOK_S)
_LOOKS_FOR_WELCOME = round(10.0 / _LOOK_S)
_CLOSE_S = 2.0
PATIENCE_S = 600.0
"""Without a server before a worker gives up: a front that crashed is back in seconds, a machine in minutes."""
SAY_EVERY_S = 30.0
_LOST = zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED
_KEYS = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
_BAD_KEYS = "it does not know the keys of this join file: the server was started anew since; copy its join file again"


@frozen
class Hello:
    """What a worker says of itself before anything else."""

    name: str
    """Of this process, so that one that comes back takes its own old place."""
    version: str
    protocol: int
    machine: str
    pid: int
    device: str

    def pack(self) -> bytes:
        return json.dumps(attrs.asdict(self)).encode()

    @staticmethod
    def unpack(content: Buffer) -> Hello:
        """Raises ValueError where it is not one."""
        if len(content) > 4096:
            raise ValueError(f"{len(content)} bytes")
        try:
            body: dict[str, Any] = json.loads(bytes(content))
        except RecursionError:
            raise ValueError("nested too deeply") from None
        kinds = {"name": str, "version": str, "protocol": int, "machine": str, "pid": int, "device": str}
        if type(body) is not dict or {name: type(value) for name, value in body.items()} != kinds:
            raise ValueError("not the fields of a worker's hello")
        WorkerStatus(0, body["pid"], "starting", 0)  # whoever asks what the server does is told of it: it can be said
        said: dict[str, Any] = {n: fit(v, L.MAX_NAME_CHARS) if type(v) is str else v for n, v in body.items()}
        return Hello(**said)


class Dealer:
    """One connection to a server. A thread of its own moves messages; `verdict` and `why` tell how it ended."""

    def __init__(self, join: Join, hello: Hello) -> None:
        self.verdict: Verdict = "lost"
        self.why = "no server answers there"
        self._is_welcome = threading.Event()
        self._outbox: deque[list[Buffer]] = deque([[JOIN, hello.pack()]])
        self._inbox: SimpleQueue[list[Buffer] | None] = SimpleQueue()
        self._joined = Joined()
        self._over = False
        self._closing = False
        self._wake_reader, self._wake_writer = sockets.socketpair()
        self._wake_writer.setblocking(False)
        self._thread = threading.Thread(target=self._move, args=(join,), name="dial", daemon=True)
        self._thread.start()
        self._wake()

    @property
    def is_welcome(self) -> bool:
        """Wait for the server's answer: whether it lets us in."""
        self._is_welcome.wait()
        return not self._over

    def send(self, parts: Sequence[Buffer]) -> None:
        if self._over:
            raise BrokenPipeError(self.why)
        self._outbox.extend(cut(parts))
        self._wake()

    def receive(self) -> list[Buffer]:
        parts = self._inbox.get()
        if parts is None:
            self._inbox.put(None)
            raise EOFError(self.why)
        return parts

    def close(self) -> None:
        self._closing = True
        self._wake()
        self._thread.join(2 * _CLOSE_S)

    def _wake(self) -> None:
        with suppress(OSError):  # full: it is awake; closed: it is gone
            self._wake_writer.send(b"\0")

    def _move(self, join: Join) -> None:
        context: Context = zmq.Context()
        try:
            socket = connect(context, join.connection, once=True)
            monitor: Socket = socket.get_monitor_socket(_LOST | _KEYS)
            try:
                self._move_until_over(socket, monitor)
            finally:
                socket.disable_monitor()
                monitor.close(linger=0)
                socket.close(linger=round(_CLOSE_S * 1000) if self._closing else 0)
        except zmq.ZMQError as error:  # an address that cannot be, no descriptors
            self.why = f"{join.endpoint}: {error.strerror}"
        finally:
            self._over = True
            self._is_welcome.set()
            self._inbox.put(None)
            context.term()
            self._wake_reader.close()
            self._wake_writer.close()

    def _move_until_over(self, socket: Socket, monitor: Socket) -> None:
        poller, silent, closing_looks = zmq.Poller(), 0, 0
        for source in (socket, monitor, self._wake_reader):
            poller.register(source, zmq.POLLIN)
        while True:
            poller.register(socket, zmq.POLLIN | (zmq.POLLOUT if self._outbox else 0))
            ready = dict(poller.poll(round(_LOOK_S * 1000)))
            if ready.get(socket, 0) & zmq.POLLIN:
                silent = 0
                if not self._hear(socket):
                    return
            elif not ready:
                silent += 1
            elif monitor in ready and self._is_lost(monitor):
                return
            if silent > (_SILENT_LOOKS if self._is_welcome.is_set() else _LOOKS_FOR_WELCOME):
                self.why = f"the server showed no sign of life for {silent * _LOOK_S:.0f} s"
                return
            if self._wake_reader.fileno() in ready:
                self._wake_reader.recv(4096)
            with suppress(zmq.Again):  # so much is on its way that the network has to take some of it first
                while self._outbox:
                    socket.send_multipart(self._outbox[0], zmq.NOBLOCK, copy=False)
                    self._outbox.popleft()
            closing_looks += self._closing
            if self._closing and (not self._outbox or closing_looks > _CLOSE_S / _LOOK_S):
                return

    def _hear(self, socket: Socket) -> bool:
        """Take one message; whether there may be another."""
        first, *rest = (frame.buffer for frame in socket.recv_multipart(copy=False))
        kind = bytes(first[:2])
        if kind in (MESSAGE, LAYOUT, PIECE):
            message = self._joined.take([first, *rest])
            if message is not None:
                self._inbox.put(message)
        elif kind == WELCOME:
            self._is_welcome.set()
        elif kind == GO:
            told: dict[str, str] = json.loads(bytes(rest[0]))
            self.why = told["why"]
            self.verdict = "end" if told["verdict"] == "end" else "refused" if told["verdict"] == "refused" else "drop"
            return False
        return True

    def _is_lost(self, monitor: Socket) -> bool:
        event = int(parse_monitor_message(monitor.recv_multipart())["event"])
        if event & _KEYS:
            self.why = _BAD_KEYS
        elif self._is_welcome.is_set():
            self.why = "the connection was lost"
        return True


class Works(Protocol):
    """What is known of the worker here."""

    def work_for(self, link: Link) -> None: ...


@frozen
class Told:
    """What the parent says: which server, and what this worker is to call itself."""

    join: bytes
    device: str = ""

    def pack(self) -> bytes:
        return json.dumps({"join": self.join.decode(), "device": self.device}).encode()

    @staticmethod
    def unpack(content: bytes) -> Told:
        body: dict[str, str] = json.loads(content)
        return Told(body["join"].encode(), body["device"])


class _Parent:
    """Whoever started us: a new join file comes by the pipe, and its end is ours."""

    def __init__(self, source: BinaryIO, told: Told) -> None:
        self.join = joins.unpack(told.join)
        self._source = source
        threading.Thread(target=self._listen, name="parent", daemon=True).start()

    def _listen(self) -> None:
        try:
            while True:
                self.join = joins.unpack(bytes(pipes.read(self._source)[0]))
        except BaseException:  # the boundary of this thread: nobody holds us any more
            os._exit(0)


def serve(worker: Works, source: BinaryIO, content: bytes) -> int:
    """Dial in, work, and dial in again, until told to end. The exit code: 0 told so, 2 something to be mended."""
    told = Told.unpack(content)
    parent = _Parent(source, told)
    hello = Hello(uuid4().hex, __version__, L.PROTOCOL, platform.node(), os.getpid(), told.device)
    attempts, alone_since, said_at = 0, time.monotonic(), float("-inf")
    while True:
        link, endpoint = Dealer(parent.join, hello), parent.join.endpoint
        if link.is_welcome:
            _say(f"serving {endpoint}")
            try:
                worker.work_for(link)
            except RequestError as error:
                link.close()
                return _over(f"{error}; there is nothing here that this worker could serve")
            attempts, alone_since = 0, time.monotonic()
            _say(f"{endpoint}: {link.why}")
        if link.verdict == "end":
            return 0
        if link.verdict == "refused":
            return _over(f"the server at {endpoint} does not take this worker: {link.why}")
        link.close()
        now = time.monotonic()
        if now - alone_since > PATIENCE_S:
            return _over(f"no server let this worker in for {PATIENCE_S:.0f} s: {endpoint}: {link.why}")
        if attempts and now - said_at > SAY_EVERY_S:
            said_at = now
            _say(f"{endpoint}: {link.why}; trying again for {PATIENCE_S - (now - alone_since):.0f} s")
        attempts += 1
        time.sleep(pause_s(attempts))


def _over(sentence: str) -> int:
    _say(f"sfserver: {fit(sentence)}")
    return USER_ERROR


def _say(sentence: str) -> None:
    with suppress(OSError):
        sys.stderr.write(f"{fit(sentence)}\n")
        sys.stderr.flush()
