"""Who stays in the cache, and that each reads what was written for them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sfserver.model.attention import Group
from sfserver.model.cache import CacheShape, KvCache
from sfserver.model.positions import Positions
from sfserver.model.rope import RopeTable, rotate

TOKENS, HEADS, HEAD_DIM, LATENTS = 2, 2, 8, 64
NEVER = -math.inf


def make_cache(window: int, sink: int = 0, pinned: int = 0, relative: bool = False) -> KvCache:
    shape = CacheShape(1, HEADS, HEAD_DIM, TOKENS, window, sink, pinned)
    positions = Positions("relative" if relative else "absolute")
    return KvCache(shape, RopeTable(HEAD_DIM, LATENTS, 1, TOKENS), positions)


def keys_of(start: int, count: int, salt: int = 0) -> Tensor:
    """Keys [1, L, N, D] that no other latents have."""
    generator = torch.Generator().manual_seed(1000 * salt + start)
    return torch.randn(1, count * TOKENS, HEADS, HEAD_DIM, generator=generator)


def put(cache: KvCache, start: int, count: int, salt: int = 0, **how: bool) -> tuple[Tensor, Tensor]:
    cache.seat(start, count, **how)
    k = keys_of(start, count, salt)
    return cache.extend(0, k, -k)


sizes = st.tuples(st.integers(1, 3), st.integers(0, 3), st.integers(0, 5)).map(
    lambda drawn: (drawn[0], drawn[1], drawn[0] + drawn[1] + drawn[2])
)
"""(block, sink, window) with room for both."""


@settings(max_examples=60, deadline=None)
@given(sizes=sizes, blocks=st.integers(1, 9))
def test_window_keeps_sink_and_latest(sizes: tuple[int, int, int], blocks: int) -> None:
    block, sink, window = sizes
    cache = make_cache(window, sink)
    for i in range(blocks):
        put(cache, i * block, block)
        end = (i + 1) * block
        everything = list(range(end))
        recent = everything[sink:][-(window - sink) :] if window > sink else []
        expected = everything if end <= window else everything[:sink] + recent
        assert cache.positions == expected


@settings(max_examples=60, deadline=None)
@given(sizes=sizes, blocks=st.integers(1, 9), repeats=st.integers(1, 3))
def test_every_latent_that_is_held_has_its_latest_keys(sizes: tuple[int, int, int], blocks: int, repeats: int) -> None:
    block, sink, window = sizes
    cache = make_cache(window, sink)
    for i in range(blocks):
        for salt in range(repeats):
            put(cache, i * block, block, salt)
    keys, values = cache.read(0)
    expected = torch.cat(
        [keys_of(p - p % block, block, repeats - 1)[:, _tokens_in_block(p, block)] for p in cache.positions], 1
    )
    assert torch.equal(keys, expected)
    assert torch.equal(values, -expected)


def _tokens_in_block(position: int, block: int) -> slice:
    offset = position % block * TOKENS
    return slice(offset, offset + TOKENS)


def test_extend_answers_views_and_not_copies() -> None:
    cache = make_cache(window=6)
    first, _ = put(cache, 0, 3)
    second, _ = put(cache, 3, 3)
    assert first.data_ptr() == second.data_ptr()
    assert second.shape[1] == 6 * TOKENS


@settings(max_examples=40, deadline=None)
@given(sizes=sizes, blocks=st.integers(1, 7))
def test_truncate_then_redo_equals_never_started(sizes: tuple[int, int, int], blocks: int) -> None:
    block, sink, window = sizes
    untouched, broken_off = make_cache(window, sink), make_cache(window, sink)
    for i in range(blocks):
        put(untouched, i * block, block)
        put(broken_off, i * block, block)
    put(broken_off, blocks * block, block, salt=7)
    broken_off.truncate(blocks * block)
    assert torch.equal(*(put(cache, blocks * block, block)[0] for cache in (untouched, broken_off)))
    assert untouched.positions == broken_off.positions


def test_pinned_latents_outlive_the_window() -> None:
    cache = make_cache(window=3, pinned=1)
    put(cache, 20, 1, salt=5, pin=True)
    for start in range(0, 12, 3):
        put(cache, start, 3)
        assert cache.positions == [start, start + 1, start + 2, 20]
    cache.truncate(9)
    assert cache.positions == [20]


def test_noise_does_not_touch_a_pinned_latent_and_the_final_pass_renews_it() -> None:
    cache = make_cache(window=3, pinned=1)
    put(cache, 1, 1, salt=5, pin=True)
    put(cache, 0, 3, salt=1)
    assert cache.positions == [0, 1, 2], "one seat for one latent"
    middle = slice(TOKENS, 2 * TOKENS)
    assert torch.equal(cache.read(0)[0][:, middle], keys_of(1, 1, salt=5))
    put(cache, 0, 3, salt=2, final=True)
    assert torch.equal(cache.read(0)[0], keys_of(0, 3, salt=2))


@settings(max_examples=30, deadline=None)
@given(block=st.integers(1, 3), blocks=st.integers(1, 4))
def test_relative_positions_equal_absolute_ones_while_nothing_was_evicted(block: int, blocks: int) -> None:
    absolute, relative = make_cache(12), make_cache(12, relative=True)
    for i in range(blocks):
        k = keys_of(i * block, block)
        for cache in (absolute, relative):
            cache.seat(i * block, block)
        assert all(torch.equal(a, b) for a, b in zip(absolute.rotation, relative.rotation, strict=True))
        expected, _ = absolute.extend(0, rotate(k, absolute.rotation), k)
        actual, _ = relative.extend(0, k, k)
        assert torch.equal(actual, expected)


def test_relative_positions_close_the_gap_that_eviction_leaves() -> None:
    cache = make_cache(window=3, sink=1, relative=True)
    for start in range(5):
        k, _ = put(cache, start, 1)
    assert cache.positions == [0, 3, 4]
    table = RopeTable(HEAD_DIM, LATENTS, 1, TOKENS)
    ranks = {0: 0, 3: 1, 4: 2}
    in_seats = sorted(cache.positions, key=cache._seats.__getitem__)
    expected = torch.cat([rotate(keys_of(p, 1), table.at(ranks[p], 1)) for p in in_seats], dim=1)
    assert torch.equal(k, expected)


def test_a_pinned_key_that_may_seem_nearer_is_turned_anew_for_each_block() -> None:
    table = RopeTable(HEAD_DIM, LATENTS, 1, TOKENS)
    cache = KvCache(CacheShape(1, HEADS, HEAD_DIM, TOKENS, 9, 0, 1), table, Positions(reach=2))
    cache.seat(20, 1, pin=True)
    assert cache.relative, "it is to be given as it is"
    key = keys_of(20, 1)
    assert torch.equal(cache.extend(0, key, -key)[0], rotate(key, table.at(20, 1)))
    for start, seems in ((0, 4), (3, 7), (6, 10)):
        k, _ = put(cache, start, 3)
        assert not cache.relative
        assert torch.equal(k[:, :TOKENS], rotate(key, table.at(seems, 1)))
    assert cache.nbytes == cache.shape.nbytes(4) + key.nbytes
    put(cache, 18, 3, final=True)
    assert torch.equal(cache.read(0)[0][:, -TOKENS:], keys_of(18, 3)[:, -TOKENS:])
    assert cache.nbytes == cache.shape.nbytes(4), "once it is past, it is a latent like any other"


def test_passes_over_one_block_turn_a_pinned_key_once(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = KvCache(
        CacheShape(2, HEADS, HEAD_DIM, TOKENS, 9, 0, 1), RopeTable(HEAD_DIM, LATENTS, 1, TOKENS), Positions(reach=2)
    )
    key, turns = keys_of(20, 1), []
    cache.seat(20, 1, pin=True)
    for layer in (0, 1):
        cache.extend(layer, key, -key)
    monkeypatch.setattr("sfserver.model.cache.rotate", lambda x, by: turns.append(1) or rotate(x, by))
    for start, passes in ((0, 3), (3, 2)):
        turns.clear()
        seen = []
        for _ in range(passes):
            cache.seat(start, 3)
            seen += [cache.extend(layer, keys_of(start, 3), keys_of(start, 3))[0].clone() for layer in (0, 1)]
        assert len(turns) == 2, "once a layer"
        assert all(torch.equal(one, seen[0]) for one in seen)
        table = RopeTable(HEAD_DIM, LATENTS, 1, TOKENS)
        assert torch.equal(seen[0][:, :TOKENS], rotate(key, table.at(start + 4, 1))), "anew for each block"


def test_groups_are_runs_of_seats_with_one_bias_and_those_to_come_are_one_run() -> None:
    cache = make_cache(window=6, pinned=3)
    put(cache, 0, 1)
    for position in (2, 8, 9):
        put(cache, position, 1, pin=True)
    keys, _ = put(cache, 1, 1)
    assert torch.equal(keys, torch.cat([keys_of(position, 1) for position in (9, 8, 2, 0, 1)], dim=1))
    ahead, rest = slice(0, 2 * TOKENS), slice(2 * TOKENS, 5 * TOKENS)
    assert cache.groups({8: (2.0,), 9: (2.0,), 40: (1.0,)}) == [Group(ahead, (2.0,)), Group(rest, (0.0,))]
    assert cache.groups({8: (NEVER,), 9: (NEVER,)}) == [Group(rest, (0.0,))]
    assert cache.groups({}) == [Group(slice(0, 5 * TOKENS), (0.0,))]
    apart = cache.groups({8: (1.0,), 9: (2.0,)})
    assert [group.bias for group in apart] == [(2.0,), (1.0,), (0.0,)]


def test_before_all_are_pinned_nothing_is_read_that_was_not_written() -> None:
    cache = make_cache(window=6, pinned=2)
    assert torch.equal(put(cache, 0, 1)[0], keys_of(0, 1))
    assert torch.equal(put(cache, 8, 1, pin=True)[0], torch.cat((keys_of(8, 1), keys_of(0, 1)), dim=1))
    assert cache.groups({8: (1.0,)}) == [Group(slice(0, TOKENS), (1.0,)), Group(slice(TOKENS, 2 * TOKENS), (0.0,))]


def test_nbytes_is_what_the_shape_says() -> None:
    cache = make_cache(window=5, pinned=2)
    assert cache.nbytes == cache.shape.nbytes(4) == 2 * 7 * TOKENS * HEADS * HEAD_DIM * 4
