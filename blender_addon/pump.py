"""All that goes on between Blender and the server, in one place: a queue of fills, a client, and `tick`.

A tick costs a few tenths of a millisecond: nothing in it waits. No thread of Python either, see `frames.Writer`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from . import strips
from .fill import Fill
from .frames import Writer
from .making import Making
from .record import AUTO
from .sfwire.client import Client
from .sfwire.connection import Connection
from .sfwire.messages import EngineInfo, Welcome

BUSY_S = 0.03
IDLE_S = 0.25
"""Between ticks while something is being made, and while there is only a connection to watch."""
LOOKING_S = 0.004
"""Between two steps to a keyframe: the interface has its turn, and the server does not wait long."""
WRITE_BUDGET_S = 0.0015
"""Of a tick, for the disk."""
MAX_ON_THE_WIRE = 2
"""Requests that the server has at a time: one to make, one to go on with. The rest wait here and cost it nothing.
Drafts are counted apart, so that none waits here for what takes its time."""
GIVE_UP_AFTER_S = 900.0
"""How long fills wait for a server that is gone: time to start it again."""
MAX_REMEMBERED = 200
"""Fills that are over and may come back by an undo."""


def _hand_over(makings: Sequence[Making], client: Client) -> None:
    on_the_wire = sum(making.stream is not None and not making.over for making in makings)
    for making in makings:
        if making.waits and on_the_wire < MAX_ON_THE_WIRE:
            making.submit(client)
            on_the_wire += 1


class Pump:
    """The queue and its connection. Call everything from one thread."""

    def __init__(self, version: str) -> None:
        self._name = f"Blender {version}"
        self._writer = Writer()
        self.client: Client | None = None
        self.fills: list[Fill] = []
        """Those that are not over, in the order in which they were asked for."""
        self.ended: dict[str, Fill] = {}
        self.message = ""
        """The last thing that went wrong, for the panel."""
        self._dropped: set[str] = set()
        self._undone = False

    # The connection

    def connect(self, where: Callable[[], Connection]) -> None:
        """Look for a server, in the background. While frames are being made the client is left alone: it looks for a
        server that it has lost all by itself, and its streams go on there."""
        self.message = ""
        if any(making.stream is not None for fill in self.fills for making in fill.makings):
            return
        if self.client is not None:
            self.client.close()
        self.client = Client(where, name=self._name, give_up_after_s=GIVE_UP_AFTER_S, threaded=False)

    @property
    def state(self) -> str:
        """`off`, `connecting`, `ready`, `reconnecting` or `refused`."""
        return "off" if self.client is None else self.client.state

    @property
    def welcome(self) -> Welcome | None:
        return self.client.welcome if self.client is not None else None

    def engine(self, choice: str) -> EngineInfo | None:
        """What the server says of an engine, or of the one that `auto` means; None where it has none of that name."""
        welcome = self.welcome
        if welcome is None:
            return None
        wanted = welcome.default_engine if choice == AUTO else choice
        return next((engine for engine in welcome.engines if engine.id == wanted), None)

    def version(self, choice: str) -> str:
        """Changes whenever the same request would give other pixels: an engine's own; for `auto` one of all that the
        server chooses among, since the same engines on the same machine are the same choice."""
        welcome, engine = self.welcome, self.engine(choice)
        if welcome is None or engine is None:
            return ""
        if choice != AUTO:
            return engine.version
        offers = [(offered.id, offered.version, offered.available) for offered in welcome.engines]
        return hashlib.sha256(repr(offers).encode()).hexdigest()

    # The queue

    def add(self, fill: Fill) -> None:
        self.fills.append(fill)
        self.message = ""

    def find(self, job: str) -> Fill | None:
        return next((fill for fill in self.fills if fill.job == job), None)

    @property
    def jobs(self) -> set[str]:
        return {fill.job for fill in self.fills}

    def cancel(self, job: str = "") -> None:
        """Stop one fill, or all of them."""
        for fill in self.fills:
            if not job or fill.job == job:
                fill.cancel()

    def drop(self, job: str) -> Fill | None:
        """Stop a fill and forget it, running or over; returns it. No undo brings its strip back for long."""
        self._dropped.add(job)
        fill = self.find(job)
        if fill is None:
            return self.ended.pop(job, None)
        fill.cancel()
        self.fills.remove(fill)
        return fill

    def tick(self, now: float) -> float | None:
        """Take everything one step further; returns the seconds until the next tick, None if none is needed."""
        if self.client is not None:
            self.client.turn()
        for written in self._writer.step(WRITE_BUDGET_S):
            fill = self.find(written.job)
            if fill is not None:
                fill.written(written, now)
        if self._undone:
            self._mend()
        self._look()
        self._submit()
        for fill in list(self.fills):
            fill.step(self._writer)
            if fill.over:
                self._retire(fill)
        if any(fill.to_look_at and not fill.cancelling for fill in self.fills):
            return LOOKING_S
        if self.fills:
            return BUSY_S
        return IDLE_S if self.client is not None else None

    def _look(self) -> None:
        """Take one step to a keyframe of the first fill that has not seen all of its own: rendering it, or reading what
        was rendered, may take a tenth of a second."""
        for fill in self.fills:
            if fill.to_look_at and not fill.cancelling:
                fill.look()
                return

    def _submit(self) -> None:
        """Hand the server the next requests, when it has few: what takes its time once every gap has its draft."""
        if self.client is None or self.client.state != "ready":
            return
        drafts = [fill.draft for fill in self.fills if fill.draft is not None]
        _hand_over(drafts, self.client)
        if all(draft.stream is not None or draft.over for draft in drafts):
            _hand_over([fill.final for fill in self.fills], self.client)

    def _retire(self, fill: Fill) -> None:
        self.fills.remove(fill)
        self.ended[fill.job] = fill
        while len(self.ended) > MAX_REMEMBERED:
            del self.ended[next(iter(self.ended))]
        if fill.problem:
            self.message = fill.problem

    # What happens around it

    def saved(self) -> None:
        """A file is being saved that may show what is on the timeline now."""
        for fill in self.fills:
            fill.saved = fill.saved or fill.final_frames < len(fill.names)

    def moved(self, job: str, folder: Path) -> None:
        """The frames of a job were brought to another folder: what still comes goes there."""
        self._writer.redirect(job, folder)
        fill = self.find(job) or self.ended.get(job)
        if fill is not None:
            fill.folder = folder

    def after_undo(self) -> None:
        """Strips may have come back or lost frames: the next tick mends them, outside of Blender's undo."""
        self._undone = True

    def _mend(self) -> None:
        self._undone = False
        for job in strips.jobs_on_timeline():
            if job in self.ended:
                self.ended[job].mend()
            elif job in self._dropped:
                strips.remove(job)

    def forget(self) -> None:
        """Another file is being loaded: nothing here belongs to it."""
        for fill in self.fills:
            fill.cancel()
        if self.client is not None:
            self.client.turn()
        self._writer.close()
        self.fills.clear()
        self.ended.clear()
        self._dropped.clear()
        self.message = ""

    def leave(self) -> None:
        """Blender or the extension ends. Strips keep what is on disk."""
        for fill in self.fills:
            fill.leave()
        self.close()

    def close(self) -> None:
        """Let go of the server, without touching Blender."""
        if self.client is not None:
            self.client.close()
            self.client = None
        self._writer.close()
