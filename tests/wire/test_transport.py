"""Who is heard on the socket: holders of the client key, and nobody else."""

from __future__ import annotations

import socket as sockets
from collections.abc import Iterator

import attrs
import pytest
import zmq
from sfwire.channel import Context, ServerKeys, connect, listen
from sfwire.connection import Connection

POST = (
    b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: https://example.org\r\n"
    b"Content-Type: text/plain\r\nContent-Length: 40\r\n\r\n"
)
GREETING_OF_ZMTP_2 = b"\xff" + bytes(8) + b"\x7f" + b"\x01\x05\x00\x00" + b"\x01\x00" + b"\x00\x04evil"
"""What a page's POST can carry in its body to a plain socket: the signature, then a message."""


@pytest.fixture
def context() -> Iterator[Context]:
    context: Context = zmq.Context()
    yield context
    context.destroy(linger=0)


def port_of(endpoint: str) -> int:
    return int(endpoint.rsplit(":", 1)[1])


def shout(port: int, data: bytes) -> None:
    with sockets.create_connection(("127.0.0.1", port), timeout=60) as stranger:
        stranger.sendall(data)
        stranger.settimeout(0.3)
        try:
            while stranger.recv(1024):
                pass
        except TimeoutError:
            pass
        except ConnectionError:
            pass


def test_the_holder_of_the_key_is_heard(context: Context) -> None:
    keys, secret = ServerKeys.generate()
    with listen(context, keys, "127.0.0.1", 0) as (router, endpoint):
        dealer = connect(context, Connection(endpoint, keys.public, keys.client_public, secret))
        dealer.send(b"hello")
        assert router.poll(60_000)
        assert router.recv_multipart()[1] == b"hello"
        dealer.close()


def test_a_client_with_keys_of_its_own_is_not_heard(context: Context) -> None:
    keys, _ = ServerKeys.generate()
    public, secret = zmq.curve_keypair()
    with listen(context, keys, "127.0.0.1", 0) as (router, endpoint):
        dealer = connect(context, Connection(endpoint, keys.public, public.decode(), secret.decode()))
        dealer.send(b"hello")
        assert not router.poll(700)
        dealer.close()


def test_a_client_that_takes_another_server_for_ours_sends_it_nothing(context: Context) -> None:
    ours, secret = ServerKeys.generate()
    theirs = attrs.evolve(ServerKeys.generate()[0], client_public=ours.client_public)
    with listen(context, theirs, "127.0.0.1", 0) as (router, endpoint):
        dealer = connect(context, Connection(endpoint, ours.public, ours.client_public, secret))
        dealer.send(b"a keyframe")
        assert not router.poll(700)
        dealer.close()


@pytest.mark.parametrize("data", [POST, GREETING_OF_ZMTP_2, POST + GREETING_OF_ZMTP_2], ids=["http", "zmtp", "both"])
def test_an_http_request_and_a_plain_peer_deliver_nothing(context: Context, data: bytes) -> None:
    keys, _ = ServerKeys.generate()
    with listen(context, keys, "127.0.0.1", 0) as (router, endpoint):
        shout(port_of(endpoint), data)
        assert not router.poll(300)


def test_the_control_a_socket_without_curve_is_reached(context: Context) -> None:
    plain = context.socket(zmq.ROUTER)
    port = plain.bind_to_random_port("tcp://127.0.0.1")
    shout(port, GREETING_OF_ZMTP_2)
    assert plain.poll(60_000), "without CURVE a stranger's bytes arrive as a message"
    plain.close()


def test_a_frame_over_the_limit_never_arrives_and_one_below_does(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sfwire.limits.MAX_SOCKET_FRAME_BYTES", 100_000)
    keys, secret = ServerKeys.generate()
    with listen(context, keys, "127.0.0.1", 0) as (router, endpoint):
        dealer = connect(context, Connection(endpoint, keys.public, keys.client_public, secret))
        dealer.send(bytes(99_000))  # CURVE adds a few bytes
        assert router.poll(60_000)
        router.recv_multipart()
        dealer.send(bytes(100_001))
        assert not router.poll(500)
        dealer.close()
