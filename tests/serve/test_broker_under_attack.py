"""The broker among clients that vanish between any two actions and workers that die in every state.

Real messages, several connections that change their sessions, a pipe to each worker in which what was said waits; the
clock is a number. After every step each worker is idle or has a request in hand that somebody owns or that it was told
to stop, each accepted request ends exactly once, what waits for a connection stays under its bound, in bytes, and the
journal holds what has not ended and what is kept, no more and no less: the server may die and begin anew from it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import hypothesis.strategies as st
import pytest
import structlog
from attrs import define, field
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from sfwire import limits as L
from sfwire import messages as m

from sfserver.serve.actions import Action, Note, Replace, ToClient, ToWorker
from sfserver.serve.broker import Broker
from sfserver.serve.jobs import Job, Jobs, State, Terminal
from sfserver.serve.kept import Claimed, Entered, Entry, Fact, Left, Past, Paused
from sfserver.serve.order import Ask, InOrder, nobody

SIDE = 16
OPERATOR = "operator"
INFO = m.EngineInfo("fake", "Fake", "Counts", "1", "none", False, False, True, can_skip=True)
PEERS = (b"p0", b"p1", b"p2")
SESSIONS = ("s0", "s1", "s2")
IDS = ("r0", "r1", "r2")
WORKERS = (0, 1)
LARGE = 4096, 2160
PICTURES = {size: bytes(size[0] * size[1] * 3) for size in ((SIDE, SIDE), LARGE)}
PICTURE = PICTURES[SIDE, SIDE]


@define
class Process:
    """A worker's process: its pipe, and the request it has in hand."""

    inbox: list[m.Generate | m.Credit | m.Cancel] = field(factory=list)
    has_said_welcome: bool = False
    request: m.Generate | None = None
    frames_left: int = 0
    credit: int = 0
    cancelled: set[str] = field(factory=set)
    """Ids that a Cancel came for while they were in hand: one that comes earlier is for nobody and is lost."""


