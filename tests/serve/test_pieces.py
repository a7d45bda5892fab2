"""What is cut into pieces comes whole again, and no piece is longer than a heartbeat may wait."""

from __future__ import annotations

import random
import struct

import pytest
from sfwire import limits as L

from sfserver.serve.pieces import LAYOUT, MESSAGE, PIECE, PIECE_BYTES, Joined, cut


def some(*sizes: int) -> list[bytes]:
    return [random.Random(size).randbytes(size) for size in sizes]


@pytest.mark.parametrize(
    "sizes",
    [
        (10,),
        (10, 0),
        (10, PIECE_BYTES - 10),
        (10, PIECE_BYTES),
        (0, PIECE_BYTES + 1),
        (9, 3 * PIECE_BYTES, 0, 5, 10**6),
    ],
)
def test_a_message_comes_as_it_was_and_no_piece_is_longer_than_may_be(sizes: tuple[int, ...]) -> None:
    parts, joined = some(*sizes), Joined()
    for _ in range(2):  # one after the other
        whole = []
        for frames in cut(parts):
            assert sum(map(len, frames[1:])) <= PIECE_BYTES
            assert not whole, "it was whole before the last of it"
            whole = joined.take(frames) or []
        assert [bytes(part) for part in whole] == parts


def test_what_fits_into_one_piece_is_sent_as_it_is() -> None:
    parts = some(10, 1000)
    assert list(cut(parts)) == [[MESSAGE, *parts]]


LARGE = list(cut(some(10, PIECE_BYTES)))


@pytest.mark.parametrize(
    "said",
    [
        [[PIECE, b"x"]],
        [LARGE[0], [MESSAGE, b"x"]],
        [LARGE[0], LARGE[0]],
        [LARGE[0], [PIECE, bytes(11)]],
        [[LAYOUT]],
        [[LAYOUT, b"1234567"]],
        [[LAYOUT, b""]],
        [[LAYOUT, bytes(8)]],
        [[LAYOUT, struct.pack("<Q", 2**60)]],
        [[LAYOUT, struct.pack("<2Q", L.MAX_REQUEST_BYTES, L.MAX_REQUEST_BYTES)]],
        [[LAYOUT, struct.pack(f"<{L.MAX_PARTS + 1}Q", *[1] * (L.MAX_PARTS + 1))]],
        [[b"?", b"x"]],
    ],
)
def test_what_fits_nowhere_is_refused_before_anything_is_held_for_it(said: list[list[bytes]]) -> None:
    joined = Joined()
    for frames in said[:-1]:
        assert joined.take(frames) is None
    with pytest.raises(ValueError, match=r"fits nowhere|no message has"):
        joined.take(said[-1])
