"""A small synchronous client that any Python editor can use.

    with Client(name="my editor") as client:
        request = Request(keyframes=((0, first_rgb8), (32, last_rgb8)), width=832, height=480, num_frames=33)
        with client.submit(request) as stream:
            for picture in stream:
                show(picture.index, picture.data)

One thread owns the socket and runs the session; nothing here blocks the caller except what says so. A host with an
event loop of its own calls `stream.poll()` from a timer instead of iterating, and where it bears no threads of Python
(Blender up to 5.0) it makes the client with `threaded=False` and calls `client.turn()` there too.
"""

from __future__ import annotations

import queue
import socket as sockets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import zmq

from . import connection as connections
from . import limits as L
from . import messages as m
from .channel import Context, Socket, connect
from .codec import Buffer, decode_to_client, encode
from .errors import BadMessage, NoConnectionFile, ServerSilent, ServerUnavailable, WrongProtocol
from .request import Ended, Request
from .session import Action, Notify, Phase, Reopen, Send, Session
from .stream import Stream

_T = TypeVar("_T")
TICK_S = 0.05
"""How late a repeat or a time-out may be noticed."""
_RETRY_S = 0.5
"""Between two looks for a connection file that is not there."""
_MESSAGES_A_TURN = 64
MESSAGES_A_CALL = 12
"""Taken by one call of `turn`: a host's interface waits for it, and one message costs up to 0.1 ms."""
_CREDITS_A_WINDOW = 4
"""A message for each picture would cost more than it helps."""
Finder = Callable[[], connections.Connection]
"""Says where the server is, or raises NoConnectionFile with the reason."""


