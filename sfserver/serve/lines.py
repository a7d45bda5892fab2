"""What each connection makes this process hold, in bytes, as the system counts them.

ZeroMQ hands over a message when its last part has come, and keeps what a peer does not read: a peer could fill the
memory either way, and no message would ever say so. But Linux counts what a connection has received and what its other
end has acknowledged. Held against what we have read and sent, that gives what lies between: unread, and waiting.

Who runs ahead of our reading by more than a request may have (`limits.MAX_UNREAD_BYTES`) is shut, and so is who sends
much in pieces that are no pictures: reading millions of them would take longer than others wait. What waits for a peer
is told to the broker, which holds frames back. On other systems nothing is counted, and nobody is shut.
"""

from __future__ import annotations

import socket as sockets
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress

import structlog
import zmq
from attrs import define
from sfwire import limits as L
from sfwire.channel import Context, Socket
from sfwire.codec import Buffer
from zmq.utils.monitor import parse_monitor_message

_COUNTS = struct.Struct("=QQ")
_COUNTS_AT = 120
"""Of `tcpi_bytes_acked`, followed by `tcpi_bytes_received`, in Linux's struct tcp_info: since 4.2, and for ever."""
_INFO_BYTES = _COUNTS_AT + _COUNTS.size
_EVENTS = zmq.EVENT_ACCEPTED | zmq.EVENT_CLOSED | zmq.EVENT_DISCONNECTED
_BUSY_BYTES = 1024 * 1024
"""A connection this far ahead of us is looked at more often."""
_LARGE_BYTES = 8 * 1024 * 1024
"""Nobody is this far ahead without a message of pictures: of small messages ZeroMQ fetches 256, and the system holds no
more than 6 MiB unless told otherwise."""
_PIECE = b"\x07MESSAGE"
"""How every part begins, in the clear (RFC 26)."""
_SAMPLE_BYTES = 64 * 1024
_MOST_PIECES = L.MAX_PARTS + _SAMPLE_BYTES // (L.MIN_SIDE_PX**2 * L.CHANNELS)
"""In a sample of what a connection sends: the smallest pictures there are."""
LOOK_S = 0.1
BUSY_LOOK_S = 0.01

log = structlog.get_logger("front")


@define(eq=False)
class _Line:
    """One connection. Its descriptor is ZeroMQ's, which may close it at any moment, and the system gives numbers again:
    `other_end` tells whether it is still the same."""

    descriptor: int
    other_end: object
    peer: bytes = b""
    read: int = 0
    """Bytes of the messages that we were given."""
    handed: int = 0
    """Bytes of the messages that we gave away."""
    received: int = 0
    acknowledged: int = 0
    told: int = -1
    """What was last said to be waiting for it."""
    told_of: int = 0
    """Of how much that was handed to it. What came and went between two looks has to be said too: whoever is told adds
    what they send meanwhile."""
    is_shut: bool = False

    @property
    def unread(self) -> int:
        return self.received - self.read

    @property
    def waiting(self) -> int:
        return max(0, self.handed - self.acknowledged)

    @property
    def is_news(self) -> bool:
        return bool(self.waiting) or self.waiting != self.told or self.handed != self.told_of


