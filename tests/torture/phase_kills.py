"""SIGKILL to worker, front, supervisor or owner, at a random instant of a request's life.

A client's stream has to come through all of it. After the death of a supervisor or an owner everything below must be
gone, and another server takes the place, as an editor would start one.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator
from typing import get_args

import psutil
from attrs import define
from servers import request
from sfwire.client import Client
from sfwire.errors import WireError
from sfwire.request import Request

from .figures import Plan
from .frames import follow
from .house import House, Role

INSTANTS = ("start-up", "submit", "mid-frame", "cancel", "end")
FRAMES = 25
LAST_HALF_S = 0.6
"""Of start-up: how long after its birth a process may be killed as a starting one."""
CASES_A_CLIENT = 20


@define
class Kill:
    """One case: who dies, when, and the server it belongs to."""

    plan: Plan
    house: House
    rng: random.Random
    victim: Role
    instant: str
    name: str

    def strike(self, within_s: float = 0.02) -> None:
        """Kill, in a moment. What the victim's death ends must end; then a server is there again."""
        process = self.house.find(self.victim)
        time.sleep(self.rng.uniform(0, within_s))
        if process is not None:
            with contextlib.suppress(psutil.Error):
                process.kill()
                self.plan.figures.counts[f"kills of {self.victim}"] += 1
                self.plan.figures.counts[f"kills at {self.instant}"] += 1
        if self.victim in ("supervisor", "owner"):
            self.house.wait_gone(self.plan.figures, self.name)
            self.house.start()

    def strike_a_starting_one(self) -> None:
        """Kill it, and then the one that comes in its place."""
        old = self.house.find(self.victim)
        if self.victim in ("supervisor", "owner"):
            self.house.stop(self.plan.figures, self.name)
            self.house.start()
        elif old is not None:
            with contextlib.suppress(psutil.Error):
                old.kill()
        self.house.find(self.victim, but=old.pid if old else 0)
        self.strike(LAST_HALF_S)


def run(plan: Plan) -> Iterator[None]:
    house = House(plan.folder / "kills")
    house.start()
    house.wait_ready()
    client: Client | None = None
    try:
        for number, rng in plan.cases():
            if client is None or number % CASES_A_CLIENT == 0:
                if client is not None:
                    client.close()
                client = house.client(name="kills")
            victim, instant = rng.choice(get_args(Role)), rng.choice(INSTANTS)
            case = Kill(plan, house, rng, victim, instant, f"case {number} ({victim} at {instant})")
            try:
                if not house.standing:
                    house.start()
                    house.wait_ready()
                _one(case, client)
            except (WireError, TimeoutError) as error:
                plan.figures.find("broken", f"{case.name}: {error}")
                client.close()
                client = None
                house.stop(plan.figures, case.name)
            yield
    finally:
        if client is not None:
            client.close()
        house.stop(plan.figures, "at the end")
        house.remove()


def _one(case: Kill, client: Client) -> None:
    figures, rng = case.plan.figures, case.rng
    wanted = request(FRAMES, seed=rng.randrange(10**6), delay_ms=rng.choice([0.0, 2.0]))
    if case.instant == "start-up":
        with client.submit(wanted) as stream:
            case.strike_a_starting_one()
            follow(stream, wanted).count(figures, case.name)
        return
    at = {"submit": 0, "end": FRAMES - 3}.get(case.instant, rng.randrange(1, 15))
    _interrupted(case, client, wanted, at)
    if case.instant in ("cancel", "end"):  # the death must cost those who come after nothing
        after = request(5, seed=rng.randrange(10**6))
        with client.submit(after) as stream:
            follow(stream, after).count(figures, f"{case.name}, the next")


def _interrupted(case: Kill, client: Client, wanted: Request, at: int) -> None:
    """A stream in which the blow falls once `at` pictures have come."""
    with client.submit(wanted) as stream:

        def on_picture(count: int) -> None:
            if count == at:
                if case.instant == "cancel":
                    stream.cancel()
                case.strike()

        if at == 0:
            case.strike()
        followed = follow(stream, wanted, on_picture)
        followed.cancelled = case.instant == "cancel"
        followed.count(case.plan.figures, case.name)
