"""Owner, supervisor, front and workers as processes under watch: who lives, who was left behind, what they logged."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Literal

import psutil
from attrs import define, field
from servers import HERE as SERVE
from sfwire.client import Client

from .figures import Figures

Role = Literal["owner", "supervisor", "front", "worker"]
MARK = "SFSERVER_TORTURE"
"""A variable in the environment of all that one house starts: an orphan keeps it, whoever its parent is now."""
GONE_WITHIN_S = 120.0
"""These find what hangs, also on a machine that does ten other things: they are not met by chance."""
READY_WITHIN_S = 300.0
GIVE_UP_AFTER_S = 300.0
OWNER = "import subprocess, sys\nserver = subprocess.Popen(sys.argv[1:])\nsys.exit(server.wait())"
"""A program that starts a server and lives with it, as an editor does."""


@define
class House:
    """One server at one connection file, started again under the same name as often as it is killed."""

    folder: Path
    settings: dict[str, object] = field(factory=dict[str, object])
    prefix: tuple[str, ...] = ()
    """A command before the server's own, such as one that sets limits."""
    mark: str = field(factory=lambda: uuid.uuid4().hex)
    _owner: subprocess.Popen[bytes] | None = None
    _read: dict[Path, int] = field(factory=dict[Path, int])

    @property
    def connection_file(self) -> Path:
        return self.folder / "run" / "connection.json"

    @property
    def log_dir(self) -> Path:
        return self.folder / "log"

    @property
    def said(self) -> str:
        return (self.folder / "said.txt").read_text("utf-8", "replace")

    def client(self, **options: object) -> Client:
        return Client(self.connection_file, **{"give_up_after_s": GIVE_UP_AFTER_S, **options})  # type: ignore[arg-type]

    def start(self) -> None:
        """Begin to start; `wait_ready` waits."""
        self.folder.mkdir(parents=True, exist_ok=True)
        server = [sys.executable, str(SERVE / "run_server.py"), str(self.connection_file), str(self.log_dir)]
        settings = [f"{name}={value}" for name, value in self.settings.items()]
        command = [sys.executable, "-c", OWNER, *self.prefix, *server, *settings]
        with (self.folder / "said.txt").open("ab") as said:
            environment = os.environ | {MARK: self.mark}
            self._owner = subprocess.Popen(command, stdout=said, stderr=said, env=environment)

    def wait_ready(self) -> None:
        """Until a client is welcome. Raises ServerUnavailable or TimeoutError."""
        with self.client(name="ready?") as client:
            deadline = time.monotonic() + READY_WITHIN_S
            while client.state != "ready":
                if time.monotonic() > deadline:
                    raise TimeoutError(f"no server within {READY_WITHIN_S:.0f} s: {client.problem}; {self.said[-300:]}")
                time.sleep(0.02)

    def members(self) -> list[psutil.Process]:
        """All processes that belong to it, whoever is their parent."""
        found: list[psutil.Process] = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                alive = process.status() != psutil.STATUS_ZOMBIE
                if alive and process.pid != os.getpid() and process.environ().get(MARK) == self.mark:
                    found.append(process)
        return found

    def find(self, role: Role, timeout_s: float = READY_WITHIN_S, but: int = 0) -> psutil.Process | None:
        """A process of this role, waiting until there is one; `but`: not the one with this pid.

        The oldest: a child that was just forked has its parent's command line for a moment.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            found = [p for p in self.members() if p.pid != but and role_of(p) == role]
            if found or time.monotonic() > deadline:
                return min(found, key=_began) if found else None
            time.sleep(0.01)

    @property
    def standing(self) -> bool:
        """Whether a supervisor lives."""
        return self.find("supervisor", 0) is not None

    def wait_gone(self, figures: Figures, case: str) -> None:
        """After owner or supervisor has ended: who is left counts, and is ended."""
        deadline = time.monotonic() + GONE_WITHIN_S
        while (left := self.members()) and time.monotonic() < deadline:
            time.sleep(0.02)
        if left:
            roles = [f"{role_of(p)} {p.pid} {p.status()}" for p in left]
            figures.find("left", f"{case}: {', '.join(roles)}", len(left))
        self.clear()

    def clear(self) -> None:
        """End whatever still belongs to it."""
        for process in self.members():
            with contextlib.suppress(psutil.Error):
                process.kill()
        if self._owner is not None:
            self._owner.kill()
            self._owner.wait(60)
            self._owner = None

    def stop(self, figures: Figures, case: str) -> None:
        """End the server in order, count who is left and what was logged that should not have been."""
        supervisor = self.find("supervisor", 0)
        if supervisor is not None:
            with contextlib.suppress(psutil.Error):
                supervisor.send_signal(signal.SIGTERM)
        self.wait_gone(figures, case)
        self.count_tracebacks(figures, case)

    def count_tracebacks(self, figures: Figures, case: str) -> None:
        for path in [*self.log_dir.glob("*.log*"), self.folder / "said.txt"]:
            with contextlib.suppress(OSError):
                text = self._new(path)
                if count := text.count("Traceback (most recent call last)"):
                    last = text.rsplit("Traceback", 1)[1].strip().splitlines()
                    figures.find("exceptions", f"{case}: {path.name}: {last[-1]} ({' / '.join(last[-4:-1])})", count)

    def _new(self, path: Path) -> str:
        """What has been written to a log since this was last asked."""
        text = path.read_text("utf-8", "replace")
        known = self._read.get(path, 0)
        self._read[path] = len(text)
        return text[known:] if len(text) >= known else text  # it was begun anew

    def remove(self) -> None:
        self.clear()
        shutil.rmtree(self.folder, ignore_errors=True)


def _began(process: psutil.Process) -> float:
    try:
        return process.create_time()
    except psutil.Error:
        return float("inf")


def role_of(process: psutil.Process) -> Role | None:
    """What a process of a house is, by its command line."""
    try:
        command = process.cmdline()
    except psutil.Error:
        return None
    if OWNER in command:
        return "owner"
    named = " ".join(command)
    if "fake_engines.py" in named and "run_server.py" not in named:
        return "worker"
    if "sfserver.serve.front" in named:
        return "front"
    return "supervisor" if "run_server.py" in named else None
