"""Who dials in with other keys, without an engine, with a wrong clock, or to a server that was started anew."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import zmq
from attrs import evolve
from dialled import House, joined, listening
from servers import HERE, assert_all_there, eventually, request
from sfwire import connection as connections
from sfwire import limits as L
from sfwire import messages as m
from sfwire.channel import Context, connect
from sfwire.codec import decode_to_client, encode
from sfwire.connection import Connection
from zmq.utils.monitor import parse_monitor_message

from sfserver import __version__
from sfserver.errors import USER_ERROR
from sfserver.serve import join as joins
from sfserver.serve.dialling import Dealer, Hello
from sfserver.serve.join import Join


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A server with one worker, which has dialled in."""
    with listening(tmp_path_factory.mktemp("house")) as house:
        house.join("one")
        with house.server.client() as client:
            client.wait_ready(120)
        yield house


@pytest.fixture
def context() -> Iterator[Context]:
    context: Context = zmq.Context()
    yield context
    context.destroy(linger=0)


def assert_all_is_well(house: House) -> None:
    with house.server.client() as client:
        wanted = request(9)
        assert_all_there(list(client.submit(wanted)), wanted)


def let_in(context: Context, connection: Connection) -> bool:
    """Whether the handshake comes to its end."""
    socket = connect(context, connection)
    monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH)
    event = parse_monitor_message(monitor.recv_multipart())["event"]
    socket.disable_monitor()
    monitor.close(linger=0)
    socket.close(linger=0)
    return event == zmq.EVENT_HANDSHAKE_SUCCEEDED


def test_a_workers_key_cannot_submit(house: House, context: Context) -> None:
    clients, workers = connections.read(house.server.connection_file), joins.read(house.join_file)
    assert clients.client_public_key != workers.worker_public_key
    keys = {"client_public_key": workers.worker_public_key, "client_secret_key": workers.worker_secret_key}
    assert not let_in(context, evolve(clients, **keys))
    assert let_in(context, clients), "the control"


def test_what_a_client_says_at_the_port_for_workers_is_heard_by_nobody(house: House, context: Context) -> None:
    """With a worker's own keys: there are no requests there."""
    socket = connect(context, joins.read(house.join_file).connection)
    socket.send_multipart(encode(m.Hello(L.PROTOCOL, "test", "s")))
    socket.send_multipart(encode(m.Generate("r", "fake", 16, 16, 9, (m.Keyframe(0, 0, 16, 16),), 1), [bytes(768)]))
    for _ in range(2):
        kind, *_ = socket.recv_multipart()
        assert kind in (b"g", b"b"), "told to go, or that the server lives"
    socket.close(linger=0)
    with house.server.client() as client:
        client.wait_ready(120)
        assert not client.status().jobs
    assert_all_is_well(house)


def test_a_clients_key_cannot_serve(house: House) -> None:
    clients, workers = connections.read(house.server.connection_file), joins.read(house.join_file)
    hello = Hello("w", __version__, L.PROTOCOL, "elsewhere", 7, "cpu")
    theirs = Join(workers.endpoint, workers.server_public_key, clients.client_public_key, clients.client_secret_key)
    refused, taken = Dealer(theirs, hello), Dealer(workers, hello)
    assert not refused.is_welcome
    assert "does not know the keys" in refused.why
    assert taken.is_welcome, "the control"
    taken.close()
    refused.close()


def test_one_without_any_engine_says_so_and_ends_and_disturbs_nobody(house: House) -> None:
    joiner = house.join("bare", worker=HERE / "no_engines.py")
    assert joiner.process.wait(120) == USER_ERROR
    assert "no engine is complete" in joiner.said()
    assert "nothing here that this worker could serve" in joiner.said()
    assert "Traceback" not in joiner.said()
    assert_all_is_well(house)


def test_one_whose_clock_is_wrong_serves_like_any_other(tmp_path: Path) -> None:
    with listening(tmp_path) as house:
        house.join("1980", worker=HERE / "wrong_clock.py")
        assert_all_is_well(house)


def test_workers_of_a_server_that_was_killed_find_the_next_one_by_its_new_join_file(tmp_path: Path) -> None:
    with listening(tmp_path) as house:
        old = house.join_file.read_bytes()
        with joined(house.join_file, tmp_path / "one", {}) as joiner:
            eventually(lambda: "serving" in joiner.said())
            worker = joiner.worker().pid
            family = [*psutil.Process(house.server.process.pid).children(recursive=True)]
            for process in [psutil.Process(house.server.process.pid), *family]:
                process.kill()
            house.server.process.wait(60)
            with listening(tmp_path) as next_house:
                assert next_house.join_file.read_bytes() != old
                assert_all_is_well(next_house)
                assert joiner.worker().pid == worker, "it kept what it had loaded"


def test_the_control_the_port_for_workers_answers_its_workers(house: House) -> None:
    link = Dealer(joins.read(house.join_file), Hello("x", __version__, L.PROTOCOL, "here", os.getpid(), "cpu"))
    assert link.is_welcome
    info = m.EngineInfo("fake", "Fake", "Counts", "other", "none", False, False, True)
    link.send(encode(m.Welcome(L.PROTOCOL, "w", "t", (info,), "fake", "")))
    with pytest.raises(EOFError, match="version other"):
        decode_to_client(link.receive())
    link.close()
