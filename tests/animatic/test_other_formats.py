"""Kdenlive, Final Cut Pro 7 XML and EDL: filled in their own format, every frame the right one, or refused."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import barcodes
import opentimelineio as otio
import pytest
import timelines as t
from counting_engine import CountingEngine
from timelines import RATES, clip, gap, save, span, timeline

from sfserver.animatic import adapters
from sfserver.cli import USER_ERROR, main

SUFFIXES = [
    pytest.param(
        suffix,
        marks=pytest.mark.skipif(
            form.adapter not in otio.adapters.available_adapter_names(), reason=f"no adapter; {adapters.REMEDY}"
        ),
    )
    for suffix, form in adapters.FORMATS.items()
]


def board(folder: Path, rate_name: str) -> t.Timeline:
    """A movie from its start, one from its frame 5 and a still, with gaps between: frames 0 to 55 in order."""
    rate, exact = RATES[rate_name]
    barcodes.movie(folder / "one.mp4", range(20), exact)
    barcodes.movie(folder / "two.mp4", range(30, 60), exact)
    barcodes.still(folder / "end.png", 52)
    return timeline(
        clip(folder / "one.mp4", 0, 20, rate, span(0, 20, rate)),
        gap(15, rate),
        clip(folder / "two.mp4", 5, 12, rate, span(0, 30, rate)),
        gap(5, rate),
        clip(folder / "end.png", 0, 4, rate, span(0, 4, rate)),
    )


def written(made: t.Timeline, path: Path, rate: float) -> Path:
    adapters.write(made, path, path, rate)
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("rate_name", RATES)
def test_a_timeline_is_filled_in_its_own_format(
    suffix: str, rate_name: str, engine: CountingEngine, tmp_path: Path
) -> None:
    rate, _ = RATES[rate_name]
    path = written(board(tmp_path, rate_name), tmp_path / f"board{suffix}", rate)
    out = tmp_path / f"filled{suffix}"
    assert main(["animatic", str(path), "--rate", rate_name, "--out", str(out)]) == 0
    again = adapters.read(out, rate)
    save(again, tmp_path / "again.otio")
    assert t.played(tmp_path / "again.otio") == [*range(52), *[52] * 4]
    assert main(["animatic", str(path), "--rate", rate_name, "--out", str(out)]) == 0
    assert len(engine.jobs) == 2, "a second run makes nothing"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_otio_board_becomes_another_editors(suffix: str, engine: CountingEngine, tmp_path: Path) -> None:
    save(board(tmp_path, "25"), tmp_path / "board.otio")
    out = tmp_path / f"filled{suffix}"
    assert main(["animatic", str(tmp_path / "board.otio"), "--rate", "25", "--out", str(out)]) == 0
    save(adapters.read(out, 25.0), tmp_path / "again.otio")
    assert t.played(tmp_path / "again.otio") == [*range(52), *[52] * 4]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_of_another_kind_is_one_line(suffix: str, engine: CountingEngine, tmp_path: Path, capsys) -> None:
    path = tmp_path / f"board{suffix}"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\xff\xfe nothing of the kind")
    assert main(["animatic", str(path), "--out", str(tmp_path / "filled.otio")]) == USER_ERROR
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("sfserver: ")
    assert not (tmp_path / "filled.otio").exists()


@pytest.mark.parametrize("suffix", SUFFIXES[2:])
@pytest.mark.parametrize(("mark", "count"), [(";", 9), (":", 11)], ids=["drop-frame", "the control, which drops none"])
def test_drop_frame_timecode_has_no_first_two_frames_in_a_minute(
    suffix: str, mark: str, count: int, engine: CountingEngine, tmp_path: Path
) -> None:
    for name, number in (("one", 0), ("two", 20)):
        barcodes.still(tmp_path / f"{name}.png", number)
    text = f"""TITLE: over a minute
001  one      V     C        00:00:00|00 00:00:00|05 01:00:59|20 01:00:59|25
* FROM CLIP NAME: one
* FROM CLIP: {tmp_path}/one.png
002  two      V     C        00:00:00|00 00:00:00|05 01:01:00|06 01:01:00|11
* FROM CLIP NAME: two
* FROM CLIP: {tmp_path}/two.png
"""
    (tmp_path / "board.edl").write_text(text.replace("|", mark))
    out = tmp_path / "filled.otio"
    assert main(["animatic", str(tmp_path / "board.edl"), "--rate", "29.97", "--out", str(out)]) == 0
    assert [len(job.wanted()) for job in engine.jobs] == [count]
    assert len(t.played(out)) == 5 + count + 5


@pytest.mark.parametrize("suffix", SUFFIXES[:2])
def test_guides_are_prompts_and_stay(suffix: str, engine: CountingEngine, tmp_path: Path) -> None:
    """What Kdenlive calls a guide and Premiere a marker of the sequence, with what was written into it."""
    made = board(tmp_path, "25")
    made.tracks.markers.append(t.marker(22, "it rains", 25.0))
    path, out = written(made, tmp_path / f"board{suffix}", 25.0), tmp_path / f"filled{suffix}"
    assert "it rains" in path.read_text()
    assert main(["animatic", str(path), "--out", str(out)]) == 0
    assert [job.prompt for job in engine.jobs] == ["it rains", ""]
    (guide,) = adapters.read(out, 25.0).tracks.markers
    assert (guide.comment or guide.name, guide.marked_range.start_time.value) == ("it rains", 22)
    if suffix == ".xml":
        path.write_text(path.read_text().replace("<name>note</name>", "<name></name>"))  # as Premiere leaves it
        assert [marker.comment for marker in adapters.read(path, 25.0).tracks.markers] == ["it rains"]


EDL = """TITLE: two at one place
FCM: NON-DROP FRAME

