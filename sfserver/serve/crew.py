"""The workers' half of the broker, sans I/O: what is known of every place, from a process's start to its end.

A place is starting until its process has said which engines it has, then idle or busy by turns. Who dies is started
again, after a pause where that came to nothing; who fails again and again is dead for a while. A place for workers that
dial in is absent while nobody has it. Of requests this page knows which worker could do one, and nothing else: what a
death means to the request in hand is the broker's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Literal

import structlog
from attrs import define, evolve
from sfwire import limits as L
from sfwire import messages as m
from sfwire.codec import encode
from sfwire.errors import BadMessage, RequestError

from . import placing
from .ends import pause_s
from .placing import NO_SKILL, Idle, Skill

START_TIMEOUT_S = 180.0
"""A cold worker imports torch from a slow disk within this."""
MAX_FAILED_STARTS = 3
"""Starts in a row that fail before a worker is left dead for a while."""
DEAD_PAUSE_S = 30.0
GATHER_S = 30.0
"""From the server's start: who was there before it is back by then. Who dialled in tries again every two seconds."""
PROCESS_PATIENCE_S = 60.0
"""A worker beats every two seconds (`pulse.py`), whatever its engine does: one that is silent was stopped."""

log = structlog.get_logger("broker")


@define(eq=False)
class Worker:
    """One place, and the process that has it now."""

    state: m.WorkerState | Literal["absent"] = "starting"
    dials_in: bool = False
    device: str = ""
    skill: Skill = NO_SKILL
    loaded: frozenset[str] = frozenset()
    since: float = 0.0
    beat_at: float = 0.0
    pid: int = 0
    restarts: int = 0
    starts: int = 0
    """That came to nothing, in a row."""
    failed_starts: int = 0
    """Those of them that ended by themselves."""
    due_at: float = 0.0
    """When the next process is started, where that waits."""
    last_words: str = ""
    """What it said before it died, for the one who asks why."""


