"""A large request is hashed beside the front's loop: its client's words keep their order, and nobody else waits."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from servers import eventually
from sfwire import limits as L
from sfwire import messages as m
from sfwire.codec import Buffer

from sfserver.serve import contents
from sfserver.serve.actions import Note
from sfserver.serve.broker import Broker
from sfserver.serve.contents import Contents
from sfserver.serve.kept import Entered, Past, content_of

SIDE = 2048
LARGE: list[Buffer] = [bytes(SIDE * SIDE * 3)]
INFO = m.EngineInfo("fake", "Fake", "Counts", "1", "none", False, False, True)


def generate(id: str = "r") -> m.Generate:
    return m.Generate(id, "fake", SIDE, SIDE, 9, (m.Keyframe(0, 0, SIDE, SIDE),), 1)


@pytest.fixture
def may_go_on(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Hashes wait for this."""
    event = threading.Event()

    def slow(request: m.Generate, buffers: list[Buffer]) -> str:
        event.wait()
        return content_of(request, buffers)

    monkeypatch.setattr(contents, "content_of", slow)
    yield event
    event.set()


def whole(held: Contents, count: int) -> list[tuple[bytes, m.ToServer, str]]:
    """So many that need not wait any more, once they are there."""
    found: list[tuple[bytes, m.ToServer, str]] = []

    def look() -> bool:
        found.extend((one.peer, one.message, one.content) for one in held.whole())
        return len(found) >= count

    eventually(look)
    return found


def test_what_a_client_says_after_a_large_request_comes_after_it_and_others_do_not_wait(
    may_go_on: threading.Event,
) -> None:
    woken = threading.Event()
    held = Contents(woken.set)
    assert held.holds(b"a", generate(), LARGE)
    assert held.holds(b"a", m.Cancel("r"), [])
    assert not held.holds(b"b", m.Ping(1), [])
    assert not held.holds(b"b", generate(), [bytes(100)]), "a small one is hashed where it is"
    assert list(held.whole()) == []
    may_go_on.set()
    assert woken.wait(120)
    assert whole(held, 2) == [(b"a", generate(), content_of(generate(), LARGE)), (b"a", m.Cancel("r"), "")]
    assert not held.holds(b"a", m.Ping(1), []), "the control: nothing of it waits any more"
    held.close()


def test_with_more_than_one_of_the_largest_requests_nobody_is_read(
    may_go_on: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "MOST_HELD_BYTES", len(LARGE[0]))
    held = Contents(lambda: None)
    held.holds(b"a", generate(), LARGE)
    assert not held.is_full
    held.holds(b"b", generate(), LARGE)
    assert held.is_full
    may_go_on.set()
    whole(held, 2)
    assert not held.is_full
    held.close()


def test_the_broker_takes_what_was_worked_out_and_works_it_out_where_nobody_did() -> None:
    contents_noted: list[str] = []
    for given in ("abc", ""):
        broker = Broker("boot", "test", 1, 1e9, 0.0, past=Past())
        broker.on_worker(0, m.Welcome(L.PROTOCOL, "w", "t", (INFO,), "fake", ""), [], 0.0)
        broker.on_client(b"a", m.Hello(L.PROTOCOL, "test", "s"), [], 0.0)
        said = broker.on_client(b"a", generate(), LARGE, 0.0, given)
        contents_noted += [a.fact.entry.content for a in said if isinstance(a, Note) and isinstance(a.fact, Entered)]
    assert contents_noted == ["abc", content_of(generate(), LARGE)]


def test_a_client_whose_words_wait_is_not_taken_for_silent() -> None:
    broker = Broker("boot", "test", 1, 1e9, 0.0)
    broker.on_worker(0, m.Welcome(L.PROTOCOL, "w", "t", (INFO,), "fake", ""), [], 0.0)
    broker.on_client(b"a", m.Hello(L.PROTOCOL, "test", "s"), [], 0.0)
    broker.on_sign_of_life(b"a", L.CLIENT_LOST_AFTER_S)
    broker.tick(L.CLIENT_LOST_AFTER_S + 1)
    assert len(broker._clients) == 1
    broker.tick(2 * L.CLIENT_LOST_AFTER_S + 1)
    assert len(broker._clients) == 0, "the control"
