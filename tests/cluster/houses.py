"""Ray clusters on loopback, and servers whose workers they place. Whatever these started is gone afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from attrs import define, field

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "serve"))
from servers import Server, end_with_all, eventually  # noqa: E402

TOKENS = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "of-this-test-alone-and-long-enough-to-be-one"}
ON_LOOPBACK = HERE.parents[1] / "examples" / "cluster" / "on_loopback.py"
STOP_S = 120


@define
class House:
    process: subprocess.Popen[str]
    environment: dict[str, str]
    address: str = ""
    raylets: list[int] = field(factory=list)
    """Process ids, one a node, those that were killed included."""

    def hear(self) -> None:
        assert self.process.stdout is not None
        facts = json.loads(self.process.stdout.readline())
        self.address, self.raylets = facts["address"], facts["raylets"]

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        self.hear()

    def become(self, nodes: int) -> None:
        """As many nodes that live, of one processor each."""
        alive = [index for index, pid in enumerate(self.raylets) if lives(pid)]
        dead = [index for index in range(len(self.raylets)) if index not in alive]
        for index in sorted([*dead, *alive[nodes:]], reverse=True):
            self.tell(f"fall {index}")
        while len(self.raylets) < nodes:
            self.tell("node 1")


@contextmanager
def standing(*node_cpus: int, **variables: str) -> Iterator[House]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | variables
    command = [sys.executable, str(ON_LOOPBACK), *map(str, node_cpus)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment, start_new_session=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        house = House(process, environment)
        house.hear()
        yield house
    finally:
        process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
        left = of_session(process.pid)
        for one in left:
            one.kill()
        process.wait(STOP_S)
        process.stdout.close()
        assert not left, f"left behind: {left}"


def of_session(number: int) -> list[psutil.Process]:
    """Whom Ray has started stays in its session, whoever of those between has died."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with suppress(OSError, psutil.NoSuchProcess):
            if os.getsid(process.pid) == number and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def lives(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


@define
class Served:
    """A server whose workers a cluster places, and what each of them has left word of."""

    server: Server
    notes: Path

    def workers(self) -> dict[int, dict[str, object]]:
        """Those that live, by the process ids of who keeps them."""
        found = {int(note.stem): json.loads(note.read_text()) for note in self.notes.glob("*.json")}
        return {pid: facts for pid, facts in found.items() if lives(pid)}

    def become(self, count: int) -> dict[int, dict[str, object]]:
        eventually(lambda: len(self.workers()) == count)
        return self.workers()

    def idle(self, count: int) -> None:
        """Wait for as many that could take a request, and no other."""
        with self.server.client(name="looks on") as client:
            eventually(lambda: [worker.state for worker in client.status(60.0).workers] == ["idle"] * count)

    def launcher(self) -> psutil.Process:
        def look() -> psutil.Process | None:
            children = psutil.Process(self.server.process.pid).children()
            return next((child for child in children if "sfserver.serve.by_ray" in child.cmdline()), None)

        return eventually(look)


@contextmanager
def served(house: House, folder: Path, **wishes: object) -> Iterator[Served]:
    notes, connection, logs = folder / "notes", folder / "run" / "connection.json", folder / "log"
    notes.mkdir(parents=True)
    command = [sys.executable, str(HERE / "run_by_ray.py"), str(connection), str(logs), house.address, str(notes)]
    given = [f"{name}={value}" for name, value in wishes.items()]
    process = subprocess.Popen([*command, *given], stdout=subprocess.PIPE, text=True, env=house.environment)
    served = Served(Server(process, connection, logs), notes)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "workers join at" in line, line
        eventually(connection.exists)
        yield served
        assert served.server.stop() == 0
        served.become(0)
    finally:
        end_with_all(process)