class Counted(Jobs):
    """Remembers which request ended how often."""

    def __init__(self) -> None:
        super().__init__()
        self.admitted: set[str] = set()
        self.ends: Counter[str] = Counter()

    def admit(self, *arguments: object) -> Job:
        job = super().admit(*arguments)  # type: ignore[arg-type]
        self.admitted.add(job.key)
        return job

    def end(self, job: Job, how: Terminal, now: float) -> Terminal:
        self.ends[job.key] += 1
        return super().end(job, how, now)


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    """Ten thousand clients come and go."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


class Attack(RuleBasedStateMachine):
    broker_class = Broker
    order_class = InOrder

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.processes: dict[int, Process] = {}
        self.sends_left: dict[bytes, int] = {}
        """Connections that are gone after so many more messages."""
        self.handed: Counter[bytes] = Counter()
        self.acknowledged: Counter[bytes] = Counter()
        self.mistakes: list[Action] = []
        self.journal: dict[tuple[str, str], Entry] = {}
        self.is_paused = False
        self.begin()

    def begin(self) -> None:
        """A server starts, from what the journal holds."""
        past = Past(tuple(self.journal.values()), (), self.is_paused)
        numbers = len(WORKERS), 1e9, self.now
        self.broker = self.broker_class("boot", "test", *numbers, counts=True, operator=OPERATOR, past=past)
        self.jobs = self.broker._jobs = Counted()
        self.order = self.order_class(self.perform, self.failed)
        self.do(lambda: [Replace(index) for index in WORKERS])

    def do(self, ask: Ask) -> None:
        self.order.do(ask)

    def perform(self, action: Action) -> Sequence[Action]:
        match action:
            case ToClient():
                left = self.sends_left.get(action.peer)
                if left == 0:
                    return self.broker.on_client_gone(action.peer, self.now)
                if left is not None:
                    self.sends_left[action.peer] = left - 1
                self.handed[action.peer] += sum(map(len, action.buffers))
            case ToWorker():
                self.processes[action.worker].inbox.append(action.message)
            case Replace():
                self.processes[action.worker] = Process()
                self.broker.on_worker_started(action.worker, 1)
            case Note():
                self.write(action.fact)
        return ()

    def write(self, fact: Fact) -> None:
        """As the journal does."""
        match fact:
            case Entered(entry):
                self.journal[entry.owner, entry.id] = entry
            case Left(owner, id, _, keeps) if not keeps:
                self.journal.pop((owner, id), None)
            case Claimed(owner, id):
                self.journal.pop((owner, id), None)
            case Paused(is_paused):
                self.is_paused = is_paused
            case _:
                pass

    def failed(self, action: Action) -> Sequence[Action]:
        self.mistakes.append(action)
        return ()

    # What clients do

    @rule(peer=st.sampled_from(PEERS), session=st.sampled_from(SESSIONS))
    def hello(self, peer: bytes, session: str) -> None:
        self.said(peer, m.Hello(L.PROTOCOL, "test", session))

    @rule(
        peer=st.sampled_from(PEERS),
        id=st.sampled_from(IDS),
        credit=st.integers(0, 8),
        frames=st.integers(2, 30),
        size=st.sampled_from(list(PICTURES)),
    )
    def generate(self, peer: bytes, id: str, credit: int, frames: int, size: tuple[int, int] = (SIDE, SIDE)) -> None:
        request = m.Generate(id, "fake", *size, frames, (m.Keyframe(0, 0, *size),), 1, credit=credit)
        self.said(peer, request, [PICTURE])

    @rule(peer=st.sampled_from(PEERS), id=st.sampled_from(IDS), total=st.integers(0, 30))
    def credit(self, peer: bytes, id: str, total: int) -> None:
        self.said(peer, m.Credit(id, total))

    @rule(peer=st.sampled_from(PEERS), id=st.sampled_from(IDS))
    def cancel(self, peer: bytes, id: str) -> None:
        self.said(peer, m.Cancel(id))

    @rule(peer=st.sampled_from(PEERS), bye=st.booleans())
    def ping_or_bye(self, peer: bytes, bye: bool) -> None:
        self.said(peer, m.Bye() if bye else m.Ping(1))

    def said(self, peer: bytes, message: m.ToServer, buffers: list[bytes] | None = None) -> None:
        """What a connection said before it was gone is still heard."""
        self.do(lambda: self.broker.on_client(peer, message, list(buffers or []), self.now))

    @rule(peer=st.sampled_from(PEERS), after=st.integers(0, 3))
    def the_connection_will_be_gone_after_so_many_messages(self, peer: bytes, after: int) -> None:
        self.sends_left[peer] = after

    @rule(peer=st.sampled_from(PEERS))
    def the_connection_is_another_one_now(self, peer: bytes) -> None:
        self.do(lambda: self.broker.on_client_gone(peer, self.now))
        self.sends_left.pop(peer, None)
        self.handed[peer] = self.acknowledged[peer] = 0

    @rule(peer=st.sampled_from(PEERS), num_bytes=st.sampled_from([1000, 30_000_000, 10**9]))
    def a_computer_takes_what_was_sent_to_it(self, peer: bytes, num_bytes: int) -> None:
        self.acknowledged[peer] = min(self.handed[peer], self.acknowledged[peer] + num_bytes)

    @rule()
    def the_front_counts(self) -> None:
        for peer in PEERS:
            waiting = self.handed[peer] - self.acknowledged[peer]
            self.do(partial(self.broker.on_waiting, peer, waiting))

    @rule(action=st.sampled_from(["pause", "resume", "cancel", "move"]), data=st.data(), to=st.integers(0, 5))
    def somebody_steers(self, action: m.Steering, data: st.DataObject, to: int) -> None:
        keys = [job.key for job in self.jobs] + [entry.key for entry in self.broker._kept]
        job = data.draw(st.sampled_from([*keys, "none"]))
        self.said(PEERS[0], m.Steer(action, OPERATOR, job, to))

    @rule()
    def the_server_dies_and_another_begins(self) -> None:
        self.begin()
        self.sends_left.clear()
        self.handed.clear()
        self.acknowledged.clear()

    # What workers do

    @rule(index=st.sampled_from(WORKERS))
    def a_worker_starts(self, index: int) -> None:
        process = self.processes[index]
        if not process.has_said_welcome:
            process.has_said_welcome = True
            welcome = m.Welcome(L.PROTOCOL, "worker", "test", (INFO,), "fake", "the only one")
            self.do(lambda: self.broker.on_worker(index, welcome, [], self.now))

    @rule(index=st.sampled_from(WORKERS), turns=st.integers(1, 12))
    def a_worker_goes_on(self, index: int, turns: int) -> None:
        for _ in range(turns):
            self.worker_turn(index)

    def worker_turn(self, index: int) -> None:
        process = self.processes[index]
        if process.inbox:
            message = process.inbox.pop(0)
            match message:
                case m.Generate():
                    assert process.request is None, "a worker was given a second request"
                    process.request, process.credit = message, message.credit
                    process.frames_left = message.num_frames - 1
                case m.Credit() if process.request and process.request.id == message.id:
                    process.credit = max(process.credit, message.total)
                case m.Cancel() if process.request and process.request.id == message.id:
                    process.cancelled.add(message.id)
                case _:
                    pass
            return
        request = process.request
        if request is None:
            return
        sent = request.num_frames - 1 - process.frames_left
        if request.id in process.cancelled or not process.frames_left:
            outcome: m.Outcome = "cancelled" if request.id in process.cancelled else "finished"
            process.request = None
            said: m.ToClient = m.Done(request.id, outcome, sent, 1, "fake", "1")
        elif sent < process.credit:
            process.frames_left -= 1
            said = m.Frame(request.id, sent + 1, request.width, request.height, "raw")
        else:
            return
        buffers = [PICTURES[request.width, request.height]] if isinstance(said, m.Frame) else []
        self.do(lambda: self.broker.on_worker(index, said, list(buffers), self.now))

    @rule(index=st.sampled_from(WORKERS))
    def a_worker_dies(self, index: int) -> None:
        self.processes[index] = Process(has_said_welcome=True)  # nobody is there to say it
        self.do(lambda: self.broker.on_worker_gone(index, "killed", self.now))

    @rule(index=st.sampled_from(WORKERS))
    def a_worker_says_what_makes_no_sense(self, index: int) -> None:
        welcome = m.Welcome(L.PROTOCOL, "worker", "test", (INFO,), "fake", "again")
        if self.processes[index].has_said_welcome:
            self.do(lambda: self.broker.on_worker(index, welcome, [], self.now))

    @rule(seconds=st.sampled_from([0.1, 6.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.do(lambda: self.broker.tick(self.now))

    # What must hold

    @invariant()
    def a_worker_is_busy_exactly_while_it_has_one_request_in_hand(self) -> None:
        for index, worker in enumerate(self.broker._crew.workers):
            in_hand = [job for job in self.jobs if job.worker == index]
            assert len(in_hand) == (worker.state == "busy"), (worker, in_hand)
            process = self.processes[index]
            keys = {x.id for x in process.inbox if isinstance(x, m.Generate)}
            keys |= {process.request.id} if process.request else set()
            assert keys <= {job.key for job in in_hand}, "a worker is busy for nobody"

    @invariant()
    def every_request_has_an_owner_or_was_told_to_stop(self) -> None:
        sessions = Counter(client.session for client in self.broker._clients)
        assert all(count == 1 for count in sessions.values())
        for job in self.jobs:
            if job.state is not State.STOPPING:
                assert job.owner in sessions, f"{job.key} belongs to nobody"
                continue
            assert job.worker is not None
            process = self.processes[job.worker]
            said = [type(x) for x in process.inbox if x.id == job.key]
            asked_at = said.index(m.Generate) if m.Generate in said else 0
            is_told = job.key in process.cancelled or m.Cancel in said[asked_at:]
            assert is_told, f"{job.key} is to stop, and its worker will never know"

    @invariant()
    def each_request_ends_exactly_once(self) -> None:
        assert all(count == 1 for count in self.jobs.ends.values())
        assert self.jobs.admitted - set(self.jobs.ends) == {job.key for job in self.jobs}

    @invariant()
    def what_waits_for_a_connection_stays_under_the_bound(self) -> None:
        for peer in PEERS:
            most = L.MAX_WAITING_BYTES + len(WORKERS) * (L.MAX_BUFFER_BYTES + L.PNG_SLACK_BYTES)
            assert self.handed[peer] - self.acknowledged[peer] <= most

    @invariant()
    def the_journal_holds_what_has_not_ended_and_what_is_kept(self) -> None:
        kept = {(entry.owner, entry.id) for entry in self.broker._kept}
        live = {(job.owner, job.request.id): job.state for job in self.jobs}
        unstopped = {name for name, state in live.items() if state is not State.STOPPING}
        assert kept | unstopped <= set(self.journal) <= kept | set(live)

    @invariant()
    def nothing_is_started_while_it_is_paused(self) -> None:
        assert self.is_paused == self.broker._paused
        assert not (self.is_paused and any(job.state is State.RUNNING for job in self.jobs))

    @invariant()
    def nothing_was_a_mistake(self) -> None:
        assert not self.mistakes

    def teardown(self) -> None:
        """Everybody leaves: then every worker is free again."""
        for peer in PEERS:
            self.do(partial(self.broker.on_client_gone, peer, self.now))
        for _ in range(60):
            for index in WORKERS:
                self.worker_turn(index)
        assert not list(self.jobs)
        assert set(self.jobs.ends) == self.jobs.admitted
        assert all(worker.state != "busy" for worker in self.broker._crew.workers)


SETTINGS = settings(
    max_examples=200, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestAttack = Attack.TestCase
TestAttack.settings = SETTINGS


class Nested(InOrder):
    """Carries out what follows from an action before what was said earlier."""

    def do(self, ask: Ask, blame: Ask = nobody) -> None:
        for action in ask():
            self.do(partial(self._perform, action))


class Forgetful(Broker):
    """Lets a connection take another session's name and forgets what the first had asked for."""

    def _on_hello(self, peer: bytes, hello: m.Hello, now: float) -> list[Action]:
        self._clients._by_peer.pop(peer, None)
        return super()._on_hello(peer, hello, now)