001  AX       V     C        00:00:00:00 00:00:00:10 01:00:00:00 01:00:00:10
* FROM CLIP NAME: one
002  AX       V     C        00:00:00:00 00:00:00:10 01:00:00:05 01:00:00:15
* FROM CLIP NAME: two
"""


@pytest.mark.parametrize("suffix", SUFFIXES[1:])
def test_two_clips_at_one_place_are_named_and_nothing_is_written(
    suffix: str, engine: CountingEngine, tmp_path: Path, capsys
) -> None:
    """In Kdenlive's and in OpenTimelineIO's own format this cannot be said."""
    path = tmp_path / f"board{suffix}"
    if suffix == ".edl":
        path.write_text(EDL)
    else:
        text = written(board(tmp_path, "24"), path, 24.0).read_text()
        assert text.count("<start>35</start>") == 1
        path.write_text(text.replace("<start>35</start>", "<start>19</start>"))
    before = sorted(tmp_path.rglob("*"))
    assert main(["animatic", str(path), "--out", str(tmp_path / "filled.otio")]) == USER_ERROR
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"sfserver: {path}: cannot be read as ")
    assert "two" in line
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("suffix", SUFFIXES[:1])
def test_what_would_come_out_wrong_is_not_written(suffix: str, engine: CountingEngine, tmp_path: Path, capsys) -> None:
    """An adapter that loses a frame is found out before the file appears."""
    save(board(tmp_path, "24"), tmp_path / "board.otio")
    whole = otio.adapters.write_to_file

    def loses_a_frame(made: t.Timeline, *more, **options) -> None:
        copy = made.deepcopy()
        copy.tracks[0][2].source_range = span(6, 11, 24)
        whole(copy, *more, **options)

    out = tmp_path / f"filled{suffix}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(otio.adapters, "write_to_file", loses_a_frame)
        assert main(["animatic", str(tmp_path / "board.otio"), "--out", str(out)]) == USER_ERROR
    assert "would not come out as it is" in capsys.readouterr().err.splitlines()[-1]
    assert not out.exists()


def test_an_adapter_that_is_missing_is_one_line_with_the_remedy(
    engine: CountingEngine, tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.setattr(otio.adapters, "available_adapter_names", lambda: ["otio_json"])
    (tmp_path / "board.kdenlive").write_text("<mlt/>")
    assert main(["animatic", str(tmp_path / "board.kdenlive"), "--out", str(tmp_path / "f.otio")]) == USER_ERROR
    assert adapters.REMEDY in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("melt") is None, reason="there is no melt on this machine")
@pytest.mark.parametrize("suffix", SUFFIXES[:1])
@pytest.mark.parametrize("rate_name", RATES)
def test_melt_shows_the_right_picture_on_every_frame(
    suffix: str, rate_name: str, engine: CountingEngine, tmp_path: Path
) -> None:
    rate, _ = RATES[rate_name]
    path = written(board(tmp_path, rate_name), tmp_path / f"board{suffix}", rate)
    out = tmp_path / f"filled{suffix}"
    assert main(["animatic", str(path), "--out", str(out)]) == 0
    assert rendered(out, rate_name, tmp_path) == [*range(52), *[52] * 4]


def rendered(project: Path, rate_name: str, folder: Path) -> list[int]:
    """The number on each of its 56 frames, as melt shows them."""
    exact, movie = RATES[rate_name][1], folder / f"{project.stem}.mkv"
    size = ["width=480", "height=270", "sample_aspect_num=1", "sample_aspect_den=1"]
    rate_words = [f"frame_rate_num={exact.numerator}", f"frame_rate_den={exact.denominator}"]
    options = ["vcodec=ffv1", "an=1", *size, *rate_words]
    subprocess.run(
        ["melt", str(project), "out=55", "-consumer", f"avformat:{movie}", *options],
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "QT_QPA_PLATFORM": "offscreen"},
        capture_output=True,
        timeout=240,
        check=True,
    )
    return barcodes.read_letterboxed(movie)
