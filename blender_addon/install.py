"""The server in a private environment of its own: what is there, the steps that bring it there, and weights for it.
No Blender here.

Everything lies in one folder. The environment counts as installed only while a receipt lies beside it, which is
written last and withdrawn first; without one it is half made, never used, and made anew from what was downloaded. One
process at a time changes the folder: it and this one hold a lock that the system releases on death.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import IO, Literal

from .errand import Errand
from .progress import Reader, explain

Backend = Literal["cpu", "nvidia"]
State = Literal["absent", "half", "moved", "old", "ready"]

PYTORCH_INDEX = "https://download.pytorch.org/whl/"
"""Where PyTorch publishes the builds that the Python Package Index does not have."""
_BUILDS: dict[tuple[str, Backend], str] = {("linux", "cpu"): "cpu", ("win32", "nvidia"): "cu130"}
"""Those we need of them, by system. Else the Python Package Index has the right one: with CUDA on Linux, without on
Windows, of one kind alone on macOS."""

DOWNLOAD_BYTES: dict[Backend, int] = {"cpu": 300_000_000, "nvidia": 2_900_000_000}
DISK_BYTES: dict[Backend, int] = {"cpu": 1_700_000_000, "nvidia": 8_500_000_000}
"""On Linux, measured and rounded up: what comes; and what it takes with that, unpacked (1.2 and 5.2 GB, which stay)."""
_MODULES = ("torch", "numpy", "zmq", "transformers", "sfserver")
"""Imported as the last step: what cannot be loaded is better known now."""
_MOST_LOG_LINES = 400
_MOST_DETAILS_BYTES = 4_000_000
"""Of logs, looked at to say why something ended."""


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
def _hash_of(wheel: Path) -> str:
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


def _write_receipt(home: Home, receipt: Receipt) -> None:
    part = home.receipt.with_suffix(".part")
    with part.open("w", encoding="utf-8") as file:
        json.dump(asdict(receipt), file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(home.receipt)
    _sync(home.folder)


def _withdraw_receipt(home: Home) -> None:
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
    if receipt is None or receipt.python != _python_version():
        return "half" if receipt or home.environment.exists() or home.downloads.exists() else "absent"
    if not (home.python.exists() and Path(receipt.base).exists()):
        return "moved"
    return "ready" if receipt.wheel == _hash_of(payload.wheel) else "old"


def _python_version() -> str:
    return "{}.{}".format(*sys.version_info)


@dataclass(frozen=True)
class Order:
    """What the user chose. `source`: a folder of wheels, an index's address, or empty for the usual places."""

    python: Path
    backend: Backend
    source: str = ""

    @property
    def needs_network(self) -> bool:
        return not (self.source and Path(self.source).is_dir())

    def where(self) -> list[str]:
        """For what comes from an index. Raises CannotInstall."""
        if not self.source:
            return []
        if not self.source.startswith(("https://", "http://", "file://")):
            raise CannotInstall(f"{self.source} is neither a folder nor an address: correct the Package Source")
        return ["--index-url", self.source]

    def build(self) -> str:
        """The address of PyTorch's index, where the usual place has another build than the one that was chosen."""
        build = _BUILDS.get((sys.platform, self.backend))
        return f"{PYTORCH_INDEX}{build}" if build and not self.source else ""


@dataclass(frozen=True)
class Step:
    """One process: what is said of it, which Python runs which words of `held.py`, its share of the whole."""

    title: str
    python: Path
    words: tuple[str, ...]
    share: float
    """Of all steps, how far the bar is when this one is done."""
    expected_bytes: int = 0
    proves: bool = False
    """After it the environment is known to be whole."""


def steps_to_install(home: Home, payload: Payload, order: Order, anew: bool) -> list[Step]:
    """Raises CannotInstall."""
    kept = ("keep", str(home.temp), str(home.downloads))
    steps = [Step("Looking at what has come", order.python, kept, 0.01)]
    if anew:
        steps.append(Step("Making the environment", order.python, ("environment", str(home.environment)), 0.02))
    if order.needs_network:
        steps += _steps_to_download(home, payload, order)
    wheels = ("--no-index", "--find-links", str(home.downloads) if order.needs_network else order.source)
    install = _pip(home, payload, "install", *wheels, str(payload.wheel))
    steps.append(Step("Installing the server", home.python, install, 0.9))
    if not anew:  # the same version may have another content, which pip would not look at
        alone = _pip(home, payload, "install", "--no-deps", "--force-reinstall", *wheels, str(payload.wheel))
        steps.append(Step("Updating the server", home.python, alone, 0.95))
    tidy = ("delete", str(home.downloads), str(home.temp))
    return [*steps, _check(home), Step("Tidying up", home.python, tidy, 1.0)]


