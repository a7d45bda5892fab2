"""`sfserver serve`: keeps one front process running, tells clients where it is, and ends with its owner.

The supervisor holds the keys and the port, so that a front that was killed comes back under the same address and
clients resume. It does so little that there is little in it to go wrong.
"""

from __future__ import annotations

import json
import os
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

import psutil
from attrs import define, field
from sfwire.channel import ServerKeys
from sfwire.connection import is_loopback

from ..config import ServerConfig
from . import endpoint
from .front import Setup

WORKER_COMMAND = (sys.executable, "-m", "sfserver.serve.worker")
FRONT_COMMAND = (sys.executable, "-m", "sfserver.serve.front")
OWNER_POLL_S = 0.5
MAX_CRASHES = 5
"""Fronts in a row that end before they were ready."""
STOP_TIMEOUT_S = 10.0


def serve(config: ServerConfig, worker_command: Sequence[str] = WORKER_COMMAND) -> int:
    """Serve until a signal, or until the owner ends (unless `config.keep`). Returns the exit code.

    The owner is the process that started this one. Raises ConfigError, NoConnectionFile or OSError for what the user
    can mend before anything has started.
    """
    path = endpoint.connection_path(config)
    endpoint.require_free(path)
    if not is_loopback(config.host):
        _say(f"listening on {config.host}: whoever holds a copy of {path} can use this server from the network")
    supervisor = Supervisor(config, path, tuple(worker_command))
    for name in {"SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"} & set(signal.Signals.__members__):
        signal.signal(signal.Signals[name], supervisor.on_signal)
    if not config.keep:
        threading.Thread(target=_watch_owner, args=(supervisor.stop,), name="owner", daemon=True).start()
    try:
        return supervisor.run()
    finally:
        endpoint.withdraw(path)


@define
class Supervisor:
    """One server: the same keys and the same port through every restart of its front."""

    config: ServerConfig
    path: Path
    worker_command: tuple[str, ...]
    _stopping: threading.Event = field(factory=threading.Event)
    _front: subprocess.Popen[bytes] | None = None
    _port: int = 0
    _announced: bool = False
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
        self._port = self.config.port
        crashes = 0
        while not self._stopping.is_set():
            self._ready = False
            code = self._run_front(keys, client_secret)
            if self._stopping.is_set():
                break
            if code == 2:
                return 2  # it has said why
            crashes = 1 if self._ready else crashes + 1
            if crashes > MAX_CRASHES:
                _say(f"the server crashed {crashes} times in a row; see {self.config.log_dir / 'front.log'}")
                return 1
            time.sleep(0.05 * 2**crashes)
        return 0

    def _run_front(self, keys: ServerKeys, client_secret: str) -> int:
        """One life of a front process; its exit code."""
        self.config.log_dir.mkdir(parents=True, exist_ok=True)
        with (self.config.log_dir / "front.log").open("ab") as stderr:
            front = subprocess.Popen(FRONT_COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr)
        self._front = front
        stdin, stdout = cast("IO[bytes]", front.stdin), cast("IO[bytes]", front.stdout)
        with suppress(OSError):
            stdin.write(Setup(self.config, keys, self._port, self.worker_command).pack())
            stdin.flush()
        if self._stopping.is_set():
            self.stop()  # it was asked for between the check and the start
        for line in stdout:
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
            endpoint.publish(self.path, fact["endpoint"], keys, client_secret)
        elif "failed" in fact:
            _say(fact["failed"])
        else:
            self._ready = True
            self._announce()

    def _announce(self) -> None:
        """The one line, once."""
        if not self._announced:
            self._announced = True
            _say(f"sfserver is ready on port {self._port}, pid {os.getpid()}; connection file {self.path}")


def _watch_owner(stop: Callable[[], None]) -> None:
    """Return when the process that started us is gone, however it went."""
    try:
        owner = psutil.Process(os.getppid())
        while owner.is_running() and os.getppid() == owner.pid:
            time.sleep(OWNER_POLL_S)
    except psutil.Error:
        pass
    stop()


def _say(sentence: str) -> None:
    with suppress(OSError):
        sys.stdout.write(sentence + "\n")
        sys.stdout.flush()
