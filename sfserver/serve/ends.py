"""How a process ended: by itself, or because somebody outside ended it.

A program that fails as it starts will fail again; one that was killed says nothing about the next. The system's own
killing for want of memory looks the same from here, so those who start again after it take longer each time.
"""

from __future__ import annotations

import signal

_FROM_OUTSIDE = {"SIGKILL", "SIGTERM", "SIGINT", "SIGHUP"}
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 2.0


def was_ended(code: int) -> bool:
    """Whether an exit code, as subprocess gives it, means a signal from outside. Windows tells no such thing."""
    return code < 0 and -code in {number.value for number in signal.Signals if number.name in _FROM_OUTSIDE}


def pause_s(attempts: int) -> float:
    """How long to wait after so many starts in a row that came to nothing."""
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(attempts, 20))
