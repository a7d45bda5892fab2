"""Keeps one launcher at work beside the server: a program that sees to it, somehow and elsewhere, that workers dial in.

It is told what to do by one line on its standard input, the join file's secret within, and ends with that pipe.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, cast

from .ends import pause_s
from .leash import interrupts_held

MENDED_AFTER_S = 30.0
"""After a launcher has said that something has to be mended first, until it is tried again."""
_NEEDS_MENDING = 2
_STOP_TIMEOUT_S = 10.0

Tells = Callable[[Path, bytes], bytes]
"""(connection file, content of the join file) -> the line that it is told."""


class Launcher:
    """`invite` begins, once there is a join file; `stop` ends it."""

    def __init__(self, command: Sequence[str], tells: Tells, mended_after_s: float = MENDED_AFTER_S) -> None:
        self._command = list(command)
        self._tells = tells
        self._mended_after_s = mended_after_s
        self._stopping = threading.Event()
        self._starting = threading.Lock()
        """None is started after `stop` has looked for one."""
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def invite(self, connection_file: Path, join: bytes) -> None:
        """Only the first time counts: the keys are the same through every restart of the front."""
        if self._thread is None:
            line = self._tells(connection_file, join)
            self._thread = threading.Thread(target=self._keep, args=(line,), name="launcher", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Workers are let go, and the launcher is gone when this returns."""
        with self._starting:
            self._stopping.set()
        if self._process is not None:
            with suppress(OSError):
                cast("IO[bytes]", self._process.stdin).close()
            try:
                self._process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._thread is not None:
            self._thread.join()

    def _keep(self, line: bytes) -> None:
        attempts = 0
        while (process := self._start()) is not None:
            stdin = cast("IO[bytes]", process.stdin)
            with suppress(OSError, ValueError):  # it is gone already, or `stop` was faster
                stdin.write(line)
                stdin.flush()
            code = process.wait()
            with suppress(OSError):
                stdin.close()
            attempts += 1
            self._stopping.wait(self._mended_after_s if code == _NEEDS_MENDING else pause_s(attempts))

    def _start(self) -> subprocess.Popen[bytes] | None:
        """From the thread that stays: the system takes its end for its parent's."""
        with self._starting, interrupts_held():
            if self._stopping.is_set():
                return None
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=sys.stderr)
            return self._process
