"""What a connection makes the front hold is counted, bounded, and given up with the connection that is shut."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import zmq
from attrs import define, field
from sfwire import limits as L
from sfwire.channel import Context, ServerKeys, Socket, connect, listen
from sfwire.connection import Connection

from sfserver.serve import lines as page
from sfserver.serve.front import receive
from sfserver.serve.lines import Lines

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts")
SIZES = 0, 1, 221, 222, 223, 224, 5_000, 100_000, 1_000_000
"""Of parts, on both sides of where ZeroMQ's frames change their form."""


@define
class Road:
    """A listening socket with its lines, and clients of it."""

    server: Socket
    lines: Lines
    dial: Callable[[], Socket]
    watch: Callable[[Socket], Socket]
    """What becomes readable when a client has lost its connection."""
    now: float = 0.0
    waiting: dict[bytes, int] = field(factory=dict)

    def look(self) -> None:
        self.now += 1.0
        self.waiting |= dict(self.lines.look(self.now))

    def hear(self) -> tuple[bytes, list[bytes]]:
        """The next message, with a look before each try, as the front has it."""
        return until(lambda: receive(self.server, self.lines), self.look)  # type: ignore[return-value]

    def unread(self) -> int:
        return sum(line.unread for line in self.lines._lines.values())


def until(found: Callable[[], object], meanwhile: Callable[[], None]) -> object:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        meanwhile()
        if result := found():
            return result
        time.sleep(0.005)
    raise AssertionError("not within 120 s")


@pytest.fixture
def road() -> Iterator[Road]:
    context: Context = zmq.Context()
    keys, secret = ServerKeys.generate()
    with ExitStack() as stack:
        stack.callback(context.destroy, linger=0)
        server, endpoint = stack.enter_context(listen(context, keys, "127.0.0.1", 0))
        lines = Lines(context, server)
        stack.callback(lines.close)

        def dial() -> Socket:
            client = connect(context, Connection(endpoint, keys.public, keys.client_public, secret))
            stack.callback(client.close, linger=0)
            return client

        def watch(client: Socket) -> Socket:
            events: Socket = client.get_monitor_socket(zmq.EVENT_DISCONNECTED)
            stack.callback(events.close, linger=0)
            stack.callback(client.disable_monitor)
            return events

        yield Road(server, lines, dial, watch)


def test_after_any_messages_all_that_came_is_known_to_have_been_read(road: Road) -> None:
    """To the byte: what is miscounted would add up, and shut an honest client one day."""
    client = road.dial()
    client.send(b"hello")
    road.hear()
    road.look()
    handshake = road.unread()
    assert 0 < handshake < 2000
    for size in SIZES:
        client.send_multipart([b"x" * size, b"y" * (size // 2)])
        road.hear()
        road.look()
        assert road.unread() == handshake, size


def test_what_comes_and_goes_between_two_looks_is_said(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is told adds what they send meanwhile: not told, they add it up until they send nothing any more."""

    def told_after_a_message() -> bool:
        road.server.send_multipart([peer, b"header"])
        road.lines.handed(peer, [b"header"])
        client.recv_multipart()
        until(lambda: acknowledged() == line.handed + handshake, lambda: page._count(line))
        said = dict(road.lines.look(road.now + 1.0))
        road.now += 1.0
        return said.get(peer) == 0

    def acknowledged() -> int:
        return line.acknowledged

    client = road.dial()
    client.send(b"hello")
    peer, _ = road.hear()
    (line,) = road.lines._lines.values()
    road.look()
    until(lambda: not line.waiting, road.look)
    road.look()
    handshake = line.acknowledged - line.handed
    assert told_after_a_message()
    monkeypatch.setattr(page._Line, "is_news", property(lambda self: self.waiting != self.told or self.waiting > 0))
    assert not told_after_a_message(), "the control"


def test_what_a_peer_does_not_take_is_counted_and_what_it_takes_is_not(road: Road) -> None:
    client = road.dial()
    client.rcvhwm = 1
    client.send(b"hello")
    peer, _ = road.hear()
    frames = 40
    for _ in range(frames):
        parts = [b"header", bytes(2_000_000)]
        road.server.send_multipart([peer, *parts])
        road.lines.handed(peer, parts)
    until(lambda: road.waiting.get(peer, 0) > 30_000_000, road.look)  # the rest is in the other end's buffers
    for _ in range(frames):
        assert client.poll(120_000)
        client.recv_multipart()
    until(lambda: road.waiting[peer] == 0, road.look)


def test_who_sends_more_than_a_message_may_have_is_shut_and_nobody_else(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(L, "MAX_UNREAD_BYTES", 8_000_000)
    honest, greedy = road.dial(), road.dial()
    for client in (honest, greedy):
        client.send(b"hello")
        road.hear()
    events = road.watch(greedy)
    greedy.send_multipart([bytes(1_000_000)] * 20, copy=False)
    most = 0

    def look() -> None:
        nonlocal most
        road.look()
        most = max(most, road.unread())

    until(lambda: events.poll(0), look)
    assert most >= 8_000_000
    honest.send_multipart([b"header", bytes(7_000_000)])
    assert len(road.hear()[1]) == 2


def test_the_control_without_the_bound_the_whole_of_it_arrives(road: Road) -> None:
    client = road.dial()
    client.send_multipart([bytes(1_000_000)] * 20, copy=False)
    assert len(road.hear()[1]) == 20


def test_many_connections_together_have_a_bound_too(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(L, "MAX_UNREAD_BYTES_OF_ALL", 12_000_000)
    clients = [road.dial() for _ in range(3)]
    gone = [road.watch(client) for client in clients]
    for client in clients:
        client.send_multipart([bytes(1_000_000)] * 40, copy=False)
    until(lambda: any(monitor.poll(0) for monitor in gone), road.look)


def test_who_sends_shreds_is_shut_before_they_are_many(road: Road) -> None:
    client = road.dial()
    events = road.watch(client)
    client.send_multipart([b""] * 400_000)
    until(lambda: events.poll(0), road.look)


def test_the_control_the_smallest_pictures_are_no_shreds(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    client = road.dial()
    monkeypatch.setattr(page, "_LARGE_BYTES", 1_000_000)
    for _ in range(200):
        client.send_multipart([b"header", *[bytes(L.MIN_SIDE_PX**2 * L.CHANNELS)] * L.MAX_KEYFRAMES])
    until(lambda: road.unread() > page._LARGE_BYTES, road.look)
    for _ in range(200):
        road.hear()


def test_the_control_a_flood_of_small_messages_is_none_either(road: Road) -> None:
    client = road.dial()
    client.sndhwm = 0
    for _ in range(40_000):
        client.send(b"x" * 40)
    for _ in range(40_000):
        road.look()
        if receive(road.server, road.lines) is None:
            road.hear()


def test_of_a_message_of_too_many_parts_no_more_is_kept_than_shows_it(road: Road) -> None:
    client = road.dial()
    client.send_multipart([b"x"] * 5000)
    assert len(road.hear()[1]) == L.MAX_PARTS + 1
    until(lambda: not road.lines._lines, road.look)


def test_a_descriptor_that_is_another_connections_now_is_not_shut(road: Road) -> None:
    client = road.dial()
    client.send(b"hello")
    road.hear()
    (line,) = road.lines._lines.values()
    page._shut(page._Line(line.descriptor, ("127.0.0.1", 1)))  # what is known of the one that had it before
    client.send(b"still here")
    assert bytes(road.hear()[1][0]) == b"still here"
    page._shut(line)  # the control
    until(lambda: not road.lines._lines, road.look)
