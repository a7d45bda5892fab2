"""Sequence, MP4 and contact sheet: what is in the files, and that a file that can be seen is a whole one."""

from __future__ import annotations

import errno
import os
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from sfserver.media import ClipWriter, ContactSheet, MediaError, SequenceWriter
from sfserver.media.files import appearing, write_error
from sfserver.media.sheet import MAX_PICTURES

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 120, 40), (32, 96, 160)]


def flat(colour: tuple[int, int, int], width: int = 64, height: int = 48) -> np.ndarray:
    return np.broadcast_to(np.array(colour, np.uint8), (height, width, 3)).copy()


def write_clip(path: Path, width: int = 64, height: int = 48, fps: Fraction = Fraction(24)) -> None:
    clip = ClipWriter(path, width, height, fps)
    for colour in COLOURS:
        clip.write(flat(colour, width, height))
    clip.close()


# MP4


@pytest.mark.parametrize("fps", [Fraction(24), Fraction(24000, 1001), Fraction(60)])
def test_clip_read_again_has_its_frames_rate_and_tags(tmp_path: Path, fps: Fraction) -> None:
    write_clip(tmp_path / "clip.mp4", fps=fps)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (stream.frames, stream.average_rate) == (len(COLOURS), fps)
        assert (context.name, context.pix_fmt, context.width, context.height) == ("h264", "yuv420p", 64, 48)
        bt709, limited = 1, 1
        assert (context.colorspace, context.color_primaries, context.color_trc) == (bt709, bt709, bt709)
        assert context.color_range == limited


def test_colours_are_those_of_the_bt709_matrix_in_limited_range(tmp_path: Path) -> None:
    """Y'CbCr computed here from ITU-R BT.709-6 section 3; the matrix of BT.601 would be off by up to 40."""
    write_clip(tmp_path / "clip.mp4")
    with av.open(str(tmp_path / "clip.mp4")) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == len(COLOURS)
    for (r, g, b), frame in zip(np.array(COLOURS) / 255, frames, strict=True):
        luma = 0.2126 * r + 0.7152 * g + 0.0722 * b
        expected = [16 + 219 * luma, 128 + 224 * (b - luma) / 1.8556, 128 + 224 * (r - luma) / 1.5748]
        got = [np.array(plane).mean() for plane in _planes(frame)]
        assert np.abs(np.array(got) - expected).max() < 1.5


def _planes(frame: av.VideoFrame) -> list[np.ndarray]:
    return [
        np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
        for plane in frame.planes
    ]


def test_odd_size_is_made_even_and_nothing_is_lost(tmp_path: Path) -> None:
    clip = ClipWriter(tmp_path / "clip.mp4", 65, 47, Fraction(24))
    image = flat((30, 90, 200), 65, 47)
    image[:, 48:], image[-8:] = (240, 240, 20), (10, 10, 10)
    clip.write(image)
    clip.close()
    with av.open(str(tmp_path / "clip.mp4")) as container:
        read = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert read.shape == (48, 66, 3)
    assert np.abs(read[:47, :65].astype(int) - image).mean() < 4
    assert np.abs(read[:36, 65].astype(int) - (240, 240, 20)).mean() < 6


def test_index_is_at_the_front(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4")
    body = (tmp_path / "clip.mp4").read_bytes()
    assert body.index(b"moov") < body.index(b"mdat")


def test_clip_appears_only_when_it_is_closed(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"the old one")
    clip = ClipWriter(tmp_path / "clip.mp4", 64, 48, Fraction(24))
    clip.write(flat((1, 2, 3)))
    assert (tmp_path / "clip.mp4").read_bytes() == b"the old one"
    clip.close()
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]
    assert (tmp_path / "clip.mp4").read_bytes() != b"the old one"


@pytest.mark.parametrize("frames", [0, 3])
def test_aborted_clip_leaves_nothing(tmp_path: Path, frames: int) -> None:
    clip = ClipWriter(tmp_path / "clip.mp4", 64, 48, Fraction(24))
    for _ in range(frames):
        clip.write(flat((1, 2, 3)))
    clip.abort()
    assert list(tmp_path.iterdir()) == []


def test_clip_without_frames_leaves_nothing(tmp_path: Path) -> None:
    ClipWriter(tmp_path / "clip.mp4", 64, 48, Fraction(24)).close()
    assert list(tmp_path.iterdir()) == []


def test_full_disk_ends_the_clip_in_one_line_and_leaves_nothing(full_disk_for, tmp_path: Path) -> None:
    full_disk_for("clip.mp4")
    clip = ClipWriter(tmp_path / "clip.mp4", 256, 256, Fraction(24))
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)

    def write_all() -> None:
        for _ in range(80):
            clip.write(noise)
        clip.close()

    with pytest.raises(MediaError, match="the disk is full; free some space"):
        write_all()
    clip.abort()
    assert list(tmp_path.iterdir()) == []


def test_clip_in_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="cannot be written"):
        ClipWriter(tmp_path / "nowhere" / "clip.mp4", 64, 48, Fraction(24))


# PNG sequence


