"""Workers may be unlike, and each request goes where it can be done, and best where its engine is loaded."""

from __future__ import annotations

import pytest
from attrs import evolve
from sfwire import limits as L
from sfwire import messages as m
from sfwire.errors import ErrorCode

from sfserver.serve.actions import Action, Refuse, Replace, ToClient, ToWorker
from sfserver.serve.broker import Broker
from sfserver.serve.crew import GATHER_S
from sfserver.serve.placing import Skill, all_engines, loaded_after, other_version, refusal_of_all

SMALL = m.EngineInfo(
    *("small", "Small", "Counts", "1", "none"), uses_prompt=False, uses_negative_prompt=False, available=True
)
LARGE = evolve(SMALL, id="large", memory_bytes=10**9)
OTHER = evolve(SMALL, id="other", memory_bytes=10**9)
PLAIN = Skill((SMALL,), "small")
ABLE = Skill((LARGE, OTHER, SMALL), "large")


def asked(engine: str, id: str = "r", **more: object) -> m.Generate:
    keyframes = (m.Keyframe(0, 0, 64, 64),)
    return m.Generate(id, engine, 64, 64, 9, keyframes, 1, **more)  # type: ignore[arg-type]


def welcome(skill: Skill) -> m.Welcome:
    return m.Welcome(L.PROTOCOL, "worker", "test", skill.engines, skill.default, f"{skill.default} is best")


class Room:
    """A broker with workers that have these skills, and a client."""

    def __init__(self, *skills: Skill, places: int = 0) -> None:
        self.broker = Broker("boot", "test", len(skills), 1e9, 0.0, places=places)
        for index, skill in enumerate(skills):
            self.broker.on_worker(index, welcome(skill), [], 0.0)
        self.broker.on_client(b"peer", m.Hello(L.PROTOCOL, "test", "s"), [], 0.0)
        self.count = 0

    def ask(self, engine: str) -> list[tuple[int, str]]:
        """(worker, key) of what is handed out."""
        self.count += 1
        return handed(self.broker.on_client(b"peer", asked(engine, f"r{self.count}"), [bytearray(64 * 64 * 3)], 0.0))

    def finish(self, worker: int, key: str, engine: str) -> list[tuple[int, str]]:
        return handed(self.broker.on_worker(worker, m.Done(key, "finished", 0, 1, engine, "1"), [], 0.0))

    def states(self) -> list[str]:
        (report,) = (a.message for a in self.broker.on_client(b"peer", m.Status(), [], 0.0) if isinstance(a, ToClient))
        assert isinstance(report, m.Report)
        return [job.state for job in report.jobs]


def handed(actions: list[Action]) -> list[tuple[int, str]]:
    return [(a.worker, a.message.id) for a in actions if isinstance(a, ToWorker) and isinstance(a.message, m.Generate)]


def told(actions: list[Action]) -> list[m.ToClient]:
    return [action.message for action in actions if isinstance(action, ToClient)]


def test_a_request_goes_to_a_worker_that_has_its_engine_whoever_spoke_last() -> None:
    room = Room(PLAIN, ABLE, PLAIN)
    assert room.ask("large") == [(1, "job1")]


def test_one_that_a_busy_worker_alone_can_do_holds_up_nobody_else() -> None:
    room = Room(PLAIN, ABLE)
    room.ask("large")
    assert room.ask("other") == []
    assert room.ask("small") == [(0, "job3")]
    assert room.finish(1, "job1", "large") == [(1, "job2")]


def test_a_request_goes_where_its_engine_is_loaded() -> None:
    room = Room(ABLE, ABLE)
    assert room.ask("large") == [(0, "job1")]
    assert room.ask("other") == [(1, "job2")]
    room.finish(0, "job1", "large")
    room.finish(1, "job2", "other")
    assert room.ask("other") == [(1, "job3")]
    assert room.ask("large") == [(0, "job4")]


def test_one_that_is_loaded_nowhere_does_not_push_out_another_while_there_is_room() -> None:
    room = Room(ABLE, ABLE)
    room.ask("large")
    room.finish(0, "job1", "large")
    assert room.ask("other") == [(1, "job2")]


def test_what_any_worker_can_do_leaves_the_able_one_free() -> None:
    assert Room(ABLE, PLAIN).ask("small") == [(1, "job1")]


def test_a_worker_that_was_replaced_has_nothing_loaded() -> None:
    room = Room(ABLE, ABLE)
    room.ask("large")
    room.finish(0, "job1", "large")
    room.broker.on_worker_gone(0, "killed", 0.0, was_ended=True)
    room.broker.on_worker(0, welcome(ABLE), [], 0.0)
    room.ask("other")
    assert room.ask("large") == [(1, "job3")]


def test_a_request_says_why_it_waits() -> None:
    room = Room(PLAIN, ABLE)
    room.ask("large")
    room.ask("large")
    assert room.states() == ["running", "queued: 1 worker with large, all at work"]
    room.broker.on_worker_gone(1, "killed", 0.0, was_ended=True)
    assert room.states() == ["queued: no worker with large yet, 1 starting"]


