"""Large messages between a worker that dialled in and its server, in pieces, so that signs of life come between.

Who hears nothing whole for three seconds takes the connection for dead, libzmq by its own heartbeats and a worker by
the server's. A request with eight keyframes of 4K takes a minute of a network that is quite alive. So each piece is a
message of its own, and shows that the other side lives.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from sfwire import limits as L
from sfwire.codec import Buffer

MESSAGE, LAYOUT, PIECE = b"m", b"l", b"p"
"""First part of a whole message; of the sizes of the parts of one that comes in pieces; of a piece."""
PIECE_BYTES = 512 * 1024
"""Crosses a network of 1.4 Mbit/s within three seconds."""
_MOST_BYTES = L.MAX_REQUEST_BYTES + L.MAX_HEADER_BYTES
_SIZE_BYTES = 8


def cut(parts: Sequence[Buffer]) -> Iterator[list[Buffer]]:
    """A message of the wire as messages of the link, to be sent in this order."""
    sizes = [len(part) for part in parts]
    if sum(sizes) <= PIECE_BYTES:
        yield [MESSAGE, *parts]
        return
    yield [LAYOUT, struct.pack(f"<{len(sizes)}Q", *sizes)]
    for part in parts:
        view = memoryview(part)
        for at in range(0, len(part), PIECE_BYTES):
            yield [PIECE, view[at : at + PIECE_BYTES]]


class Joined:
    """What comes by one connection, whole again."""

    def __init__(self) -> None:
        self._parts: list[bytearray] = []
        self._missing: list[memoryview] = []
        """What is still to come of each part, the last part first."""

    def take(self, frames: Sequence[Buffer]) -> list[Buffer] | None:
        """The message that is whole by this, if one is. Raises ValueError for what fits nowhere."""
        kind = bytes(frames[0][:2])
        if kind == MESSAGE and not self._missing:
            return list(frames[1:])
        if kind == LAYOUT and not self._missing and len(frames) == 2:
            self._begin(_sizes(bytes(frames[1][: (L.MAX_PARTS + 1) * _SIZE_BYTES])))
        elif kind == PIECE and self._missing and len(frames) == 2 and len(frames[1]) <= len(self._missing[-1]):
            self._fill(frames[1])
        else:
            raise ValueError("a piece that fits nowhere")
        if self._missing:
            return None
        parts, self._parts = self._parts, []
        return list(parts)

    def _begin(self, sizes: Sequence[int]) -> None:
        self._parts = [bytearray(size) for size in sizes]
        self._missing = [memoryview(part) for part in reversed(self._parts) if part]

    def _fill(self, piece: Buffer) -> None:
        missing = self._missing.pop()
        missing[: len(piece)] = piece
        if len(piece) < len(missing):
            self._missing.append(missing[len(piece) :])


def _sizes(layout: bytes) -> Sequence[int]:
    """Raises ValueError where they are more than any message has."""
    count, rest = divmod(len(layout), _SIZE_BYTES)
    sizes: tuple[int, ...] = struct.unpack(f"<{count}Q", layout) if not rest else ()
    if not 1 <= count <= L.MAX_PARTS or sum(sizes) > _MOST_BYTES or not any(sizes):
        raise ValueError("sizes that no message has")
    return sizes
