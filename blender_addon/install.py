"""Installing the private server: one undertaking at a time, step by step, each a process. No Blender here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from .errand import Errand
from .installed import (
    CannotInstall,
    Home,
    Payload,
    Receipt,
    State,
    free_bytes,
    hash_of,
    python_version,
    read_receipt,
    state_of,
    take_lock,
    withdraw_receipt,
    write_receipt,
)
from .progress import Reader, explain
from .steps import (
    DISK_BYTES,
    DOWNLOAD_BYTES,
    Backend,
    Order,
    Step,
    steps_to_fetch,
    steps_to_install,
    steps_to_mend,
    steps_to_remove,
)

_MOST_LOG_LINES = 400
_MOST_DETAILS_BYTES = 4_000_000
"""Of logs, looked at to say why something ended."""


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
            wheel, base = hash_of(self.payload.wheel), str(order.python)
            self._begin(steps, Receipt(self.payload.version, wheel, order.backend, base, python_version()))

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
                write_receipt(self.home, self._receipt)
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
            self._lock = take_lock(self.home.lock)
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
            withdraw_receipt(self.home)
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
