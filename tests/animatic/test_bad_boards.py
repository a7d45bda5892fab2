"""Timelines of strangers: one line that names what is wrong, nothing half-written, everything else as it was."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import barcodes
import numpy as np
import opentimelineio as otio
import pytest
import timelines as t
from counting_engine import CountingEngine
from PIL import Image
from timelines import RATES, clip, gap, save, span, timeline

from sfserver.cli import USER_ERROR, main


def fill(board: Path) -> int:
    return main(["animatic", str(board), "--out", str(board.with_name("filled.otio"))])


@pytest.fixture
def panels(tmp_path: Path) -> Path:
    for i in range(2):
        barcodes.still(tmp_path / f"panel{i}.png", i * 10)
    barcodes.movie(tmp_path / "movie.mp4", range(20), RATES["24"][1])
    return tmp_path


# Files


def zipped(entries: dict[str, str], method: int = zipfile.ZIP_STORED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as packed:
        for name, text in entries.items():
            packed.writestr(name, text)
    return made.getvalue()


def damaged(packed: bytes) -> bytes:
    """Its first entry holds nothing that can be unpacked."""
    at = packed.index(b"content.otio") + len("content.otio")
    return packed[:at] + b"\xff" * 4 + packed[at + 4 :]


FILES: dict[str, tuple[str, bytes, str]] = {
    "nothing": ("b.otio", b"", "is no OpenTimelineIO file"),
    "a picture": ("b.otio", b"\x89PNG\r\n\x1a\n\0\0", "is no OpenTimelineIO file"),
    "a zip by another name": ("b.otio", zipped({"content.otio": "{}"}), "is no OpenTimelineIO file"),
    "JSON of something else": ("b.otio", b'{"tracks": []}', "instead of a timeline"),
    "a clip": ("b.otio", t.Clip("x").to_json_string().encode(), "holds a Clip instead of a timeline"),
    "a schema of tomorrow": ("b.otio", b'{"OTIO_SCHEMA": "Timeline.99"}', "cannot be read"),
    "brackets without end": ("b.otio", b"[" * 100_000, "brackets in brackets"),
    "brackets that end": ("b.otio", b"[" * 5_000 + b"]" * 5_000, "brackets in brackets"),
    "brackets just too deep": ("b.otio", b"[" * 300 + b"]" * 300, "brackets in brackets"),
    "two timelines": (
        "b.otio",
        otio.schema.SerializableCollection("x", [t.Timeline(), t.Timeline()]).to_json_string().encode(),
        "holds 2 timelines",
    ),
    "no zip": ("b.otioz", b'{"OTIO_SCHEMA": "Timeline.1"}', "is no zip file"),
    "a zip of damaged bytes": (
        "b.otioz",
        damaged(zipped({"content.otio": "{}" * 99}, zipfile.ZIP_DEFLATED)),
        "no zip file",
    ),
    "a zip of something without a name": (
        "b.otioz",
        zipped({"content.otio": "{}", "xxxxxxxxx": ""}).replace(b"x" * 9, b"\0" * 9),
        "instead of a timeline",
    ),
    "a zip without a timeline": ("b.otioz", zipped({"media/x.png": "x"}), "holds no content.otio"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_no_timeline_is_one_line(case: str, engine: CountingEngine, tmp_path: Path, capsys) -> None:
    name, content, sentence = FILES[case]
    (tmp_path / name).write_bytes(content)
    before = sorted(tmp_path.rglob("*"))
    assert fill(tmp_path / name) == USER_ERROR
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line
    assert line.startswith(f"sfserver: {tmp_path / name}: ")
    assert sorted(tmp_path.rglob("*")) == before


def test_an_entry_that_climbs_out_of_a_bundle_stays_inside(engine: CountingEngine, panels: Path) -> None:
    board = timeline(clip("media/panel0.png", 0, 5, 24), gap(4, 24), clip("media/panel1.png", 0, 5, 24))
    with zipfile.ZipFile(panels / "b.otioz", "w") as packed:
        packed.writestr("content.otio", board.to_json_string())
        packed.writestr("../../climbed.txt", "x")
        packed.writestr("media/../../climbed.txt", "x")
        for i in range(2):
            packed.write(panels / f"panel{i}.png", f"media/panel{i}.png")
    assert fill(panels / "b.otioz") == 0
    assert not list(panels.parent.rglob("climbed.txt"))


def test_a_strangers_bundle_takes_no_file_of_this_machine_along(engine: CountingEngine, panels: Path) -> None:
    (panels / "secret.txt").write_text("secret")
    board = timeline(
        clip("media/panel0.png", 0, 5, 24),
        gap(4, 24),
        clip("media/panel1.png", 0, 5, 24),
        clip(panels / "secret.txt", 0, 5, 24),
    )
    with zipfile.ZipFile(panels / "b.otioz", "w") as packed:
        packed.writestr("content.otio", board.to_json_string())
        for i in range(2):
            packed.write(panels / f"panel{i}.png", f"media/panel{i}.png")
    assert main(["animatic", str(panels / "b.otioz"), "--out", str(panels / "filled.otioz")]) == 0
    with zipfile.ZipFile(panels / "filled.otioz") as packed:
        assert not [name for name in packed.namelist() if "secret" in name]
        assert len([name for name in packed.namelist() if name.startswith("media/")]) == 3


# Clips: each beside one good pair, which is filled all the same


def external(url: str) -> t.Clip:
    return clip(url, 0, 5, 24)


def of_media(media: otio.core.MediaReference | None) -> t.Clip:
    return t.Clip("odd", media, span(0, 5, 24))


def with_effect(effect: otio.schema.Effect) -> t.Clip:
    made = clip("movie.mp4", 5, 5, 24, span(0, 20, 24))
    made.effects.append(effect)
    return made


def switched_off() -> t.Clip:
    made = external("panel0.png")
    made.enabled = False
    return made


def before(odd: otio.core.Composable) -> list:
    return [odd, gap(3, 24), external("panel1.png")]


def spaced(odd: t.Gap) -> list:
    return [external("panel0.png"), odd, external("panel1.png")]


NOT_FILLED: dict[str, tuple[Callable[[], list], str]] = {
    "media that is gone": (
        lambda: before(external("gone.png")),
        "'gone' has its media at",
    ),
    "media elsewhere": (
        lambda: before(external("http://far.example/a.png")),
        "elsewhere (http://far.example)",
    ),
    "media on another machine": (
        lambda: before(external("file://nas/a.png")),
        "on another machine (nas)",
    ),
    "no media": (lambda: before(of_media(None)), "'odd' has no media"),
    "a generator": (
        lambda: [
            of_media(otio.schema.GeneratorReference(generator_kind="SMPTEBars")),
            gap(3, 24),
            external("panel1.png"),
        ],
        "is made by a generator (SMPTEBars)",
    ),
    "a damaged picture": (lambda: before(external("damaged.png")), "damaged.png: is "),
    "a picture that is no movie": (lambda: before(external("text.mp4")), "is no movie"),
    "a folder": (lambda: before(external("folder.mp4")), "is a folder"),
    "a movie that is shorter": (
        lambda: before(clip("movie.mp4", 30, 5, 24, span(0, 99, 24))),
        "has no frame 34",
    ),
    "a time before the media": (
        lambda: before(clip("movie.mp4", -9, 5, 24, span(0, 99, 24))),
        "where nothing is",
    ),
    "backwards and fast": (
        lambda: before(with_effect(otio.schema.LinearTimeWarp(time_scalar=-3))),
        "plays backwards at 3 times",
    ),
    "a ramp": (
        lambda: before(with_effect(otio.schema.TimeEffect(effect_name="Ramp"))),
        "not understood (Ramp)",
    ),
    "switched off": (lambda: before(switched_off()), "'panel0' is switched off"),
    "a rate of nothing": (lambda: spaced(gap(3, 0.0)), "has a rate of 0"),
    "a rate below nothing": (
        lambda: spaced(gap(3, -24.0)),
        "has a rate of -24",
    ),
    "a rate of almost nothing": (lambda: spaced(gap(3, 1e-300)), "has a rate of 1e-300"),
    "a beginning that is nowhere": (
        lambda: spaced(t.Gap(source_range=t.TimeRange(t.RationalTime(0, -1e308), t.RationalTime(3, 24)))),
        "has a rate of -1e+308",
    ),
    "a beginning beyond all films": (lambda: before(clip("movie.mp4", 1e300, 5, 24)), "has a time that no film has"),
    "an absurd rate": (lambda: spaced(gap(3, 1e9)), "has a rate of 1e+09"),
    "half a frame": (lambda: spaced(gap(3.5, 24)), "is 3.50 frames long"),
    "less than nothing": (lambda: spaced(gap(-3, 24)), "is -3 frames long"),
    "a clip of less than nothing": (
        lambda: before(clip("panel0.png", 5, -5, 24)),
        "'panel0' has a length of -5 frames",
    ),
    "for ever": (lambda: spaced(gap(1e15, 24)), "1 to 998 can be made"),
    "too long for the engine": (
        lambda: spaced(gap(400, 24)),
        "clips of 2 to 300",
    ),
    "a transition": (
        lambda: [
            external("panel0.png"),
            otio.schema.Transition("d", "SMPTE_Dissolve", t.RationalTime(1, 24), t.RationalTime(1, 24)),
            gap(3, 24),
            external("panel1.png"),
        ],
        "a transition stands before it",
    ),
    "a nested timeline": (
        lambda: before(t.otio.schema.Stack("scene 2")),
        "scene 2 before it is no single picture",
    ),
    "nothing after it": (lambda: [external("panel0.png"), gap(3, 24)], "nothing stands after it"),
    "a sequence that is too short": (
        lambda: [
            of_media(t.ImageSequenceReference("", "p.", ".png", 1, 1, 24, 4, available_range=span(0, 3, 24))),
            gap(3, 24),
            external("panel1.png"),
        ],
        "asks for picture 4 of 3",
    ),
}


@pytest.mark.parametrize("case", NOT_FILLED)
def test_what_cannot_be_filled_is_said_and_left(case: str, engine: CountingEngine, panels: Path, capsys) -> None:
    items, sentence = NOT_FILLED[case]
    (panels / "damaged.png").write_bytes((panels / "panel0.png").read_bytes()[:60])
    (panels / "text.mp4").write_text("not a movie at all")
    (panels / "folder.mp4").mkdir()
    board = timeline(external("panel0.png"), gap(4, 24), external("panel1.png"))
    odd = t.Track("odd", kind="Video")
    odd.extend(items())
    board.tracks.append(odd)
    as_it_was = odd.to_json_string()
    assert fill(save(board, panels / "board.otio")) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("not filled: ")]
    assert len(lines) == 1
    assert sentence in lines[0]
    assert " on odd" in lines[0]
    after = t.load(panels / "filled.otio")
    assert after.tracks[1].to_json_string() == as_it_was
    assert len(engine.jobs) == 1


def test_nothing_to_fill_writes_nothing_and_names_the_hold(engine: CountingEngine, panels: Path, capsys) -> None:
    save(timeline(external("panel0.png"), external("panel1.png")), panels / "board.otio")
    assert fill(panels / "board.otio") == USER_ERROR
    assert "--hold N" in capsys.readouterr().err
    assert not (panels / "filled.otio").exists()
    assert not (panels / "filled_inbetween").exists()


def test_nothing_that_can_be_filled_leaves_nothing(engine: CountingEngine, panels: Path, capsys) -> None:
    (panels / "text.mp4").write_text("not a movie at all")
    save(timeline(external("text.mp4"), gap(4, 24), external("panel1.png")), panels / "board.otio")
    assert fill(panels / "board.otio") == USER_ERROR
    assert "none of 1 could be filled" in capsys.readouterr().err
    assert not (panels / "filled.otio").exists()
    assert not (panels / "filled_inbetween").exists()


def test_pictures_of_another_size_are_fitted_and_said(engine: CountingEngine, panels: Path, capsys) -> None:
    image = Image.fromarray(barcodes.picture(10)).resize((300, 300))
    image.save(panels / "square.png")
    save(timeline(external("panel0.png"), gap(4, 24), external("square.png")), panels / "board.otio")
    assert main(["animatic", str(panels / "board.otio"), "--fit", "stretch", "--out", str(panels / "f.otio")]) == 0
    assert "different aspects" in capsys.readouterr().err
    assert barcodes.number(engine.jobs[0].keyframes[1].image) == 10


def test_pixels_that_are_not_square_are_made_so(engine: CountingEngine, panels: Path) -> None:
    import av

    with av.open(str(panels / "wide.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = barcodes.WIDTH // 2, barcodes.HEIGHT, "yuv420p"
        stream.codec_context.sample_aspect_ratio = 2
        narrow = np.asarray(Image.fromarray(barcodes.picture(3)).resize((barcodes.WIDTH // 2, barcodes.HEIGHT)))
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(narrow), format="rgb24")))
        container.mux(stream.encode(None))
    save(timeline(clip("wide.mp4", 0, 1, 24), gap(4, 24), external("panel1.png")), panels / "board.otio")
    assert fill(panels / "board.otio") == 0
    assert engine.jobs[0].keyframes[0].image.shape == (barcodes.HEIGHT, barcodes.WIDTH, 3)
    assert barcodes.number(engine.jobs[0].keyframes[0].image) == 3


def test_ten_thousand_clips_are_walked_in_one_go(panels: Path, tmp_path: Path) -> None:
    from sfserver.animatic.holes import find

    items = [item for i in range(5000) for item in (external(f"panel{i % 2}.png"), gap(4, 24))]
    holes, unfilled = find(timeline(*items), panels)
    assert (len(holes), len(unfilled)) == (4999, 1)


def test_a_timeline_that_holds_itself_is_refused(engine: CountingEngine, panels: Path, capsys) -> None:
    """By a reference in the JSON to an object that is still being read."""
    table = json.loads(timeline(external("panel0.png"), gap(4, 24), external("panel1.png")).to_json_string())
    table["tracks"]["OTIO_REF_ID"] = "Stack-1"
    table["tracks"]["children"][0]["children"].append({"OTIO_SCHEMA": "SerializableObjectRef.1", "id": "Stack-1"})
    (panels / "board.otio").write_text(json.dumps(table))
    assert fill(panels / "board.otio") == USER_ERROR
    (line,) = capsys.readouterr().err.splitlines()
    assert "holds something that holds itself" in line