class Lines:
    """All connections of one listening socket."""

    def __init__(self, context: Context, socket: Socket) -> None:
        self._socket = socket
        self._lines: dict[int, _Line] = {}
        self._peers: dict[bytes, _Line] = {}
        self._monitor: Socket | None = _monitor(context, socket) if sys.platform == "linux" else None
        self._looked_at = float("-inf")
        self._is_busy = False

    @property
    def counts(self) -> bool:
        """Whether this system says what a connection has received and acknowledged."""
        return self._monitor is not None

    @property
    def pause_s(self) -> float:
        """How long nobody needs to look."""
        return BUSY_LOOK_S if self._is_busy else LOOK_S

    def read(self, peer: bytes, descriptor: int, sizes: Sequence[int]) -> None:
        """A message of these parts was taken from `peer`; ZeroMQ says by which descriptor it came."""
        line = self._lines.get(descriptor)
        if line is None:
            return
        if line.peer != peer:  # its first word, or the last ones of the connection that had this descriptor before
            self._peers.pop(line.peer, None)
            line.peer, self._peers[peer] = peer, line
        line.read += sum(map(_on_the_wire, sizes))

    def handed(self, peer: bytes, parts: Sequence[Buffer]) -> None:
        """A message of these parts was given to ZeroMQ for `peer`."""
        if line := self._peers.get(peer):
            line.handed += sum(_on_the_wire(len(part)) for part in parts)

    def look(self, now: float) -> list[tuple[bytes, int]]:
        """Count anew, if it is time, and shut who is too far ahead: (peer, what waits for it) where that changed."""
        gone = [(peer, 0) for peer in self._follow()]
        if now - self._looked_at < self.pause_s:
            return gone
        self._looked_at = now
        for line in self._lines.values():
            _count(line)
        self._judge()
        self._is_busy = any(max(line.unread, line.waiting) > _BUSY_BYTES for line in self._lines.values())
        changed = [line for line in self._peers.values() if line.is_news]
        for line in changed:
            line.told, line.told_of = line.waiting, line.handed
        return gone + [(line.peer, line.waiting) for line in changed]

    def shut(self, peer: bytes) -> None:
        """End the connection: ZeroMQ forgets what it holds for it."""
        if line := self._peers.get(peer):
            _shut(line)

    def close(self) -> None:
        if self._monitor is not None:
            self._socket.monitor(None, 0)
            self._monitor.close(linger=0)

    def _follow(self) -> list[bytes]:
        """Connections come and go: the peers of those that are gone."""
        gone: list[bytes] = []
        while self._monitor is not None and self._monitor.poll(0):
            event = parse_monitor_message(self._monitor.recv_multipart())
            descriptor = int(event["value"])
            old = self._lines.pop(descriptor, None)
            if old is not None and self._peers.get(old.peer) is old:
                del self._peers[old.peer]
                gone.append(old.peer)
            if event["event"] == zmq.EVENT_ACCEPTED:
                with suppress(OSError):
                    self._lines[descriptor] = _Line(descriptor, _other_end(descriptor))
        return gone

    def _judge(self) -> None:
        lines = sorted((line for line in self._lines.values() if not line.is_shut), key=lambda line: line.unread)
        of_all = sum(max(0, line.unread) for line in lines)
        while lines and (line := lines.pop()).unread > _LARGE_BYTES:
            if line.unread > L.MAX_UNREAD_BYTES or of_all > L.MAX_UNREAD_BYTES_OF_ALL or _pieces(line) > _MOST_PIECES:
                log.warning("connection shut", unread=line.unread, of_all=of_all, most=L.MAX_UNREAD_BYTES)
                of_all -= line.unread
                _shut(line)


def _monitor(context: Context, socket: Socket) -> Socket:
    address = f"inproc://connections-of-{id(socket)}"
    socket.monitor(address, _EVENTS)
    monitor: Socket = context.socket(zmq.PAIR)
    monitor.rcvhwm = 0  # ZeroMQ's own thread would wait for us
    monitor.connect(address)
    return monitor


def _on_the_wire(size: int) -> int:
    """Bytes that a part takes: ZeroMQ's frame (RFC 37) around a message of CURVE (RFC 26)."""
    body = size + 33
    return body + (2 if body < 256 else 9)


def _count(line: _Line) -> None:
    with suppress(OSError):  # it is gone, and we are about to be told
        with _Borrowed(line.descriptor) as connection:
            info = connection.getsockopt(sockets.IPPROTO_TCP, sockets.TCP_INFO, _INFO_BYTES)
        if len(info) == _INFO_BYTES:
            line.acknowledged, line.received = _COUNTS.unpack_from(info, _COUNTS_AT)


def _pieces(line: _Line) -> int:
    """How many parts begin in what ZeroMQ has not fetched from the system yet."""
    with suppress(OSError), _Borrowed(line.descriptor) as connection:
        return connection.recv(_SAMPLE_BYTES, sockets.MSG_PEEK | sockets.MSG_DONTWAIT).count(_PIECE)
    return 0


def _shut(line: _Line) -> None:
    with suppress(OSError), _Borrowed(line.descriptor) as connection:
        if connection.getpeername() == line.other_end:
            connection.shutdown(sockets.SHUT_RDWR)
            line.is_shut = True


def _other_end(descriptor: int) -> object:
    with _Borrowed(descriptor) as connection:
        return connection.getpeername()


class _Borrowed:
    """Somebody else's descriptor as a socket, which is not closed. Raises OSError where it is no socket any more."""

    def __init__(self, descriptor: int) -> None:
        self._socket = sockets.socket(sockets.AF_INET, sockets.SOCK_STREAM, 0, descriptor)

    def __enter__(self) -> sockets.socket:
        return self._socket

    def __exit__(self, *_: object) -> None:
        self._socket.detach()