class Credulous(Broker):
    """Takes every Welcome for a worker that has just started."""

    def on_worker(self, index: int, message: m.ToClient, buffers: list, now: float) -> list[Action]:  # type: ignore[type-arg]
        if isinstance(message, m.Welcome):
            return self._on_worker_ready(index, message, now)
        return super().on_worker(index, message, buffers, now)


class Trusting(Broker):
    """Takes a client at its word that it has room for more."""

    def _may_send(self, job: Job) -> int:
        return min(job.credit, job.sent + L.MAX_CREDIT_AHEAD)


class Anew(Broker):
    """Takes whoever says Hello again for somebody to whom nothing was sent."""

    def _on_hello(self, peer: bytes, hello: m.Hello, now: float) -> list[Action]:
        self._clients.waiting_bytes.pop(peer, None)
        return super()._on_hello(peer, hello, now)


class Silent(Broker):
    """Does not write down that a place was taken."""

    def _given_up(self, entries: list[Entry]) -> list[Action]:
        return []


class Restless(Broker):
    """Starts what waits although it is paused."""

    def _dispatch(self, now: float) -> list[Action]:
        paused, self._paused = self._paused, False
        actions = super()._dispatch(now)
        self._paused = paused
        return actions


def asked_again_after_a_restart(attack: Attack) -> None:
    attack.generate(peer=b"p0", id="r0", credit=0, frames=4)
    attack.the_server_dies_and_another_begins()
    attack.hello(peer=b"p0", session="s0")
    attack.a_worker_starts(index=0)
    attack.generate(peer=b"p0", id="r1", credit=0, frames=4)


