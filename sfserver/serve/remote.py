"""Places for workers that dial in: the same calls as `Pool`, and a place may be absent.

A thread moves messages between the port for workers and the front, and beats. Who is a member is decided in the front's
own thread, in `events`: a connection is one while it is the newest of its worker and nobody was put off. What anybody
else says, one who comes back after its job was given to another for one, is answered with the word to drop it.
"""

from __future__ import annotations

import json
import socket as sockets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import structlog
import zmq
from attrs import frozen
from sfwire import limits as L
from sfwire import messages as m
from sfwire.channel import BEAT_S, Context, ServerKeys, Socket, listen
from sfwire.codec import Buffer, decode_to_client, encode
from sfwire.errors import BadMessage

from .. import __version__
from .dialling import BEAT, GO, JOIN, WELCOME, Hello, Verdict
from .pieces import MESSAGE, Joined, cut
from .pool import Came, Died, Said

MOST_HELD_BYTES = 256 * 1024 * 1024
"""Of what workers have sent and the front has not looked at yet: then they are not read. Credit keeps it far below."""
_TRY_AGAIN_S = 0.02
"""To send what ZeroMQ did not take, since so much is on its way to that worker already."""
EVENTS_A_TURN = 256
"""As many as are looked at before clients get their turn."""
_LOOK_AGAIN_S = 0.05
"""After a connection went: ZeroMQ says that it is gone a moment before it forgets its name."""
_LOOKS_AGAIN = 10
_MESSAGES_A_TURN = 32
_END_LINGER_S = 0.5
_LOST = zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED

log = structlog.get_logger("front")


@frozen
class _Heard:
    peer: bytes
    parts: list[Buffer]

    @property
    def num_bytes(self) -> int:
        return sum(map(len, self.parts))


@frozen
class _Gone:
    peer: bytes