def test_what_only_a_worker_can_do_that_is_away_is_waited_for() -> None:
    room = Room(PLAIN, places=1)
    room.broker.on_worker_came(1, 7, "GPU 0 of elsewhere", 0.0)
    room.broker.on_worker(1, welcome(ABLE), [], 0.0)
    room.broker.on_worker_gone(1, "the cable", 0.0, was_ended=True)
    assert room.ask("large") == []
    assert room.states() == ["queued: no worker with large is here; start one that has it"]
    room.broker.on_worker_came(1, 8, "GPU 0 of elsewhere", 0.0)
    assert handed(room.broker.on_worker(1, welcome(ABLE), [], 0.0)) == [(1, "job1")]


def test_an_engine_that_is_not_back_yet_after_a_restart_is_waited_for_and_its_client_told() -> None:
    room = Room(PLAIN, places=1)
    said = room.broker.on_client(b"peer", asked("large"), [bytearray(64 * 64 * 3)], 1.0)
    accepted, waits = told(said)
    assert isinstance(accepted, m.Accepted)
    assert isinstance(waits, m.Progress)
    assert "no worker with large" in waits.stage
    room.broker.on_worker_came(1, 7, "GPU 0 of elsewhere", 2.0)
    assert handed(room.broker.on_worker(1, welcome(ABLE), [], 3.0)) == [(1, "job1")]


def test_who_does_not_come_back_is_waited_for_so_long_and_no_longer() -> None:
    room = Room(PLAIN, places=1)
    room.broker.on_client(b"peer", asked("large"), [bytearray(64 * 64 * 3)], 1.0)
    ended: list[m.Failed] = []
    for tenth in range(20, 10 * round(GATHER_S) + 20):
        room.broker.on_client(b"peer", m.Ping(1), [], tenth / 10)
        ended += [message for message in told(room.broker.tick(tenth / 10)) if isinstance(message, m.Failed)]
        assert bool(ended) == (tenth / 10 >= GATHER_S)
    assert [failed.code for failed in ended] == [ErrorCode.UNKNOWN_ENGINE]
    late = room.broker.on_client(b"peer", asked("large", "late"), [bytearray(64 * 64 * 3)], 2 * GATHER_S)
    assert [type(message) for message in told(late)] == [m.Failed]


def test_the_control_with_everybody_there_nobody_is_waited_for() -> None:
    (refused,) = told(Room(PLAIN).broker.on_client(b"peer", asked("large"), [bytearray(64 * 64 * 3)], 1.0))
    assert isinstance(refused, m.Failed)
    wrong = asked("small", params={"no": 1})
    (refused,) = told(Room(PLAIN, places=1).broker.on_client(b"peer", wrong, [bytearray(64 * 64 * 3)], 1.0))
    assert isinstance(refused, m.Failed), "what is wrong with it is wrong everywhere"


def test_what_a_worker_can_is_looked_up_and_not_made_anew_for_each_decision() -> None:
    assert ABLE.by_id is ABLE.by_id
    assert Skill(ABLE.engines, ABLE.default) == ABLE
    assert hash(Skill(ABLE.engines, ABLE.default)) == hash(ABLE)


def test_a_status_asks_each_kind_of_worker_once_for_each_waiting_request(monkeypatch: pytest.MonkeyPatch) -> None:
    room = Room(*[ABLE] * 8)
    for _ in range(10):
        room.ask("large")
    asked_of: list[Skill] = []
    refusal = Skill.refusal
    monkeypatch.setattr(Skill, "refusal", lambda self, request: (asked_of.append(self), refusal(self, request))[1])
    assert room.states()[-1] == "queued: 8 workers with large, all at work"
    assert asked_of == [ABLE] * 2


def test_a_place_that_somebody_left_is_not_started_again_by_us() -> None:
    room = Room(PLAIN, places=1)
    room.broker.on_worker_came(1, 7, "elsewhere", 0.0)
    room.broker.on_worker_gone(1, "the cable", 0.0, was_ended=True)
    later = [a for second in range(1000) for a in room.broker.tick(float(second))]
    assert not [a for a in later if isinstance(a, Replace) and a.worker == 1]
    assert [a for a in room.broker.on_worker_gone(0, "killed", 1000.0, True) if isinstance(a, Replace)]  # the control


def test_a_worker_whose_engine_makes_other_pixels_is_refused_by_name() -> None:
    room = Room(ABLE, places=1)
    room.broker.on_worker_came(1, 7, "elsewhere", 0.0)
    newer = Skill((evolve(LARGE, version="2"), SMALL), "large")
    (refused,) = room.broker.on_worker(1, welcome(newer), [], 0.0)
    assert isinstance(refused, Refuse)
    assert "large is version 2, the server's 1" in refused.why
    assert other_version(ABLE, [ABLE]) is None
    missing = Skill((evolve(LARGE, version="2", available=False), SMALL), "small")
    assert other_version(missing, [ABLE]) is None


def test_clients_are_told_of_an_engine_by_one_that_can_run_it() -> None:
    missing = Skill((evolve(LARGE, available=False, missing=("weights",)), SMALL), "small")
    assert {info.id: info.available for info in all_engines([missing, ABLE])} == dict.fromkeys(
        ("large", "small", "other"), True
    )
    error = refusal_of_all([PLAIN, missing], asked("large"))
    assert error is not None
    assert "weights" in error.message or "no engine" in error.message


def test_a_large_engine_makes_room_for_another_large_one_and_small_ones_stay() -> None:
    loaded = loaded_after(loaded_after(frozenset(), "small", ABLE), "large", ABLE)
    assert loaded == {"small", "large"}
    assert loaded_after(loaded, "other", ABLE) == {"small", "other"}
