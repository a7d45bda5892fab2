"""One process that does something for us in the background, and what it prints. No Blender here, no thread.

It ends with this process, see `held.py`. What it prints goes to a file: no pipe can be read everywhere without waiting.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

HELD = Path(__file__).with_name("held.py")
_STEERING = ("PYTHON", "VIRTUAL_ENV", "__PYVENV", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER")
"""Variables that would lead a Python, or what pip installs, elsewhere. Those about proxies and mirrors stay."""
_MOST_READ_BYTES = 256 * 1024
"""At a time: a log may grow faster than anybody looks at it."""


class Errand:
    """A step of `held.py`, running. `lock` is a file whose lock must last as long as the process does."""

    def __init__(self, python: Path, step: Sequence[str], log: Path, temp: Path, lock: IO[bytes] | None = None) -> None:
        """Starts it; its output is added to `log`. Raises OSError."""
        system: dict[str, Any] = {"creationflags": subprocess.CREATE_NO_WINDOW} if sys.platform == "win32" else {}
        if lock is not None and sys.platform != "win32":
            system["pass_fds"] = (lock.fileno(),)
        with log.open("ab") as output:
            self._read_from = output.tell()
            self._process = subprocess.Popen(
                [str(python), "-I", "-u", "-X", "utf8", str(HELD), *step],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_environment(temp),
                **system,
            )
        self._log = log
        self._half_line = ""
        self.lines: list[str] = []
        """What it printed, as far as it was read."""

    def look(self) -> tuple[list[str], int | None]:
        """The lines that are new, and its exit code once it has ended. Never blocks."""
        code = self._process.poll()
        with self._log.open("rb") as log:
            log.seek(self._read_from)
            piece = log.read(_MOST_READ_BYTES if code is None else -1)
        self._read_from += len(piece)
        *whole, self._half_line = (self._half_line + piece.decode("utf-8", "replace")).split("\n")
        if code is not None:
            whole.append(self._half_line)
            self._close()
        new = [line.rstrip("\r") for line in whole]
        self.lines += new
        return new, code

    def kill(self) -> None:
        """At once; `look` tells when it is gone."""
        self._process.kill()

    def end(self) -> None:
        """Kill it and wait for its end, which is near."""
        self._process.kill()
        self._process.wait(timeout=10)
        self._close()

    def _close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()


def _environment(temp: Path) -> dict[str, str]:
    """Ours without what steers Pythons, and with temporary files on the disk that was found to have room."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(_STEERING)}
    return kept | {name: str(temp) for name in ("TMPDIR", "TEMP", "TMP")}
