"""Whether the road holds up the device: a paced one through worker, server and client, as a share of its own rate."""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor

from sfwire.client import Client
from sfwire.messages import Encoding
from sfwire.request import Request

from ..serve.road import ENCODERS, as_png
from . import road
from .paced import BLOCK_FRAMES, BLOCK_S, ONE_THREAD, film
from .report import Measure

SIZE = 832, 480
BLOCKS = 6
ROUNDS = 3
WORTH = 0.97


def measure() -> list[Measure]:
    """PNG and raw, by the road and by one thread, in turns."""
    slower = slower_than_the_real_thing()
    shares: dict[tuple[str, bool], list[float]] = {}
    with road.server("sfserver.bench.paced") as now, road.server("sfserver.bench.paced", ONE_THREAD) as before:
        for _ in range(ROUNDS):
            for encoding in ("png", "raw"):
                for served, in_turn in ((now, False), (before, True)):
                    share = share_of_pace(served.client, encoding, slower, in_turn)
                    shares.setdefault((encoding, in_turn), []).append(share)
    return [_measure(encoding, in_turn, taken, slower) for (encoding, in_turn), taken in shares.items()]


def _measure(encoding: str, in_turn: bool, shares: list[float], slower: float) -> Measure:
    pace = (
        f"one of {1000 * BLOCK_S:.0f} ms" if slower == 1 else f"one {slower:g} times as slow, as this machine is busy,"
    )
    how = (
        f"frames/s at the client over the device's own, {pace} for {BLOCK_FRAMES} frames of {SIZE[0]}x{SIZE[1]}; "
        f"median of {len(shares)}, {min(shares):.3f} to {max(shares):.3f}"
    )
    name = f"{'one thread' if in_turn else 'road'} at a device's pace, {encoding}"
    return Measure(name, statistics.median(shares), None if in_turn else WORTH, "high", "x", how)


def slower_than_the_real_thing() -> float:
    """How many times as slow the device has to be for encoding to need half of its time at most, as things are here."""
    pictures = list(film(*SIZE, BLOCK_FRAMES))
    with ThreadPoolExecutor(ENCODERS) as pool:
        list(pool.map(as_png, pictures))
        began = time.perf_counter()
        list(pool.map(as_png, pictures))
        block_s = time.perf_counter() - began
    return max(1.0, round(4 * block_s / BLOCK_S) / 2)


def share_of_pace(client: Client, encoding: Encoding, slower: float, in_turn: bool) -> float:
    """Of the device's own rate, from the first block's last picture to the last block's."""
    width, height = SIZE
    count = BLOCKS * BLOCK_FRAMES
    request = Request(
        ((0, bytes(width * height * 3)),),
        width,
        height,
        count,
        engine="paced",
        params={"slower": slower, "in_turn": in_turn},
        encoding=encoding,
    )
    with client.submit(request) as stream:
        arrivals = [time.perf_counter() for _ in stream]
    assert len(arrivals) == count - 1
    return (BLOCKS - 1) * BLOCK_S * slower / (arrivals[-1] - arrivals[BLOCK_FRAMES - 2])
