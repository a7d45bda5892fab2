"""What a request is known by is worked out beside the front's loop: the hash of up to 212 MB of keyframes (`kept.py`).

Meanwhile whatever else its client says waits behind it, since a Cancel must not overtake its Generate. Nobody else
waits: a small request is hashed where it is, which takes no longer than to hand it over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from attrs import frozen
from sfwire import limits as L
from sfwire import messages as m
from sfwire.codec import Buffer

from .kept import content_of

SMALL_BYTES = 4 * 1024**2
"""Hashed within a few milliseconds: three keyframes of 832x480 RGB8."""
MOST_HELD_BYTES = L.MAX_REQUEST_BYTES
"""Of what waits here. With more than one request of the largest size no client is read until one has its hash."""


@frozen(eq=False)
class Held:
    """One message, whose turn it is once its hash is there."""

    peer: bytes
    message: m.ToServer
    buffers: list[Buffer]
    num_bytes: int
    _hash: Future[str] | None = None

    @property
    def is_whole(self) -> bool:
        return self._hash is None or self._hash.done()

    @property
    def content(self) -> str:
        """Empty where nobody has asked for one. Raises what went wrong with it."""
        return "" if self._hash is None else self._hash.result()


class Contents:
    """`wake`: make the front's loop go round; any thread may call it."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._hasher = ThreadPoolExecutor(1, thread_name_prefix="hash")
        self._held: dict[bytes, deque[Held]] = {}
        """By connection, in the order in which it was said."""
        self._held_bytes = 0

    @property
    def is_full(self) -> bool:
        return self._held_bytes > MOST_HELD_BYTES

    def holds(self, peer: bytes, message: m.ToServer, buffers: list[Buffer]) -> bool:
        """Whether it has to wait: for its own hash, or behind what waits of the same connection."""
        num_bytes = sum(map(len, buffers))
        is_large = isinstance(message, m.Generate) and num_bytes > SMALL_BYTES
        if not is_large and peer not in self._held:
            return False
        hash = None
        if isinstance(message, m.Generate) and is_large:
            hash = self._hasher.submit(content_of, message, buffers)
            hash.add_done_callback(lambda _: self._wake())
        self._held.setdefault(peer, deque()).append(Held(peer, message, buffers, num_bytes, hash))
        self._held_bytes += num_bytes
        return True

    def whole(self) -> Iterator[Held]:
        """What need not wait any more."""
        for peer in list(self._held):
            held = self._held[peer]
            while held and held[0].is_whole:
                self._held_bytes -= held[0].num_bytes
                yield held.popleft()
            if not held:
                del self._held[peer]

    def close(self) -> None:
        self._hasher.shutdown(wait=False, cancel_futures=True)
