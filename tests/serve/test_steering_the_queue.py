"""Places are kept, and who runs the server steers its queue: on the broker, where time is a number."""

from __future__ import annotations

import pytest
from attrs import evolve
from sfwire import limits as L
from sfwire import messages as m
from sfwire.errors import ErrorCode

from sfserver.serve.actions import Action, Note, ToClient, ToWorker
from sfserver.serve.broker import Broker
from sfserver.serve.kept import KEPT_S, MAX_KEPT, Claimed, Entered, Entry, Kept, Left, Past, Paused, Taken, content_of
from sfserver.serve.steering import NOT_THE_OPERATOR

INFO = m.EngineInfo("fake", "Fake", "Counts", "1", "none", False, False, True)
WELCOME = m.Welcome(L.PROTOCOL, "w", "t", (INFO,), "fake", "")
KEYFRAME = (m.Keyframe(0, 0, 16, 16),)
PICTURE = bytes(16 * 16 * 3)
OPERATOR = "secret"


class House:
    """A broker with one worker, and the clients a, b and c."""

    def __init__(self, past: Past = Past(), greet: bool = True) -> None:
        self.broker = Broker("boot", "test", 1, 1e9, 0.0, operator=OPERATOR, past=past)
        self.facts: list[object] = []
        self.hear(self.broker.on_worker(0, WELCOME, [], 0.0))
        for session in "abc" if greet else "":
            self.greet(session)

    def hear(self, actions: list[Action]) -> list[Action]:
        self.facts += [action.fact for action in actions if isinstance(action, Note)]
        return actions

    def greet(self, session: str, peer: bytes = b"") -> None:
        hello = m.Hello(L.PROTOCOL, f"client {session}", session)
        self.hear(self.broker.on_client(peer or session.encode(), hello, [], 0.0))

    def say(self, session: str, message: m.ToServer, *buffers: bytes, now: float = 0.0) -> list[Action]:
        return self.hear(self.broker.on_client(session.encode(), message, list(buffers), now))

    def ask(self, session: str, id: str, seed: int = 0, **more: object) -> list[Action]:
        return self.say(session, m.Generate(id, "fake", 16, 16, 9, KEYFRAME, seed, **more), PICTURE)  # type: ignore[arg-type]

    def steer(self, action: m.Steering, job: str = "", to: int = 0, operator: str = OPERATOR) -> m.Queue:
        actions = self.say("c", m.Steer(action, operator, job, to))
        (answer,) = [a.message for a in actions if isinstance(a, ToClient) and isinstance(a.message, m.Queue)]
        self.last = actions
        return answer

    @property
    def order(self) -> list[str]:
        """Requests in the order in which they are being and will be made, by their clients' ids."""
        jobs = sorted(self.broker._jobs, key=lambda job: job.position)
        return [job.request.id for job in jobs]

    def worker_says(self, message: m.ToClient, *buffers: bytes, now: float = 0.0) -> list[Action]:
        return self.hear(self.broker.on_worker(0, message, list(buffers), now))

    def stops(self, key: str) -> list[Action]:
        return self.worker_says(m.Done(key, "cancelled", 0, 0, "fake", "1"))


def told(actions: list[Action], session: str) -> list[m.ToClient]:
    return [a.message for a in actions if isinstance(a, ToClient) and a.peer == session.encode()]


# Places


def test_a_client_that_comes_back_stands_where_it_stood_whoever_it_is_now() -> None:
    house = House()
    for number in range(3):
        house.ask("a", f"a{number}", seed=number)
        house.ask("b", f"b{number}", seed=10 + number)
    assert house.order == ["a0", "b0", "a1", "b1", "a2", "b2"]
    house.hear(house.broker.on_client_gone(b"a", 0.0))
    house.stops("job1")
    house.greet("another", b"a")
    for number in (2, 1, 0):  # and in whatever order it asks
        house.ask("a", f"new{number}", seed=number, resume_from=4 if number == 0 else 0)
    assert house.order == ["b0", "new0", "new1", "b1", "new2", "b2"]


