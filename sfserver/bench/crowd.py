"""A crowd around the broker: thousands of virtual workers and clients in virtual time, no socket, no process.

The broker is sans I/O and takes the time as an argument, so it can be asked today what a house with 1,000 GPUs would
ask of it. Each call of it is timed; of each kind of call some are counted too, in lines of Python that were executed.
A time belongs to a machine, the lines do not. `python -m sfserver.bench.crowd` prints the tables of docs/scale.md.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from heapq import heappop, heappush
from itertools import count
from types import FrameType
from typing import Any

import attrs
from attrs import define, evolve, field, frozen
from sfwire import limits as L
from sfwire import messages as m

from ..serve.broker import Action, Broker, Replace, ToClient, ToWorker

INFO = m.EngineInfo("virtual", "Virtual", "Takes time and nothing else", "1", "none", False, False, True, can_skip=True)
SIDE_PX = 16
FRAMES = 31
FRAME_S = 0.5
JOB_S = FRAMES * FRAME_S
"""What a worker takes for a gap of a second and a quarter: a mid-range card at 832x480."""
START_S = 8.0
"""A new process until it can work."""
LIFE_S = 3600.0
"""Mean time until a worker dies: far more often than any should."""
LOAD = 0.9
"""Of the workers' time that is asked for."""
ANIMATIC_EVERY, ANIMATIC_GAPS = 50, 20
"""One client in so many asks for so many gaps at once, the others for one."""
TICK_S = 0.1
ROUND_TRIP_S = 0.001
COUNTED_EVERY = 23
"""Calls of one kind, of which one is counted and not timed."""


@frozen
class House:
    workers: int
    clients: int
    animatic_every: int = ANIMATIC_EVERY
    animatic_gaps: int = ANIMATIC_GAPS
    load: float = LOAD

    def gaps_of(self, client: int) -> int:
        return self.animatic_gaps if client % self.animatic_every == 0 else 1

    @property
    def pause_s(self) -> float:
        """From the end of what a client asked for until it asks again, at its mean, so that the load is what it is."""
        gaps = sum(map(self.gaps_of, range(self.clients)))
        return max(0.0, gaps * JOB_S / (self.workers * self.load) - JOB_S)


@define
class Cost:
    """Of one kind of call."""

    times_ns: list[int] = field(factory=list[int])
    lines: list[int] = field(factory=list[int])
    seen: int = 0


@define(eq=False)
class Asked:
    """One gap."""

    client: int
    message: m.Generate
    asked_at: float
    waits: bool = False


@define(eq=False)
class Client:
    gaps: int
    left: int = 0


@define(eq=False)
class Worker:
    life: int = 0
    """How many processes were in this place: what an old one was about to do is not done."""
    is_up: bool = False
    job: m.Generate | None = None
    sent: int = 0
    credit: int = 0
    cancelled: bool = False
    stands: bool = False
    """Waits for credit."""


