"""TCP faults between client and server, through a proxy: at the handshake, at the request, in the middle of frames."""

from __future__ import annotations

import queue
import random
import threading
from collections.abc import Iterator

from attrs import frozen
from servers import BLACK, SIDE
from sfwire import connection as connections
from sfwire.client import Client
from sfwire.errors import WireError
from sfwire.request import Request

from .figures import Plan
from .frames import Followed, follow
from .house import House
from .proxy import KINDS, Fault, Kind, Proxy, server_of

AT_ONCE = 6
"""Cases that run side by side; most of their time is waiting."""
FRAMES = 33
LARGE = 320, 192
"""Pictures of 180 kB, so that faults fall in the middle of one."""


@frozen
class Case:
    number: int
    rng: random.Random
    fault: Fault
    at: int
    """The picture at which it strikes: 0 is before the handshake, 1 as the request is sent."""

    @property
    def name(self) -> str:
        way = "to the server" if self.fault.to_server else "to the client"
        return f"case {self.number} ({self.fault.kind} {way}, {self.fault.seconds:.1f} s, at {self.at})"


def run(plan: Plan) -> Iterator[None]:
    house = House(plan.folder / "network", {"workers": AT_ONCE})
    house.start()
    house.wait_ready()
    cases = [_drawn(number, rng) for number, rng in plan.cases()]
    plan.figures.done -= len(cases)
    waiting: queue.SimpleQueue[Case] = queue.SimpleQueue()
    finished: queue.SimpleQueue[tuple[Case, Followed | WireError, int]] = queue.SimpleQueue()
    for case in cases:
        waiting.put(case)
    for _ in range(AT_ONCE):
        threading.Thread(target=_work, args=(house, waiting, finished), daemon=True).start()
    try:
        for _ in cases:
            case, outcome, struck = finished.get()
            if isinstance(outcome, Followed):
                outcome.count(plan.figures, case.name)
            else:
                plan.figures.find("broken", f"{case.name}: {outcome}")
            plan.figures.counts[f"faults: {case.fault.kind}"] += struck
            plan.figures.counts["faults that met bytes"] += struck
            plan.figures.done += 1
            yield
    finally:
        while not waiting.empty():
            waiting.get()
        house.stop(plan.figures, "at the end")
        house.remove()


def _drawn(number: int, rng: random.Random) -> Case:
    kind: Kind = KINDS[number % len(KINDS)]
    long = kind in ("stall", "refuse", "reorder") and rng.random() < 0.3
    seconds = rng.uniform(4.0, 8.0) if long else rng.uniform(0.1, 2.0)
    return Case(number, rng, Fault(kind, rng.random() < 0.5, seconds), rng.choice([0, 1, *range(2, 20)]))


def _work(
    house: House,
    waiting: queue.SimpleQueue[Case],
    finished: queue.SimpleQueue[tuple[Case, Followed | WireError, int]],
) -> None:
    while True:
        try:
            case = waiting.get_nowait()
        except queue.Empty:
            return
        proxy = Proxy(server_of(lambda: connections.read(house.connection_file)))
        try:
            finished.put((case, _stream(house, proxy, case), proxy.struck))
        except WireError as error:
            finished.put((case, error, proxy.struck))
        finally:
            proxy.close()


def _stream(house: House, proxy: Proxy, case: Case) -> Followed:
    width, height = case.rng.choice([(SIDE, SIDE), LARGE])
    black = BLACK if width == SIDE else bytes(width * height * 3)
    keyframes = ((0, black), (FRAMES - 1, black))
    wanted = Request(keyframes, width, height, FRAMES, seed=case.rng.randrange(10**6), params={"delay_ms": 5.0})
    if case.at == 0:
        proxy.arm(case.fault)
    with Client(lambda: proxy.through(connections.read(house.connection_file)), name="network") as client:
        if case.at > 0:
            client.wait_ready(60)
        if case.at == 1:
            proxy.arm(case.fault)

        def on_picture(count: int) -> None:
            if count == case.at and case.at > 1:
                proxy.arm(case.fault)

        with client.submit(wanted) as stream:
            return follow(stream, wanted, on_picture)
