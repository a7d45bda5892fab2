"""All holes of a timeline filled: one job each, in an engine here or by a server, where several workers share them.

holes -> pictures read -> jobs begun, as many as the road takes at once -> frames into movies as they come -> movies
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from attrs import evolve, frozen
from sfwire.client import Client
from sfwire.errors import RequestError, ServerUnavailable, WireError
from sfwire.messages import Refused
from sfwire.request import Ended

from ..clip.interrupts import Interrupts
from ..clip.planning import Choice, Notes, Plan
from ..clip.sources import Event, frames_from_here, heard
from ..engine import base
from ..media.files import MediaError
from .holes import Hole, Unfilled
from .jobs import Pictures, Reel, Task, Wish, made_already, stands_already, task_of

AT_ONCE = 8
"""Requests a server is given at a time: more than it has workers, fewer than the 64 that it lets wait."""
_REST_S = 0.02
"""Between two looks at streams that have nothing new."""


class Watcher(Notes, Protocol):
    """Who is told what happens: the command line's bars."""

    def planned(self, holes: int, frames: int) -> None: ...

    def at(self, name: str, stage: str, made: int, wanted: int) -> None:
        """One job goes on."""
        ...

    def ended(self, name: str, frames: int) -> None:
        """One hole is done with; `frames` of the whole are behind it."""
        ...


class Source(Protocol):
    """The events of one job."""

    def poll(self) -> list[Event] | None:
        """What has come since; None behind the last. Raises RequestError and WireError."""
        ...

    def close(self) -> None:
        """Cancels it, if it goes on."""
        ...


class Road(Protocol):
    """How jobs become frames."""

    @property
    def at_once(self) -> int: ...

    def begin(self, plan: Plan) -> Source: ...


@frozen(eq=False)
class Filled:
    """What became of a timeline's holes."""

    done: tuple[tuple[Task, Path], ...]
    """The movies that are to be put into the timeline."""
    stood: int
    """Clips of ours that stay: made by the very same recipe."""
    unfilled: tuple[Unfilled, ...]
    made: int
    """Movies that were made now; the others were there."""
    cancelled: bool = False
    broken: WireError | MediaError | None = None
    """Why it stopped before its end."""


class Here:
    """One job after the other, in this process. The engine is loaded once, for the first."""

    at_once = 1

    def __init__(self, choice: Choice) -> None:
        self._choice = evolve(choice, load=lru_cache(maxsize=1)(choice.load))

    def begin(self, plan: Plan) -> Source:
        return _Generated(frames_from_here(self._choice, plan.job))


class _Generated:
    def __init__(self, events: Generator[Event, None, None]) -> None:
        self._events = events

    def poll(self) -> list[Event] | None:
        event = next(self._events, None)
        return None if event is None else [event]

    def close(self) -> None:
        self._events.close()


class There:
    """Several at a time, by a server."""

    at_once = AT_ONCE

    def __init__(self, client: Client) -> None:
        self._client = client

    def begin(self, plan: Plan) -> Source:
        return _Streamed(self._client, plan)


class _Streamed:
    def __init__(self, client: Client, plan: Plan) -> None:
        self._stream = client.submit(evolve(plan.request, priority="batch"))

    def poll(self) -> list[Event] | None:
        if self._stream.ended:
            return None
        came = self._stream.poll(4)
        for event in came:
            if isinstance(event, Ended) and event.error is not None:
                raise event.error
            if isinstance(event, Ended) and event.done is not None and event.done.outcome == "cancelled":
                raise ServerUnavailable("the server is shutting down; start it and try again")
        return [heard(event) for event in came if not isinstance(event, Ended)]

    def close(self) -> None:
        self._stream.close()


@frozen(eq=False)
class _Live:
    """A job that is being made, and the holes that it is for: the same pictures may stand in a timeline twice."""

    reel: Reel
    source: Source
    tasks: list[Task]


