"""What is installed of the private server, and where it lies. No Blender here.

Everything lies in one folder. The environment counts as installed only while a receipt lies beside it, which is
written last and withdrawn first; without one it is half made, never used, and made anew from what was downloaded. One
process at a time changes the folder: whoever does holds a lock that the system releases on death.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import IO, Literal

State = Literal["absent", "half", "moved", "old", "ready"]


class CannotInstall(Exception):
    """Why nothing was begun, in a sentence with the remedy."""


@dataclass(frozen=True)
class Payload:
    """What the extension's zip brings."""

    folder: Path

    @property
    def wheel(self) -> Path:
        return self._one("sfserver-*.whl")

    @property
    def pip(self) -> Path:
        return self._one("pip-*.whl")

    @property
    def constraints(self) -> Path:
        return self.folder / "constraints.txt"

    @property
    def version(self) -> str:
        return self.wheel.name.split("-")[1]

    def _one(self, pattern: str) -> Path:
        found = sorted(self.folder.glob(pattern))
        if not found:
            raise CannotInstall(f"This zip came without {pattern}: install the extension from a complete one")
        return found[-1]


@cache
def hash_of(wheel: Path) -> str:
    """Once in a session: it is asked for at each drawing."""
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


@dataclass(frozen=True)
class Home:
    """The folder, and what lies where in it."""

    folder: Path

    @property
    def environment(self) -> Path:
        return self.folder / "env"

    @property
    def python(self) -> Path:
        return self.environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    @property
    def downloads(self) -> Path:
        return self.folder / "downloads"

    @property
    def temp(self) -> Path:
        return self.folder / "temp"

    @property
    def log(self) -> Path:
        return self.folder / "install.log"

    @property
    def details(self) -> Path:
        """Of pip, which says there alone why an index gave nothing."""
        return self.folder / "pip.log"

    @property
    def receipt(self) -> Path:
        return self.folder / "installed.json"

    @property
    def lock(self) -> Path:
        return self.folder / "lock"

    def command(self, words: Sequence[str]) -> list[str]:
        """The server's command, run by the private Python: the name of the program in `words` is not looked at."""
        return [str(self.python), "-I", "-m", "sfserver", *words[1:]]


@dataclass(frozen=True)
class Receipt:
    """What was installed, written when it was whole."""

    version: str
    wheel: str
    """Its SHA-256."""
    backend: str
    base: str
    """The Python that the environment leads to."""
    python: str
    """Its version, as in 3.11."""


def read_receipt(home: Home) -> Receipt | None:
    """None where there is none, or one that cannot be read: then nothing is installed. A later version may have written
    more into it."""
    try:
        written = json.loads(home.receipt.read_text("utf-8"))
        values = [written[field.name] for field in fields(Receipt)]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return Receipt(*values) if all(isinstance(value, str) for value in values) else None


def write_receipt(home: Home, receipt: Receipt) -> None:
    part = home.receipt.with_suffix(".part")
    with part.open("w", encoding="utf-8") as file:
        json.dump(asdict(receipt), file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(home.receipt)
    _sync(home.folder)


def withdraw_receipt(home: Home) -> None:
    home.receipt.unlink(missing_ok=True)
    _sync(home.folder)


def _sync(folder: Path) -> None:
    """See to it that no power cut brings back what was in the folder."""
    if os.name != "nt":
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def state_of(home: Home, payload: Payload) -> State:
    """`half`: begun and not ended, or of another Python. `moved`: whole, but the Python it leads to is gone. `old`: of
    another wheel than this zip's."""
    receipt = read_receipt(home)
    if receipt is None or receipt.python != python_version():
        return "half" if receipt or home.environment.exists() or home.downloads.exists() else "absent"
    if not (home.python.exists() and Path(receipt.base).exists()):
        return "moved"
    return "ready" if receipt.wheel == hash_of(payload.wheel) else "old"


def python_version() -> str:
    return "{}.{}".format(*sys.version_info)


def free_bytes(folder: Path) -> int:
    """On the disk of a folder that may not be there yet."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(there).free


def take_lock(path: Path) -> IO[bytes]:
    """Raises CannotInstall where another process has it, and OSError."""
    file = path.open("ab")
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise CannotInstall("Another Blender is installing the server: wait for it, or cancel it there") from None
    return file
