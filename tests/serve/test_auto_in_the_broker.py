"""`auto` before it reaches a worker: what no engine can do is refused at once, what one can do waits for its turn."""

from __future__ import annotations

import attrs
from sfwire import limits as L
from sfwire import messages as m
from sfwire.errors import ErrorCode

from sfserver.serve.broker import Broker, ToClient, ToWorker

SIDE = 16
SHORT = m.EngineInfo("short", "Short", "", "1", "none", False, False, True, max_frames=10)
LONG = attrs.evolve(SHORT, id="long", title="Long", max_frames=100)


def asked(num_frames: int, *engines: m.EngineInfo) -> list[m.ToClient | m.Generate | m.Credit | m.Cancel]:
    """What comes of asking for `auto` while the worker is idle."""
    broker = Broker("boot", "test", 1, 1e9, 0.0)
    default = engines[0].id if engines else "none"
    broker.on_worker(0, m.Welcome(L.PROTOCOL, "worker", "test", engines, default, "the first"), [], 0.0)
    broker.on_client(b"peer", m.Hello(L.PROTOCOL, "editor", "s"), [], 0.0)
    keyframes = (m.Keyframe(0, 0, SIDE, SIDE),)
    request = m.Generate("r1", L.AUTO, SIDE, SIDE, num_frames, keyframes, 1)
    actions = broker.on_client(b"peer", request, [bytes(SIDE * SIDE * 3)], 0.0)
    return [action.message for action in actions if isinstance(action, ToClient | ToWorker)]


def test_what_one_engine_can_do_goes_to_the_worker_as_auto() -> None:
    accepted, handed = asked(50, SHORT, LONG)
    assert isinstance(accepted, m.Accepted)
    assert isinstance(handed, m.Generate)
    assert handed.engine == L.AUTO


def test_what_none_can_do_is_refused_in_the_words_of_the_one_it_mostly_is() -> None:
    (failed,) = asked(500, LONG, SHORT)
    assert isinstance(failed, m.Failed)
    assert (failed.code, failed.field) == (ErrorCode.BAD_VALUE, "num_frames")
    assert "engine long makes clips of 2 to 100" in failed.message


def test_without_an_engine_it_is_said() -> None:
    for engines in ((), (attrs.evolve(SHORT, available=False, missing=("weights",)),)):
        (failed,) = asked(5, *engines)
        assert isinstance(failed, m.Failed)
        assert failed.code is ErrorCode.ENGINE_UNAVAILABLE
