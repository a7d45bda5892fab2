"""What is not a gap comes out as it went in: timelines by chance, filled and compared."""

from __future__ import annotations

from pathlib import Path

import opentimelineio as otio
import pytest
import timelines as t
from hypothesis import given, settings
from hypothesis import strategies as st
from opentimelineio.schema import (
    Clip,
    ExternalReference,
    FreezeFrame,
    Gap,
    GeneratorReference,
    LinearTimeWarp,
    Marker,
    MissingReference,
    Stack,
    Timeline,
    Track,
    Transition,
)
from timelines import RationalTime, span

from sfserver.animatic.holes import MARK, Hole, find
from sfserver.animatic.place import Movie, put

rates = st.shared(st.sampled_from([24.0, 25.0, 24000 / 1001, 30000 / 1001, 60.0, 23.976]), key="rate")
words = st.text("abc äß\n", max_size=8)
metadata = st.dictionaries(st.sampled_from(["note", "editor", "x"]), st.one_of(words, st.integers(0, 9)), max_size=2)
files = st.sampled_from(["a.png", "b.png", "gone.png", "http://far/c.png", "movie.mp4"])


@st.composite
def markers(draw: st.DrawFn) -> list[Marker]:
    rate = draw(rates)
    at = draw(st.lists(st.integers(0, 40), max_size=2))
    return [Marker(draw(words), span(i, 1, rate), comment=draw(words), metadata=draw(metadata)) for i in at]


@st.composite
def clips(draw: st.DrawFn) -> Clip:
    rate = draw(rates)
    media = draw(
        st.one_of(
            st.builds(ExternalReference, files, st.just(span(0, 100, rate))),
            st.builds(ExternalReference, files),
            st.builds(MissingReference),
            st.just(GeneratorReference(generator_kind="SMPTEBars")),
        )
    )
    effects = draw(
        st.lists(
            st.one_of(st.builds(LinearTimeWarp, time_scalar=st.sampled_from([0.5, 2.0, -1.0])), st.builds(FreezeFrame)),
            max_size=1,
        )
    )
    length = span(draw(st.integers(0, 20)), draw(st.integers(1, 30)), rate)
    made = Clip(draw(words), media, length, markers=draw(markers()), metadata=draw(metadata))
    made.effects.extend(effects)
    return made


@st.composite
def pictures(draw: st.DrawFn) -> Clip:
    length = span(draw(st.integers(0, 20)), draw(st.integers(1, 30)), draw(rates))
    media = ExternalReference(draw(st.sampled_from(["a.png", "b.png", "movie.mp4"])), span(0, 100, draw(rates)))
    return Clip(draw(words), media, length, markers=draw(markers()))


@st.composite
def gaps(draw: st.DrawFn) -> Gap:
    made = Gap(duration=RationalTime(draw(st.integers(0, 12)), draw(rates)), metadata=draw(metadata))
    made.markers.extend(draw(markers()))
    return made


def transitions(rate: float) -> Transition:
    return Transition(
        transition_type="SMPTE_Dissolve", in_offset=RationalTime(2, rate), out_offset=RationalTime(2, rate)
    )


@st.composite
def tracks(draw: st.DrawFn, depth: int = 1) -> Track:
    made = Track(draw(words), kind=draw(st.sampled_from(["Video", "Video", "Audio"])), metadata=draw(metadata))
    common = st.one_of(pictures(), gaps())
    rare = [clips(), rates.map(transitions), *([stacks(depth - 1)] if depth else [])]
    for is_rare in draw(st.lists(st.sampled_from([False] * 5 + [True]), max_size=8)):
        made.append(draw(st.one_of(rare) if is_rare else common))
    made.markers.extend(draw(markers()))
    return made


@st.composite
def stacks(draw: st.DrawFn, depth: int) -> Stack:
    made = Stack(draw(words))
    made.extend(draw(st.lists(tracks(depth), min_size=1, max_size=2)))
    return made


@st.composite
def timelines(draw: st.DrawFn) -> Timeline:
    made = Timeline(draw(words), metadata=draw(metadata))
    made.tracks.extend(draw(st.lists(tracks(), min_size=1, max_size=3)))
    made.tracks.markers.extend(draw(markers()))
    return made


def filled(made: Timeline, folder: Path, hold: int) -> list[Hole]:
    holes, _ = find(made, folder, hold)
    put(Movie(hole, "new", "new.mp4", {"key": "k"}) for hole in holes)
    return holes