class Filling:
    """One run over a timeline's holes. `run` returns also after Ctrl-C, with what is whole."""

    def __init__(
        self,
        holes: Sequence[Hole],
        wish: Wish,
        choice: Choice,
        weights: Mapping[str, str],
        pictures: Pictures,
        folder: Path,
    ) -> None:
        self._waiting = deque(holes)
        self._wish, self._choice, self._weights, self._folder = wish, choice, weights, folder
        self._pictures = pictures
        self._live: dict[str, _Live] = {}
        """By the key of their recipe."""
        self._paths: dict[str, Path] = {}
        """Movies that are there, by the same."""
        self._done: list[tuple[Task, Path]] = []
        self._unfilled: list[Unfilled] = []
        self._made = self._stood = 0

    def run(self, road: Road, watcher: Watcher) -> Filled:
        """What the user, the machine or the network can cause is not raised: it is in what this returns."""
        watcher.planned(len(self._waiting), sum(hole.num_frames for hole in self._waiting))
        cancelled, broken = False, None
        with Interrupts() as interrupts:
            try:
                while self._waiting or self._live:
                    self._begin(road, watcher)
                    if not self._turn(interrupts, watcher) and self._live:
                        time.sleep(_REST_S)
            except KeyboardInterrupt:
                cancelled = True
            except (WireError, MediaError) as error:
                broken = error
            finally:
                for live in self._live.values():
                    live.source.close()
                    live.reel.abort()
        return Filled(tuple(self._done), self._stood, tuple(self._unfilled), self._made, cancelled, broken)

    def _begin(self, road: Road, watcher: Watcher) -> None:
        while self._waiting and len(self._live) < road.at_once:
            hole = self._waiting.popleft()
            try:
                task = task_of(hole, self._wish, self._choice, self._weights, self._pictures, watcher)
            except (MediaError, RequestError, Refused) as error:
                self._give_up(hole, error, watcher)
                continue
            key = task.recipe.key
            if stands_already(task):
                self._stood += 1
                watcher.ended(hole.name, hole.num_frames)
            elif key in self._live:
                self._live[key].tasks.append(task)
            elif (
                path := self._paths.get(key) or made_already(task, self._folder, self._wish.codec.suffixes[0])
            ) is not None:
                self._finish(task, path, watcher)
            else:
                reel = Reel(task, self._folder, self._wish)
                self._live[key] = _Live(reel, road.begin(task.plan), [task])

    def _turn(self, interrupts: Interrupts, watcher: Watcher) -> bool:
        """Take from every job what has come. Returns whether there was anything."""
        is_anything = False
        for key, live in list(self._live.items()):
            try:
                events = live.source.poll()
            except RequestError as error:
                del self._live[key]
                live.reel.abort()
                for task in live.tasks:
                    self._give_up(task.hole, error, watcher)
                continue
            with interrupts.deferred():  # a frame is whole in a movie or not in it
                if events is None:
                    del self._live[key]
                    self._close(live, watcher)
                for event in events or ():
                    self._take(live, event, watcher)
            is_anything = is_anything or events is None or bool(events)
        return is_anything

    def _take(self, live: _Live, event: Event, watcher: Watcher) -> None:
        hole = live.tasks[0].hole
        if isinstance(event, base.Frame):
            live.reel.add(event)
        elif event.stage.startswith(base.FOUND):
            watcher.note(f"{hole.name}: {event.stage.removeprefix(base.FOUND)}")
            return
        stage = "in-betweens" if isinstance(event, base.Frame) else event.stage
        watcher.at(hole.name, stage, live.reel.made, hole.num_frames)

    def _close(self, live: _Live, watcher: Watcher) -> None:
        live.reel.close()
        self._made += 1
        for task in live.tasks:
            self._finish(task, live.reel.path, watcher)

    def _finish(self, task: Task, path: Path, watcher: Watcher) -> None:
        self._paths[task.recipe.key] = path
        self._done.append((task, path))
        watcher.ended(task.hole.name, task.hole.num_frames)

    def _give_up(self, hole: Hole, error: Exception, watcher: Watcher) -> None:
        self._unfilled.append(Unfilled(hole.name, str(error)))
        watcher.ended(hole.name, hole.num_frames)