class Client:
    """One connection to one server, for any number of requests. Safe to use from any one thread at a time."""

    def __init__(
        self,
        connection: connections.Connection | Path | Finder | None = None,
        *,
        name: str = "sfwire",
        window: int = 8,
        give_up_after_s: float = 60.0,
        threaded: bool = True,
    ) -> None:
        """Begins to connect at once, in the background; with `threaded=False` whenever `turn` is called.

        `connection`: where the server is, or the file that says so; None is `connection.default_path()`. A file is read
        again at every reconnect, since a server that was started anew may be somewhere else; a program that has rules
        of its own for where it connects gives a function, which is called from this client's thread. `window`: pictures
        of each stream that may wait here untaken. `give_up_after_s`: how long streams outlive a server that is silent,
        not there, or lost again and again.
        """
        self._source = connection
        self._window = window
        self._session = Session(name, window=window, give_up_after_s=give_up_after_s)
        self._streams: dict[str, Stream] = {}
        self._reports: queue.SimpleQueue[m.Report] = queue.SimpleQueue()
        self._queues: queue.SimpleQueue[m.Queue] = queue.SimpleQueue()
        self._wishes: deque[Callable[[], list[Action]]] = deque()
        self._problem: str | None = None
        self._closing = threading.Event()
        self._ready = threading.Event()
        self._wake_reader, self._wake_writer = sockets.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._context = zmq.Context()
        self._line = _Line(self._context, connection, copy=not threaded)
        self._thread = threading.Thread(target=self._run, name="sfwire-client", daemon=True) if threaded else None
        if self._thread is not None:
            self._thread.start()

    # For the program

    @property
    def state(self) -> str:
        """`connecting`, `ready`, `reconnecting`, `refused` or `closed`."""
        if self._closing.is_set():
            return "closed"
        phase = self._session.phase
        return {Phase.GREETING: "connecting", Phase.READY: "ready", Phase.LOST: "reconnecting"}.get(phase, "refused")

    @property
    def problem(self) -> str | None:
        """Why it is not connected, in one sentence, as far as is known."""
        return self._problem or self._session.complaint

    @property
    def welcome(self) -> m.Welcome | None:
        """What the server last said of itself: its engines and their parameters."""
        return self._session.welcome

    @property
    def pong(self) -> m.Pong | None:
        """The server's last sign of life: what is running and queued, and how its workers are."""
        return self._session.last_pong

    def wait_ready(self, timeout_s: float = L.HELLO_TIMEOUT_S) -> m.Welcome:
        """Block until the server has said Welcome. Raises ServerUnavailable with the remedy."""
        deadline = time.monotonic() + timeout_s
        while not self._ready.wait(0.05):
            if self.state == "refused":
                raise WrongProtocol(self._problem or "the server speaks another version of the wire")
            if self._problem is not None and self.state == "connecting":
                raise NoConnectionFile(self._problem)
            if self._session.complaint is not None:
                raise ServerUnavailable(self._session.complaint)
            if self.state == "closed":
                raise ServerUnavailable("this client is closed")
            if time.monotonic() > deadline:
                raise ServerSilent(f"the server did not answer within {timeout_s:g} s; see its log, or start it anew")
        assert self._session.welcome is not None
        return self._session.welcome

    def submit(self, request: Request) -> Stream:
        """Ask for in-betweens; returns at once. Raises messages.Refused for values that the protocol does not allow."""
        if self._closing.is_set():
            raise ServerUnavailable("this client is closed")
        encode(request.generate("check", request.engine))  # what cannot be said is refused here, not in the thread
        ticket: list[str] = []

        def begin() -> list[Action]:
            name, actions = self._session.submit(request, time.monotonic())
            ticket.append(name)
            self._streams[name] = stream
            return actions

        stream = Stream(
            request,  # wishes are carried out in order, so `begin` comes before these
            taken=lambda count: self._wish(lambda: self._session.taken(ticket[0], count)),
            cancel=lambda: self._wish(lambda: self._session.cancel(ticket[0])),
            batch=max(1, self._window // _CREDITS_A_WINDOW),
        )
        self._wish(begin)
        return stream

    def status(self, timeout_s: float = 5.0) -> m.Report:
        """Ask what the server is doing. Raises ServerUnavailable."""
        return self._asked(m.Status(), self._reports, timeout_s)

    def steer(self, wish: m.Steer, timeout_s: float = 5.0) -> m.Queue:
        """Show the server's queue, or change it. Raises ServerUnavailable; what was refused is in the answer."""
        return self._asked(wish, self._queues, timeout_s)

    def _asked(self, message: m.ToServer, answers: queue.SimpleQueue[_T], timeout_s: float) -> _T:
        self.wait_ready(timeout_s)
        self._wish(lambda: [Send(message)])
        try:
            return answers.get(timeout=timeout_s)
        except queue.Empty:
            raise ServerSilent(f"the server did not answer within {timeout_s:g} s") from None

    def close(self) -> None:
        """Cancel everything and let go of the server. Returns within about a tenth of a second."""
        if self._closing.is_set():
            return
        self._closing.set()
        if self._thread is None:
            self._finish()
            return
        self._wake()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=2.0)

    def turn(self) -> None:
        """Send, receive and notice what is due, without waiting: for a host whose timer drives a client that has no
        thread. A few times a second at least, so that the server does not take it for gone."""
        assert self._thread is None
        if not self._closing.is_set():
            self._turn(0.0, MESSAGES_A_CALL)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wish(self, wish: Callable[[], list[Action]]) -> None:
        self._wishes.append(wish)
        self._wake()

    def _wake(self) -> None:
        with suppress(OSError):  # full: it is awake already; closed: nobody sleeps there any more
            self._wake_writer.send(b"\0")

    # The thread that owns the socket, or the calls of `turn`

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                self._turn(TICK_S, _MESSAGES_A_TURN)
        finally:
            self._closing.set()  # so also after a mistake of ours: who submits hears of it and does not wait for ever
            self._finish()

    def _finish(self) -> None:
        for ticket in list(self._streams):
            self._perform(self._session.cancel(ticket))
        for stream in self._streams.values():
            stream.put(Ended(error=ServerUnavailable("this client is closed")))
        self._line.send(Send(m.Bye()))
        self._line.close(linger_ms=100)  # a moment for the Bye to leave
        self._context.term()
        self._wake_reader.close()
        self._wake_writer.close()

    def _turn(self, timeout_s: float, most: int) -> None:
        """Wait for something, take what came, do what follows."""
        line = self._line
        if line.socket is None:
            self._problem = line.open()
        line.wait(self._wake_reader, timeout_s)
        while self._wishes:
            self._perform(self._wishes.popleft()())
        for message, buffers in line.messages(most):
            if isinstance(message, m.Report):
                self._reports.put(message)
            elif isinstance(message, m.Queue):
                self._queues.put(message)
            self._perform(self._session.receive(message, buffers, time.monotonic()))
        self._session.nowhere = self._problem if line.socket is None else None
        self._perform(self._session.tick(time.monotonic()))  # without a socket too: time-outs are promised
        if self._session.phase is Phase.READY:
            self._ready.set()
        else:
            self._ready.clear()
        if self._session.phase is Phase.REFUSED:
            self._problem = self._session.refusal

    def _perform(self, actions: list[Action]) -> None:
        line = self._line
        for action in actions:
            match action:
                case Send():
                    line.send(action)
                case Reopen():
                    line.close()
                    self._problem = line.open()
                case Notify():
                    stream = self._streams[action.ticket]
                    if isinstance(action.event, Ended):
                        del self._streams[action.ticket]
                    stream.put(action.event)