def asked_while_it_is_paused(attack: Attack) -> None:
    attack.said(b"p0", m.Steer("pause", OPERATOR))
    attack.generate(peer=b"p0", id="r0", credit=0, frames=4)


def gone_while_it_is_accepted(attack: Attack) -> None:
    attack.the_connection_will_be_gone_after_so_many_messages(peer=b"p0", after=0)
    attack.generate(peer=b"p0", id="r0", credit=0, frames=4)


def gone_while_the_next_one_starts(attack: Attack) -> None:
    """The Done of the first finds nobody: the second, which was just handed to the worker, is to be stopped."""
    attack.generate(peer=b"p0", id="r0", credit=3, frames=2)
    attack.generate(peer=b"p0", id="r1", credit=0, frames=4)
    attack.a_worker_goes_on(index=0, turns=2)
    attack.the_connection_will_be_gone_after_so_many_messages(peer=b"p0", after=0)
    attack.a_worker_goes_on(index=0, turns=1)


def another_session_on_the_same_connection(attack: Attack) -> None:
    attack.generate(peer=b"p0", id="r0", credit=0, frames=4)
    attack.hello(peer=b"p0", session="s1")


def two_welcomes(attack: Attack) -> None:
    attack.generate(peer=b"p0", id="r0", credit=0, frames=4)
    attack.a_worker_says_what_makes_no_sense(index=0)