def test_the_control_another_request_stands_at_the_end() -> None:
    house = House()
    for number in range(3):
        house.ask("a", f"a{number}", seed=number)
        house.ask("b", f"b{number}", seed=10 + number)
    house.hear(house.broker.on_client_gone(b"a", 0.0))
    house.stops("job1")
    house.greet("a")
    for number in range(3):
        house.ask("a", f"new{number}", seed=20 + number)
    assert house.order.index("new0") > house.order.index("b1")


def test_who_says_goodbye_or_cancels_keeps_no_place() -> None:
    house = House()
    house.ask("a", "a0", seed=1)
    house.ask("b", "b0", seed=2)
    house.ask("c", "c0", seed=3)
    house.say("b", m.Bye())
    house.say("c", m.Cancel("c0"))
    assert [entry.id for entry in house.broker._kept] == []
    assert [type(fact) for fact in house.facts] == [Entered, Entered, Entered, Left, Left]


def test_content_is_what_decides_the_pictures() -> None:
    request = m.Generate("r", "fake", 16, 16, 9, KEYFRAME, 1, prompt="a fox")
    content = content_of(request, [PICTURE])
    for same in ({"id": "x"}, {"resume_from": 3}, {"credit": 1}, {"priority": "batch"}, {"encoding": "png"}):
        assert content_of(evolve(request, **same), [PICTURE]) == content
    for other in ({"seed": 2}, {"prompt": "a cat"}, {"engine": "auto"}, {"num_frames": 8}, {"params": {"a": 1}}):
        assert content_of(evolve(request, **other), [PICTURE]) != content
    assert content_of(request, [PICTURE[1:] + b"x"]) != content


def test_places_are_kept_for_a_day_and_not_without_end() -> None:
    kept = Kept()
    entry = Entry("k", "s", "r", "c", "n", "fake", 9, 0, 0, "batch")
    for number in range(MAX_KEPT):
        assert not kept.keep(evolve(entry, key=f"k{number}"), float(number))
    assert [one.key for one in kept.keep(evolve(entry, key="last"), 99.0)] == ["k0"]
    assert [one.key for one in kept.expire(KEPT_S + 3)] == ["k1", "k2"]
    assert len(list(kept)) == MAX_KEPT - 2


def test_what_an_earlier_server_had_not_ended_stands_where_it_stood() -> None:
    """The facts of one server are the past of the next, as the journal hands them on."""
    house = House()
    for number in range(3):
        house.ask("a", f"a{number}", seed=number)
        house.ask("b", f"b{number}", seed=10 + number)
    entries = {fact.entry.id: fact.entry for fact in house.facts if isinstance(fact, Entered)}
    done = m.Done("a9", "finished", 8, 1, "fake", "1")
    after = House(Past(tuple(entries.values()), (("a", done),)), greet=False)
    for session in "ba":
        after.greet(session)
    for number in (2, 1, 0):
        after.ask("b", f"b{number}-", seed=10 + number)
        after.ask("a", f"a{number}-", seed=number)
    running, *waiting = after.order  # the first that came back found an idle worker
    assert running == "b2-"
    assert [one[:2] for one in waiting if one[0] == "a"] == ["a0", "a1", "a2"]
    assert [one[:2] for one in waiting if one[0] == "b"] == ["b0", "b1"]
    assert sum(isinstance(fact, Claimed) for fact in after.facts) == 6
    assert told(after.ask("a", "a9", seed=77), "a") == [done], "and what had ended is told again"


def test_how_far_frames_were_taken_is_noted_and_not_at_every_frame() -> None:
    house = House()
    house.ask("a", "a0", credit=2)
    for index in (1, 2):
        house.worker_says(m.Frame("job1", index, 16, 16, "raw"), PICTURE)
    house.say("a", m.Credit("a0", 4))
    for now in (0.2, 0.4, 1.2, 1.4):
        house.hear(house.broker.tick(now))
    assert [fact for fact in house.facts if isinstance(fact, Taken)] == [Taken("a", "a0", 3)]
    assert house.steer("list").jobs[0].first == 3


