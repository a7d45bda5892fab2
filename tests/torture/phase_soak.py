"""A working day in short: clips, cancels, slow readers, absurd messages; memory and descriptors are watched."""

from __future__ import annotations

import contextlib
import itertools
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence

import psutil
from attrs import define, field

from .figures import Plan
from .house import House, role_of

USERS = 3
STOPS_WITHIN_S = 600.0
ADDING = threading.Lock()
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
    users: Sequence[User]
    memory: dict[str, list[int]] = field(factory=lambda: defaultdict[str, list[int]](list))
    descriptors: dict[str, list[int]] = field(factory=lambda: defaultdict[str, list[int]](list))

    def look(self) -> None:
        for process in (*self._users(), *self.house.members()):
            try:
                name = f"{role_of(process) or 'client'} {process.pid}"
                self.memory[name].append(process.memory_info().rss)
                self.descriptors[name].append(process.num_fds())
            except psutil.Error:
                continue

    def _users(self) -> Iterator[psutil.Process]:
        for user in self.users:
            with contextlib.suppress(psutil.Error):
                if user.process is not None:
                    yield psutil.Process(user.process.pid)

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
    users = [User(plan, house, number) for number in range(USERS)]
    watch = Watch(house, users)
    for user in users:
        user.start()
    try:
        for _ in plan.cases():
            time.sleep(STEP_S)
            watch.look()
            yield
    finally:
        for user in users:
            user.stop()
        watch.judge(plan)
        house.stop(plan.figures, "at the end")
        house.remove()


@define
class User:
    """A process that uses the server, and the thread that adds up what it says. Who dies is replaced."""

    plan: Plan
    house: House
    number: int
    process: subprocess.Popen[str] | None = None
    _thread: threading.Thread | None = None
    _enough: threading.Event = field(factory=threading.Event)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Let it take its clip to the end."""
        self._enough.set()
        process = self.process
        if process is not None and process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
        assert self._thread is not None
        self._thread.join(STOPS_WITHIN_S)
        if process is not None and process.poll() is None:
            self.plan.figures.find("stuck", f"user {self.number} did not end")
            process.kill()

    def _follow(self) -> None:
        for life in itertools.count():
            if self._enough.is_set():
                return
            seed = f"{self.plan.figures.seed} soak {self.number} {life}"
            said = self.plan.folder / f"user{self.number}.txt"
            with said.open("w") as errors:
                command = [sys.executable, "-m", "tests.torture.soak_client", str(self.house.connection_file), seed]
                self.process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
                )
            assert self.process.stdout is not None
            for line in self.process.stdout:
                with ADDING:
                    self.plan.figures.add(line)
            code = self.process.wait()
            if code:
                self._died(code, said.read_text("utf-8", "replace").strip())

    def _died(self, code: int, why: str) -> None:
        """libzmq's own assertion is known, and counted by its name; all else is found."""
        with ADDING:
            if code == -signal.SIGABRT and "session_base.cpp" in why:
                self.plan.figures.counts["users ended by libzmq"] += 1
            else:
                self.plan.figures.find("exceptions", f"a user ended with {code}", example=why[-300:])
