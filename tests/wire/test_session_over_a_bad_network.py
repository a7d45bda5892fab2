"""Session and broker, the two sans-I/O halves, over a network that drops, doubles, delays and reorders.

Whatever hypothesis does to them, frames come once, in order, with the right bytes; and when the network heals, every
stream ends. Nothing here is timed: the clock is a number.
"""

from __future__ import annotations

from collections.abc import Sequence

import hypothesis.strategies as st
import pytest
from attrs import define, evolve, field
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sfwire import limits as L
from sfwire import messages as m
from sfwire.codec import Buffer, decode_to_client, decode_to_server, encode
from sfwire.request import Ended, Picture, Request
from sfwire.session import Notify, Reopen, Send, Session

from sfserver.serve.broker import Action, Broker, Replace, ToClient, ToWorker
from sfserver.serve.order import InOrder

SIDE = 16
INFO = m.EngineInfo("fake", "Fake", "Counts", "1", "none", False, False, True, can_skip=True)
Parts = Sequence[Buffer]


def pixels(seed: int, index: int) -> bytes:
    return bytes([seed % 256, index % 256, (seed * 31 + index) % 256]) * (SIDE * SIDE)


def blame(action: Action) -> Sequence[Action]:
    pytest.fail(f"{action} could not be carried out")


@define
class ModelWorker:
    """A worker as the broker sees it: makes the next frame when told to, if it has credit."""

    request: m.Generate | None = None
    todo: list[int] = field(factory=list)
    sent: int = 0
    credit: int = 0

    def take(self, message: m.Generate | m.Credit | m.Cancel) -> m.Done | None:
        if isinstance(message, m.Generate):
            held = {k.at for k in message.keyframes}
            self.request, self.sent, self.credit = message, 0, message.credit
            self.todo = [i for i in range(message.resume_from, message.num_frames) if i not in held]
        elif self.request is not None and message.id == self.request.id:
            if isinstance(message, m.Cancel):
                return self.end("cancelled")
            self.credit = max(self.credit, message.total)
        return None

    def end(self, outcome: m.Outcome) -> m.Done:
        assert self.request is not None
        done = m.Done(self.request.id, outcome, self.sent, self.request.seed, "fake", "1")
        self.request = None
        return done

    def step(self) -> tuple[m.ToClient, list[Buffer]] | None:
        if self.request is None:
            return None
        if not self.todo:
            return self.end("finished"), []
        if self.sent >= self.credit:
            return None
        index = self.todo.pop(0)
        self.sent += 1
        frame = m.Frame(self.request.id, index, SIDE, SIDE, "raw")
        return frame, [pixels(self.request.seed, index)]


