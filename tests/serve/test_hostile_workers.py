"""Who holds the join file's keys and breaks every rule costs nobody else a stream, a place or a turn."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import repeat

import pytest
import zmq
from attrs import asdict, evolve
from servers import eventually
from sfwire import limits as L
from sfwire import messages as m
from sfwire.channel import Socket, connect
from sfwire.codec import decode_to_client, encode
from test_placing import ABLE, PLAIN, SMALL, Room, handed, welcome
from test_remote import Port

from sfserver import __version__
from sfserver.serve import remote
from sfserver.serve.actions import Refuse, Replace, ToClient
from sfserver.serve.dialling import JOIN, Hello
from sfserver.serve.placing import Skill
from sfserver.serve.pool import Came, Died, Said

HELLO = Hello("bad", __version__, L.PROTOCOL, "here", 7, "cpu")
PROGRESS = m.Progress("job1", "counting", 1, 2)


@pytest.fixture
def port() -> Iterator[Port]:
    port = Port()
    yield port
    port.close()


@pytest.fixture
def bad(port: Port) -> Iterator[Socket]:
    """A connection with a worker's keys, and nothing else of one."""
    with zmq.Context() as context, connect(context, port.join.connection) as socket:
        yield socket


@pytest.mark.parametrize(
    "hello", [b"[" * 4000, *(json.dumps(asdict(evolve(HELLO, pid=pid))).encode() for pid in (-1, 10**30, 10**3000))]
)
def test_a_hello_that_nobody_could_be_told_of_is_refused(port: Port, bad: Socket, hello: bytes) -> None:
    bad.send_multipart([JOIN, hello])
    port.until(lambda: bad.poll(20) and b"refused" in bad.recv_multipart()[-1])
    assert port.seen == []


def test_one_connection_has_one_place_however_often_it_says_another_name(port: Port, bad: Socket) -> None:
    for number in range(9):
        bad.send_multipart([JOIN, evolve(HELLO, name=f"name{number}").pack()])
    port.until(lambda: len(port.seen) >= 17)
    assert [type(event) for event in port.seen] == [Came, *[Died, Came] * 8]
    assert {event.worker for event in port.seen} == {1}
    port.admitted()
    bad.close(linger=0)
    port.until(lambda: port.seen[-1] == Died(1, "the connection to its machine was lost", True))
    port.admitted()


def test_a_mistake_of_ours_over_one_worker_costs_no_other(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = port.admitted(), port.admitted()

    def broken(parts: list[bytes]) -> object:
        if b"mistake" in bytes(parts[0]):
            raise ZeroDivisionError("a mistake of ours")
        return decode_to_client(parts)

    monkeypatch.setattr(remote, "decode_to_client", broken)
    first.send([b"mistake"])
    assert port.ended(first) == "drop"
    assert Died(1, "the server failed over what it said") in port.seen
    second.send(encode(PROGRESS))
    port.until(lambda: isinstance(port.seen[-1], Said))


def test_clients_get_their_turn_however_much_a_worker_says(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    woken: list[None] = []
    monkeypatch.setattr(port.pool._mover, "_wake_front", lambda: woken.append(None))
    chatty, most = port.admitted(), remote.EVENTS_A_TURN
    for parts in repeat(encode(PROGRESS), 3 * most):
        chatty.send(parts)
    eventually(lambda: len(port.pool._mover._events) >= 3 * most)
    woken.clear()
    turns = [len(list(port.pool.events())) for _ in range(4)]
    assert turns == [most, most, most, 0]
    assert len(woken) == 3, "what was left is not forgotten until something else happens"


# What it may say once it has a place


class Busy(Room):
    """A worker at work for one client, and somebody who asks how things are."""

    def __init__(self) -> None:
        super().__init__(PLAIN)
        ((_, self.key),) = self.ask("small")
        self.broker.on_client(b"looks on", m.Hello(L.PROTOCOL, "test", "looks-on"), [], 0.0)

    def frames(self, count: int) -> list[object]:
        picture = bytearray(64 * 64 * 3)
        return [a for index in range(count) for a in self.broker.on_worker(0, raw(self, index % 9), [picture], 0.0)]

    def status(self) -> m.ToClient:
        (answer,) = self.broker.on_client(b"looks on", m.Status(), [], 0.0)
        assert isinstance(answer, ToClient)
        return answer.message


def raw(room: Busy, index: int) -> m.ToClient:
    return m.Frame(room.key, index, 64, 64, "raw")


def test_more_frames_than_the_clip_has_cost_the_worker_its_place_and_no_client_anything() -> None:
    room = Busy()
    actions = room.frames(L.MAX_FRAMES + 1)
    assert isinstance(room.status(), m.Report)
    assert actions.count(Replace(0)) == 1
    (end,) = [a.message for a in actions if isinstance(a, ToClient) and isinstance(a.message, m.Failed)]
    assert end.retryable
    assert "more frames than the clip has" in end.message


def test_the_control_as_many_as_it_has_are_sent() -> None:
    room = Busy()
    assert len([a for a in room.frames(9) if isinstance(a, ToClient)]) == 9
    assert not handed(room.broker.on_worker(0, m.Done(room.key, "finished", 9, 1, "small", "1"), [], 0.0))


LONG = "x" * L.MAX_SENTENCE_CHARS


def large(prefix: str) -> Skill:
    """Engines that take most of what a client reads."""
    missing = tuple(LONG for _ in range(L.MAX_MISSING_FILES))
    infos = (evolve(SMALL, id=f"{prefix}{n}", available=False, missing=missing) for n in range(3))
    return Skill((SMALL, *infos), "small")


def test_engines_that_no_client_could_be_told_of_are_refused_and_clients_are_still_welcome() -> None:
    room = Room(large("a"), places=1)
    room.broker.on_worker_came(1, 7, "cpu", 0.0)
    actions = room.broker.on_worker(1, welcome(large("b")), [], 0.0)
    assert [type(action) for action in actions] == [Refuse]
    (answer,) = room.broker.on_client(b"new", m.Hello(L.PROTOCOL, "test", "new"), [], 0.0)
    assert isinstance(answer, ToClient)
    encode(answer.message)


def test_a_worker_that_is_another_one_each_time_it_comes_is_not_remembered_for_ever() -> None:
    room = Room(PLAIN, places=1)
    for number in range(3 * L.MAX_WORKERS):
        room.broker.on_worker_came(1, 7, "cpu", 0.0)
        room.broker.on_worker(
            1, welcome(Skill((evolve(SMALL, title=f"{number}"), *ABLE.engines[:2]), "small")), [], 0.0
        )
        room.broker.on_worker_gone(1, "gone", 0.0, was_ended=True)
    assert len(room.broker._crew._skills) <= L.MAX_WORKERS
    assert PLAIN in room.broker._crew._skills, "that of a worker that is here"
