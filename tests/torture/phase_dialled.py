"""Workers that dialled in, each by a relay of its own: killed, stopped, frozen, half open, in every state.

The server starts none itself. Whatever is done to one, the other takes its request over, and the first is back later.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from attrs import define, evolve, field
from servers import HERE as SERVE
from servers import SIDE
from sfwire.client import Client
from sfwire.errors import WireError
from sfwire.request import Request

from sfserver.serve import join as joins

from .figures import Plan
from .frames import Followed, follow
from .house import MARK, House
from .proxy import Fault, Proxy, _End, _Pair  # pyright: ignore[reportPrivateUsage]

DEEDS = ("kill", "stop", "freeze", "half open")
STATES = ("dialling", "idle", "asked", "mid-frame", "cancel", "end")
FRAMES = 25
LARGE = 832, 480
"""Of which a frame takes three pieces."""
BACK_WITHIN_S = 120.0
NOTICED_WITHIN_S = 8.0
FOR_GOOD_S = 3600.0


class Relay(Proxy):
    """A half-open connection here is one whose one end is gone and whose other end never hears of it."""

    async def _spoil(self, fault: Fault, pair: _Pair, sink: _End, data: bytes) -> bytes:
        if fault.kind == "half-close":
            (pair.client if fault.to_server else pair.server).reset()
            await asyncio.sleep(FOR_GOOD_S)
        return await super()._spoil(fault, pair, sink, data)


@define
class Machine:
    """Where a worker is kept that dials in through a relay."""

    relay: Relay
    keeper: subprocess.Popen[bytes]

    @property
    def worker(self) -> psutil.Process | None:
        with contextlib.suppress(psutil.Error):
            return next(iter(psutil.Process(self.keeper.pid).children()), None)
        return None

    def suffer(self, deed: str, rng: random.Random) -> None:
        """What is done to its worker or to its network; a stopped worker is as good as a machine without power."""
        process = self.worker
        if deed in ("freeze", "half open"):
            kind = "blackhole" if deed == "freeze" else "half-close"
            self.relay.arm(Fault(kind, to_server=rng.random() < 0.5))
        elif process is not None:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGKILL if deed == "kill" else signal.SIGSTOP)

    def heal(self) -> None:
        """One that is stopped goes on: its connection is somebody else's by now, as it will hear."""
        process = self.worker
        if process is not None:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.heal()
        self.relay.close()
        self.keeper.kill()
        self.keeper.wait(60)


@define
class Case:
    plan: Plan
    client: Client
    machines: list[Machine]
    rng: random.Random
    deed: str
    state: str
    name: str
    moved_at: float = 0.0
    """The blow, or the last picture after it."""
    stood_s: float = 0.0
    """The longest that no picture came after the blow, of those that were to come."""

    def at_work(self) -> Machine:
        """The one that has the request, or will: by what the server says."""
        pids = {w.pid: m for m in self.machines if (w := m.worker) is not None}
        with contextlib.suppress(WireError):
            for one in self.client.status().workers:
                if one.state == "busy" and one.pid in pids:
                    return pids[one.pid]
        return self.rng.choice(self.machines)

    def strike(self, machine: Machine) -> None:
        machine.suffer(self.deed, self.rng)
        self.moved_at = time.monotonic()
        self.plan.figures.counts[f"{self.deed} at {self.state}"] += 1

    def play(self) -> None:
        if self.state == "dialling":
            machine = self.rng.choice(self.machines)
            machine.relay.arm(Fault("reset", to_server=True))
            time.sleep(self.rng.uniform(0, 1.5))
            self.strike(machine)
        elif self.state == "idle":
            self.strike(self.rng.choice(self.machines))
            time.sleep(self.rng.uniform(0, 1.0))
        at = {"asked": 0, "end": FRAMES - 3}.get(self.state, self.rng.randrange(1, 15))
        self._stream(at if self.state in ("asked", "mid-frame", "cancel", "end") else None)
        if self.state in ("cancel", "end"):
            self._stream(None)

    def _stream(self, at: int | None) -> None:
        wanted = self._wanted()
        with self.client.submit(wanted) as stream:

            def on_picture(count: int) -> None:
                if self.moved_at:
                    now = time.monotonic()
                    self.stood_s, self.moved_at = max(self.stood_s, now - self.moved_at), now
                if count == at:
                    if self.state == "cancel":
                        stream.cancel()
                    self.strike(self.at_work())

            if at == 0:
                time.sleep(self.rng.uniform(0, 0.05))
                self.strike(self.at_work())
            followed: Followed = follow(stream, wanted, on_picture)
        followed.cancelled = at is not None and self.state == "cancel"
        followed.count(self.plan.figures, self.name)

    def _wanted(self) -> Request:
        width, height = self.rng.choice([(SIDE, SIDE), LARGE])
        keyframes = tuple((at, bytes(width * height * 3)) for at in (0, FRAMES - 1))
        return Request(keyframes, width, height, FRAMES, seed=self.rng.randrange(10**6), params={"delay_ms": 10.0})