class BadNetwork(RuleBasedStateMachine):
    """One client, one server, and everything that can happen between them."""

    session_class = Session

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.count = 0
        self.peer = b"peer0"
        self.to_server: list[tuple[bytes, Parts]] = []
        self.to_client: list[tuple[bytes, Parts]] = []
        self.session = self.session_class("test", window=3, give_up_after_s=1e9, max_tries=10**9, new_id=self.new_id)
        self.requests: dict[str, Request] = {}
        self.events: dict[str, list[object]] = {}
        self.cancelled: set[str] = set()
        self.untaken: list[str] = []
        self.start_server()

    def new_id(self) -> str:
        self.count += 1
        return f"id{self.count}"

    def start_server(self) -> None:
        self.worker = ModelWorker()
        self.broker = Broker(self.new_id(), "test", 1, 1e9, self.now)
        self.in_order = InOrder(self.carry_out, blame)
        self.perform_server(self.welcomed())

    def welcomed(self) -> Sequence[Action]:
        welcome = m.Welcome(L.PROTOCOL, "worker", "test", (INFO,), "fake", "the only one")
        return self.broker.on_worker(0, welcome, [], self.now)

    # Carrying out actions

    def perform_client(self, actions: list[Send | Reopen | Notify]) -> None:
        for action in actions:
            match action:
                case Send():
                    self.to_server.append((self.peer, encode(action.message, action.buffers)))
                case Reopen():
                    self.peer = f"peer{self.new_id()}".encode()
                case Notify():
                    self.events[action.ticket].append(action.event)
                    if isinstance(action.event, Picture):
                        self.untaken.append(action.ticket)

    def perform_server(self, actions: Sequence[Action]) -> None:
        self.in_order.do(lambda: actions)

    def carry_out(self, action: Action) -> Sequence[Action]:
        match action:
            case ToClient():
                self.to_client.append((action.peer, encode(action.message, action.buffers)))
            case ToWorker():
                done = self.worker.take(action.message)
                return self.broker.on_worker(0, done, [], self.now) if done else ()
            case Replace():
                self.worker = ModelWorker()
                return self.welcomed()
        return ()

    # What the program does

    @precondition(lambda self: len(self.requests) < 4)
    @rule(
        num_frames=st.integers(2, 9), seed=st.integers(0, 255), keys=st.sets(st.integers(0, 8), min_size=1, max_size=3)
    )
    def submit(self, num_frames: int, seed: int, keys: set[int]) -> None:
        at = sorted({k % num_frames for k in keys})
        request = Request(tuple((k, bytes(SIDE * SIDE * 3)) for k in at), SIDE, SIDE, num_frames, seed=seed)
        ticket, actions = self.session.submit(request, self.now)
        self.requests[ticket], self.events[ticket] = request, []
        self.perform_client(actions)

    @precondition(lambda self: self.untaken)
    @rule()
    def take_a_picture(self) -> None:
        self.perform_client(self.session.taken(self.untaken.pop(0)))

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.requests)))
        if not any(isinstance(e, Ended) for e in self.events[ticket]):
            self.cancelled.add(ticket)
        self.perform_client(self.session.cancel(ticket))

    # What happens without anybody wishing it

    def deliver(self, to_server: bool, message: tuple[bytes, Parts]) -> None:
        peer, parts = message
        if to_server:
            self.perform_server(self.broker.on_client(peer, *decode_to_server(parts), self.now))
        elif peer == self.peer:
            self.perform_client(self.session.receive(*decode_to_client(parts), self.now))

    def worker_steps(self) -> None:
        said = self.worker.step()
        if said:
            self.perform_server(self.broker.on_worker(0, *said, self.now))

    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.perform_client(self.session.tick(self.now))
        self.perform_server(self.broker.tick(self.now))

    @rule(turns=st.integers(1, 8))
    def all_goes_well(self, turns: int) -> None:
        for _ in range(turns):
            self.time_passes(0.1)
            for line in (self.to_server, self.to_client):
                if line:
                    self.deliver(line is self.to_server, line.pop(0))
            self.worker_steps()

    @precondition(lambda self: self.to_server or self.to_client)
    @rule(pick=st.integers(0, 7), fate=st.sampled_from(["drop", "double", "overtake", "late"]))
    def the_network_errs(self, pick: int, fate: str) -> None:
        line = self.to_client if (pick % 4 and self.to_client) or not self.to_server else self.to_server
        at = pick % len(line)
        if fate == "drop":
            line.pop(at)
        elif fate == "double":
            self.deliver(line is self.to_server, line[at])
        elif fate == "overtake":
            self.deliver(line is self.to_server, line.pop(at))
        else:
            line.append(line.pop(at))

    @rule(mishap=st.sampled_from(["worker dies", "server restarts", "a pause", "a long silence"]))
    def mishap(self, mishap: str) -> None:
        if mishap == "worker dies":
            self.perform_server(self.broker.on_worker_gone(0, "killed", self.now))
        elif mishap == "server restarts":
            self.start_server()
        else:
            self.time_passes(3.0 if mishap == "a pause" else 12.0)

    # What must hold

    @invariant()
    def frames_come_once_in_order_with_the_right_bytes(self) -> None:
        for ticket, request in self.requests.items():
            pictures = [e for e in self.events[ticket] if isinstance(e, Picture)]
            assert [p.index for p in pictures] == request.wanted()[: len(pictures)]
            for p in pictures[-1:]:
                assert bytes(p.data) == pixels(request.seed, p.index)

    @invariant()
    def nothing_follows_the_end(self) -> None:
        for events in self.events.values():
            assert not any(isinstance(e, Ended) for e in events[:-1])

    @invariant()
    def no_more_waits_untaken_than_the_window_allows(self) -> None:
        for ticket in self.requests:
            assert self.untaken.count(ticket) <= 3

    def teardown(self) -> None:
        """The network heals: now everything must end, finished or cancelled."""
        for _ in range(600):
            if all(events and isinstance(events[-1], Ended) for events in self.events.values()):
                break
            self.time_passes(0.25)
            while self.to_server or self.to_client or self.untaken:
                for line in (self.to_server, self.to_client):
                    if line:
                        self.deliver(line is self.to_server, line.pop(0))
                while self.untaken:
                    self.take_a_picture()
                self.worker_steps()
        for ticket, request in self.requests.items():
            end = self.events[ticket][-1] if self.events[ticket] else None
            assert isinstance(end, Ended), f"{ticket} never ended: {self.events[ticket]}"
            assert end.error is None, end.error
            assert end.done is not None
            if ticket not in self.cancelled:
                got = [e.index for e in self.events[ticket] if isinstance(e, Picture)]
                assert end.done.outcome == "finished"
                assert got == request.wanted()


SETTINGS = settings(
    max_examples=300, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestBadNetwork = BadNetwork.TestCase
TestBadNetwork.settings = SETTINGS


class Hasty(Session):
    """Hands on whatever frame comes."""

    def _on_picture(self, run, picture, now):  # type: ignore[no-untyped-def]
        run.got += 1
        run.delivered += 1
        return [Notify(run.ticket, picture)]


class Trusting(Session):
    """Never holds its view of a request against the server's."""

    def _compare(self, run, sent, now):  # type: ignore[no-untyped-def]
        return []


class Deaf(Session):
    """Does not look at the boot id."""

    def _on_pong(self, pong, now):  # type: ignore[no-untyped-def]
        return super()._on_pong(evolve(pong, boot=self.welcome.boot if self.welcome else pong.boot), now)

    def _compare(self, run, sent, now):  # type: ignore[no-untyped-def]
        return super()._compare(run, sent, now) if sent is not None else []


@pytest.mark.parametrize("broken", [Hasty, Trusting, Deaf])
def test_the_bad_network_finds_a_session_without_a_guard(broken: type[Session]) -> None:
    class Control(BadNetwork):
        session_class = broken

    quick = settings(SETTINGS, max_examples=500, derandomize=True, phases=[Phase.generate], database=None)
    with pytest.raises((AssertionError, IndexError)):
        run_state_machine_as_test(Control, settings=quick)
