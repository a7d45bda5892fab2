"""One message and everything it can reach inside one process: codec, broker and the answers, or codec and session.

Whatever comes in, `BadMessage` is all that may be raised; every answer can be encoded and is a message to the other
side; an id that was accepted ends once; a worker is busy for a job that somebody owns.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence

import structlog
from sfwire import limits as L
from sfwire import messages as m
from sfwire.codec import Buffer, decode_to_client, decode_to_server, encode
from sfwire.errors import BadMessage
from sfwire.request import Request
from sfwire.session import Send, Session
from test_session_over_a_bad_network import INFO, ModelWorker
from wire_examples import PICTURE, SIDE

from sfserver.serve.broker import Action, Broker, Replace, ToClient, ToWorker

LIFE = 2000
"""Messages before everything is made anew, so that one that was found can be found again."""
PEERS = (b"alice", b"bob", b"carol")


class Broken(Exception):
    """A promise that did not hold."""


class Target:
    """A broker with a worker, a session, and whatever anybody says to them."""

    def __init__(self, seen: Counter[str] | None = None) -> None:
        """`seen` counts what was read, by kind."""
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        self.seen = Counter[str]() if seen is None else seen
        self._fresh()

    def _fresh(self) -> None:
        self.now = 0.0
        self.count = 0
        self.worker = ModelWorker()
        self.broker = Broker("boot", "torture", 1, 1e9, 0.0)
        self.session = Session("torture", window=3, new_id=iter(f"r{i}" for i in range(10**9)).__next__)
        self.sessions: dict[bytes, str] = {}
        self.hello = ""
        self.accepted: set[tuple[str, str]] = set()
        """(session, id), and those among them that have ended."""
        self.ended: set[tuple[str, str]] = set()
        self._do(self.broker.on_worker(0, self._welcome(), [], self.now))
        self.session.tick(self.now)
        self.session.receive(self._welcome(), [], self.now)

    def _welcome(self) -> m.Welcome:
        return m.Welcome(L.PROTOCOL, "boot", "torture", (INFO,), "fake", "the only one")

    def hear(self, to_server: bool, parts: Sequence[Buffer]) -> None:
        """One message arrives. Raises whatever should not be."""
        self.count += 1
        if self.count % LIFE == 0:
            self._fresh()
        self.now += 0.01
        if to_server:
            self._server_hears(PEERS[self.count % len(PEERS)], parts)
        else:
            self._client_hears(parts)

    def _server_hears(self, peer: bytes, parts: Sequence[Buffer]) -> None:
        try:
            message, buffers = decode_to_server(parts)
        except BadMessage as error:
            self.seen["refused"] += 1
            self._do(self.broker.on_bad_message(peer, error, self.now))
        else:
            self.seen[type(message).__name__] += 1
            self._same(message, buffers, decode_to_server)
            self._follow(peer, message)
            self._do(self.broker.on_client(peer, message, buffers, self.now))
        self._work()
        if self.count % 16 == 0:
            self._do(self.broker.tick(self.now))
        self._check_workers(peer)

    def _follow(self, peer: bytes, message: m.ToServer) -> None:
        """Whose session a peer speaks for: that of its last Hello, from its Welcome until it is taken or given up."""
        if isinstance(message, m.Hello):
            self.hello = message.session
        elif isinstance(message, m.Bye):
            self.sessions.pop(peer, None)

    def _client_hears(self, parts: Sequence[Buffer]) -> None:
        if self.count % 64 == 0:
            self.session.submit(Request(((0, PICTURE), (8, PICTURE)), SIDE, SIDE, 9), self.now)
        try:
            message, buffers = decode_to_client(parts)
        except BadMessage:
            self.seen["refused"] += 1
            return
        self.seen[type(message).__name__] += 1
        self._same(message, buffers, decode_to_client)
        for action in (*self.session.receive(message, buffers, self.now), *self.session.tick(self.now)):
            if isinstance(action, Send):
                decode_to_server(encode(action.message, action.buffers))

    def _same(self, message: m.Message, buffers: list[Buffer], decode: object) -> None:
        again = decode(encode(message, buffers))  # type: ignore[operator]
        if again != (message, buffers):
            raise Broken(f"a {type(message).__name__} that was read comes back as another")

    def _do(self, actions: Iterable[Action]) -> None:
        for action in actions:
            if isinstance(action, ToClient):
                answer, _ = decode_to_client(encode(action.message, action.buffers))
                self._note(action.peer, answer)
            elif isinstance(action, ToWorker):
                done = self.worker.take(action.message)
                if done is not None:
                    self._do(self.broker.on_worker(0, done, [], self.now))
            elif isinstance(action, Replace):
                self.worker = ModelWorker()
                self._do(self.broker.on_worker(0, self._welcome(), [], self.now))

    def _note(self, peer: bytes, answer: m.ToClient) -> None:
        if isinstance(answer, m.Welcome):  # what was said before it is of the session before
            self.sessions = {p: s for p, s in self.sessions.items() if s != self.hello} | {peer: self.hello}
        if not isinstance(answer, m.Accepted | m.Progress | m.Frame | m.Done | m.Failed) or answer.id is None:
            return
        key = self.sessions.get(peer, ""), answer.id
        if isinstance(answer, m.Accepted):
            self.accepted.add(key)
        if isinstance(answer, m.Done | m.Failed):
            self.ended |= {key} & self.accepted
        elif key in self.ended:
            raise Broken(f"{type(answer).__name__} of {answer.id} after its end")

    def _work(self) -> None:
        said = self.worker.step()
        if said is not None:
            self._do(self.broker.on_worker(0, said[0], said[1], self.now))

    def _check_workers(self, peer: bytes) -> None:
        report = next(
            action.message
            for action in self.broker.on_client(peer, m.Status(), [], self.now)
            if isinstance(action, ToClient) and isinstance(action.message, m.Report)
        )
        busy = [worker.index for worker in report.workers if worker.state == "busy"]
        working = [job.worker for job in report.jobs if job.worker is not None]
        if busy != working:
            raise Broken(f"workers {busy} are busy, and jobs are at {working}")
        if self.worker.request is None and busy:
            raise Broken("the broker takes a worker for busy that has nothing to do")
