"""Where latents seem to lie, by each policy."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sfserver.model.positions import ABSOLUTE, Positions

SGF = Positions("top", trained=12)
"""Self Gradient Forcing chunk-wise: sink 3, window 12, blocks of 3."""


def held(end: int, window: int = 12, sink: int = 3) -> list[int]:
    """What a cache holds when a block that ends before `end` is present."""
    everything = list(range(end))
    return everything if end <= window else everything[:sink] + everything[-(window - sink) :]


def test_by_the_published_rule_the_geometry_freezes_when_the_trained_range_is_full() -> None:
    """The sink at 0 to 2, the others up to the end of the block, which is 11 at most: as its authors write it."""
    for end in range(3, 60, 3):
        latents = held(end)
        seems = SGF.of(latents, end - 3, 3, sink=3)
        top, n = min(end - 1, 11), len(latents)
        others = range(top - (n - 3 - 1), top + 1)
        assert [seems[p] for p in latents] == [0, 1, 2, *others][:n]
        if end >= 12:
            assert [seems[p] for p in latents] == list(range(12))


def test_by_it_the_gap_behind_the_sink_stays_while_there_is_room() -> None:
    wide = Positions("top", trained=21)
    seems = wide.of(held(18), 15, 3, sink=3)
    assert list(seems.values()) == [0, 1, 2, *range(9, 18)], "where they are"
    assert list(Positions("relative").of(held(18), 15, 3, sink=3).values()) == list(range(12)), "the control"


def test_frame_wise_queries_end_at_the_trained_range() -> None:
    frame_wise = Positions("top", trained=21)
    seems = frame_wise.of(held(40, window=21, sink=4), 39, 1, sink=4)
    assert seems[39] == 20
    assert list(seems.values()) == list(range(21))


@given(end=st.integers(1, 20), ahead=st.integers(1, 20), reach=st.integers(1, 25))
def test_a_latent_to_come_seems_no_further_than_its_reach_and_never_behind_the_block(
    end: int, ahead: int, reach: int
) -> None:
    key = end - 1 + ahead
    for policy in ("absolute", "relative", "top"):
        latents = [*range(end), key]
        near = Positions(policy, reach=reach).of(latents, end - 1, 1)
        assert near[key] - near[end - 1] == min(ahead, reach)
        bounded = Positions(policy, trained=21, reach=reach).of(latents, end - 1, 1)
        assert bounded[end - 1] <= bounded[key] <= 20


@given(start=st.integers(0, 30), count=st.integers(1, 3), key=st.integers(0, 60))
def test_absolute_is_where_they_are(start: int, count: int, key: int) -> None:
    latents = sorted({*range(start + count), key})
    assert ABSOLUTE.of(latents, start, count) == {p: p for p in latents}
