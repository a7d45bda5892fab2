"""The port for workers: who is let in, who is put off, and who holds which place. No processes, real sockets."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator

import pytest
import zmq
from attrs import evolve
from servers import eventually
from sfwire import limits as L
from sfwire import messages as m
from sfwire.channel import ServerKeys, connect
from sfwire.codec import decode_to_server, encode

from sfserver import __version__
from sfserver.serve import pieces
from sfserver.serve.dialling import JOIN, Dealer, Hello
from sfserver.serve.join import Join, made
from sfserver.serve.pool import Came, Died, Said
from sfserver.serve.remote import RemotePool

PLACES = range(1, 3)


class Port:
    """A pool of two places, and the means to dial in."""

    def __init__(self) -> None:
        self.keys, secret = ServerKeys.generate()
        self.pool = RemotePool(self.keys, "127.0.0.1", 0, PLACES, lambda: None)
        self.join = made(self.pool.endpoint, self.keys, secret)
        self.seen: list[Came | Said | Died] = []
        self._links: list[Dealer] = []
        self._numbers = iter(range(1000))

    def dial(self, name: str = "", join: Join | None = None, **other: object) -> Dealer:
        hello = Hello(name or f"w{next(self._numbers)}", __version__, L.PROTOCOL, "here", 7, "cpu")
        link = Dealer(join or self.join, evolve(hello, **other))  # type: ignore[arg-type]
        self._links.append(link)
        return link

    def until(self, look: Callable[[], object]) -> None:
        def done() -> object:
            self.seen.extend(self.pool.events())
            return look()

        eventually(done)

    def admitted(self, name: str = "", **other: object) -> Dealer:
        link = self.dial(name, **other)
        self.until(lambda: link._is_welcome.is_set())
        assert link.is_welcome, link.why
        return link

    def ended(self, link: Dealer) -> str:
        self.until(lambda: not link._thread.is_alive())
        return link.verdict

    def close(self) -> None:
        for link in self._links:
            link.close()
        self.pool.close()


@pytest.fixture
def port() -> Iterator[Port]:
    port = Port()
    yield port
    port.close()


def test_who_dials_in_gets_a_place_and_messages_go_both_ways(port: Port) -> None:
    link = port.admitted()
    assert port.seen == [Came(1, 7, "cpu of here")]
    link.send(encode(m.Progress("job1", "counting", 1, 2)))
    port.until(lambda: len(port.seen) > 1)
    assert isinstance(port.seen[1], Said)
    assert port.seen[1].message == m.Progress("job1", "counting", 1, 2)
    port.pool.send(1, m.Credit("job1", 9), ())
    assert decode_to_server(link.receive())[0] == m.Credit("job1", 9)


def test_one_that_comes_back_takes_its_own_place_and_the_old_connection_is_told_to_drop_it(port: Port) -> None:
    old = port.admitted("same")
    new = port.admitted("same")
    assert port.seen == [Came(1, 7, "cpu of here"), Died(1, "it has dialled in again", True), Came(1, 7, "cpu of here")]
    old.send(encode(m.Progress("job1", "counting", 1, 2)))
    assert port.ended(old) == "drop"
    assert "somebody else's" in old.why
    assert not [event for event in port.seen if isinstance(event, Said)]
    new.send(encode(m.Progress("job2", "counting", 1, 2)))
    port.until(lambda: isinstance(port.seen[-1], Said))


def test_one_that_was_given_up_is_told_to_drop_what_it_has(port: Port) -> None:
    link = port.admitted()
    assert port.pool.start(1) is None
    assert port.ended(link) == "drop"
    with pytest.raises(EOFError, match="given up"):
        link.receive()
    with pytest.raises(OSError, match="given up"):
        link.send([b"x"])


def test_a_server_that_ends_says_so(port: Port) -> None:
    link = port.admitted()
    port.pool.end_all()
    assert port.ended(link) == "end"


def test_one_that_goes_leaves_its_place_to_the_next(port: Port) -> None:
    port.admitted().close()
    port.until(lambda: len(port.seen) == 2)
    assert port.seen[1] == Died(1, "the connection to its machine was lost", True)
    port.admitted()
    assert port.seen[2] == Came(1, 7, "cpu of here")


def test_more_than_there_are_places_for_are_refused_in_one_sentence(port: Port) -> None:
    port.admitted()
    port.admitted()
    third = port.dial()
    assert port.ended(third) == "refused"
    assert third.why == "2 workers have dialled in, the most there may be; end one first"


@pytest.mark.parametrize("other", [{"version": "0.0.0"}, {"protocol": L.PROTOCOL + 1}])
def test_another_version_is_refused_by_name_and_nobody_else_is_disturbed(port: Port, other: dict[str, object]) -> None:
    port.admitted()
    stranger = port.dial(**other)
    assert port.ended(stranger) == "refused"
    assert f"the server {__version__}" in stranger.why
    assert "install the same version on both" in stranger.why
    assert port.seen == [Came(1, 7, "cpu of here")]


def test_what_is_no_message_costs_its_sender_its_place_alone(port: Port) -> None:
    bad, good = port.admitted(), port.admitted()
    bad.send([b"nonsense"])
    assert port.ended(bad) == "drop"
    assert [event.worker for event in port.seen if isinstance(event, Died)] == [1]
    good.send(encode(m.Progress("job1", "counting", 1, 2)))
    port.until(lambda: isinstance(port.seen[-1], Said))


def test_large_messages_go_both_ways_in_pieces(port: Port) -> None:
    link, picture = port.admitted(), random.Random(1).randbytes(1200 * 1200 * 3)
    keyframes = m.Keyframe(0, 0, 1200, 1200), m.Keyframe(8, 1, 1200, 1200)
    request = m.Generate("job1", "fake", 1200, 1200, 9, keyframes, 1)
    port.pool.send(1, request, (picture, picture))
    port.pool.send(1, m.Credit("job1", 9), ())
    message, buffers = decode_to_server(link.receive())
    assert (message, [bytes(buffer) for buffer in buffers]) == (request, [picture, picture])
    assert decode_to_server(link.receive())[0] == m.Credit("job1", 9)
    link.send(encode(m.Frame("job1", 1, 1200, 1200, "raw", None), [picture]))
    port.until(lambda: len(port.seen) > 1)
    said = port.seen[1]
    assert isinstance(said, Said)
    assert bytes(said.buffers[0]) == picture


def test_more_than_zeromq_takes_at_once_waits_and_comes(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 1000)
    link, picture = port.admitted(), random.Random(1).randbytes(1200 * 1200 * 3)
    assert len(picture) // 1000 > 4 * L.SOCKET_HIGH_WATER_MARK
    port.pool.send(1, m.Generate("job1", "fake", 1200, 1200, 9, (m.Keyframe(0, 0, 1200, 1200),), 1), (picture,))
    assert bytes(decode_to_server(link.receive())[1][0]) == picture
    link.send(encode(m.Frame("job1", 1, 1200, 1200, "raw", None), [picture]))
    port.until(lambda: len(port.seen) > 1)
    assert isinstance(port.seen[1], Said)


@pytest.mark.parametrize("hello", [b"", b"[]", b"{}", b"x" * 5000, b'{"name": 1}'])
def test_a_hello_that_is_none_is_refused(port: Port, hello: bytes) -> None:
    with zmq.Context() as context, connect(context, port.join.connection) as socket:
        socket.send_multipart([JOIN, hello])
        port.until(lambda: socket.poll(20) and b"refused" in socket.recv_multipart()[-1])
    assert port.seen == []


def test_a_clients_key_and_a_strangers_cannot_serve(port: Port) -> None:
    _, client_secret = (key.decode() for key in zmq.curve_keypair())
    public, secret = (key.decode() for key in zmq.curve_keypair())
    strangers = evolve(port.join, worker_public_key=public, worker_secret_key=secret)
    mixed = evolve(port.join, worker_secret_key=client_secret)
    old = evolve(port.join, server_public_key=public)
    for join in (strangers, mixed, old):
        link = port.dial(join=join)
        assert port.ended(link) == "lost"
        assert not link.is_welcome
    assert port.seen == []
    port.admitted()  # the control: the right keys


def test_closing_ends_its_thread(port: Port) -> None:
    port.admitted()
    port.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "remote workers" and thread.is_alive()]