class RemotePool:
    """The places `first` and up. Raises zmq.ZMQError where the port cannot be had."""

    def __init__(
        self,
        keys: ServerKeys,
        host: str,
        port: int,
        places: range,
        wake: Callable[[], None],
        version: str = __version__,
    ) -> None:
        self.places = places
        self._version = version
        self._places: dict[int, bytes | None] = dict.fromkeys(places)
        self._members: dict[bytes, int] = {}
        self._names: dict[bytes, str] = {}
        self._mover = _Mover(keys, host, port, wake)
        self.endpoint = self._mover.endpoint

    def start(self, index: int) -> None:
        """Nobody is started here: who is in this place is told to drop what it has, and dials in again."""
        self.dismiss(index, "drop", "this worker was given up, and what it had in hand is somebody else's")

    def send(self, index: int, message: m.ToServer, buffers: Sequence[Buffer]) -> None:
        """Queue a message for a worker; never blocks."""
        peer = self._places[index]
        if peer is not None:
            for part in cut(encode(message, buffers)):
                self._mover.send(peer, part)

    def events(self) -> Iterator[Came | Said | Died]:
        """What has happened since this was last asked, one at a time."""
        for event in self._mover.events():
            try:
                yield from self._looked_at(event)
            except Exception:  # the boundary: a mistake of ours over one worker costs the others nothing
                log.exception("mistake")
                index = self._forget(event.peer)
                self._tell(event.peer, "drop", "the server failed over what you said")
                if index is not None:
                    yield Died(index, "the server failed over what it said")

    def _looked_at(self, event: _Heard | _Gone) -> Iterator[Came | Said | Died]:
        if isinstance(event, _Gone):
            index = self._forget(event.peer)
            if index is not None:
                yield Died(index, "the connection to its machine was lost", was_ended=True)
        elif bytes(event.parts[0][:2]) == JOIN:
            yield from self._admit(event.peer, event.parts[-1])
        elif event.peer in self._members:
            yield self._said(event)
        else:
            self._tell(event.peer, "drop", "what you had in hand is somebody else's by now")

    def dismiss(self, index: int, verdict: Verdict, why: str) -> None:
        """Whoever is in this place is there no more, and is told why."""
        peer = self._places[index]
        if peer is not None:
            self._forget(peer)
            self._tell(peer, verdict, why)

    def kill(self, index: int) -> None:
        self.dismiss(index, "end", "the server has ended")

    def end_all(self) -> None:
        """Tell all of them that it is over: they end. Those that are not told come again."""
        for index in self._places:
            self.kill(index)

    def close(self) -> None:
        self._mover.close()

    def _admit(self, peer: bytes, content: Buffer) -> Iterator[Came | Died]:
        try:
            hello = Hello.unpack(content)
        except ValueError as error:
            log.warning("worker refused", why=str(error))
            self._tell(peer, "refused", f"its hello cannot be read; the server is sfserver {self._version}")
            return
        if (hello.version, hello.protocol) != (self._version, L.PROTOCOL):
            theirs, ours = f"{hello.version} (protocol {hello.protocol})", f"{self._version} (protocol {L.PROTOCOL})"
            why = f"it is sfserver {theirs}, the server {ours}; install the same version on both"
            log.warning("worker refused", machine=hello.machine, why=why)
            self._tell(peer, "refused", why)
            return
        # Who comes back leaves its old place, and so does a connection that says another name: it would hold them all.
        for before in [p for p, name in self._names.items() if name == hello.name or p == peer]:
            old = self._forget(before)
            if old is not None:
                yield Died(old, "it has dialled in again", was_ended=True)
        index = next((i for i, there in self._places.items() if there is None), None)
        if index is None:
            why = f"{len(self._places)} workers have dialled in, the most there may be; end one first"
            log.warning("worker refused", machine=hello.machine, why=why)
            self._tell(peer, "refused", why)
            return
        self._places[index], self._members[peer], self._names[peer] = peer, index, hello.name
        self._mover.send(peer, [WELCOME])
        log.info("worker came", worker=index, machine=hello.machine, pid=hello.pid, device=hello.device)
        yield Came(index, hello.pid, m.fit(f"{hello.device} of {hello.machine}", L.MAX_NAME_CHARS))

    def _said(self, heard: _Heard) -> Said | Died:
        index = self._members[heard.peer]
        try:
            return Said(index, *decode_to_client(heard.parts[1:]))
        except BadMessage as error:
            self.dismiss(index, "drop", "that was no message")
            return Died(index, f"it said something that is no message: {error}")

    def _forget(self, peer: bytes) -> int | None:
        index = self._members.pop(peer, None)
        self._names.pop(peer, None)
        if index is not None:
            self._places[index] = None
        return index

    def _tell(self, peer: bytes, verdict: Verdict, why: str) -> None:
        self._mover.send(peer, [GO, json.dumps({"verdict": verdict, "why": why}).encode()])