class Crew:
    """All places; those from `workers` on are for who dials in. `now` is seconds of any monotonic clock."""

    def __init__(self, workers: int, places: int, beat_timeout_s: float, now: float) -> None:
        self.workers = [Worker(since=now, beat_at=now) for _ in range(workers)]
        self.workers += [Worker("absent", dials_in=True) for _ in range(places)]
        self.engines: Mapping[str, m.EngineInfo] = {}
        self.said: m.Welcome | None = None
        """What clients are told of all workers' engines; None until one has said which there are."""
        self._began_at = now
        self._beat_timeout_s = beat_timeout_s or PROCESS_PATIENCE_S
        self._idle = Idle()
        self._skills: dict[Skill, Skill] = {}
        """Of every kind of worker that was here, the first one first: what one could do that is away just now is waited
        for. Workers that are alike share one."""

    # From start to end

    def started(self, index: int, pid: int, device: str) -> None:
        """A process has this place; it says Welcome once it can work."""
        self.workers[index].pid, self.workers[index].device = pid, device

    def came(self, index: int, pid: int, device: str, now: float) -> None:
        """A worker has dialled in; it says Welcome next."""
        worker = self.workers[index]
        worker.state, worker.since, worker.beat_at = "starting", now, now
        self.started(index, pid, device)

    def beat(self, index: int, now: float) -> None:
        self.workers[index].beat_at = now

    def welcome(self, index: int, welcome: m.Welcome, now: float) -> str | None:
        """It can work, and is idle. If it may not work here, the sentence that it is told, and its place is free."""
        worker, skill = self.workers[index], Skill(welcome.engines, welcome.default_engine)
        others = [w.skill for i, w in enumerate(self.workers) if i != index and w.state != "absent"]
        if worker.dials_in and (why := placing.other_version(skill, others) or self._too_much_to_tell(skill)):
            log.warning("worker refused", worker=index, device=worker.device, why=why)
            worker.state = "absent"
            return why
        if worker.skill != skill and not worker.dials_in and worker.skill not in others:
            self._skills.pop(worker.skill, None)  # its weights are others than when it was started before
        worker.skill, worker.starts, worker.failed_starts = self._skills.setdefault(skill, skill), 0, 0
        if len(self._skills) > L.MAX_WORKERS:  # more kinds than places: one of them nobody has any more
            here = {w.skill for w in self.workers if w.state != "absent"}
            del self._skills[next(known for known in self._skills if known not in here)]
        self.rest(index, now)
        self._tell_of_engines(welcome)
        return None

    def _too_much_to_tell(self, skill: Skill) -> str | None:
        """The sentence for a worker with whose engines a Welcome would be longer than a client reads; None if not."""
        if self.said is None:
            return None
        try:
            encode(evolve(self.said, engines=placing.all_engines([*self._skills, skill])))
        except BadMessage:
            return "with its engines there are more than a client can be told of; take some out of its models folder"
        return None

    def _tell_of_engines(self, welcome: m.Welcome) -> None:
        """The engines of all workers, and for `auto` what the first kind of them says."""
        engines = placing.all_engines(self._skills)
        self.engines = {info.id: info for info in engines}
        is_first = next(iter(self._skills)).default == welcome.default_engine
        said = welcome if is_first or self.said is None else self.said
        self.said = evolve(said, engines=engines)

    def rest(self, index: int, now: float, ran: str = "") -> None:
        """This worker has nothing in hand. `ran`: the engine that it has loaded by what it did."""
        worker = self.workers[index]
        worker.loaded = placing.loaded_after(worker.loaded, ran, worker.skill)
        worker.state, worker.since = "idle", now
        self._idle.add(index, worker.skill, worker.loaded)

    def take(self, request: m.Generate, now: float) -> int | None:
        """The idle worker that this should go to, busy from now on; None where none of them can do it."""
        index = self._idle.take(request)
        if index is not None:
            worker = self.workers[index]
            worker.state, worker.since, worker.beat_at = "busy", now, now
            worker.loaded = placing.loaded_after(worker.loaded, request.engine, worker.skill)
        return index

    def lose(self, index: int, why: str, now: float, was_ended: bool) -> bool:
        """Its process is gone, or given up; whether another one is to be started at once."""
        worker = self.workers[index]
        self._idle.remove(index)
        worker.loaded = frozenset()
        worker.last_words = m.fit(why)
        worker.starts += worker.state == "starting"
        worker.failed_starts += worker.state == "starting" and not was_ended
        worker.restarts += 1
        worker.beat_at = worker.since = now
        is_dead = worker.failed_starts >= MAX_FAILED_STARTS and not worker.dials_in
        worker.state = "absent" if worker.dials_in else "dead" if is_dead else "starting"
        worker.due_at = now + pause_s(worker.starts) if worker.starts and not worker.dials_in else now
        return worker.due_at == now and not is_dead

    # Time

    def due(self, now: float) -> list[int]:
        """Where a process is to be started now, after a pause."""
        found: list[int] = []
        for index, worker in enumerate(self.workers):
            is_due = worker.state == "starting" and worker.since < worker.due_at <= now
            if is_due or (worker.state == "dead" and now - worker.since > DEAD_PAUSE_S):
                worker.state, worker.since, worker.beat_at = "starting", now, now
                found.append(index)
        return found

    def hanging(self, now: float) -> list[tuple[int, str]]:
        """Who shows no sign of life for longer than it may, and the sentence about it."""
        found: list[tuple[int, str]] = []
        for index, worker in enumerate(self.workers):
            silent = now - worker.beat_at
            if worker.state == "starting" and silent > START_TIMEOUT_S:
                found.append((index, f"it did not start in {silent:.0f} s"))
            elif worker.state == "busy" and silent > self._beat_timeout_s:
                log.warning("worker hangs", worker=index, pid=worker.pid, silent_s=round(silent))
                found.append((index, f"the worker showed no sign of life for {silent:.0f} s and was replaced"))
        return found

    # What others ask

    @property
    def has_idle(self) -> bool:
        return bool(self._idle)

    def gathers(self, now: float) -> bool:
        """The server has begun a moment ago, and somebody may be missing who was there before."""
        return now - self._began_at < GATHER_S and any(w.state in ("starting", "absent") for w in self.workers)

    def can(self, request: m.Generate) -> bool:
        """Whether a worker can do it that is here, or was."""
        return placing.refusal_of_all(self._skills, request) is None

    def refusal(self, request: m.Generate, now: float) -> RequestError | None:
        """Why nobody can do this; None where somebody can, or may come back who could."""
        refused = placing.refusal_of_all(self._skills, request)
        if refused is None or not self.gathers(now):
            return refused
        return None if request.engine == L.AUTO or refused.code in placing.ABSENT else refused

    def why_nobody(self) -> str | None:
        """The sentence for those who ask while all workers are dead for now; None while one is not."""
        dead = [worker for worker in self.workers if worker.state == "dead"]
        if not dead or any(worker.state not in ("dead", "absent") for worker in self.workers):
            return None
        words = dead[0].last_words or "see the server's log"
        return f"no worker can be started: {words}"

    def reasons(self) -> Callable[[m.Generate], str]:
        """Says of a request why it waits, by what all workers do now."""
        busy = Counter(worker.skill for worker in self.workers if worker.state == "busy")
        starting = sum(worker.state == "starting" for worker in self.workers)
        return lambda request: placing.why_it_waits(request, busy, starting)

    def states(self) -> tuple[m.WorkerState, ...]:
        there: list[m.WorkerState] = [w.state for w in self.workers if w.state != "absent"]
        return tuple(there[: L.MAX_WORKERS])

    def report(self, names_devices: bool) -> tuple[m.WorkerStatus, ...]:
        return tuple(
            m.WorkerStatus(index, w.pid, w.state, w.restarts, w.device if names_devices else "")
            for index, w in enumerate(self.workers)
            if w.state != "absent"
        )
