"""What holds a process to the one that started it: a pipe, whose end is read, and what the system has besides.

A process that is stopped, or hangs, reads no pipe. Linux sends it a signal of its choice when its parent is gone,
however that went: SIGKILL to one with nothing to save, SIGCONT to one that then goes on, reads the end and says so.
Windows ends all that a process has started with it where it has put itself into a job (never tried: no Windows was at
hand). Elsewhere the pipe is all there is.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Literal

import psutil

from .. import BORN_OF

_PR_SET_PDEATHSIG = 1
OWNER_POLL_S = 0.5


def hold_to_parent(name: Literal["SIGKILL", "SIGCONT"]) -> None:
    """Get this signal when the thread that started us ends: our parents start us from their main threads.

    On Linux. On others nothing happens, and a stopped process stays until it goes on.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.Signals[name]), 0, 0, 0)


@contextmanager
def interrupts_held() -> Generator[None]:
    """Ctrl-C, which a terminal sends to all processes at once, comes when this is over.

    A process that is started meanwhile does not hear it at all, also while it is still importing, until it has called
    `ignore_interrupts`.
    """
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_interrupts() -> None:
    """Ctrl-C is for whoever started us, and ends us in order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def take_children_along() -> None:
    """Whoever is started by this process from now on ends with it, and whoever is started by those.

    On Windows, by a job object whose last handle is ours: the system closes it when we are gone, however that went.
    """
    if sys.platform == "win32":
        from . import win32_job

        win32_job.enter()


def wait_for_owner() -> None:
    """Return when the process that started this program is gone, however it went, also before we could look.

    `hold_to_parent` in the main thread sees to it that a process that was stopped looks again.
    """
    if _was_orphaned():
        return
    with suppress(psutil.Error):
        owner = psutil.Process(os.getppid())
        while owner.is_running() and os.getppid() == owner.pid:
            time.sleep(OWNER_POLL_S)


def _was_orphaned() -> bool:
    """Whether the owner ended while Python was still starting.

    Then somebody else stands in for it, who has another session: a child has its parent's, unless it made its own.
    """
    parent = os.getppid()
    if parent != BORN_OF:
        return True
    if sys.platform == "win32":  # a parent's number stays, and psutil sees whether it is still the same process
        return False
    try:
        return os.getsid(0) not in (os.getpid(), os.getsid(parent)) and parent != 0
    except OSError:
        return False
