"""What is chosen for a card fits it, gives up no more than it must, and says so."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfserver.engine import cards
from sfserver.engine.cards import told, usable, way_on
from sfserver.engine.presets import PRESETS, SELF_FORCING, SELF_FORCING_VACE, TRAINED_LATENTS

SIZE = 832, 480
CARDS_GB = 6, 8, 10, 12, 16, 24, 80


def test_self_forcing_runs_at_its_own_size_on_12_gb_and_smaller_on_8() -> None:
    on_12, on_8 = (way_on(SELF_FORCING, usable(gb), *SIZE, 81) for gb in (12, 8))
    assert on_12
    assert (on_12.width, on_12.height, on_12.decoder) == (*SIZE, "wan")
    assert on_12.window < TRAINED_LATENTS
    assert on_8
    assert on_8.width * on_8.height < SIZE[0] * SIZE[1]


def test_a_large_card_gives_up_nothing() -> None:
    for preset in PRESETS:
        way = way_on(preset, usable(80), *SIZE, 81)
        assert way
        assert way.beside
        assert not way.changes(preset)
        assert told(preset, way, 80, *SIZE).endswith("nothing given up")


@settings(max_examples=50, deadline=None)
@given(preset=st.sampled_from(PRESETS), gigabytes=st.floats(4, 30), has_tae=st.booleans())
def test_what_is_chosen_fits_and_the_way_before_it_does_not(preset, gigabytes: float, has_tae: bool) -> None:
    room = usable(gigabytes)
    way = way_on(preset, room, *SIZE, 81, has_tae=has_tae)
    if way is None:
        return
    assert way.bytes <= room
    tried = [
        cards.need_of(preset, strategy, window, TRAINED_LATENTS, 2, decoder, tiled=tiled)
        for strategy, window, decoder, tiled in cards.ways(preset, has_tae)
    ]
    chosen = list(cards.ways(preset, has_tae))
    place = chosen.index((way.strategy, way.window, way.decoder, way.tiled))
    if (way.width, way.height) == SIZE:
        assert all(need.at(*SIZE) > room for need in tried[:place])
        assert way.beside == (not way.tiled and tried[place].at(*SIZE, beside=True) <= room)
    else:
        assert all(need.at(*SIZE) > room for need in tried)
        assert tried[place].at(way.width, way.height) <= room
        wider = way.width + 16, round((way.width + 16) * SIZE[1] / SIZE[0] / 16) * 16
        assert wider[0] >= SIZE[0] or all(need.at(*wider) > room for need in tried), "nothing larger would have fitted"
        assert way.width >= SIZE[0] / 2


def test_settings_that_are_settled_stay_and_the_others_give_way() -> None:
    wide = way_on(SELF_FORCING, usable(12), *SIZE, 81, settled={"window": "21"})
    assert wide
    assert wide.window == TRAINED_LATENTS
    assert (wide.width, wide.height) == SIZE
    assert wide.decoder == "tae", "the window was not to be touched"
    whole = way_on(SELF_FORCING, usable(12), *SIZE, 81, settled={"decoder": "wan", "tiled": False, "window": 21})
    assert whole
    assert not whole.tiled
    assert whole.width < SIZE[0], "nothing but the size was left"
    joint = way_on(SELF_FORCING_VACE, usable(24), *SIZE, 81, settled={"strategy": "joint"})
    assert joint
    assert joint.strategy == "joint"


def test_more_memory_never_gives_up_more() -> None:
    for preset in (SELF_FORCING, SELF_FORCING_VACE):
        ranks = []
        for gb in CARDS_GB:
            way = way_on(preset, usable(gb), *SIZE, 81)
            ranks.append((way.width * way.height, way.decoder == "wan") if way else (0, False))
        assert ranks == sorted(ranks)


@pytest.mark.parametrize(
    ("gb", "words"),
    [(8, ["smaller than 832x480", "the small decoder"]), (12, ["at 832x480", "window 15", "in strips"])],
)
def test_one_line_says_what_was_given_up(gb: int, words: list[str]) -> None:
    line = told(SELF_FORCING, way_on(SELF_FORCING, usable(gb), *SIZE, 81), gb, *SIZE)
    assert all(word in line for word in words), line
    assert "draft engine" in told(SELF_FORCING, None, 2, *SIZE)
