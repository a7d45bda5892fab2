"""SIGKILL to all of a server's processes and to one of its clients at once, at a random instant, under load.

Another server takes the place at the same connection file, and finds the journal. The clients that live ask again; the
one that was killed comes back as another process and asks for what it has not got. Every stream ends once, whole.
"""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from fake_engines import picture
from servers import SIDE, request
from sfwire.errors import WireError

from sfserver.serve.journal import Journal

from .figures import Figures, Plan
from .frames import PATIENCE_S, Followed, follow
from .house import House

STREAMS = 4
FRAMES = 10
"""Of which 8 are made: as many as a client takes before the program looks, so that no stream waits for another."""
WITHIN_S = 1.5
"""Of asking: so that a blow falls while requests are sent, wait, run, end, or are over."""
COMES_BACK = Path(__file__).with_name("comes_back.py")


def run(plan: Plan) -> Iterator[None]:
    house = House(plan.folder / "everything")
    try:
        for number, rng in plan.cases():
            name = f"case {number}"
            try:
                if not house.standing:
                    house.start()
                house.wait_ready()
                _one(plan, house, rng, name)
            except (WireError, TimeoutError) as error:
                plan.figures.find("broken", f"{name}: {error}")
                house.clear()
            yield
    finally:
        house.stop(plan.figures, "at the end")
        house.remove()


def _one(plan: Plan, house: House, rng: random.Random, name: str) -> None:
    figures = plan.figures
    wanted = [request(FRAMES, seed=rng.randrange(10**6), delay_ms=10.0) for _ in range(STREAMS)]
    folder, seed = plan.folder / f"returning-{name.split()[-1]}", rng.randrange(10**6)
    command = [sys.executable, str(COMES_BACK), str(house.connection_file), str(folder), str(seed), str(FRAMES)]
    returning = subprocess.Popen(command)
    with house.client(name="everything") as client:
        streams = [client.submit(one) for one in wanted]
        time.sleep(rng.uniform(0, WITHIN_S))
        for process in [*house.members(), psutil.Process(returning.pid)]:
            with contextlib.suppress(psutil.Error):
                process.kill()
                figures.counts["processes killed"] += 1
        house.clear()
        returning.wait(60)
        _look_into(house, figures, name)
        house.start()
        returning = subprocess.Popen(command)
        followed: list[Followed] = [follow(s, w) for s, w in zip(streams, wanted, strict=True)]
    for one in followed:
        one.count(figures, name)
    _count_returned(returning, folder, seed, figures, name)


def _look_into(house: House, figures: Figures, name: str) -> None:
    """What the next server will find. Opened as it does that."""
    path = house.connection_file.with_name(f"{house.connection_file.name}.journal")
    if not path.exists():
        return
    journal = Journal(path)
    if not journal.is_kept or path.with_name(f"{path.name}.damaged").exists():
        figures.find("broken", f"{name}: the journal was damaged")
    figures.counts["unfinished in journals"] += len(journal.past.entries)
    journal.close()


def _count_returned(process: subprocess.Popen[bytes], folder: Path, seed: int, figures: Figures, name: str) -> None:
    """The client that was killed: its frames lie on disk, each by its index."""
    try:
        code = process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(60)
        figures.find("stuck", f"{name}: the client that came back")
        return
    figures.counts["streams"] += 1
    if code:
        figures.find("failed", f"{name}: the client that came back ended with {code}")
    for index in range(1, FRAMES - 1):
        file = folder / f"{index}.raw"
        if not file.exists():
            figures.find("lost", f"{name}: frame {index} of the client that came back")
        elif file.read_bytes() != picture(seed, index, SIDE, SIDE).tobytes():
            figures.find("wrong", f"{name}: frame {index} of the client that came back")
