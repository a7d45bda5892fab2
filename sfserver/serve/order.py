"""One thing after the other: what the broker says is done in the order in which it was said, and never inside itself.

An action that fails has consequences, a client that is gone at the moment of sending for one. Carried out at once they
would overtake what the broker had said before: a Cancel its own Generate. So they go to the end of the one queue.

This is also the boundary for mistakes of ours: one is logged with its traceback and costs whoever is to blame, a client
or a worker, and not the process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

import structlog

from .actions import Action

Ask = Callable[[], Sequence[Action]]
"""Something that may fail and says what is to be done then."""

log = structlog.get_logger("front")


def nobody() -> Sequence[Action]:
    """Whom a mistake costs that belongs to no client and no worker."""
    return ()


class InOrder:
    """`perform` carries out one action and says what follows from it; `blame` says what follows where it failed."""

    def __init__(self, perform: Callable[[Action], Sequence[Action]], blame: Callable[[Action], Sequence[Action]]):
        self._perform = perform
        self._blame = blame
        self._busy = False

    def do(self, ask: Ask, blame: Ask = nobody) -> None:
        """Ask, and do what follows until nothing does. `blame` is asked where `ask` fails. Raises nothing."""
        assert not self._busy, "an action was carried out inside another"
        self._busy = True
        try:
            todo = deque(_tried(ask, blame))
            while todo:
                action = todo.popleft()
                todo.extend(_tried(partial(self._perform, action), partial(self._blame, action)))
        finally:
            self._busy = False


def _tried(ask: Ask, blame: Ask) -> Sequence[Action]:
    for attempt in (ask, blame):
        try:
            return attempt()
        except Exception:  # the boundary: whatever it was, it was ours
            log.exception("mistake")
    return ()