def credit_and_no_reading(attack: Attack) -> None:
    attack.generate(peer=b"p0", id="r0", credit=8, frames=200, size=LARGE)
    for total in range(8, 200, 8):
        attack.a_worker_goes_on(index=0, turns=9)
        attack.the_front_counts()
        attack.credit(peer=b"p0", id="r0", total=total)


def credit_and_greetings_between_two_counts(attack: Attack) -> None:
    attack.generate(peer=b"p0", id="r0", credit=8, frames=200, size=LARGE)
    for total in range(8, 80, 8):
        attack.a_worker_goes_on(index=0, turns=9)
        attack.hello(peer=b"p0", session="s0")
        attack.credit(peer=b"p0", id="r0", total=total)


def after(scenario: Callable[[Attack], None], **without: type) -> None:
    """Play it, and look."""
    attack: Attack = type("Control", (Attack,), without)()
    attack.hello(peer=b"p0", session="s0")
    attack.a_worker_starts(index=0)
    scenario(attack)
    attack.a_worker_is_busy_exactly_while_it_has_one_request_in_hand()
    attack.every_request_has_an_owner_or_was_told_to_stop()
    attack.each_request_ends_exactly_once()
    attack.what_waits_for_a_connection_stays_under_the_bound()
    attack.the_journal_holds_what_has_not_ended_and_what_is_kept()
    attack.nothing_is_started_while_it_is_paused()
    attack.teardown()


SCENARIOS = (
    (asked_again_after_a_restart, {"broker_class": Silent}),
    (asked_while_it_is_paused, {"broker_class": Restless}),
    (gone_while_it_is_accepted, {"order_class": Nested}),
    (gone_while_the_next_one_starts, {"order_class": Nested}),
    (another_session_on_the_same_connection, {"broker_class": Forgetful}),
    (two_welcomes, {"broker_class": Credulous}),
    (credit_and_no_reading, {"broker_class": Trusting}),
    (credit_and_greetings_between_two_counts, {"broker_class": Anew}),
)


@pytest.mark.parametrize(("scenario", "without"), SCENARIOS, ids=[s.__name__ for s, _ in SCENARIOS])
def test_no_worker_is_lost_and_without_the_guard_one_is(
    scenario: Callable[[Attack], None], without: dict[str, type]
) -> None:
    after(scenario)
    with pytest.raises(AssertionError):
        after(scenario, **without)