class _Mover:
    """The port for workers and its thread, in a context of its own: ZeroMQ asks one authenticator a context."""

    def __init__(self, keys: ServerKeys, host: str, port: int, wake: Callable[[], None]) -> None:
        self._keys, self._host, self._port = keys, host, port
        self._wake_front = wake
        self._events: deque[_Heard | _Gone] = deque()
        self._outbox: deque[tuple[bytes, list[Buffer]]] = deque()
        self._held_bytes = 0
        self._counting = threading.Lock()
        self._stopping = False
        self._wake_reader, self._wake_writer = sockets.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._peers: dict[bytes, Joined] = {}
        self._leaving: dict[bytes, deque[list[Buffer]]] = {}
        """What ZeroMQ has not taken yet, by connection."""
        self.endpoint = ""
        self._failed: zmq.ZMQError | None = None
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._run, name="remote workers", daemon=True)
        self._thread.start()
        self._begun.wait()
        if self._failed is not None:
            raise self._failed

    def send(self, peer: bytes, parts: list[Buffer]) -> None:
        self._outbox.append((peer, parts))
        self._wake()

    def events(self) -> Iterator[_Heard | _Gone]:
        """Some of them: clients get their turn however much workers say."""
        for _ in range(EVENTS_A_TURN):
            if not self._events:
                return
            event = self._events.popleft()
            if isinstance(event, _Heard):
                with self._counting:
                    was_full = self._held_bytes > MOST_HELD_BYTES
                    self._held_bytes -= event.num_bytes
                if was_full:
                    self._wake()
            yield event
        self._wake_front()

    def close(self) -> None:
        self._stopping = True
        self._wake()
        self._thread.join(5.0)
        self._wake_reader.close()
        self._wake_writer.close()

    def _wake(self) -> None:
        with suppress(OSError):
            self._wake_writer.send(b"\0")

    def _put(self, event: _Heard | _Gone) -> None:
        if isinstance(event, _Heard):
            with self._counting:
                self._held_bytes += event.num_bytes
        self._events.append(event)
        self._wake_front()

    def _run(self) -> None:
        context: Context = zmq.Context()
        try:
            with listen(context, self._keys, self._host, self._port, beats=True) as (socket, self.endpoint):
                monitor: Socket = socket.get_monitor_socket(_LOST)
                self._begun.set()
                try:
                    self._move(socket, monitor)
                finally:
                    socket.disable_monitor()
                    monitor.close(linger=0)
                time.sleep(_END_LINGER_S if self._peers else 0)  # libzmq's thread sends the last words
        except zmq.ZMQError as error:
            self._failed = error
        finally:
            self._begun.set()
            context.term()

    def _move(self, socket: Socket, monitor: Socket) -> None:
        beat_at, again = 0.0, 0
        while True:
            poller = zmq.Poller()
            poller.register(monitor, zmq.POLLIN)
            poller.register(self._wake_reader, zmq.POLLIN)
            if self._held_bytes <= MOST_HELD_BYTES:
                poller.register(socket, zmq.POLLIN)
            pause_s = _TRY_AGAIN_S if self._leaving else _LOOK_AGAIN_S if again else BEAT_S / 4
            ready = dict(poller.poll(round(1000 * pause_s)))
            if self._wake_reader.fileno() in ready:
                self._wake_reader.recv(4096)
            while self._outbox:
                self._put_down(*self._outbox.popleft())
            self._send(socket)
            if self._stopping:
                return
            if socket in ready:
                self._read(socket)
            if monitor in ready:
                monitor.recv_multipart()
                again = _LOOKS_AGAIN
            if again or time.monotonic() - beat_at >= BEAT_S:
                again, beat_at = max(0, again - 1), time.monotonic()
                for peer in self._peers.keys() - self._leaving.keys():  # what waits for its network is a sign too
                    self._put_down(peer, [BEAT])
                self._send(socket)

    def _read(self, socket: Socket) -> None:
        for _ in range(_MESSAGES_A_TURN):
            try:
                peer, *parts = socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            joined = self._peers.setdefault(peer.bytes, Joined())
            if parts:
                self._hear(peer.bytes, joined, [part.buffer for part in parts[: L.MAX_PARTS + 2]])

    def _hear(self, peer: bytes, joined: Joined, parts: list[Buffer]) -> None:
        if bytes(parts[0][:2]) == JOIN:
            self._put(_Heard(peer, parts))
            return
        try:
            message = joined.take(parts)
        except ValueError:
            message = list[Buffer]()  # which is none, as whoever reads it finds
        if message is not None:
            self._put(_Heard(peer, [MESSAGE, *message]))

    def _put_down(self, peer: bytes, parts: list[Buffer]) -> None:
        """To be sent in its turn; a last word comes before what nobody wants any more."""
        leaving = self._leaving.setdefault(peer, deque())
        if bytes(parts[0]) == GO:
            leaving.clear()
        leaving.append(parts)

    def _send(self, socket: Socket) -> None:
        """As much as ZeroMQ takes. One that is gone is told to the front."""
        for peer, leaving in list(self._leaving.items()):
            try:
                while leaving:
                    socket.send_multipart([peer, *leaving[0]], zmq.NOBLOCK, copy=False)
                    leaving.popleft()
            except zmq.ZMQError as error:
                if error.errno == zmq.EAGAIN:  # its network is slow; libzmq sees whether it is there at all
                    continue
                if error.errno != zmq.EHOSTUNREACH:
                    raise
                self._peers.pop(peer, None)
                self._put(_Gone(peer))
            del self._leaving[peer]
