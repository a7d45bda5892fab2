"""A mistake of ours costs one client or one worker, is in the log with its traceback, and ends no process."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import structlog
from sfwire import limits as L
from sfwire import messages as m

from sfserver.config import ServerConfig, load_config
from sfserver.serve import pool as pools
from sfserver.serve.broker import Action, Broker, Replace, ToClient, ToWorker
from sfserver.serve.logs import log_to_file
from sfserver.serve.order import InOrder
from sfserver.serve.pool import Died, Pool, Said

HERE = Path(__file__).parent
PONG = m.Pong(1, "boot", 0, 0, (), ())


def broken() -> Sequence[Action]:
    raise ZeroDivisionError("a mistake of ours")


def test_what_fails_is_blamed_on_one_and_the_rest_is_done_in_order() -> None:
    done: list[object] = []

    def perform(action: Action) -> Sequence[Action]:
        assert isinstance(action, ToClient)
        if action.peer == b"bad":
            raise KeyError("a mistake of ours")
        done.append(action.peer)
        return [ToClient(b"later", PONG)] if action.peer == b"first" else ()

    order = InOrder(perform, lambda action: [Replace(7)] if isinstance(action, ToClient) else ())
    order.do(lambda: [ToClient(peer, PONG) for peer in (b"first", b"bad", b"second")])
    assert done == [b"first", b"second", b"later"]
    order.do(broken, blame=lambda: [ToClient(b"blamed", PONG)])
    assert done[-1] == b"blamed"
    order.do(broken, blame=broken)  # and a mistake in that is the end of the matter
    order.do(lambda: [ToClient(b"still alive", PONG)])
    assert done[-1] == b"still alive"


def test_an_action_carried_out_inside_another_is_refused() -> None:
    inner: list[type] = []

    def perform(action: Action) -> Sequence[Action]:
        with pytest.raises(AssertionError, match="inside another"):
            order.do(lambda: ())
        inner.append(type(action))
        return ()

    order = InOrder(perform, lambda action: ())
    order.do(lambda: [Replace(0)])
    assert inner == [Replace]


def test_a_mistake_is_in_the_log_with_its_traceback(tmp_path: Path) -> None:
    log = log_to_file(load_config({"log_dir": str(tmp_path)}, environment={}), "server.log")
    try:
        InOrder(lambda action: (), lambda action: ()).do(broken)
    finally:
        structlog.reset_defaults()
    text = log.read_text()
    assert "mistake" in text
    assert "in broken" in text
    assert "ZeroDivisionError" in text


def test_a_client_that_we_fail_over_is_told_and_its_requests_are_stopped() -> None:
    broker = Broker("boot", "test", 1, 1e9, 0.0)
    info = m.EngineInfo("fake", "Fake", "Counts", "1", "none", False, False, True)
    broker.on_worker(0, m.Welcome(L.PROTOCOL, "w", "t", (info,), "fake", ""), [], 0.0)
    for peer, session in ((b"a", "a"), (b"b", "b")):
        broker.on_client(peer, m.Hello(L.PROTOCOL, "test", session), [], 0.0)
        broker.on_client(peer, m.Generate("r", "fake", 16, 16, 9, (m.Keyframe(0, 0, 16, 16),), 1), [bytes(768)], 0.0)
    said, stop = broker.on_mistake(b"a", 1.0)
    assert isinstance(said, ToClient)
    assert isinstance(said.message, m.Failed)
    assert isinstance(stop, ToWorker)
    assert isinstance(stop.message, m.Cancel)
    (report,) = broker.on_client(b"b", m.Status(), [], 1.0)
    assert isinstance(report, ToClient)
    assert isinstance(report.message, m.Report)
    assert [job.state.split(":")[0] for job in report.message.jobs] == ["stopping", "queued"]


def pool_of(command: Sequence[str], folder: Path) -> Pool:
    config: ServerConfig = load_config({"log_dir": str(folder)}, environment={})
    return Pool(command, config)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], Pool]]:
    pools_made: list[Pool] = []

    def start(code: str) -> Pool:
        set_up = f"import sys; sys.path[:0] = [{str(HERE)!r}]\nimport fake_engines\nfrom sfserver.serve import worker\n"
        pool = pool_of([sys.executable, "-c", set_up + code + "\nworker.run(fake_engines)"], tmp_path)
        pools_made.append(pool)
        pool.start(0)
        return pool

    yield start
    for pool in pools_made:
        pool.close()


def next_event(pool: Pool) -> Said | Died:
    for _ in range(3000):
        for event in pool.events():
            return event
        time.sleep(0.01)
    raise AssertionError("nothing came")


def test_a_worker_whose_listening_thread_fails_ends_instead_of_going_deaf(start: Callable[[str], Pool]) -> None:
    pool = start("def broken(parts): raise ZeroDivisionError('a mistake of ours')\nworker.decode_to_server = broken")
    assert isinstance(next_event(pool), Said)
    pool.send(0, m.Ping(1), ())
    event = next_event(pool)
    assert isinstance(event, Died)
    assert "a mistake of ours" in event.why


def test_a_worker_that_we_cannot_hear_is_missed(start: Callable[[str], Pool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "decode_to_client", lambda parts: 1 / 0)
    event = next_event(start(""))
    assert isinstance(event, Died)
    assert "the server failed" in event.why


def test_a_worker_that_closes_its_pipe_and_stays_is_ended(
    start: Callable[[str], Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "_EXIT_S", 0.1)
    event = next_event(start("import os, time; os.close(1); time.sleep(600)"))
    assert isinstance(event, Died)
    assert "signal 9" in event.why


def test_what_a_replaced_worker_said_last_is_nobodys(start: Callable[[str], Pool]) -> None:
    pool = start("")
    while not pool._events:
        time.sleep(0.01)
    pool.start(0)  # its Welcome lies in the queue, and it is not the one that works here now
    pool.send(0, m.Ping(1), ())
    first = next_event(pool)
    assert isinstance(first, Said)
    assert isinstance(first.message, m.Welcome)
    assert not list(pool.events())
