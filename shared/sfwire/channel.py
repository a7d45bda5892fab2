"""The one place that makes a socket of the wire: CURVE, limits, high-water marks, no lingering.

CURVE is not an option. On loopback, too, a plain ZeroMQ socket can be reached by a web page's POST (measured; see
PROTOCOL.md, "Transport"), and any other user of the machine.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import zmq
from attrs import field, frozen
from zmq.auth.thread import ThreadAuthenticator

from . import limits as L
from .connection import Connection

_ZAP_DOMAIN = "sfserver"
Socket = zmq.Socket[bytes]
Context = zmq.Context[Socket]


@frozen
class ServerKeys:
    """The server's key pair and the only client key that it listens to. Z85 text."""

    public: str
    secret: str = field(repr=False)
    client_public: str

    @staticmethod
    def generate() -> tuple[ServerKeys, str]:
        """Fresh keys: (the server's half, the client's secret key for the connection file)."""
        server_public, server_secret = zmq.curve_keypair()
        client_public, client_secret = zmq.curve_keypair()
        keys = ServerKeys(server_public.decode(), server_secret.decode(), client_public.decode())
        return keys, client_secret.decode()


BEAT_S, LOST_AFTER_S = 1.0, 3.0
"""Of a connection with heartbeats: how often each side says that it is there, and how long the other one waits for it.
libzmq's own thread does both, so that a busy process is not taken for a dead one."""


def connect(context: Context, connection: Connection, *, once: bool = False) -> Socket:
    """A DEALER that talks to the server of `connection`, connecting and reconnecting in the background.

    `once`: one connection, with heartbeats; when it is lost nothing comes any more, as its monitor tells.
    """
    socket = _socket(context, zmq.DEALER, connection.endpoint)
    if once:
        _beat(socket)
    socket.curve_serverkey = connection.server_public_key.encode()
    socket.curve_publickey = connection.client_public_key.encode()
    socket.curve_secretkey = connection.client_secret_key.encode()
    socket.reconnect_ivl = -1 if once else 50
    socket.reconnect_ivl_max = 0 if once else 500
    socket.connect(connection.endpoint)
    return socket


@contextmanager
def listen(
    context: Context, keys: ServerKeys, host: str, port: int, *, beats: bool = False
) -> Generator[tuple[Socket, str]]:
    """A ROUTER bound to host:port (0 takes a free one), and its endpoint. Raises zmq.ZMQError if it cannot bind.

    Only peers that hold the key pair of `keys.client_public` get through the handshake. With `beats` a peer that shows
    no sign of life is disconnected.
    """
    authenticator = ThreadAuthenticator(context)
    authenticator.start()
    socket = _socket(context, zmq.ROUTER, host)
    try:
        authenticator.configure_curve_callback(domain=_ZAP_DOMAIN, credentials_provider=_OneKey(keys.client_public))
        socket.curve_server = True
        socket.curve_secretkey = keys.secret.encode()
        socket.zap_domain = _ZAP_DOMAIN.encode()
        socket.router_mandatory = True  # a peer that is gone is an error, not a frame lost in silence
        if beats:
            _beat(socket)
        socket.handshake_ivl = 5000  # a stranger that never finishes the handshake does not stay
        socket.bind(f"tcp://{host}:{port}")
        yield socket, socket.getsockopt_string(zmq.LAST_ENDPOINT)
    finally:
        socket.close(linger=0)
        authenticator.stop()


class _OneKey:
    """Answers ZAP, ZeroMQ's question whether a key may come in (RFC 27)."""

    def __init__(self, client_public: str) -> None:
        self._allowed = client_public.encode()

    def callback(self, domain: str, key: bytes) -> bool:
        return key == self._allowed  # Z85, as it came from the handshake


def _beat(socket: Socket) -> None:
    socket.heartbeat_ivl = round(BEAT_S * 1000)
    socket.heartbeat_timeout = round(LOST_AFTER_S * 1000)


def _socket(context: Context, kind: int, address: str) -> Socket:
    socket: Socket = context.socket(kind)
    socket.ipv6 = "[" in address  # a socket for both would call 127.0.0.1 by an address that few understand
    socket.linger = 0
    socket.maxmsgsize = L.MAX_SOCKET_FRAME_BYTES
    socket.sndhwm = socket.rcvhwm = L.SOCKET_HIGH_WATER_MARK
    return socket
