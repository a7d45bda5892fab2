"""Every picture carries its number, so every frame of a filled timeline says whether it is the right one."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import barcodes
import pytest
import timelines as t
from counting_engine import CountingEngine
from timelines import RATES, clip, gap, played, save, span, timeline

from sfserver.animatic import rates
from sfserver.cli import main


def numbered_sequence(folder: Path, first_file: int, numbers: range) -> t.ImageSequenceReference:
    folder.mkdir()
    for i, which in enumerate(numbers):
        barcodes.still(folder / f"shot.{first_file + i:04}.png", which)
    return t.ImageSequenceReference("shots", "shot.", ".png", start_frame=first_file, frame_zero_padding=4)


@pytest.mark.parametrize("rate_name", RATES)
def test_every_frame_is_the_one_that_belongs_there(rate_name: str, engine: CountingEngine, tmp_path: Path) -> None:
    """A movie from its start, one from frame 5, an image sequence from 103 and a still, with gaps between: each frame
    of the timeline shows its own position."""
    rate, exact = RATES[rate_name]
    barcodes.movie(tmp_path / "one.mp4", range(20), exact)
    barcodes.movie(tmp_path / "two.mov", range(30, 60), exact)  # used from its frame 5 on, at position 35
    sequence = numbered_sequence(tmp_path / "shots", 100, range(51, 61))  # its picture 103 is 54
    sequence.rate = rate
    sequence.available_range = span(0, 10, rate)
    barcodes.still(tmp_path / "end.png", 69)
    board = timeline(
        clip("one.mp4", 0, 20, rate, span(0, 20, rate)),
        gap(15, rate),
        clip("two.mov", 5, 12, rate, span(0, 30, rate)),
        gap(7, rate),
        t.Clip("shots", sequence, span(3, 6, rate)),
        gap(9, rate),
        clip("end.png", 0, 1, rate),
    )
    save(board, tmp_path / "board.otio")
    assert main(["animatic", str(tmp_path / "board.otio"), "--out", str(tmp_path / "filled.otio")]) == 0
    assert played(tmp_path / "filled.otio") == list(range(70))
    assert [len(job.wanted()) for job in engine.jobs] == [15, 7, 9]
    for made in (tmp_path / "filled_inbetween").glob("*.mp4"):
        with av.open(str(made)) as container:
            assert container.streams.video[0].average_rate == exact


def test_a_clip_with_timecode_begins_where_its_media_does(engine: CountingEngine, tmp_path: Path) -> None:
    barcodes.movie(tmp_path / "one.mp4", range(40, 60), RATES["25"][1])
    barcodes.still(tmp_path / "end.png", 54)
    hour = 3600 * 25
    board = timeline(clip("one.mp4", hour + 4, 6, 25, span(hour, 20, 25)), gap(4, 25), clip("end.png", 0, 5, 25))
    save(board, tmp_path / "board.otio")
    assert main(["animatic", str(tmp_path / "board.otio"), "--out", str(tmp_path / "filled.otio")]) == 0
    assert played(tmp_path / "filled.otio") == [44, 45, 46, 47, 48, 49, 50, 51, 52, 53, *[54] * 5]


@pytest.mark.parametrize(
    ("speed", "length", "last"),
    [(2.0, 6, 15), (0.5, 8, 8), (-1.0, 6, 5), (1.0, 6, 10)],
    ids=["twice as fast", "half as fast", "backwards", "as it is"],
)
def test_time_warps_are_honoured(speed: float, length: int, last: int, engine: CountingEngine, tmp_path: Path) -> None:
    """From frame 5 of a movie that shows its own numbers."""
    barcodes.movie(tmp_path / "one.mp4", range(30), RATES["24"][1])
    barcodes.still(tmp_path / "end.png", 100)
    warped = clip("one.mp4", 5, length, 24, span(0, 30, 24))
    warped.effects.append(t.otio.schema.LinearTimeWarp(time_scalar=speed))
    save(timeline(warped, gap(3, 24), clip("end.png", 0, 5, 24)), tmp_path / "board.otio")
    assert main(["animatic", str(tmp_path / "board.otio"), "--out", str(tmp_path / "filled.otio")]) == 0
    assert barcodes.number(engine.jobs[0].keyframes[0].image) == last


def test_a_frozen_frame_is_the_one_it_froze_at(engine: CountingEngine, tmp_path: Path) -> None:
    barcodes.movie(tmp_path / "one.mp4", range(30), RATES["24"][1])
    barcodes.still(tmp_path / "end.png", 100)
    frozen = clip("one.mp4", 17, 20, 24, span(0, 30, 24))
    frozen.effects.append(t.otio.schema.FreezeFrame())
    save(timeline(frozen, gap(3, 24), clip("end.png", 0, 5, 24)), tmp_path / "board.otio")
    assert main(["animatic", str(tmp_path / "board.otio"), "--out", str(tmp_path / "filled.otio")]) == 0
    assert barcodes.number(engine.jobs[0].keyframes[0].image) == 17


@pytest.mark.parametrize("rate_name", RATES)
def test_a_hold_gives_its_last_frames_and_nothing_moves(rate_name: str, engine: CountingEngine, tmp_path: Path) -> None:
    rate, _ = RATES[rate_name]
    for i, which in enumerate((0, 13, 26, 39)):
        barcodes.still(tmp_path / f"panel{i}.png", which)
    board = timeline(*(clip(f"panel{i}.png", 0, 36, rate) for i in range(4)))
    save(board, tmp_path / "board.otio")
    command = ["animatic", str(tmp_path / "board.otio"), "--hold", "12", "--out", str(tmp_path / "filled.otio")]
    assert main(command) == 0
    panels = [[first] * 24 + list(range(first + 1, first + 13)) for first in (0, 13, 26)]
    assert played(tmp_path / "filled.otio") == [*panels[0], *panels[1], *panels[2], *[39] * 36]


def test_the_control_a_frame_too_early_is_noticed(engine: CountingEngine, tmp_path: Path, monkeypatch) -> None:
    from sfserver.animatic import moments

    last = moments.last
    monkeypatch.setattr(
        "sfserver.animatic.holes.last", lambda clip, rate, folder, cut=0: last(clip, rate, folder, cut + 1)
    )
    barcodes.movie(tmp_path / "one.mp4", range(20), RATES["24"][1])
    barcodes.still(tmp_path / "end.png", 25)
    save(
        timeline(clip("one.mp4", 0, 20, 24, span(0, 20, 24)), gap(5, 24), clip("end.png", 0, 1, 24)),
        tmp_path / "b.otio",
    )
    assert main(["animatic", str(tmp_path / "b.otio"), "--out", str(tmp_path / "filled.otio")]) == 0
    assert played(tmp_path / "filled.otio") != list(range(26))


def test_a_place_is_named_as_editors_show_it_drop_frame_with_a_semicolon() -> None:
    assert rates.place(Fraction(3600), 30000 / 1001) == "01:00:00;00"
    assert rates.place(Fraction(3600), 24.0) == "01:00:00:00"
    assert rates.place(Fraction(-1), 24.0) == "frame -24"