# Steering


def test_pausing_stops_what_runs_keeps_its_place_and_starts_nothing() -> None:
    house = House()
    house.ask("a", "a0", seed=1)
    house.ask("a", "a1", seed=2)
    assert house.steer("pause").paused
    assert [a.message for a in house.last if isinstance(a, ToWorker)] == [m.Cancel("job1")]
    (ended,) = [x for x in told(house.stops("job1"), "a") if isinstance(x, m.Done)]
    assert ended.outcome == "cancelled", "which a client takes for a loss, and asks again"
    house.ask("a", "a0-", seed=1, resume_from=4)
    assert house.order == ["a0-", "a1"]
    assert not house.broker._jobs.in_hand()
    assert [one.state for one in house.steer("list").jobs] == ["queued", "queued"]
    assert not house.steer("resume").paused
    (given,) = [a.message for a in house.last if isinstance(a, ToWorker)]
    assert isinstance(given, m.Generate)
    assert given.resume_from == 4
    assert [fact for fact in house.facts if isinstance(fact, Paused)] == [Paused(True), Paused(False)]


def test_a_server_that_was_paused_comes_back_paused() -> None:
    house = House(Past(is_paused=True))
    house.ask("a", "a0")
    assert house.steer("list").paused
    assert not house.broker._jobs.in_hand()
    house.steer("resume")
    assert house.broker._jobs.in_hand()


def test_what_is_taken_out_is_not_asked_again() -> None:
    house = House()
    house.ask("a", "a0", seed=1)
    house.ask("a", "a1", seed=2)
    house.steer("cancel", "job2")
    (waiting,) = [x for x in told(house.last, "a") if isinstance(x, m.Failed)]
    house.steer("cancel", "job1")
    (running,) = [x for x in told(house.stops("job1"), "a") if isinstance(x, m.Failed)]
    for ended in (waiting, running):
        assert ended.code is ErrorCode.TAKEN_OUT
        assert not ended.retryable
    house.ask("b", "b0")
    house.ask("a", "a2")
    house.hear(house.broker.on_client_gone(b"a", 0.0))
    (away,) = [one for one in house.steer("list").jobs if one.state == "away"]
    assert [one.state for one in house.steer("cancel", away.job).jobs] == ["running"]


def test_one_is_moved_to_where_the_operator_says() -> None:
    house = House()
    for number in range(4):
        house.ask("a", f"a{number}", seed=number)
    house.steer("move", "job4", 0)
    assert house.order == ["a0", "a3", "a1", "a2"]
    assert [one.job for one in house.steer("list").jobs] == ["job1", "job4", "job2", "job3"]
    house.steer("move", "job4", 60)
    assert house.order == ["a0", "a1", "a2", "a3"]


@pytest.mark.parametrize("action", ["pause", "resume", "cancel", "move"])
@pytest.mark.parametrize("operator", ["", "wrong", "sécret"])
def test_who_does_not_hold_the_operator_file_sees_and_changes_nothing(action: m.Steering, operator: str) -> None:
    house = House()
    house.ask("a", "a0", seed=1)
    house.ask("a", "a1", seed=2)
    before = house.steer("list", operator="")
    answer = house.steer(action, "job2", operator=operator)
    assert answer == evolve(before, refused=NOT_THE_OPERATOR)
    assert len(house.last) == 1


def test_a_server_without_an_operator_is_steered_by_nobody() -> None:
    house = House()
    house.broker._operator = ""
    assert house.steer("pause", operator="").refused == NOT_THE_OPERATOR


def test_what_does_not_wait_cannot_be_moved_and_what_is_not_there_not_taken_out() -> None:
    house = House()
    house.ask("a", "a0")
    assert "is waiting" in house.steer("move", "job1").refused
    assert "no job 'job9'" in house.steer("cancel", "job9").refused
