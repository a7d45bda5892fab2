"""What a worker speaks through: the wire's own messages, by the pipe of its parent or by a connection that it made.

`Link` is what a worker knows of either; the other form is `Dealer` in `dialling.py`.

A pipe that only parent and child hold needs no CURVE, no port and no keys, and its end of file is the surest sign of
death there is, in both directions. Layout: part count (u32), one length (u64) for each part, the parts; little-endian.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import BinaryIO, Protocol

from sfwire import limits as L
from sfwire.codec import Buffer

_COUNT = struct.Struct("<I")
_LENGTH = struct.Struct("<Q")
_PIPE_BYTES = 1024 * 1024
"""Linux gives a pipe 64 KiB; a frame of 832x480 RGB8 has 1.2 MB and would take twenty turns."""


class Link(Protocol):
    """Messages in order, each once or, with the end of the link, never."""

    def send(self, parts: Sequence[Buffer]) -> None:
        """Any thread, one at a time. Raises OSError or ValueError where the other side is gone."""
        ...

    def receive(self) -> list[Buffer]:
        """The next message, once it is there. Raises EOFError where there will be none."""
        ...

    def close(self) -> None:
        """Let go, after what was sent has left."""
        ...


class Pipe:
    """The link of a worker that the front has started."""

    def __init__(self, source: BinaryIO, sink: BinaryIO) -> None:
        self._source, self._sink = source, sink

    def send(self, parts: Sequence[Buffer]) -> None:
        write(self._sink, parts)

    def receive(self) -> list[Buffer]:
        return list(read(self._source))

    def close(self) -> None:
        with suppress(OSError, ValueError):
            self._sink.close()


def write(stream: BinaryIO, parts: Sequence[Buffer]) -> None:
    """Send one message. Raises OSError or ValueError where the other side is gone or the pipe is closed."""
    lengths = b"".join(_LENGTH.pack(len(part)) for part in parts)
    stream.write(_COUNT.pack(len(parts)) + lengths)
    for part in parts:
        stream.write(part)
    stream.flush()


def read(stream: BinaryIO) -> list[bytearray]:
    """The next message. Raises EOFError at the end of the pipe."""
    (count,) = _COUNT.unpack(_exactly(stream, _COUNT.size))
    if not 1 <= count <= L.MAX_PARTS:
        raise EOFError(f"{count} parts: the pipe is out of step")
    lengths = [_LENGTH.unpack(_exactly(stream, _LENGTH.size))[0] for _ in range(count)]
    if max(lengths) > L.MAX_SOCKET_FRAME_BYTES:
        raise EOFError(f"a part of {max(lengths)} bytes: the pipe is out of step")
    return [_exactly(stream, length) for length in lengths]


def widen(stream: BinaryIO) -> None:
    """Let the pipe hold a whole frame, where the system can."""
    if sys.platform == "linux":
        import fcntl

        with suppress(OSError):  # a user's pipes may together hold only so much
            fcntl.fcntl(stream.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _exactly(stream: BinaryIO, size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        count: int = stream.readinto(view)  # type: ignore[attr-defined]
        if not count:
            raise EOFError("the other side has closed the pipe")
        view = view[count:]
    return data
