"""`sfserver worker`: keeps a worker process for each device of this machine, all of which dial in to one server.

Each has a pipe to this process, ends with it, and is told by it when the join file has changed: the server was started
anew, and its keys are others. One that dies is started again; one that was told to end, or cannot be let in, is not.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, cast

from attrs import define, field

from ..config import ConfigError, ServerConfig
from ..errors import USER_ERROR, UserError
from . import join as joins
from . import link
from .devices import Device, choose
from .dialling import Told
from .ends import pause_s, was_ended
from .leash import hold_to_parent, interrupts_held, take_children_along, wait_for_owner
from .private import be_private
from .supervise import WORKER_COMMAND
from .worker import pack_config

LOOK_S = 0.5
FAILED_WITHIN_S = 30.0
"""A worker that ends by itself as soon has come to nothing."""
MOST_FAILURES = 5
END_S = 5.0


@define(eq=False)
class _Kept:
    """One place, and the process of now."""

    device: Device
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    due_at: float = 0.0
    failures: int = 0
    """In a row."""
    is_over: bool = False


@define
class Keeper:
    path: Path
    config: ServerConfig
    command: tuple[str, ...]
    kept: list[_Kept]
    _join: bytes
    _stopping: threading.Event = field(factory=threading.Event)

    def stop(self) -> None:
        """End all workers; `run` returns. Signal handlers and other threads may call it."""
        self._stopping.set()

    def run(self) -> int:
        """Until every worker was told to end, one of them has said that something must be mended, or `stop`."""
        try:
            while not self._stopping.wait(LOOK_S):
                self._follow_file()
                for one in self.kept:
                    code = self._look(one, time.monotonic())
                    if code:
                        return code
                if all(one.is_over for one in self.kept):
                    return 0
            return 0
        finally:
            self._end()

    def _look(self, one: _Kept, now: float) -> int:
        """Start it if it is due; the exit code for all if it says that there is no use in going on."""
        if one.is_over:
            return 0
        if one.process is None:
            if now >= one.due_at:
                self._start(one, now)
            return 0
        code = one.process.poll()
        if code is None:
            return 0
        cast(BinaryIO, one.process.stdin).close()
        one.process, one.is_over = None, code == 0
        if code in (0, USER_ERROR):
            return code
        failed = now - one.started_at < FAILED_WITHIN_S and not was_ended(code)
        one.failures = one.failures + 1 if failed else 0
        one.due_at = now + pause_s(one.failures)
        sys.stderr.write(f"the worker for {one.device.name} ended with {code}\n")
        if one.failures >= MOST_FAILURES:
            sys.stderr.write(f"sfserver: it did so {MOST_FAILURES} times in a row; see what it said above\n")
            return 1
        return 0

    def _start(self, one: _Kept, now: float) -> None:
        environment = one.device.environment(os.environ)
        pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
        with interrupts_held():
            one.process = subprocess.Popen(self.command, stdin=pipe, stdout=nothing, env=environment)
        one.started_at = now
        told = Told(self._join, one.device.name)
        with suppress(OSError):  # it is gone already, as we shall see
            link.write(cast(BinaryIO, one.process.stdin), [pack_config(one.device.settled(self.config)), told.pack()])

    def _follow_file(self) -> None:
        """A server that was started anew has written its file anew; one that is gone or spoiled is no news."""
        with suppress(UserError):
            content = joins.read(self.path).pack()
            if content != self._join:
                self._join = content
                for one in self.kept:
                    if one.process is not None:
                        with suppress(OSError):
                            link.write(cast(BinaryIO, one.process.stdin), [content])

    def _end(self) -> None:
        """By their pipes' ends; whoever does not heed that is killed."""
        processes = [one.process for one in self.kept if one.process is not None]
        for process in processes:
            with suppress(OSError):
                cast(BinaryIO, process.stdin).close()
        for process in processes:
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def keep(path: Path, config: ServerConfig, command: Sequence[str] = WORKER_COMMAND) -> int:
    """Work for the server of this join file. The exit code. Raises UserError, ConfigError."""
    be_private()
    join = joins.read(path).pack()
    devices = choose(config)
    if not devices:
        raise ConfigError("--workers 0: nobody would work; take 1 or more, or auto")
    take_children_along()
    keeper = Keeper(path, config, tuple(command), [_Kept(device) for device in devices], join)
    for name in {"SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"} & set(signal.Signals.__members__):
        signal.signal(signal.Signals[name], lambda _number, _frame: keeper.stop())
    if not config.keep:
        hold_to_parent("SIGCONT")
        threading.Thread(target=_follow_owner, args=(keeper,), name="owner", daemon=True).start()
    return keeper.run()


def _follow_owner(keeper: Keeper) -> None:
    wait_for_owner()
    keeper.stop()
