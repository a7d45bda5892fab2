"""One valid message of each kind, and hypothesis strategies for any of them."""

from __future__ import annotations

from typing import Any

import attrs
import hypothesis.strategies as st
from sfwire import limits as L
from sfwire import messages as m
from sfwire.errors import ErrorCode

SIDE = 16
PICTURE = bytes(SIDE * SIDE * 3)

ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
texts = st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n\t"), max_size=40)
values = st.one_of(st.booleans(), st.integers(-(2**60), 2**60), st.floats(allow_nan=False, allow_infinity=False), texts)
places = st.integers(0, L.MAX_FRAMES - 1)
seeds = st.integers(0, L.MAX_SEED)
counts = st.integers(0, 1000)
nonces = st.integers(0, L.MAX_INT)

parameters = st.builds(
    m.Parameter, ids, st.sampled_from(["bool", "int", "float", "choice"]), values, texts, choices=st.tuples(texts)
)
engines = st.builds(
    m.EngineInfo,
    ids,
    texts,
    texts,
    texts,
    texts,
    st.booleans(),
    st.booleans(),
    st.booleans(),
    missing=st.lists(texts, max_size=3).map(tuple),
    parameters=st.lists(parameters, max_size=3).map(tuple),
    max_channels=st.sampled_from([3, 4]),
    max_depth=st.sampled_from(L.DEPTHS),
)


@st.composite
def kinds(draw: st.DrawFn) -> tuple[int, int, bytes]:
    """(channels, depth, a picture of them)"""
    channels, depth = draw(st.sampled_from([3, 4])), draw(st.sampled_from(L.DEPTHS))
    return channels, depth, bytes(SIDE * SIDE * channels * (depth // 8))


@st.composite
def generates(draw: st.DrawFn) -> tuple[m.Generate, list[bytes]]:
    at = draw(st.lists(places, min_size=1, max_size=L.MAX_KEYFRAMES))
    each = draw(st.lists(kinds(), min_size=len(at), max_size=len(at)))
    keyframes = tuple(
        m.Keyframe(a, i, SIDE, SIDE, channels, depth)
        for i, (a, (channels, depth, _)) in enumerate(zip(at, each, strict=True))
    )
    message = m.Generate(
        draw(ids),
        draw(ids),
        SIDE,
        SIDE,
        draw(st.integers(2, L.MAX_FRAMES)),
        keyframes,
        draw(seeds),
        draw(texts),
        draw(texts),
        draw(st.dictionaries(ids, values, max_size=4)),
        draw(st.integers(0, L.MAX_FRAMES)),
        draw(st.integers(0, L.MAX_CREDIT_AHEAD)),
        draw(st.sampled_from(["raw", "png"])),
        tuple(m.PromptAt(at, draw(texts)) for at in sorted(draw(st.sets(places, max_size=3)))),
        draw(st.sampled_from(["interactive", "batch"])),
    )
    return message, [picture for _, _, picture in each]


@st.composite
def frames(draw: st.DrawFn) -> tuple[m.Frame, list[bytes]]:
    (channels, depth, picture), trust = draw(kinds()), draw(st.none() | st.floats(0, 1, allow_nan=False))
    return m.Frame(draw(ids), draw(places), SIDE, SIDE, "raw", trust, channels, depth), [picture]


def alone(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, list[bytes]]]:
    return strategy.map(lambda message: (message, []))


to_server = st.one_of(
    alone(st.builds(m.Hello, counts, texts, ids)),
    generates(),
    alone(st.builds(m.Credit, ids, counts)),
    alone(st.builds(m.Cancel, ids)),
    alone(st.builds(m.Ping, nonces)),
    alone(st.just(m.Status())),
    alone(st.just(m.Bye())),
    alone(st.builds(m.Steer, st.sampled_from(["list", "move"]), texts, texts, st.integers(0, L.MAX_QUEUED))),
)
to_client = st.one_of(
    alone(st.builds(m.Welcome, counts, ids, texts, st.lists(engines, max_size=2).map(tuple), ids, texts)),
    alone(st.builds(m.Accepted, ids, counts)),
    alone(st.builds(m.Progress, ids, texts, counts, counts)),
    frames(),
    alone(st.builds(m.Done, ids, st.sampled_from(["finished", "cancelled"]), counts, seeds, ids, texts)),
    alone(st.builds(m.Failed, st.none() | ids, st.sampled_from(list(ErrorCode)), texts, texts, st.booleans())),
    alone(
        st.builds(m.Queue, st.booleans(), st.just((m.QueuedJob("j", "c", "e", "away", "batch", 1, 2, 3),)), texts),
    ),
    alone(st.builds(m.Pong, nonces, ids, counts, counts, st.just(("idle", "dead")), st.just((m.LiveRequest("a", 1),)))),
)


def request(**changes: Any) -> tuple[m.Generate, list[bytes]]:
    """A small request that the fake engine can do."""
    keyframes = (m.Keyframe(0, 0, SIDE, SIDE), m.Keyframe(8, 1, SIDE, SIDE))
    message = m.Generate("r1", "fake", SIDE, SIDE, 9, keyframes, 1, params={"delay_ms": 0.0})
    return attrs.evolve(message, **changes), [PICTURE, PICTURE]
