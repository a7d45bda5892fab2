"""A server that was updated and a client that was not: it is answered in its own protocol."""

from __future__ import annotations

import msgpack
import pytest
from sfwire import limits as L
from sfwire import messages as m
from sfwire.codec import encode

from sfserver.serve.broker import Broker, ToClient

INFO = m.EngineInfo(
    *("fake", "Fake", "Counts", "1", "none"),
    uses_prompt=True,
    uses_negative_prompt=True,
    available=True,
    max_channels=4,
    max_depth=32,
)
WELCOME = m.Welcome(L.PROTOCOL, "worker", "test", (INFO,), "fake", "the only one")
FIELDS_OF_1 = {
    *("id", "title", "summary", "version", "licence", "uses_prompt", "uses_negative_prompt", "available", "missing"),
    *("size_multiple", "min_side_px", "max_pixels", "min_frames", "max_frames", "max_keyframes", "can_skip"),
    *("memory_bytes", "parameters"),
}
"""Of an engine, as a client of protocol 1 reads them: one more, and it refuses the greeting."""


def greeted(protocol: int, waiting: bool) -> m.Welcome:
    """What the server says to a client that came after its first worker was ready, or before."""
    broker, hello = Broker("boot", "test", 1, 1e9, 0.0), m.Hello(protocol, "editor", "s")
    early = broker.on_client(b"peer", hello, [], 0.0) if waiting else []
    ready = broker.on_worker(0, WELCOME, [], 0.0)
    late = [] if waiting else broker.on_client(b"peer", hello, [], 0.0)
    (said,) = (action.message for action in [*early, *ready, *late] if isinstance(action, ToClient))
    assert isinstance(said, m.Welcome)
    return said


@pytest.mark.parametrize("waiting", [False, True])
def test_a_client_of_protocol_1_is_told_limits_that_it_can_read(waiting: bool) -> None:
    welcome = greeted(1, waiting)
    assert welcome.protocol == 1
    assert [info.max_keyframes for info in welcome.engines] == [8]


@pytest.mark.parametrize("waiting", [False, True])
def test_a_client_of_today_is_told_all_of_it(waiting: bool) -> None:
    welcome = greeted(L.PROTOCOL, waiting)
    assert (welcome.protocol, welcome.engines) == (L.PROTOCOL, (INFO,))
    assert INFO.max_keyframes == L.MAX_KEYFRAMES > 8


def test_engines_say_nothing_of_themselves_that_a_client_of_protocol_1_would_refuse() -> None:
    header = msgpack.unpackb(bytes(encode(greeted(1, False))[0]))
    assert set(header["engines"][0]) == FIELDS_OF_1
    assert set(msgpack.unpackb(bytes(encode(WELCOME)[0]))["engines"][0]) == FIELDS_OF_1 | {"max_channels", "max_depth"}
