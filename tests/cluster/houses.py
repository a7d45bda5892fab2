"""Ray clusters on loopback. Whatever they started is gone afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from attrs import define, field

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "serve"))
TOKENS = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "of-this-test-alone-and-long-enough-to-be-one"}


@define
class House:
    process: subprocess.Popen[str]
    environment: dict[str, str]
    address: str = ""
    raylets: list[int] = field(factory=list)
    """Process ids."""

    def hear(self) -> None:
        assert self.process.stdout is not None
        facts = json.loads(self.process.stdout.readline())
        self.address, self.raylets = facts["address"], facts["raylets"]

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        self.hear()


@contextmanager
def standing(*node_cpus: int, **variables: str) -> Iterator[House]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | variables
    command = [sys.executable, str(HERE.parents[1] / "examples" / "cluster" / "on_loopback.py"), *map(str, node_cpus)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment, start_new_session=True)
    assert process.stdin is not None
    assert process.stdout is not None
    family: list[psutil.Process] = []
    try:
        house = House(process, environment)
        house.hear()
        yield house
    finally:
        family = psutil.Process(process.pid).children(recursive=True)
        process.stdin.close()
        try:
            process.wait(120)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(60)
        process.stdout.close()
        _, alive = psutil.wait_procs(family, timeout=60)
        for left in alive:
            left.kill()
        assert not alive, f"left behind: {alive}"