@define
class Scene:
    """A server, two machines, a client, and how long streams stood still by what was done."""

    house: House
    machines: list[Machine] = field(factory=list[Machine])
    stood_s: dict[str, list[float]] = field(factory=dict[str, list[float]])

    def begin(self) -> None:
        self.house.start()
        path = joins.beside(self.house.connection_file)
        deadline = time.monotonic() + BACK_WITHIN_S
        while not path.exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"no join file; {self.house.said[-300:]}")
            time.sleep(0.02)
        self.machines = [self._machine(path, number) for number in range(2)]
        self.house.wait_ready()

    def _machine(self, path: Path, number: int) -> Machine:
        join = joins.read(path)
        host, port = join.endpoint.removeprefix("tcp://").rsplit(":", 1)
        relay = Relay(lambda: (host, int(port)))
        folder = self.house.folder / f"machine{number}"
        joins.write(evolve(join, endpoint=f"tcp://127.0.0.1:{relay.port}"), folder / "join.json")
        command = [sys.executable, str(SERVE / "run_joiner.py"), str(folder / "join.json"), str(folder)]
        with (self.house.log_dir / f"machine{number}.log").open("ab") as said:
            environment = os.environ | {MARK: self.house.mark}
            return Machine(relay, subprocess.Popen(command, stdout=said, stderr=said, env=environment))

    def lost(self, client: Client) -> int:
        """How often the server has lost those that are there now."""
        return sum(worker.restarts for worker in client.status().workers)

    def wait_noticed(self, client: Client, before: int) -> None:
        """Until the server has lost somebody, so that no blow falls into the next case. It may have met nobody."""
        deadline = time.monotonic() + NOTICED_WITHIN_S
        while time.monotonic() < deadline:
            with contextlib.suppress(WireError):
                if self.lost(client) > before:
                    return
            time.sleep(0.05)

    def wait_for_both(self, client: Client) -> None:
        deadline = time.monotonic() + BACK_WITHIN_S
        while True:
            with contextlib.suppress(WireError):
                if [worker.state for worker in client.status().workers] == ["idle", "idle"]:
                    return
            if time.monotonic() > deadline:
                raise TimeoutError("a worker did not come back")
            time.sleep(0.05)

    def end(self) -> None:
        for machine in self.machines:
            machine.close()
        self.machines = []

    def measure(self, plan: Plan, case: Case) -> None:
        if case.state not in ("asked", "mid-frame"):
            return
        stood = self.stood_s.setdefault(case.deed, [])
        stood.append(case.stood_s)
        plan.figures.measured[f"{case.deed}: stood still s, median"] = statistics.median(stood)
        plan.figures.measured[f"{case.deed}: most"] = max(stood)


def run(plan: Plan) -> Iterator[None]:
    scene = Scene(House(plan.folder / "dialled", {"workers": 0, "workers_from": "tcp://127.0.0.1:0"}))
    try:
        for number, rng in plan.cases():
            deed = DEEDS[number % len(DEEDS)]
            state = STATES[number // len(DEEDS) % len(STATES)] if not plan.quick else rng.choice(STATES)
            name = f"case {number} ({deed} at {state})"
            try:
                if not scene.machines:
                    scene.begin()
                with scene.house.client(name="dialled") as client:
                    scene.wait_for_both(client)
                    lost = scene.lost(client)
                    case = Case(plan, client, scene.machines, rng, deed, state, name)
                    case.play()
                    scene.measure(plan, case)
                    scene.wait_noticed(client, lost)
                    for machine in scene.machines:
                        machine.heal()
            except (WireError, TimeoutError) as error:
                plan.figures.find("broken", f"{name}: {error}")
                scene.end()
                scene.house.clear()
            yield
    finally:
        scene.end()
        scene.house.stop(plan.figures, "at the end")
        scene.house.remove()
