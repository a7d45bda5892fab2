"""A worker shows that it lives, for as long as its engine is not silent for longer than it said it would be.

The front sees a process, and cannot tell one that works from one that hangs. The engine knows how long its next pass
may take: seconds on a GPU, minutes on a CPU or while a model is compiled. So the patience is the worker's: a thread
beats while there is reason for it, and ends the process where there is none any more.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable

BEAT_S = 2.0
LOADING_S = 900.0
"""Weights of 20 GB from a slow disk, or their hashes."""


class Pulse:
    """Beats by calling `show` every `beat_s` between `work` and `rest`."""

    def __init__(
        self,
        show: Callable[[], None],
        patience_s: float = 0.0,
        *,
        beat_s: float = BEAT_S,
        clock: Callable[[], float] = time.monotonic,
        give_up: Callable[[str], None] | None = None,
    ) -> None:
        """`patience_s`, if not 0, takes the place of what engines say."""
        self._show = show
        self._patience_s = patience_s
        self._beat_s = min(beat_s, patience_s / 4) if patience_s else beat_s
        self._clock = clock
        self._give_up = give_up or end_this_process
        self._lock = threading.Lock()
        self._until: float | None = None
        self._silence_s = 0.0

    def start(self) -> None:
        threading.Thread(target=self._run, name="pulse", daemon=True).start()

    def work(self, silence_s: float) -> None:
        """Something has happened, and the next thing will within `silence_s`."""
        with self._lock:
            self._silence_s = self._patience_s or silence_s
            self._until = self._clock() + self._silence_s

    def again(self) -> None:
        """The patience begins anew, if there is anything to wait for."""
        with self._lock:
            if self._until is not None:
                self._until = self._clock() + self._silence_s

    def rest(self) -> None:
        """Nothing is under way, or what is does not depend on the engine."""
        with self._lock:
            self._until = None

    def beat(self) -> None:
        """Show that the process lives, or give it up."""
        with self._lock:
            until, silence_s = self._until, self._silence_s
        if until is None:
            return
        if self._clock() > until:
            self._give_up(f"the engine showed no sign of life for {silence_s:.0f} s")
        else:
            self._show()

    def _run(self) -> None:
        while True:
            time.sleep(self._beat_s)
            self.beat()


def end_this_process(why: str) -> None:
    """The other thread is in the engine, and nothing gets it out of there."""
    sys.stderr.write(why + "\n")
    sys.stderr.flush()
    os._exit(1)
