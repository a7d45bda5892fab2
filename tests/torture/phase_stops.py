"""SIGSTOP to worker, front or supervisor in mid-stream: for a while, for good, or until it is killed as it stands."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from collections.abc import Iterator

import psutil
from servers import request
from sfwire.errors import WireError

from .figures import Plan
from .frames import follow
from .house import House, Role

VICTIMS: tuple[Role, ...] = ("worker", "front", "supervisor")
ENDS = ("goes on", "is killed", "stays")
BEAT_TIMEOUT_S = 3.0
FRAMES = 25
STOP_S = 0.1, 6.0


def run(plan: Plan) -> Iterator[None]:
    house = House(plan.folder / "stops", {"beat_timeout_s": BEAT_TIMEOUT_S})
    try:
        for number, rng in plan.cases():
            victim, end = rng.choice(VICTIMS), rng.choice(ENDS)
            name = f"case {number} ({victim} {end})"
            try:
                if not house.standing:
                    house.start()
                house.wait_ready()
                _one(plan, house, rng, victim, end, name)
            except (WireError, TimeoutError) as error:
                plan.figures.find("broken", f"{name}: {error}")
                house.clear()
            yield
    finally:
        house.stop(plan.figures, "at the end")
        house.remove()


def _one(plan: Plan, house: House, rng: random.Random, victim: Role, end: str, name: str) -> None:
    wanted = request(FRAMES, seed=rng.randrange(10**6), delay_ms=10.0)
    at, stop_s = rng.randrange(1, 15), rng.uniform(*STOP_S)
    process = house.find(victim)
    assert process is not None
    plan.figures.counts[f"stops of {victim}"] += 1

    def later() -> None:
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGCONT if end == "goes on" else signal.SIGKILL)

    timer = threading.Timer(stop_s, later)

    def on_picture(count: int) -> None:
        if count == at:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGSTOP)
            if end != "stays":
                timer.start()

    with house.client(name="stops") as client, client.submit(wanted) as stream:
        followed = follow(stream, wanted, on_picture)
    followed.count(plan.figures, name)
    if end != "stays":
        timer.join()
    if victim == "supervisor" and end != "goes on":
        with contextlib.suppress(psutil.Error):
            process.kill()
        house.wait_gone(plan.figures, name)
    elif end == "stays" or victim == "front":
        time.sleep(0.1)
        with contextlib.suppress(psutil.Error):
            if process.status() == psutil.STATUS_STOPPED:
                plan.figures.find("left", f"{name}: the stopped {victim} is still there")
                process.kill()
