"""How long the server waits for a worker: by its beats, after a cancel, and while it starts. The clock is a number."""

from __future__ import annotations

from sfwire import limits as L
from sfwire import messages as m

from sfserver.serve.broker import CANCEL_TIMEOUT_S, Action, Broker, Replace, ToClient, ToWorker
from sfserver.serve.crew import MAX_FAILED_STARTS
from sfserver.serve.ends import LONGEST_PAUSE_S

INFO = m.EngineInfo("fake", "Fake", "Counts", "1", "none", False, False, True)
WELCOME = m.Welcome(L.PROTOCOL, "w", "t", (INFO,), "fake", "")
REQUEST = m.Generate("r", "fake", 16, 16, 9, (m.Keyframe(0, 0, 16, 16),), 1)


def broker_with_a_request(patience_s: float = 1e9) -> Broker:
    broker = Broker("boot", "test", 1, patience_s, 0.0)
    broker.on_worker(0, WELCOME, [], 0.0)
    broker.on_client(b"p", m.Hello(L.PROTOCOL, "test", "s"), [], 0.0)
    broker.on_client(b"p", REQUEST, [bytes(16 * 16 * 3)], 0.0)
    return broker


def replaces(actions: list[Action]) -> bool:
    return any(isinstance(action, Replace) for action in actions)


def test_a_worker_that_does_not_stop_when_told_to_is_replaced_however_patient_the_server_is_else() -> None:
    broker = broker_with_a_request()
    assert not replaces(broker.tick(9.0))
    (told,) = broker.on_client(b"p", m.Cancel("r"), [], 9.0)
    assert isinstance(told, ToWorker)
    broker.on_worker(0, m.Progress("job1", "denoising", 1, 4), [], 10.0)  # a beat is not what was asked for
    broker.on_client(b"p", m.Ping(2), [], 18.0)
    assert not replaces(broker.tick(9.0 + CANCEL_TIMEOUT_S))
    actions = broker.tick(9.1 + CANCEL_TIMEOUT_S)
    assert replaces(actions)
    (done,) = [a.message for a in actions if isinstance(a, ToClient)]
    assert isinstance(done, m.Done)
    assert done.outcome == "cancelled"


def test_workers_that_are_killed_while_they_start_are_started_again_and_again_each_a_little_later() -> None:
    broker = Broker("boot", "test", 1, 1e9, 0.0)
    now, waits = 0.0, []
    for _ in range(4 * MAX_FAILED_STARTS):
        died_at = now
        actions = broker.on_worker_gone(0, "signal 9", now, was_ended=True)
        while not replaces(actions):
            now += 0.1
            actions = broker.tick(now)
        waits.append(round(now - died_at, 3))
    assert waits[:5] == sorted(waits[:5])
    assert waits[0] < 0.2
    assert max(waits) <= LONGEST_PAUSE_S + 0.2
    assert not any(isinstance(a, ToClient) for a in broker.on_client(b"p", m.Hello(L.PROTOCOL, "x", "s"), [], now))


def test_the_control_workers_that_fail_by_themselves_are_given_up_for_a_while() -> None:
    broker = Broker("boot", "test", 1, 1e9, 0.0)
    for second in range(MAX_FAILED_STARTS):
        broker.on_worker_gone(0, "exit code 1", float(second))
        broker.tick(second + 0.9)
    (refusal,) = broker.on_client(b"p", m.Hello(L.PROTOCOL, "x", "s"), [], 3.0)
    assert isinstance(refusal, ToClient)
    assert isinstance(refusal.message, m.Failed)
    assert "exit code 1" in refusal.message.message
