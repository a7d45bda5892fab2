"""What keyframes of a timeline have, alpha and depth, the clips between them have: as far as their codec keeps it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from timelines import clip, gap, load, save, span, timeline

from sfserver.cli import main
from sfserver.media.clip import ClipWriter
from sfserver.media.codecs import CODECS
from sfserver.media.stills import write_still
from sfserver.samples import Form, Picture, conformed, form_of

UNSEEN = 65535
INK = 51000, 15001, 10003


def panel(left: int) -> Picture:
    """RGBA16: a square of ink on nothing, which is green where nobody sees it."""
    picture = np.zeros((64, 96, 4), np.uint16)
    picture[..., 1] = UNSEEN
    picture[20:44, left : left + 24] = (*INK, 65535)
    return picture


def still(folder: Path, name: str, left: int, form: Form) -> str:
    if form.depth == 32:
        write_still(folder / f"{name}.exr", conformed(panel(left), form), ".exr")
        return f"{name}.exr"
    write_still(folder / f"{name}.png", conformed(panel(left), form), ".png", form.depth)
    return f"{name}.png"


def film(folder: Path, name: str, left: int, codec: str) -> str:
    """Five frames; the last, or the first, is the panel."""
    path = folder / f"{name}{CODECS[codec].suffixes[0]}"
    writer = ClipWriter(path, 96, 64, Fraction(24), codec=CODECS[codec], form=Form(4, 16))
    for i in range(5):
        writer.write(panel(left + (i - 4 if name == "first" else i)))
    writer.close()
    return path.name


def between(folder: Path, first: str, last: str, codec: str) -> Picture:
    """The middle of three frames that the draft engine makes between the two, as its movie holds it."""
    ends = [clip(name, 0, 5, 24, span(0, 5, 24)) for name in (first, last)]
    board = save(timeline(ends[0], gap(3, 24), ends[1]), folder / "board.otio")
    command = ["animatic", str(board), "--engine", "draft", "--codec", codec, "--out", str(folder / "filled.otio")]
    assert main(command) == 0
    made = load(folder / "filled.otio").tracks[0][1].media_reference.target_url
    with av.open(str(folder / made)) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == 3
    name, form = {"yuv420p": ("rgb24", Form()), "bgra": ("rgba", Form(4))}.get(
        frames[1].format.name, ("rgba64le", Form(4, 16))
    )
    image = frames[1].to_ndarray(format=name)
    assert form_of(image) == form
    return image


def assert_is_there(made: Picture, most: int) -> None:
    """The square has come half of its way, nothing is beside it, and no green at its edges."""
    seen = made[..., 3] > 0.1 * most
    assert made[32, 40, 3] == pytest.approx(most, abs=most / 255)
    assert made[4, 4, 3] <= most / 255
    assert made[seen][:, 1].max() < 0.31 * most
    assert made[32, 40, :3] / most == pytest.approx(np.array(INK) / 65535, abs=0.02)


@pytest.mark.parametrize(
    ("form", "codec", "depth"),
    [(Form(4, 8), "ffv1", 8), (Form(4, 16), "png", 16), (Form(4, 32), "ffv1", 16), (Form(4, 16), "prores", 16)],
)
def test_stills_with_alpha_give_clips_with_alpha(form: Form, codec: str, depth: int, tmp_path: Path) -> None:
    made = between(tmp_path, still(tmp_path, "a", 20, form), still(tmp_path, "b", 36, form), codec)
    assert form_of(made) == Form(4, depth)
    assert_is_there(made, 2**depth - 1)


@pytest.mark.parametrize("codec", ["prores", "png", "ffv1"])
def test_movies_with_alpha_give_clips_with_alpha(codec: str, tmp_path: Path) -> None:
    made = between(tmp_path, film(tmp_path, "first", 20, codec), film(tmp_path, "last", 36, codec), codec)
    assert_is_there(made, 65535)


def test_in_h264_what_is_transparent_lies_over_grey(tmp_path: Path) -> None:
    names = [still(tmp_path, name, left, Form(4, 8)) for name, left in (("a", 20), ("b", 36))]
    made = between(tmp_path, names[0], names[1], "h264")
    assert np.abs(made[4, 4].astype(int) - 128).max() <= 2
    assert np.abs(made[32, 40].astype(int) - np.array(INK) / 257).max() <= 6


def test_a_second_run_makes_nothing_and_another_alpha_is_made(tmp_path: Path, capsys) -> None:
    names = [still(tmp_path, name, left, Form(4, 8)) for name, left in (("a", 20), ("b", 36))]
    for _ in range(2):
        between(tmp_path, names[0], names[1], "ffv1")
    assert capsys.readouterr().out.splitlines()[-1].endswith("1 made before")
    hidden = conformed(panel(36), Form(4, 8))
    hidden[30, 40, 3] = 100  # the colours stay
    write_still(tmp_path / "b.png", hidden, ".png")
    between(tmp_path, names[0], names[1], "ffv1")
    assert "1 made by" in capsys.readouterr().out
