"""A working day in short: clips, cancels, slow readers, absurd messages; memory and descriptors are watched."""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Iterator

import psutil
import zmq
from attrs import define, field
from servers import request
from sfwire import connection as connections
from sfwire import limits as L
from sfwire import messages as m
from sfwire.channel import Context, connect
from sfwire.codec import encode
from sfwire.errors import WireError

from .figures import Plan
from .frames import Followed, follow
from .house import House, role_of
from .mutate import mutated

CLIENTS = 3
STEP_S = 5.0
"""A case."""
WARM = 0.25
"""Of the samples: what is taken for the beginning comes after this share."""
MAX_GROWTH = 1.05
MIN_GROWTH_BYTES = 8 * 2**20
"""Less than this is noise of the allocator, whatever the ratio."""


@define
class Watch:
    """Memory and descriptors of every process of a house, again and again."""

    house: House
    memory: dict[str, list[int]] = field(factory=lambda: defaultdict[str, list[int]](list))
    descriptors: dict[str, list[int]] = field(factory=lambda: defaultdict[str, list[int]](list))

    def look(self) -> None:
        for process in (psutil.Process(), *self.house.members()):
            try:
                name = f"{role_of(process) or 'client'} {process.pid}"
                self.memory[name].append(process.memory_info().rss)
                self.descriptors[name].append(process.num_fds())
            except psutil.Error:
                continue

    def judge(self, plan: Plan) -> None:
        most = longest = 0
        for name, samples in self.memory.items():
            longest = max(longest, len(samples))
            if len(samples) < 8:
                continue
            begun, ended = _ends(samples)
            growth = ended / begun
            role = name.split()[0]
            plan.figures.measured[f"{role} memory x"] = max(growth, plan.figures.measured.get(f"{role} memory x", 0.0))
            if growth > MAX_GROWTH and ended - begun > MIN_GROWTH_BYTES:
                plan.figures.find("broken", f"{name} grew from {begun / 2**20:.0f} to {ended / 2**20:.0f} MB")
            first, last = _ends(self.descriptors[name])
            most = max(most, int(last - first))
        plan.figures.measured["descriptors more"] = most
        plan.figures.measured["samples"] = longest
        if most > 2:
            plan.figures.find("broken", f"{most} descriptors more at the end")


def _ends(samples: list[int]) -> tuple[float, float]:
    """The middle of a quarter at the beginning, once it is warm, and of the last one."""
    warm = samples[int(len(samples) * WARM) :]
    quarter = max(1, len(warm) // 4)
    return statistics.median(warm[:quarter]), statistics.median(warm[-quarter:])


def run(plan: Plan) -> Iterator[None]:
    house = House(plan.folder / "soak", {"workers": 2})
    house.start()
    house.wait_ready()
    watch = Watch(house)
    enough = threading.Event()
    lock = threading.Lock()
    threads = [
        threading.Thread(target=_use, args=(plan, house, number, enough, lock), daemon=True)
        for number in range(CLIENTS)
    ]
    for thread in threads:
        thread.start()
    try:
        for _ in plan.cases():
            enough.wait(STEP_S)
            watch.look()
            yield
    finally:
        enough.set()
        for thread in threads:
            thread.join(180)
        watch.judge(plan)
        house.stop(plan.figures, "at the end")
        house.remove()


def _use(plan: Plan, house: House, number: int, enough: threading.Event, lock: threading.Lock) -> None:
    rng = random.Random(f"{plan.figures.seed} soak {number}")
    context: Context = zmq.Context()
    while not enough.is_set():
        try:
            with house.client(name=f"soak {number}", window=rng.choice([2, 8, 16])) as client:
                for _ in range(rng.randrange(1, 30)):
                    case, followed = _something(client, rng)
                    with lock:
                        followed.count(plan.figures, case)
                    if enough.is_set():
                        break
            _absurd(house, context, rng)
        except WireError as error:
            with lock:
                plan.figures.find("broken", f"soak: {error}")
            time.sleep(1.0)
    context.destroy(linger=0)


def _something(client: object, rng: random.Random) -> tuple[str, Followed]:
    """One clip: taken whole, cancelled somewhere, or read slowly."""
    frames, way = rng.randrange(3, 60), rng.choice(["whole", "whole", "cancelled", "slow"])
    wanted = request(frames, seed=rng.randrange(10**6), delay_ms=rng.choice([0.0, 1.0, 5.0]))
    at = rng.randrange(1, frames)
    with client.submit(wanted) as stream:  # type: ignore[attr-defined]

        def on_picture(count: int) -> None:
            if way == "cancelled" and count == at:
                stream.cancel()

        followed = follow(stream, wanted, on_picture, pause_s=0.01 if way == "slow" else 0.0)
    followed.cancelled = way == "cancelled"
    return f"{way} clip of {frames}", followed


def _absurd(house: House, context: Context, rng: random.Random) -> None:
    socket = connect(context, connections.read(house.connection_file))
    socket.send_multipart(encode(m.Hello(L.PROTOCOL, "absurd", f"absurd{rng.randrange(10**9)}")))
    for _ in range(rng.randrange(20)):
        socket.send_multipart(mutated(rng))
    socket.close(linger=200)
