"""`sfserver serve`: keeps one front process running, tells clients where it is, and ends with its owner.

The supervisor holds the keys and the port, so that a front that was killed comes back under the same address and
clients resume. It does so little that there is little in it to go wrong.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import IO, cast

from attrs import define, field
from sfwire.channel import ServerKeys
from sfwire.connection import is_loopback
from sfwire.messages import fit

from ..config import ConfigError, ServerConfig
from . import endpoint
from . import join as joins
from .devices import Device, choose
from .ends import pause_s, was_ended
from .enough import require_enough
from .front import BEAT_S, CANNOT_LISTEN, Setup
from .launcher import Launcher
from .leash import hold_to_parent, interrupts_held, take_children_along, wait_for_owner
from .private import be_private, private_file, private_folder

WORKER_COMMAND = (sys.executable, "-m", "sfserver.serve.worker")
FRONT_COMMAND = (sys.executable, "-m", "sfserver.serve.front")
MAX_CRASHES = 5
"""Fronts in a row that end by themselves before they were ready."""
MAX_SILENT_BEATS = 20
"""A front that says nothing for as many beats hangs or was stopped, and is replaced."""
MAX_STARTING_BEATS = 120
"""The same of one that has not said anything yet: Python starts from a slow disk within this."""
STOP_TIMEOUT_S = 10.0


def serve(
    config: ServerConfig, worker_command: Sequence[str] = WORKER_COMMAND, launcher: Launcher | None = None
) -> int:
    """Serve until a signal, or until the owner ends (unless `config.keep`). Returns the exit code.

    The owner is the process that started this one. `launcher` is told how workers join, and ended with the server.
    Raises ConfigError, NoConnectionFile or OSError for what the user can mend before anything has started.
    """
    be_private()
    require_enough()
    take_children_along()
    path = endpoint.connection_path(config)
    claimed = endpoint.claim(path)
    if not is_loopback(config.host):
        _say(f"listening on {config.host}: whoever holds a copy of {path} can use this server from the network")
    _require_somebody(config)
    supervisor = Supervisor(config, path, tuple(worker_command), choose(config), launcher)
    for name in {"SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"} & set(signal.Signals.__members__):
        signal.signal(signal.Signals[name], supervisor.on_signal)
    if not config.keep:
        hold_to_parent("SIGCONT")
        threading.Thread(target=_follow_owner, args=(supervisor.stop,), name="owner", daemon=True).start()
    try:
        return supervisor.run()
    finally:
        if launcher is not None:
            launcher.stop()
        endpoint.withdraw(path)
        if config.workers_from:
            joins.beside(path).unlink(missing_ok=True)
        claimed.release()


def _require_somebody(config: ServerConfig) -> None:
    if config.workers == 0 and not config.workers_from:
        raise ConfigError("--workers 0: nobody would work; take 1 or more, or let workers dial in with --workers-from")


class Beats:
    """Ends a front that shows no beat. Counts, so that a computer that slept, or we who were stopped, judge nobody."""

    def __init__(self, front: subprocess.Popen[bytes], beat_s: float = BEAT_S) -> None:
        self._front = front
        self._beat_s = beat_s
        self._silent = 0
        self._most = MAX_STARTING_BEATS
        threading.Thread(target=self._watch, name="beats", daemon=True).start()

    def heard(self) -> None:
        self._silent, self._most = 0, MAX_SILENT_BEATS

    def _watch(self) -> None:
        while self._front.poll() is None:
            time.sleep(self._beat_s)
            self._silent += 1
            if self._silent > self._most:
                self._front.kill()


@define
class Supervisor:
    """One server: the same keys and the same port through every restart of its front."""

    config: ServerConfig
    path: Path
    worker_command: tuple[str, ...]
    devices: tuple[Device, ...]
    launcher: Launcher | None = None
    _stopping: threading.Event = field(factory=threading.Event)
    _operator: str = ""
    _front: subprocess.Popen[bytes] | None = None
    _port: int = 0
    _workers_port: int = 0
    _worker_keys: ServerKeys | None = None
    _worker_secret: str = ""
    _published: bool = False
    """Clients know the port, so it must be this one from now on."""
    _announced: bool = False
    _invited: bool = False
    _ready: bool = False
    """The front of now has a worker that can work."""

    def stop(self) -> None:
        """End the front in order; `run` returns. Signal handlers and other threads may call it."""
        self._stopping.set()
        front = self._front
        if front is not None and front.stdin is not None:
            with suppress(OSError, ValueError):
                front.stdin.close()
            reaper = threading.Timer(STOP_TIMEOUT_S, front.kill)
            reaper.daemon = True
            reaper.start()

    def on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.stop()

    def run(self) -> int:
        keys, client_secret = ServerKeys.generate()
        self._operator = secrets.token_hex(16)
        self._port = self.config.port
        if self.config.workers_from:
            self._worker_keys, self._worker_secret = ServerKeys.generate()
            self._workers_port = int(self.config.workers_from.rsplit(":", 1)[1])
        attempts = crashes = 0  # fronts in a row that ended before they were ready; those that did so by themselves
        while not self._stopping.is_set():
            self._ready = False
            code = self._run_front(keys, client_secret)
            if self._stopping.is_set():
                break
            if code == CANNOT_LISTEN and not self._published:
                return CANNOT_LISTEN  # it has said why
            attempts = 0 if self._ready else attempts + 1
            crashes = 0 if self._ready else crashes + (code != CANNOT_LISTEN and not was_ended(code))
            if crashes > MAX_CRASHES:
                _say(f"the server crashed {crashes} times in a row; see {self.config.log_dir / 'front.log'}")
                return 1
            self._stopping.wait(pause_s(attempts))
        return 0

    def _run_front(self, keys: ServerKeys, client_secret: str) -> int:
        """One life of a front process; its exit code."""
        private_folder(self.config.log_dir)
        log = self.config.log_dir / "front.log"
        private_file(log)
        with log.open("ab") as stderr, interrupts_held():
            front = subprocess.Popen(FRONT_COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr)
        self._front = front
        stdin, stdout = cast("IO[bytes]", front.stdin), cast("IO[bytes]", front.stdout)
        with suppress(OSError):
            command, workers = self.worker_command, (self._worker_keys, self._workers_port)
            stdin.write(Setup(self.config, keys, self._port, command, self.devices, *workers, self._operator).pack())
            stdin.flush()
        if self._stopping.is_set():
            self.stop()  # it was asked for between the check and the start
        beats = Beats(front)
        for line in stdout:
            beats.heard()
            self._hear(json.loads(line), keys, client_secret)
        stdout.close()
        code = front.wait()
        with suppress(OSError, ValueError):
            stdin.close()
        return code

    def _hear(self, fact: dict[str, str], keys: ServerKeys, client_secret: str) -> None:
        """What the front says of itself."""
        if "endpoint" in fact:
            self._port = int(fact["endpoint"].rsplit(":", 1)[1])
            endpoint.publish_operator(self.path, self._operator)
            endpoint.publish(self.path, fact["endpoint"], keys, client_secret)
            self._published = True
        elif "workers" in fact:
            self._let_join(fact["workers"])
        elif "failed" in fact:
            if not self._published:  # else the port was taken while the front was down, and is waited for
                _say(fact["failed"])
        elif "ready" in fact:
            self._ready = True
            self._announce()

    def _let_join(self, bound: str) -> None:
        """The join file, for whoever listens there now."""
        assert self._worker_keys is not None
        self._workers_port = int(bound.rsplit(":", 1)[1])
        host = self.config.workers_from.removeprefix("tcp://").rsplit(":", 1)[0]
        everywhere = host in ("*", "0.0.0.0", "[::]")
        known_as = f"tcp://{platform.node() if everywhere else host}:{self._workers_port}"
        path = joins.beside(self.path)
        join = joins.made(known_as, self._worker_keys, self._worker_secret)
        joins.write(join, path)
        if self.launcher is not None:
            self.launcher.invite(self.path, join.pack())
        if not self._invited:
            self._invited = True
            _say(f"workers join at {known_as} with: sfserver worker --join {path}")

    def _announce(self) -> None:
        """The one line, once."""
        if not self._announced:
            self._announced = True
            _say(f"sfserver is ready on port {self._port}, pid {os.getpid()}; connection file {self.path}")


def _follow_owner(stop: Callable[[], None]) -> None:
    wait_for_owner()
    stop()


def _say(sentence: str) -> None:
    with suppress(OSError):
        sys.stdout.write(fit(sentence) + "\n")
        sys.stdout.flush()
