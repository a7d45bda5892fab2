"""Requests on the server: what state each is in, and which moves are legal.

    QUEUED ──> RUNNING ──> STOPPING ──> ENDED
       │          └───────────────────────^
       └──────────────────────────────────^

ENDED is reached once, through `Jobs.end`, which hands back the one terminal message: a second one cannot be made.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from enum import Enum, auto
from itertools import islice

from attrs import define, evolve, field
from sfwire import messages as m
from sfwire.codec import Buffer

from .turns import Turns

REMEMBERED_ENDS = 1024
"""Terminal messages kept for a Generate that comes again after its answer was lost."""

TOLD_OF_THEIR_PLACE = 64
"""Of those that wait, the next ones: they hear whenever their place changes, which costs as much as there are of them.
Who stands further behind hears when it comes among them."""


class State(Enum):
    QUEUED = auto()
    RUNNING = auto()
    STOPPING = auto()
    """Cancelled; the worker has not confirmed yet."""
    ENDED = auto()


LEGAL = {
    State.QUEUED: {State.RUNNING, State.ENDED},
    State.RUNNING: {State.STOPPING, State.ENDED},
    State.STOPPING: {State.ENDED},
    State.ENDED: set[State](),
}


@define(eq=False)
class Job:
    """One accepted request. `key` names it between the server's processes; `owner` is the client's session."""

    key: str
    owner: str
    request: m.Generate
    buffers: tuple[Buffer, ...]
    state: State = State.QUEUED
    worker: int | None = None
    position: int = 0
    sent: int = 0
    credit: int = 0
    """The running total of frames that the client wants to be sent."""
    given: int = 0
    """And that the worker was told: see `credit.py`."""
    moved_at: float = 0.0
    """When it was last handed out or had a frame sent."""
    since: float = 0.0
    """When it came into its state."""
    client: str = ""
    """What its client calls itself."""
    content: str = ""
    """See `kept.py`."""
    round: int = 0
    """See `turns.py`."""
    keeps: bool = False
    """It is being stopped through no fault of its client's, and its place is kept."""
    verdict: m.Failed | None = None
    """What its client is told when it has stopped, in place of `cancelled`."""
    noted: int = 0
    """Frames that its client has taken, as the journal knows."""

    @property
    def taken(self) -> int:
        """Frames that its client has taken, as it says: credit is a running total of what it has taken and may take."""
        return max(0, min(self.sent, self.credit - self.request.credit))

    @property
    def first_untaken(self) -> int:
        """Position of the first frame that its client has not taken."""
        held = {keyframe.at for keyframe in self.request.keyframes}
        wanted = (at for at in range(self.request.resume_from, self.request.num_frames) if at not in held)
        return next(islice(wanted, self.taken, None), self.request.num_frames)

    def move(self, state: State, now: float) -> None:
        assert state in LEGAL[self.state], f"{self.key}: {self.state.name} -> {state.name}"
        self.state, self.since = state, now


Terminal = m.Done | m.Failed


@define
class Jobs:
    """All requests that have not ended, and how the last ones ended."""

    served: int = 0
    _live: dict[str, Job] = field(factory=dict[str, Job])
    _by_owner: dict[str, dict[str, Job]] = field(factory=dict[str, dict[str, Job]])
    """The same, of each owner by its own ids: nothing here looks through everybody's."""
    _by_worker: dict[int, Job] = field(factory=dict[int, Job])
    _queue: Turns = field(factory=Turns)
    _ends: OrderedDict[tuple[str, str], Terminal] = field(factory=OrderedDict[tuple[str, str], Terminal])
    _count: int = 0

    def __iter__(self) -> Iterator[Job]:
        return iter(list(self._live.values()))

    def get(self, key: str) -> Job | None:
        return self._live.get(key)

    def find(self, owner: str, request_id: str) -> Job | None:
        """The live request that a client calls by this id."""
        return self._by_owner.get(owner, {}).get(request_id)

    def of(self, owner: str) -> list[Job]:
        return list(self._by_owner.get(owner, {}).values())

    def on(self, worker: int) -> Job | None:
        """The request that a worker has in hand."""
        return self._by_worker.get(worker)

    def in_hand(self) -> list[Job]:
        """Those that workers have."""
        return list(self._by_worker.values())

    def how_ended(self, owner: str, request_id: str) -> Terminal | None:
        return self._ends.get((owner, request_id))

    @property
    def queued(self) -> int:
        return len(self._queue)

    @property
    def running(self) -> int:
        return len(self._live) - len(self._queue)

    def admit(
        self, owner: str, request: m.Generate, buffers: tuple[Buffer, ...], now: float, round: int | None = None
    ) -> Job:
        """Let it wait for its turn; `round`: where it stood before. Raises RequestError where there is no room."""
        key = f"job{self._count + 1}"
        before = self._queue.add(key, owner, sum(map(len, buffers)), request.priority, round)
        self._count += 1
        job = Job(key, owner, request, buffers, position=before + 1, credit=request.credit, since=now)
        job.round = self._queue.round_of(key)
        self._live[key] = self._by_owner.setdefault(owner, {})[request.id] = job
        return job

    def move(self, job: Job, to: int) -> None:
        """Let a waiting request stand behind so many others."""
        self._queue.move(job.key, to)
        job.round = self._queue.round_of(job.key)

    def remember(self, owner: str, how: Terminal) -> None:
        """How a request of an earlier server ended."""
        self._ends[owner, how.id or ""] = how

    def waiting(self, others: int) -> Job | None:
        """The waiting request that so many others come before."""
        key = self._queue.after(others)
        return None if key is None else self._live[key]

    def start(self, others: int, worker: int, now: float) -> Job:
        """Give that request to a worker."""
        key = self._queue.pop(others)
        assert key is not None
        job = self._live[key]
        job.move(State.RUNNING, now)
        job.worker, job.position = worker, 0
        self._by_worker[worker] = job
        return job

    def moved(self) -> list[Job]:
        """The next ones of those that wait whose position has changed since this was last asked."""
        changed: list[Job] = []
        for position, key in enumerate(islice(self._queue, TOLD_OF_THEIR_PLACE), start=1):
            job = self._live[key]
            if job.position != position:
                job.position = position
                changed.append(job)
        return changed

    def end(self, job: Job, how: Terminal, now: float) -> Terminal:
        """Take a request out; the terminal message in the client's own terms. The only way to one."""
        job.move(State.ENDED, now)
        del self._live[job.key], self._by_owner[job.owner][job.request.id]
        if not self._by_owner[job.owner]:
            del self._by_owner[job.owner]
        if job.worker is not None:
            del self._by_worker[job.worker]
        self._queue.remove(job.key)
        job.buffers = ()
        terminal = evolve(how, id=job.request.id)
        self._ends[job.owner, job.request.id] = terminal
        if len(self._ends) > REMEMBERED_ENDS:
            self._ends.popitem(last=False)
        self.served += 1
        return terminal
