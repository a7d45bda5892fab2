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

from .ends import pause_s

MENDED_AFTER_S = 30.0
"""After a launcher has said that something has to be mended first, until it is tried again."""
_NEEDS_MENDING = 2
_STOP_TIMEOUT_S = 10.0

Tells = Callable[[Path, bytes], bytes]
"""(connection file, content of the join file) -> the line that it is told."""


class Launcher:
    """`invite` begins, once there is a join file; `stop` ends it."""

    def __init__(self, command: Sequence[str], tells: Tells) -> None:
        self._command = list(command)
        self._tells = tells
        self._stopping = threading.Event()
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
        self._stopping.set()
        if self._process is not None and self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()
            try:
                self._process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        if self._thread is not None:
            self._thread.join(_STOP_TIMEOUT_S)

    def _keep(self, line: bytes) -> None:
        attempts = 0
        while not self._stopping.is_set():
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=sys.stderr)
            assert self._process.stdin is not None
            with suppress(OSError):
                self._process.stdin.write(line)
                self._process.stdin.flush()
            code = self._process.wait()
            attempts += 1
            self._stopping.wait(MENDED_AFTER_S if code == _NEEDS_MENDING else pause_s(attempts))