def _steps_to_download(home: Home, payload: Payload, order: Order) -> list[Step]:
    """Into a folder: a file that lies there already, from an earlier try, is compared with the index and not had again.
    A build of PyTorch that has a name of its own, as in 2.13.0+cpu, is preferred to the plain one."""
    into, expected = ("--dest", str(home.downloads)), DOWNLOAD_BYTES[order.backend]
    steps = []
    if order.build():
        torch = _pip(home, payload, "download", *into, "--index-url", order.build(), "torch")
        steps.append(Step("Downloading PyTorch", home.python, torch, 0.4, expected * 2 // 3))
    known = ("--find-links", str(home.downloads))
    rest = _pip(home, payload, "download", *into, *known, *order.where(), str(payload.wheel))
    return [*steps, Step("Downloading", home.python, rest, 0.7, expected)]


def _pip(home: Home, payload: Payload, command: str, *what: str) -> tuple[str, ...]:
    """Wheels alone, none of which runs anything when it is installed; versions as they were tested together."""
    wheels = ("--only-binary", ":all:", "--constraint", str(payload.constraints), "--no-cache-dir", "--no-input")
    said = ("--progress-bar", "raw", "--disable-pip-version-check", "--log", str(home.details))
    here = ("--no-user", "--no-compile", "--no-warn-script-location") if command == "install" else ()
    return ("pip", str(payload.pip), command, *wheels, *said, *here, *what)


def _check(home: Home) -> Step:
    return Step("Trying it", home.python, ("check", *_MODULES), 0.98, proves=True)


def steps_to_mend(home: Home, python: Path) -> list[Step]:
    return [Step("Finding Python again", python, ("mend", str(home.environment)), 0.5), _check(home)]


def steps_to_remove(home: Home, python: Path) -> list[Step]:
    paths = (home.environment, home.downloads, home.temp)
    return [Step("Removing", python, ("delete", *map(str, paths)), 1.0)]


def steps_to_fetch(home: Home, engine: str) -> list[Step]:
    """Weights of a model whose licence the user has accepted."""
    fetch = ("module", "sfserver", "fetch", engine, "--accept-license")
    return [Step(f"Downloading {engine}", home.python, fetch, 1.0)]


@dataclass
class Installer:
    """At most one undertaking at a time. Call `step` again and again while `busy`; nothing in it waits."""

    home: Home
    payload: Payload
    problem: str = ""
    """Why the last undertaking ended early, in a sentence."""
    cancelled: bool = False
    fetched: str = ""
    """The model that was brought last: a server that runs does not know of it."""
    _steps: list[Step] = field(default_factory=list)
    _at: int = 0
    _fetching: str = ""
    _errand: Errand | None = None
    _reader: Reader = field(default_factory=Reader)
    _receipt: Receipt | None = None
    _lock: IO[bytes] | None = None

    @property
    def busy(self) -> bool:
        return self._errand is not None

    @property
    def state(self) -> State:
        return state_of(self.home, self.payload)

    @property
    def doing(self) -> str:
        """In a few words."""
        if not self.busy:
            return ""
        return "Cancelling" if self.cancelled else self._reader.doing or self._steps[self._at].title

    @property
    def fraction(self) -> float:
        """Of the whole, as far as that can be told."""
        if not self.busy:
            return 0.0
        step = self._steps[self._at]
        begin = self._steps[self._at - 1].share if self._at else 0.0
        expected = self._reader.expected or step.expected_bytes
        done = min(1.0, self._reader.downloaded / expected) if expected else 0.0
        return begin + (step.share - begin) * (0.9 if self._reader.installing else 0.8 * done)

    # What a user can ask for

    def install(self, order: Order) -> None:
        """Begin, or go on with, an installation or an update. Raises CannotInstall."""
        with self._alone():
            old, state = read_receipt(self.home), self.state
            same = old is not None and old.backend == order.backend
            if state == "ready" and same:
                raise CannotInstall("The server is installed already")
            anew = not (state == "old" and same)
            self._need_room(order.backend, anew)
            steps = steps_to_install(self.home, self.payload, order, anew)
            wheel, base = _hash_of(self.payload.wheel), str(order.python)
            self._begin(steps, Receipt(self.payload.version, wheel, order.backend, base, _python_version()))

    def mend(self, python: Path) -> None:
        """Lead the environment to this Python. Raises CannotInstall."""
        with self._alone():
            old = read_receipt(self.home)
            if old is None:
                raise CannotInstall("The server is not installed: install it")
            self._begin(steps_to_mend(self.home, python), replace(old, base=str(python)))

    def remove(self, python: Path) -> None:
        """Raises CannotInstall."""
        with self._alone():
            self._begin(steps_to_remove(self.home, python), None)

    def fetch(self, engine: str) -> None:
        """Weights of a model; goes on where an earlier download stopped. Raises CannotInstall."""
        self.fetched = ""
        with self._alone():
            self._begin(steps_to_fetch(self.home, engine), None, withdraw=False)
            self._fetching = engine

    def cancel(self) -> None:
        """Stop; what was downloaded is kept. Takes effect in a later step."""
        if self._errand is not None:
            self.cancelled = True
            self._errand.kill()

    def let_go(self) -> None:
        """This process or the extension ends."""
        if self._errand is not None:
            self._errand.end()
            self._stop("")

    # How it goes

    def step(self) -> None:
        """Take it one step further."""
        if self._errand is None:
            return
        new, code = self._errand.look()
        for line in new:
            self._reader.read(line)
        if code is None:
            return
        if self.cancelled:
            self._stop("")
        elif code != 0:
            self._stop(explain([*_unfetched(self.home), *self._errand.lines[-_MOST_LOG_LINES:]], code))
        else:
            self._go_on()

    def _go_on(self) -> None:
        try:
            if self._steps[self._at].proves and self._receipt is not None:
                _write_receipt(self.home, self._receipt)
        except OSError as error:
            self._stop(f"{self.home.receipt} cannot be written: {error.strerror}")
            return
        if self._at + 1 < len(self._steps):
            self._run(self._at + 1)
        else:
            self.fetched, self._fetching = self._fetching, ""
            self._stop("")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock; it is kept for what was begun meanwhile. Raises CannotInstall."""
        assert not self.busy
        try:
            self.home.temp.mkdir(parents=True, exist_ok=True)
            self._lock = _take_lock(self.home.lock)
            yield
        except OSError as error:
            raise CannotInstall(f"{self.home.folder} cannot be written: {error.strerror}") from None
        finally:
            if not self.busy:
                self._release()

    def _begin(self, steps: list[Step], receipt: Receipt | None, withdraw: bool = True) -> None:
        for log in (self.home.log, self.home.details):
            log.unlink(missing_ok=True)
        if withdraw:
            _withdraw_receipt(self.home)
        self.problem, self.cancelled, self._fetching = "", False, ""
        self._steps, self._receipt = steps, receipt
        self._run(0)

    def _run(self, at: int) -> None:
        self._at, self._reader = at, Reader()
        step = self._steps[at]
        try:
            self._errand = Errand(step.python, step.words, self.home.log, self.home.temp, self._lock)
        except OSError as error:
            self._stop(f"{step.python} cannot be run: {error.strerror}; remove the server and install it again")

    def _stop(self, problem: str) -> None:
        self.problem, self._errand = problem, None
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _need_room(self, backend: Backend, anew: bool) -> None:
        free, needed = free_bytes(self.home.folder), DISK_BYTES[backend] if anew else DOWNLOAD_BYTES[backend]
        if free < needed:
            room = f"this needs {needed / 1e9:.1f} GB and there are {free / 1e9:.1f} GB free"
            raise CannotInstall(f"The disk of {self.home.folder} is too full, {room}: make room there")


def _unfetched(home: Home) -> list[str]:
    """What pip could not have, and why."""
    try:
        with home.details.open("rb") as log:
            log.seek(max(0, home.details.stat().st_size - _MOST_DETAILS_BYTES))
            return [line for line in log.read().decode("utf-8", "replace").splitlines() if "Could not fetch" in line]
    except OSError:
        return []


def free_bytes(folder: Path) -> int:
    """On the disk of a folder that may not be there yet."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(there).free


def _take_lock(path: Path) -> IO[bytes]:
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