class _Line:
    """The socket, while there is one, and the wait for it."""

    def __init__(self, context: Context, source: connections.Connection | Path | Finder | None, copy: bool) -> None:
        """`copy`: hand libzmq copies. Without, pyzmq starts a thread of its own that waits for buffers to be sent."""
        self.socket: Socket | None = None
        self._copy = copy
        self._context = context
        self._source = source
        self._poller: zmq.Poller | None = None
        self._next_try = 0.0
        self._why: str | None = None

    def open(self) -> str | None:
        """Open the socket; None, or the sentence that says why there is none yet."""
        if time.monotonic() < self._next_try:
            return self._why
        self._next_try = time.monotonic() + _RETRY_S
        source = self._source
        try:
            if isinstance(source, connections.Connection):
                found = source
            else:
                found = source() if callable(source) else connections.read(source)
        except NoConnectionFile as error:
            self._why = str(error)
            return self._why
        self.socket, self._poller = connect(self._context, found), None
        self._next_try = 0.0
        return None

    def wait(self, wake: sockets.socket, timeout_s: float) -> None:
        """Until something arrives, somebody wakes us, or the time is over."""
        if self._poller is None:
            self._poller = zmq.Poller()
            self._poller.register(wake.fileno(), zmq.POLLIN)
            if self.socket is not None:
                self._poller.register(self.socket, zmq.POLLIN)
        for ready, _ in self._poller.poll(int(timeout_s * 1000)):
            if ready == wake.fileno():
                wake.recv(4096)

    def send(self, action: Send) -> None:
        """Hand over one message. Where the queue is full it is dropped: the session repeats what matters."""
        if self.socket is not None:
            with suppress(zmq.Again):
                self.socket.send_multipart(encode(action.message, action.buffers), zmq.NOBLOCK, copy=self._copy)

    def messages(self, most: int) -> Iterator[tuple[m.ToClient, list[Buffer]]]:
        """What has arrived, up to a bound that keeps ticks on time. Bytes that are no message are passed over."""
        for _ in range(most):
            if self.socket is None:
                return
            try:
                parts = self.socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            with suppress(BadMessage):
                yield decode_to_client([parts[0].bytes, *(part.buffer for part in parts[1:])])

    def close(self, linger_ms: int = 0) -> None:
        if self.socket is not None:
            self.socket.close(linger=linger_ms)
            self.socket, self._poller = None, None
