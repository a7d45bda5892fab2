"""Nobody fills the house alone, and nobody who asks for much keeps those waiting who ask for little."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sfwire import limits as L
from sfwire import messages as m
from sfwire.errors import RETRYABLE, ErrorCode, RequestError
from sfwire.request import Ended, Request
from sfwire.session import Notify, Send, Session

from sfserver.serve.broker import Broker, ToClient, ToWorker
from sfserver.serve.turns import Turns

INFO = m.EngineInfo("fake", "Fake", "Counts", "1", "none", False, False, True)
WELCOME = m.Welcome(L.PROTOCOL, "w", "t", (INFO,), "fake", "")
KEYFRAME = (m.Keyframe(0, 0, 16, 16),)
PICTURE = bytes(16 * 16 * 3)


def order(turns: Turns) -> list[str]:
    return list(iter(turns.pop, None))


def test_owners_take_turns_and_alone_one_is_served_in_order() -> None:
    turns = Turns()
    for key in ("a1", "a2", "a3", "b1", "b2", "c1"):
        turns.add(key, key[0], 0)
    assert order(turns) == ["a1", "b1", "c1", "a2", "b2", "a3"]
    for key in ("a1", "a2", "a3"):
        turns.add(key, "a", 0)
    assert order(turns) == ["a1", "a2", "a3"]


def test_who_comes_later_does_not_wait_for_all_that_came_before_and_does_not_overtake_it_either() -> None:
    turns = Turns()
    for number in range(6):
        turns.add(f"a{number}", "a", 0)
    assert [turns.pop(), turns.pop()] == ["a0", "a1"]
    assert turns.add("b0", "b", 0) == 0
    turns.add("b1", "b", 0)
    assert order(turns) == ["b0", "a2", "b1", "a3", "a4", "a5"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60))
def test_between_two_of_one_owner_nobody_else_is_started_twice_as_often(steps: list[tuple[str, bool]]) -> None:
    """While it waits all the time."""
    turns = Turns()
    turns.add("x0", "x", 0)
    number, since = 0, {"a": 0, "b": 0, "c": 0}
    for step, (owner, starts) in enumerate(steps):
        if len([key for key in turns if key[0] == owner]) < 8:
            turns.add(f"{owner}{step}", owner, 0)
        if not starts:
            continue
        key = turns.pop()
        assert key is not None
        if key[0] == "x":
            number += 1
            turns.add(f"x{number}", "x", 0)
            since = dict.fromkeys(since, 0)
        else:
            since[key[0]] += 1
            assert since[key[0]] <= 2, key


def started_of_the_patient(turns: Turns) -> int:
    """Of sixty: five others ask for one thing, and again once they have had it; two are in hand."""
    for number in range(30):
        turns.add(f"p{number}", "p", 0)
    in_hand, count = [], 0
    for step in range(60):
        for owner in "abcde":
            if owner not in in_hand and owner not in {key[0] for key in turns}:
                turns.add(f"{owner}{step}", owner, 0)
        key = turns.pop()
        assert key is not None
        in_hand = [*in_hand[-1:], key[0]]
        count += key[0] == "p"
    return count


def test_who_asks_again_at_once_comes_after_one_who_waits_with_much() -> None:
    assert started_of_the_patient(Turns()) == 10


def test_the_control_where_an_owner_is_forgotten_within_its_round_the_others_keep_one_waiting_for_ever() -> None:
    class Forgetful(Turns):
        def remove(self, key: str) -> None:
            super().remove(key)
            for owner in self._left:
                self._rounds.pop(owner, None)
            self._left.clear()

    assert started_of_the_patient(Forgetful()) < 3


def test_the_control_first_come_first_served_lets_one_owner_hold_up_the_rest() -> None:
    class Plain(Turns):
        def add(self, key: str, owner: str, num_bytes: int) -> int:
            return super().add(key, "everybody", num_bytes)

    turns = Plain()
    for number in range(6):
        turns.add(f"a{number}", "a", 0)
    turns.add("b0", "b", 0)
    assert order(turns)[-1] == "b0"


def test_one_client_has_a_share_and_the_others_still_find_room() -> None:
    turns = Turns()
    for number in range(L.MAX_QUEUED_OF_ONE):
        turns.add(f"a{number}", "a", 0)
    with pytest.raises(RequestError, match="of this client") as refused:
        turns.add("more", "a", 0)
    assert refused.value.code is ErrorCode.QUEUE_FULL
    for number in range(L.MAX_QUEUED - L.MAX_QUEUED_OF_ONE):
        turns.add(f"b{number}", "b", 0)
    with pytest.raises(RequestError, match="64 requests are waiting"):
        turns.add("c0", "c", 0)


def test_keyframes_that_wait_have_a_share_too() -> None:
    turns = Turns()
    turns.add("a0", "a", L.MAX_QUEUED_BYTES_OF_ONE)
    with pytest.raises(RequestError, match="this client's waiting requests hold 512 MiB"):
        turns.add("a1", "a", 1)
    turns.add("b0", "b", L.MAX_QUEUED_BYTES_OF_ONE)
    with pytest.raises(RequestError, match="the waiting requests hold 1024 MiB"):
        turns.add("c0", "c", 1)
    turns.remove("b0")
    turns.add("c0", "c", 1)


# The broker


def broker_with(*peers: bytes) -> Broker:
    broker = Broker("boot", "test", 1, 1e9, 0.0)
    broker.on_worker(0, WELCOME, [], 0.0)
    for peer in peers:
        broker.on_client(peer, m.Hello(L.PROTOCOL, "test", peer.decode()), [], 0.0)
    return broker


def ask(broker: Broker, peer: bytes, id: str, now: float = 0.0, credit: int = 8) -> list[m.ToClient]:
    actions = broker.on_client(peer, m.Generate(id, "fake", 16, 16, 9, KEYFRAME, 1, credit=credit), [PICTURE], now)
    return [a.message for a in actions if isinstance(a, ToClient) and a.peer == peer]


def test_a_client_that_asks_for_everything_costs_the_next_one_a_single_turn() -> None:
    broker = broker_with(b"greedy", b"modest")
    refusals = [said for n in range(70) for said in ask(broker, b"greedy", f"g{n}") if isinstance(said, m.Failed)]
    assert len(refusals) == 70 - 1 - L.MAX_QUEUED_OF_ONE
    assert all(said.code is ErrorCode.QUEUE_FULL and said.retryable for said in refusals)
    (accepted,) = ask(broker, b"modest", "m")
    assert isinstance(accepted, m.Accepted)
    started = []
    for _ in range(3):
        (job,) = [job for job in broker._jobs if job.worker == 0]
        started.append(job.owner)
        broker.on_worker(0, m.Done(job.key, "finished", 8, 1, "fake", "1"), [], 0.0)
    assert "modest" in started[1:3]


def test_those_who_wait_are_told_when_somebody_comes_before_them() -> None:
    broker = broker_with(b"greedy", b"modest")
    for number in range(4):
        ask(broker, b"greedy", f"g{number}")
    actions = broker.on_client(b"modest", m.Generate("m", "fake", 16, 16, 9, KEYFRAME, 1), [PICTURE], 0.0)
    told = {a.message.id: a.message.position for a in actions if isinstance(a, ToClient)}  # type: ignore[union-attr]
    assert told["m"] < told["g3"]


def test_who_takes_no_frame_gives_its_place_to_one_who_waits_and_to_nobody_else() -> None:
    broker = broker_with(b"idle", b"busy")
    ask(broker, b"idle", "i", credit=0)
    now = 0.0
    while now < 3 * L.MAX_UNTAKEN_S:
        now += 1.0
        for peer in (b"idle", b"busy"):
            broker.on_client(peer, m.Ping(1), [], now)
        broker.on_worker(0, m.Progress("job1", "waiting", 0, 9), [], now)
        assert not broker.tick(now), "nobody else wants the worker"
    ask(broker, b"busy", "b", now)
    (stop,) = broker.tick(now)
    assert isinstance(stop, ToWorker)
    assert isinstance(stop.message, m.Cancel)
    assert stop.message.id == "job1"


def test_the_control_who_takes_frames_keeps_its_place() -> None:
    broker = broker_with(b"slow", b"busy")
    ask(broker, b"slow", "s", credit=1)
    ask(broker, b"busy", "b")
    now = 0.0
    for index in range(1, 8):
        now += 0.9 * L.MAX_UNTAKEN_S
        for peer in (b"slow", b"busy"):
            broker.on_client(peer, m.Ping(1), [], now)
        broker.on_worker(0, m.Frame("job1", index, 16, 16, "raw"), [PICTURE], now)
        broker.on_client(b"slow", m.Credit("s", index + 1), [], now)
        assert not broker.tick(now)


# The session


def session() -> Session:
    made = Session("test", new_id=iter(f"x{i}" for i in range(10**6)).__next__, give_up_after_s=60.0)
    made.receive(WELCOME, [], 0.0)
    return made


def wish() -> Request:
    return Request(((0, PICTURE),), 16, 16, 9)


def test_what_is_beyond_its_share_a_client_keeps_to_itself() -> None:
    client = session()
    asked = [a for _ in range(40) for a in client.submit(wish(), 0.0)[1] if isinstance(a, Send)]
    assert len(asked) == L.MAX_QUEUED_OF_ONE
    first = asked[0].message
    assert isinstance(first, m.Generate)
    client.receive(m.Failed(first.id, ErrorCode.OUT_OF_MEMORY, "x"), [], 0.1)
    assert sum(isinstance(a, Send) and isinstance(a.message, m.Generate) for a in client.tick(0.2)) == 1


def test_a_full_house_is_asked_again_for_as_long_as_a_silent_server_is() -> None:
    assert ErrorCode.QUEUE_FULL in RETRYABLE
    client = session()
    _, sent = client.submit(wish(), 0.0)
    now, asks, ended = 0.0, 0, False
    while not ended and now < 100.0:
        for action in sent:
            if isinstance(action, Send) and isinstance(action.message, m.Generate):
                asks += 1
                full = m.Failed(action.message.id, ErrorCode.QUEUE_FULL, "full", retryable=True)
                sent = [*client.receive(full, [], now)]
                break
        else:
            now += 0.1
            client.receive(m.Pong(1, "w", 0, 0, (), ()), [], now)
            sent = client.tick(now)
        ended = any(isinstance(a, Notify) and isinstance(a.event, Ended) for a in sent)
    assert 55 < now < 70
    assert 20 < asks < 60


# What waits for somebody, and what does not


def test_interactive_comes_before_batch_and_batch_is_not_kept_waiting_for_ever() -> None:
    turns = Turns()
    for number in range(3):
        turns.add(f"b{number}", "b", 0, "batch")
    for number in range(9):
        turns.add(f"i{number}", "i", 0)
    started = order(turns)
    assert started[:5] == ["i0", "i1", "i2", "b0", "i3"]
    assert [started.index(f"b{number}") for number in range(3)] == [3, 8, 11]


def test_ones_own_batch_does_not_keep_ones_own_wish_waiting() -> None:
    turns = Turns()
    for number in range(30):
        turns.add(f"b{number}", "a", 0, "batch")
    assert turns.add("now", "a", 0) == 0


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 12)), max_size=12))
def test_what_was_moved_stands_where_it_was_told_to(moves: list[tuple[int, int]]) -> None:
    turns = Turns()
    expected = [f"{owner}{number}" for number in range(4) for owner in "abc"]
    for key in sorted(expected):
        turns.add(key, key[0], 0)
    assert list(turns) == expected
    for which, to in moves:
        key = expected.pop(which)
        expected.insert(to, key)
        turns.move(key, to)
        assert list(turns) == expected
    assert order(turns) == expected


def animatic_and_colleague(priority: m.Priority, first: int) -> int:
    """Jobs that end between a colleague's asking for one gap, while job `first` of 200 runs, and its being started."""
    broker = broker_with(b"animatic", b"colleague")
    asked = ended = 0

    def ask_for_more() -> None:
        nonlocal asked
        while asked < 200 and broker._jobs.queued < L.MAX_QUEUED_OF_ONE - 1:
            asked += 1
            request = m.Generate(f"a{asked}", "fake", 16, 16, 9, KEYFRAME, asked, priority=priority)
            broker.on_client(b"animatic", request, [PICTURE], 0.0)

    def end_one() -> str:
        (job,) = broker._jobs.in_hand()
        broker.on_worker(0, m.Done(job.key, "finished", 8, 1, "fake", "1"), [], 0.0)
        (job,) = broker._jobs.in_hand()
        return job.owner

    for _ in range(first):
        ask_for_more()
        end_one()
    ask_for_more()
    ask(broker, b"colleague", "c")
    while True:
        ended += 1
        if end_one() == "colleague":
            return ended
        ask_for_more()


@pytest.mark.parametrize("priority", ["batch", "interactive"])
@pytest.mark.parametrize("first", [0, 1, 7, 60, 150])
def test_an_animatic_of_200_gaps_keeps_a_colleagues_one_gap_waiting_for_one_job(
    priority: m.Priority, first: int
) -> None:
    """Counted in jobs that end, not by a clock: the one that runs when the colleague asks."""
    assert animatic_and_colleague(priority, first) == 1


def test_the_control_in_order_of_arrival_it_waits_for_all_that_was_asked_before(monkeypatch) -> None:
    add = Turns.add
    monkeypatch.setattr(Turns, "add", lambda self, key, owner, num_bytes, *_: add(self, key, "everybody", num_bytes))
    assert animatic_and_colleague("interactive", 7) > 20