def emptied(made: Timeline) -> str:
    """The timeline with every run of gaps, and every clip of ours, as one gap of that length: what must stay equal."""
    copy = made.deepcopy()
    for track in [*copy.tracks.find_children(descended_from_type=Track)]:
        at = 0
        while at < len(track):
            if _is_hollow(track[at]):
                length = RationalTime(0, track[at].source_range.duration.rate)
                while at < len(track) and _is_hollow(track[at]):
                    length += track[at].source_range.duration
                    del track[at]
                track.insert(at, Gap(duration=length))
            at += 1
    return copy.to_json_string()


def _is_hollow(item: object) -> bool:
    return isinstance(item, Gap) or (isinstance(item, Clip) and MARK in item.metadata)


def folder_of(tmp_path_factory) -> Path:
    folder = tmp_path_factory.getbasetemp() / "pictures"
    folder.mkdir(exist_ok=True)
    for name in ("a.png", "b.png", "movie.mp4"):
        (folder / name).touch()
    return folder


@settings(max_examples=60)
@given(timelines())
def test_only_gaps_change(tmp_path_factory, made: Timeline) -> None:
    before = emptied(made)
    holes = filled(made, folder_of(tmp_path_factory), 0)
    assert emptied(made) == before
    placed = [clip for clip in made.find_clips() if MARK in clip.metadata]
    assert len(placed) == len(holes)
    for clip in placed:
        assert clip.source_range == clip.media_reference.available_range


@settings(max_examples=60)
@given(timelines(), st.integers(1, 12))
def test_a_hold_moves_nothing(tmp_path_factory, made: Timeline, hold: int) -> None:
    """Tracks last as long as before, and all but stills that gave frames is where it was."""
    before = starts(made)
    lengths = [track.duration().to_seconds() for track in made.tracks]
    filled(made, folder_of(tmp_path_factory), hold)
    assert starts(made) == before
    assert [track.duration().to_seconds() for track in made.tracks] == pytest.approx(lengths)


def starts(made: Timeline) -> list[tuple[str, float]]:
    """Of every clip that is not ours, in millionths of a second."""
    found = ((clip, clip.range_in_parent().start_time) for clip in made.find_clips() if MARK not in clip.metadata)
    return [(clip.name, round(start.to_seconds() * 1e6)) for clip, start in found]


@settings(max_examples=60)
@given(timelines(), st.integers(0, 12))
def test_a_second_look_at_the_result_finds_the_same_holes(tmp_path_factory, made: Timeline, hold: int) -> None:
    """Clips of ours are holes again: same place, length, pictures and words."""
    folder = folder_of(tmp_path_factory)
    holes = filled(made, folder, hold)
    again = [h for h in find(made, folder, hold)[0] if h.made_before is not None]
    for old, new in zip(holes, again, strict=True):
        assert (old.num_frames, old.first, old.last, old.words) == (new.num_frames, new.first, new.last, new.words)


def test_the_control_a_lost_marker_is_noticed(tmp_path_factory) -> None:
    made = t.timeline(
        t.clip("a.png", 0, 5, 24, markers=[t.marker(1, "hello", 24)]), t.gap(3, 24), t.clip("b.png", 0, 5, 24)
    )
    before = emptied(made)
    assert filled(made, folder_of(tmp_path_factory), 0)
    assert emptied(made) == before
    del made.tracks[0][0].markers[0]
    assert emptied(made) != before


def test_what_a_gap_carried_is_on_the_clip_that_fills_it(tmp_path_factory) -> None:
    hollow = t.gap(8, 24, [t.marker(2, "it rains", 24)])
    hollow.metadata["editor"] = {"colour": 3}
    hollow.source_range = span(10, 8, 24)  # its own time begins at 10, so the marker at 2 lies before it
    hollow.markers.append(t.marker(14, "it snows", 24))
    made = t.timeline(t.clip("a.png", 0, 5, 24), hollow, t.clip("b.png", 0, 5, 24))
    (hole,) = filled(made, folder_of(tmp_path_factory), 0)
    assert hole.words.prompt == "it snows"
    new = made.tracks[0][1]
    assert new.metadata["editor"]["colour"] == 3
    assert [m.marked_range.start_time.value for m in new.markers] == [-8, 4]
    assert otio.opentime.RationalTime(8, 24) == new.duration()