def test_frames_are_numbered_by_their_place_and_hold_their_bytes(tmp_path: Path) -> None:
    sequence = SequenceWriter(tmp_path / "frames")
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    sequence.write(7, noise)
    sequence.write(123, flat((1, 2, 3)))
    assert sorted(p.name for p in (tmp_path / "frames").iterdir()) == ["0007.png", "0123.png"]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "frames" / "0007.png")), noise)


def test_folder_with_pictures_is_refused(tmp_path: Path) -> None:
    """A shorter clip over a longer one would play as one sequence; and these might be somebody's drawings."""
    (tmp_path / "0031.png").touch()
    with pytest.raises(MediaError, match="already holds pictures; remove it or choose another"):
        SequenceWriter(tmp_path)


def test_folder_where_nothing_was_written_goes_again(tmp_path: Path) -> None:
    SequenceWriter(tmp_path / "a" / "b" / "frames").close()
    assert list(tmp_path.iterdir()) == []


def test_folder_that_was_there_stays(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    SequenceWriter(tmp_path / "mine" / "frames").close()
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_file_in_the_way_of_the_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "frames").write_text("x")
    with pytest.raises(MediaError, match="a file stands where a folder is needed"):
        SequenceWriter(tmp_path / "frames")
    with pytest.raises(MediaError, match="a file stands where a folder is needed"):
        SequenceWriter(tmp_path / "frames" / "deeper")


def test_full_disk_ends_the_sequence_in_one_line_and_leaves_whole_frames_alone(full_disk_for, tmp_path: Path) -> None:
    sequence = SequenceWriter(tmp_path)
    sequence.write(0, flat((1, 2, 3)))
    full_disk_for("0001.png")
    with pytest.raises(MediaError, match="the disk is full"):
        sequence.write(1, np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8))
    assert [p.name for p in tmp_path.iterdir()] == ["0000.png"]


@pytest.mark.skipif(sys.platform != "linux", reason="/sys is a place of Linux where even root may not make folders")
def test_unwritable_folder_is_one_line() -> None:
    with pytest.raises(MediaError, match="may not be written here"):
        SequenceWriter(Path("/sys/frames"))


@pytest.mark.parametrize(
    ("number", "sentence"),
    [(errno.ENOSPC, "disk is full"), (errno.EACCES, "may not be written"), (errno.EROFS, "may not be written")],
)
def test_every_refusal_of_the_system_has_a_remedy(number: int, sentence: str) -> None:
    message = str(write_error(Path("a.png"), OSError(number, os.strerror(number))))
    assert message.startswith("a.png: ")
    assert sentence in message
    assert "--out" in message


@pytest.mark.parametrize("ending", [KeyboardInterrupt, ValueError])
def test_whatever_ends_the_writing_no_half_file_stays(tmp_path: Path, ending: type[BaseException]) -> None:
    (tmp_path / "a.png").write_text("the old one")

    def write_half() -> None:
        with appearing(tmp_path / "a.png") as part:
            part.write_text("half")
            raise ending

    with pytest.raises(ending):
        write_half()
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_text() == "the old one"


# Contact sheet


def _sheet(num_frames: int, keyframes: set[int], arrived: int | None = None) -> tuple[ContactSheet, Image.Image]:
    sheet = ContactSheet(num_frames, keyframes, 64, 48)
    for i in range(num_frames if arrived is None else arrived):
        sheet.add(i, flat((0, i % 256, 200)))
    return sheet, sheet.draw("a prompt", "details")


def _count(image: Image.Image, wanted: np.ndarray) -> int:
    return int((np.asarray(image) == wanted).all(-1).sum())


def _frames_on(image: Image.Image) -> list[int]:
    """Which of the frames, told by their green, fill a place."""
    pixels = np.asarray(image).reshape(-1, 3)
    counts = np.bincount(pixels[(pixels[:, 0] == 0) & (pixels[:, 2] == 200)][:, 1], minlength=256)
    return np.flatnonzero(counts > 256 * 150).tolist()


def test_every_frame_is_on_the_sheet_of_a_short_clip() -> None:
    assert _frames_on(_sheet(33, {0, 32})[1]) == list(range(33))


def test_keyframes_are_outlined_and_others_are_not() -> None:
    accent = np.array((255, 176, 64))
    outline_of_one = _count(_sheet(9, {4})[1], accent)
    assert _count(_sheet(9, set())[1], accent) == 0
    assert outline_of_one > 2 * 3 * (256 + 192)
    assert _count(_sheet(9, {0, 8})[1], accent) > 1.8 * outline_of_one


def test_long_clip_is_thinned_but_keeps_its_keyframes() -> None:
    shown = _frames_on(_sheet(256, {0, 101, 255})[1])
    assert len(shown) <= MAX_PICTURES
    assert {0, 101, 255} <= set(shown)
    distances = set(np.diff([i for i in shown if i not in (101, 255)]))
    assert len(distances) == 1


def test_sheet_of_a_cancelled_clip_holds_what_came(tmp_path: Path) -> None:
    sheet, image = _sheet(33, {0, 32}, arrived=5)
    assert image.width < _sheet(33, {0, 32})[1].width * 1.1
    sheet.save(tmp_path / "sheet.png", "x " * 500, "")
    with Image.open(tmp_path / "sheet.png") as saved:
        assert saved.size == image.size
