"""The server as a child process: start it, notice its end, read its last words. No Blender here."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

KILL_AFTER_S = 8.0
"""What a server may take to end when asked."""
LAST_LINES = 6
_TAIL_BYTES = 4096


class CannotStart(Exception):
    """Why the server's process could not be started, in a sentence with the remedy."""


def find_command(command: str, environment: str) -> list[str]:
    """The command's words, its program as a full path: looked for in `environment`, a Python environment's folder, if
    one is given, else on PATH. Raises CannotStart."""
    try:
        words = shlex.split(command, posix=os.name != "nt")
    except ValueError as error:
        raise CannotStart(f"The server's command cannot be read ({error}): correct it in the preferences") from None
    if not words:
        raise CannotStart("The server's command is empty: write sfserver serve into the preferences")
    places = os.pathsep.join(str(Path(environment) / name) for name in ("bin", "Scripts")) if environment else None
    program = shutil.which(words[0], path=places)
    if program is None:
        where = f"in {environment}" if environment else "on PATH"
        raise CannotStart(f"{words[0]} was not found {where}: install it, or choose its folder in the preferences")
    return [program, *words[1:]]


class Server:
    """At most one server process of ours."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._log: Path | None = None
        self._asked_to_end_at: float | None = None
        self._keep = False
        self.ended_badly = ""
        """Its exit code in words, once it has ended without being asked."""

    @property
    def running(self) -> bool:
        return self._process is not None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def stopping(self) -> bool:
        """It was asked to end and has not ended yet."""
        return self.running and self._asked_to_end_at is not None

    def start(self, command: list[str], log: Path, keep: bool) -> None:
        """Start it. It ends with this process, unless `keep`. Raises CannotStart."""
        assert self._process is None
        self.ended_badly, self._log, self._asked_to_end_at, self._keep = "", log, None, keep
        no_window = subprocess.CREATE_NO_WINDOW if sys.platform == "win32" else 0
        try:
            with log.open("wb") as output:
                self._process = subprocess.Popen(
                    [*command, *(["--keep"] if keep else [])],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    creationflags=no_window,
                    start_new_session=keep,  # a Ctrl-C in Blender's terminal is not meant for it then
                )
        except OSError as error:
            raise CannotStart(f"{command[0]} could not be started: {error.strerror}") from None

    def stop(self) -> None:
        """Ask it to end. `watch` sees to it that it does."""
        if self._process is not None and self._asked_to_end_at is None:
            self._process.terminate()
            self._asked_to_end_at = time.monotonic()

    def watch(self) -> None:
        """Notice an end. Never blocks."""
        if self._process is None:
            return
        code = self._process.poll()
        if code is not None:
            asked = self._asked_to_end_at is not None
            self.ended_badly = "" if asked or code == 0 else f"The server ended with exit code {code}"
            if code < 0 and not asked:
                self.ended_badly = f"The server was killed, by signal {-code}: start it again"
                self._log = None  # its last words do not speak of that
            self._process = None
        elif self._asked_to_end_at is not None and time.monotonic() - self._asked_to_end_at > KILL_AFTER_S:
            self._process.kill()

    def let_go(self) -> None:
        """This process or the extension ends: take the server with it, unless it was started to be kept."""
        if self._process is not None and not self._keep:
            self._process.terminate()
            try:
                self._process.wait(timeout=3.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(timeout=3.0)
        self._process = None

    def last_words(self) -> list[str]:
        """The last lines of its log."""
        if self._log is None or not self._log.is_file():
            return []
        with self._log.open("rb") as file:
            file.seek(max(0, self._log.stat().st_size - _TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
        return [line.strip() for line in text.splitlines() if line.strip()][-LAST_LINES:]