class Crowd:
    """`run` lets so many virtual seconds pass; what it cost and how long they waited is in the attributes."""

    def __init__(self, house: House, seed: int = 0, broker: type[Broker] = Broker) -> None:
        self.house = house
        self.now = 0.0
        self.costs: defaultdict[str, Cost] = defaultdict(Cost)
        self.waits_s: dict[int, list[float]] = defaultdict(list)
        """By how many gaps were asked for at once: from asking until a worker had it."""
        self.ends: Counter[str] = Counter()
        self.busy_s = self.idle_beside_waiting_s = 0.0
        self._random = random.Random(seed)
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._seeds = count()
        self._broker = broker("virtual", "sfserver", house.workers, 60.0, 0.0)
        self._clients = [Client(house.gaps_of(index)) for index in range(house.clients)]
        self._workers = [Worker() for _ in range(house.workers)]
        self._asked: dict[int, Asked] = {}
        """By seed, which travels with a request through the broker and back."""
        self._of: dict[tuple[int, str], Asked] = {}
        self._waiting = self._busy = self._up = 0

    def settle(self) -> None:
        """Everybody is there, and most have something in hand or behind them."""
        for worker in range(self.house.workers):
            self._perform([Replace(worker)])
            self._later(self._random.expovariate(1 / LIFE_S), self._die, worker)
        for client in range(self.house.clients):
            self._later(START_S + self._random.random(), self._greet, client)
        self._later(TICK_S, self._tick)
        self.run(START_S + JOB_S)
        self.costs.clear()
        self.waits_s.clear()
        self.ends.clear()
        self.busy_s = self.idle_beside_waiting_s = 0.0

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._due[0][0] <= end:
            due, _, act = heappop(self._due)
            self.busy_s += self._busy * (due - self.now)
            self.idle_beside_waiting_s += min(self._waiting, self._up - self._busy) * (due - self.now)
            self.now = due
            act()
        self.now = end

    def _later(self, seconds: float, act: Callable[..., None], *arguments: Any) -> None:
        heappush(self._due, (self.now + seconds, next(self._order), lambda: act(*arguments)))

    # Clients

    def _greet(self, client: int) -> None:
        self._say(client, m.Hello(L.PROTOCOL, "virtual", f"s{client}"))
        self._later(L.PING_INTERVAL_S, self._ping, client)
        self._later(self._random.random() * (self.house.pause_s + JOB_S), self._ask, client)

    def _ping(self, client: int) -> None:
        self._say(client, m.Ping(0))
        self._later(L.PING_INTERVAL_S, self._ping, client)

    def _ask(self, client: int) -> None:
        me = self._clients[client]
        me.left = me.gaps
        for _ in range(me.gaps):
            seed = next(self._seeds)
            picture = m.Keyframe(0, 0, SIDE_PX, SIDE_PX)
            message = m.Generate(f"r{seed}", INFO.id, SIDE_PX, SIDE_PX, FRAMES + 2, (picture,), seed)
            asked = self._asked[seed] = self._of[client, message.id] = Asked(client, message, self.now)
            self._submit(asked)

    def _again(self, asked: Asked) -> None:
        """Under another id: what is known of the old one is how it ended."""
        asked.message = evolve(asked.message, id=f"{asked.message.id}a")
        self._of[asked.client, asked.message.id] = asked
        self._submit(asked)

    def _submit(self, asked: Asked) -> None:
        self._wait(asked, True)
        self._say(asked.client, asked.message)

    def _wait(self, asked: Asked, waits: bool) -> None:
        self._waiting += waits - asked.waits
        asked.waits = waits

    def _hear(self, action: ToClient) -> None:
        client, message = int(action.peer), action.message
        match message:
            case m.Frame():
                self._later(ROUND_TRIP_S, self._say, client, m.Credit(message.id, message.index + 9))
            case m.Failed(id=str(request)) if message.code.name == "QUEUE_FULL":
                self.ends["asked again: the house is full"] += 1
                self._wait(self._of[client, request], False)
                self._later(1.0, self._submit, self._of[client, request])
            case m.Failed(id=str(request)) if message.retryable:
                self.ends[f"asked again: {message.code.name.lower()}"] += 1
                self._later(ROUND_TRIP_S, self._again, self._of.pop((client, request)))
            case m.Done() | m.Failed(id=str()):
                self.ends["made" if isinstance(message, m.Done) else message.code.name] += 1
                asked = self._of.pop((client, str(message.id)))
                self._wait(asked, False)
                del self._asked[asked.message.seed]
                self._clients[client].left -= 1
                if not self._clients[client].left:
                    self._later(self._random.expovariate(1 / max(self.house.pause_s, 1e-3)), self._ask, client)
            case _:
                pass

    def _say(self, client: int, message: m.ToServer) -> None:
        peer = b"%d" % client
        self._call(type(message).__name__, lambda: self._broker.on_client(peer, message, [], self.now))

    # Workers

    def _start(self, index: int) -> None:
        worker = self._workers[index]
        self._leave(worker)
        self._up -= worker.is_up
        worker.life, worker.is_up = worker.life + 1, False
        self._later(START_S, self._rise, index, worker.life)

    def _rise(self, index: int, life: int) -> None:
        worker = self._workers[index]
        if worker.life == life:
            worker.is_up = True
            self._up += 1
            self._tell(index, m.Welcome(L.PROTOCOL, "worker", "sfserver", (INFO,), INFO.id, "it is the only one"))

    def _die(self, index: int) -> None:
        self._later(self._random.expovariate(1 / LIFE_S), self._die, index)
        worker = self._workers[index]
        if worker.is_up:
            self._up -= 1
            worker.is_up, worker.life = False, worker.life + 1
            self._leave(worker)
            self._call("worker gone", lambda: self._broker.on_worker_gone(index, "virtual", self.now))

    def _leave(self, worker: Worker) -> None:
        self._busy -= worker.job is not None
        worker.job = None

    def _take(self, action: ToWorker) -> None:
        worker, message = self._workers[action.worker], action.message
        match message:
            case m.Generate():
                asked = self._asked[message.seed]
                self.waits_s[self._clients[asked.client].gaps].append(self.now - asked.asked_at)
                self._wait(asked, False)
                self._busy += 1
                worker.job, worker.sent, worker.credit = message, 0, message.credit
                worker.cancelled = worker.stands = False
                self._later(FRAME_S, self._frame, action.worker, worker.life)
            case m.Credit():
                worker.credit = max(worker.credit, message.total)
                if worker.stands:
                    worker.stands = False
                    self._later(0.0, self._frame, action.worker, worker.life)
            case m.Cancel():
                worker.cancelled = True

    def _frame(self, index: int, life: int) -> None:
        worker = self._workers[index]
        if worker.life != life or worker.job is None:
            return
        key = worker.job.id
        if worker.sent == FRAMES or worker.cancelled:
            self._leave(worker)
            how = "cancelled" if worker.cancelled else "finished"
            self._tell(index, m.Done(key, how, worker.sent, 0, INFO.id, INFO.version))
        elif worker.sent >= worker.credit:
            worker.stands = True
        else:
            worker.sent += 1
            self._tell(index, m.Frame(key, worker.sent, SIDE_PX, SIDE_PX, "raw", None))
            self._later(0.0 if worker.sent == FRAMES else FRAME_S, self._frame, index, life)

    def _tell(self, index: int, message: m.ToClient) -> None:
        name = f"{type(message).__name__} of a worker"
        self._call(name, lambda: self._broker.on_worker(index, message, [], self.now))

    # The broker

    def _tick(self) -> None:
        self._call("tick", lambda: self._broker.tick(self.now))
        self._later(TICK_S, self._tick)

    def _call(self, kind: str, call: Callable[[], list[Action]]) -> None:
        cost = self.costs[kind]
        cost.seen += 1
        if cost.seen % COUNTED_EVERY == 1:
            actions, lines = counted(call)
            cost.lines.append(lines)
        else:
            began = time.thread_time_ns()
            actions = call()
            cost.times_ns.append(time.thread_time_ns() - began)
        self._perform(actions)

    def _perform(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case ToClient():
                    self._hear(action)
                case ToWorker():
                    self._take(action)
                case Replace():
                    self._start(action.worker)


def counted(call: Callable[[], list[Action]]) -> tuple[list[Action], int]:
    """What it answers, and how many lines of Python were executed for it, a loop's line each time round."""
    lines = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        return call(), lines
    finally:
        sys.settrace(before)


@contextmanager
def no_limits() -> Iterator[None]:
    """The house's limits, which stand far below such a crowd, are out of the way, those in messages too."""
    names = "MAX_CLIENTS", "MAX_QUEUED", "MAX_QUEUED_OF_ONE"
    before = {name: getattr(L, name) for name in names}
    for name in names:
        setattr(L, name, sys.maxsize)
    try:
        with attrs.validators.disabled():
            yield
    finally:
        for name, value in before.items():
            setattr(L, name, value)
