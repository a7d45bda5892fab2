"""Files that keep what they are: read back by ffprobe where it is there, and by decoders that are not ours."""

from __future__ import annotations

import json
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path
from xml.etree import ElementTree

import av
import numpy as np
import OpenEXR
import pytest
from attrs import evolve
from PIL import Image

from sfserver.media import MediaError, SequenceWriter, ycbcr
from sfserver.media.clip import ClipWriter
from sfserver.media.codecs import CODECS, FORMAT_OF, Codec
from sfserver.media.movie import read_movie
from sfserver.media.outputs import ClipShape, Keeping, Outputs, check_name
from sfserver.media.read import read_picture
from sfserver.media.sequence import numbering_of
from sfserver.media.stills import linear_from_srgb, write_still
from sfserver.samples import RGB8, Form, conformed, form_of

PAIRS = [(codec, suffix) for codec in CODECS.values() for suffix in codec.suffixes]
WORST = {"h264": 60, "prores": 2, "ffv1": 0, "png": 0}
"""Of 8 bit, on a picture with detail, as FFmpeg converts it; 4:2:0 has colours for every second pixel alone."""


def detail() -> np.ndarray:
    """[96, 128, 3]: a photograph's worth of edges and slopes, sides that are not all round numbers of blocks."""
    with Image.open(Path(__file__).parents[2] / "examples" / "toy_start.png") as picture:
        return np.asarray(picture.convert("RGB"))[200:298, 300:430]


def write(path: Path, codec=None, fps: Fraction = Fraction(24000, 1001), timecode: str = "") -> np.ndarray:
    image = detail()
    clip = ClipWriter(path, image.shape[1], image.shape[0], fps, "how it was made", codec, timecode)
    for _ in range(3):
        clip.write(image)
    clip.close()
    return image


@pytest.mark.parametrize(("codec", "suffix"), PAIRS, ids=lambda value: getattr(value, "name", value))
def test_a_movie_errs_by_no_more_than_its_codec(codec, suffix: str, tmp_path: Path) -> None:
    image = write(tmp_path / f"clip{suffix}", codec)
    with av.open(str(tmp_path / f"clip{suffix}")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 3
    for frame in frames:
        assert np.abs(frame.astype(int) - image).max() <= WORST[codec.name]


KEPT = [(codec, form) for codec in CODECS.values() for form in codec.pixels if form != RGB8]
MOST_OFF = {"prores": (0.0135, 0.001), "ffv1": (0, 0), "png": (0, 0)}
"""Of all that a sample can be: colours, alpha, as FFmpeg converts it."""
MOST_OFF_READ = {"prores": (0.008, 0.001), "ffv1": (0, 0), "png": (0, 0)}
"""The same as we read it ourselves, without FFmpeg's rounding."""


def deep(form: Form) -> np.ndarray:
    """The picture with a soft alpha, and with more than its own eight bits where that is asked for."""
    image = detail()
    alpha = np.linspace(40, 255, image.shape[1])[None, :, None].repeat(image.shape[0], 0)
    image = np.concatenate((image, np.rint(alpha)), 2).astype(np.uint8)[..., : form.channels]
    if form.depth == 8:
        return np.ascontiguousarray(image)
    more = np.random.default_rng(1).integers(0, 257, image.shape)
    return np.clip(image.astype(np.int64) * 257 + more, 0, 65535).astype(np.uint16)


@pytest.mark.parametrize(("codec", "form"), KEPT, ids=lambda value: getattr(value, "name", str(value)))
def test_a_movie_keeps_alpha_and_depth_as_far_as_its_codec_can(codec, form: Form, tmp_path: Path) -> None:
    image, path = deep(form), tmp_path / f"clip{codec.suffixes[0]}"
    clip = ClipWriter(path, image.shape[1], image.shape[0], Fraction(24), codec=codec, form=form)
    clip.write(image)
    clip.close()
    with av.open(str(path)) as container:
        (frame,) = container.decode(video=0)
    assert ("a" in frame.format.name.replace("gray", "").replace("bgra", "a")) == form.has_alpha
    read = {24: "rgb24", 32: "rgba", 48: "rgb48le", 64: "rgba64le"}[form.channels * form.depth]
    off = np.abs(frame.to_ndarray(format=read).astype(int) - image) / form.most
    colours, alpha = MOST_OFF[codec.name]
    assert off[..., :3].max() <= colours
    assert off[..., 3:].max(initial=0) <= alpha


@pytest.mark.parametrize(("codec", "form"), KEPT, ids=lambda value: getattr(value, "name", str(value)))
def test_a_frame_of_a_movie_is_a_keyframe_with_the_alpha_and_the_depth_that_it_has(
    codec, form: Form, tmp_path: Path
) -> None:
    image, path = deep(form), tmp_path / f"clip{codec.suffixes[0]}"
    clip = ClipWriter(path, image.shape[1], image.shape[0], Fraction(24), codec=codec, form=form)
    clip.write(image)
    clip.close()
    read = read_movie(path, Fraction(0)).image
    assert form_of(read) == form
    off = np.abs(read.astype(int) - image) / form.most
    colours, alpha = MOST_OFF_READ[codec.name]
    assert off[..., :3].max() <= colours
    assert off[..., 3:].max(initial=0) <= alpha


def test_prores_errs_by_one_in_eight_bits_and_with_the_usual_matrix_by_more(tmp_path: Path) -> None:
    """What FFmpeg's own conversion adds to that is its reader's."""

    def worst(codec: Codec) -> int:
        image = write(tmp_path / "clip.mov", codec)
        read = conformed(read_movie(tmp_path / "clip.mov", Fraction(0)).image, RGB8)
        return int(np.abs(read.astype(int) - image).max())

    assert worst(CODECS["prores"]) <= 1
    usual = {name: value for name, value in CODECS["prores"].options.items() if name != "quant_mat"}
    assert worst(evolve(CODECS["prores"], options=usual)) > 1


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", ycbcr.WEIGHTS)
def test_what_a_film_says_of_its_matrix_and_range_is_heeded(matrix: int, full: bool) -> None:
    """White and grey are the same under all, red is not: by ITU-T H.273, equations 38 to 43."""
    red_weight, blue_weight = ycbcr.WEIGHTS[matrix]
    luma = np.array([1, 0.5, red_weight])
    of_blue = np.array([0, 0, -red_weight / (2 * (1 - blue_weight))])
    of_red = np.array([0, 0, 0.5])
    steps, low, colour = (1023, 0, 1023) if full else (876, 64, 896)
    frame = av.VideoFrame(16, 16, "yuv444p10le")
    for plane, values in zip(
        frame.planes, (low + steps * luma, 512 + colour * of_blue, 512 + colour * of_red), strict=True
    ):
        rows = np.zeros((16, plane.line_size // 2), "<u2")
        rows[:, :3] = np.minimum(np.rint(values), 1023)
        plane.update(rows.tobytes())
    white, grey, red = ycbcr.picture_of(frame, matrix, full)[0, :3] / 65535
    assert white == pytest.approx([1, 1, 1], abs=2e-3)
    assert grey == pytest.approx([0.5, 0.5, 0.5], abs=2e-3)
    assert red == pytest.approx([1, 0, 0], abs=3e-3)


def test_what_has_no_alpha_shows_transparency_over_grey(tmp_path: Path) -> None:
    image = np.zeros((96, 128, 4), np.uint8)
    clip = ClipWriter(tmp_path / "clip.mp4", 128, 96, Fraction(24), form=Form(4, 8))
    clip.write(image)
    clip.close()
    with av.open(str(tmp_path / "clip.mp4")) as container:
        (frame,) = container.decode(video=0)
    assert np.abs(frame.to_ndarray(format="rgb24").astype(int) - 128).max() <= 2


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="there is no ffprobe on this machine")
@pytest.mark.parametrize(("codec", "suffix"), PAIRS, ids=lambda value: getattr(value, "name", value))
@pytest.mark.parametrize("fps", [Fraction(24000, 1001), Fraction(30000, 1001), Fraction(25)])
def test_an_independent_reader_sees_rate_tags_timecode_and_text(
    codec, suffix: str, fps: Fraction, tmp_path: Path
) -> None:
    code = "01:00:00;02" if fps == Fraction(30000, 1001) else "01:00:00:02"
    write(tmp_path / f"clip{suffix}", codec, fps, code)
    command = [
        "ffprobe",
        "-v",
        "error",
        "-show_streams",
        "-show_format",
        "-of",
        "json",
        str(tmp_path / f"clip{suffix}"),
    ]
    seen = json.loads(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout)
    video = seen["streams"][0]
    assert Fraction(video["r_frame_rate"]) == fps
    rgb = codec.is_rgb
    assert video["color_space"] == ("gbr" if rgb else "bt709")
    assert video["color_range"] == ("pc" if rgb else "tv")
    assert video["color_transfer"] == ("iec61966-2-1" if rgb else "bt709")
    assert video["color_primaries"] == "bt709"
    tags = {name.lower(): value for name, value in video["tags"].items()}
    assert tags["timecode"] == code
    assert {k.lower(): v for k, v in seen["format"]["tags"].items()}["comment"] == "how it was made"


@pytest.mark.skipif(shutil.which("melt") is None, reason="there is no melt on this machine")
@pytest.mark.parametrize(("codec", "suffix"), PAIRS, ids=lambda value: getattr(value, "name", value))
def test_an_editors_engine_sees_rate_and_colours(codec, suffix: str, tmp_path: Path) -> None:
    """MLT, which is Kdenlive's and Shotcut's. Matrix 709, or none at all for RGB; transfers as ITU-T H.273 has them."""
    write(tmp_path / f"clip{suffix}", codec, timecode="01:00:00:02")
    command = ["melt", str(tmp_path / f"clip{suffix}"), "-consumer", f"xml:{tmp_path / 'seen.xml'}"]
    quiet = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "QT_QPA_PLATFORM": "offscreen"}
    subprocess.run(command, capture_output=True, timeout=60, check=True, env=quiet)
    seen = ElementTree.parse(tmp_path / "seen.xml").getroot()
    profile, said = seen.find("profile"), {one.get("name"): one.text for one in seen.iter("property")}
    assert profile is not None
    assert (profile.get("frame_rate_num"), profile.get("frame_rate_den")) == ("24000", "1001")
    colours = said["meta.media.0.codec.colorspace"], said["meta.media.0.codec.color_trc"]
    assert colours == (("0", "13") if codec.is_rgb else ("709", "1"))
    if suffix != ".mkv":  # of Matroska it reads none
        assert said["meta.attr.0.stream.timecode.markup"] == "01:00:00:02"


def test_the_same_frames_give_the_same_movie(tmp_path: Path) -> None:
    for codec, suffix in PAIRS:
        if suffix == ".mkv":
            continue  # Matroska draws a random number for each file
        for name in ("a", "b"):
            write(tmp_path / f"{name}{suffix}", codec)
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes(), (codec.name, suffix)


@pytest.mark.parametrize(
    ("name", "keeping", "sentence"),
    [
        ("x.mp4", Keeping(codec="prores"), "prores is kept in .mov or .mkv"),
        ("x.mov", Keeping(codec="ffv1"), "ffv1 is kept in .mkv"),
        ("x.mov", Keeping(codec="dnxhd"), "there are h264, prores, ffv1, png"),
        ("folder", Keeping(codec="dnxhd"), "there are h264, prores, ffv1, png"),
        ("x.webm", Keeping(), ".webm is not written"),
        ("x.exr", Keeping(), "shot.%04d.exr"),
        ("shot.%04d.jpg", Keeping(), "pictures end in .png"),
        ("shot.%04d.%04d.png", Keeping(), "needs one number"),
        ("shot.%04d.png", Keeping(depth=12), "8 or 16 bits"),
        ("x.mov", Keeping(timecode="1 o'clock"), "is none, as in 01:00:00:00"),
        ("x.mov", Keeping(timecode="01:00:00;00"), "drop-frame is for 29.97"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(name: str, keeping: Keeping, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=sentence.replace("(", r"\(").replace(".", r"\.").replace("%", "%")):
        check_name(tmp_path / name, keeping, Fraction(24))


# Pictures


def every_value(depth: int) -> np.ndarray:
    """[H, W, 3]: every value that a sample of so many bits can have, in every channel."""
    values = np.arange(2**depth, dtype=np.uint8 if depth == 8 else np.uint16)
    side = 2 ** (depth // 2)
    return np.stack([values, values[::-1], np.roll(values, 7)], -1).reshape(side, side, 3)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("channels", [3, 4])
def test_pictures_are_exact_to_their_depth(suffix: str, depth: int, channels: int, tmp_path: Path) -> None:
    image = every_value(depth)
    image = np.concatenate((image, image[:, ::-1, :1]), 2)[..., :channels].copy()
    write_still(tmp_path / "x.part", image, suffix, depth, "how it was made")
    with av.open(str(tmp_path / "x.part"), format="png_pipe" if suffix == ".png" else "tiff_pipe") as container:
        (frame,) = container.decode(video=0)
        colours = "rgb" if channels == 3 else "rgba"
        back = frame.to_ndarray(format={24: "rgb24", 32: "rgba"}.get(channels * depth, f"{colours}{16 * channels}le"))
    assert np.array_equal(back, image)


def test_eight_bits_in_a_file_of_sixteen_are_the_same_colours(tmp_path: Path) -> None:
    image = every_value(8)
    write_still(tmp_path / "x.png", np.tile(image, (4, 4, 1)), ".png", 16)
    assert np.array_equal(conformed(read_picture(tmp_path / "x.png").image, RGB8), np.tile(image, (4, 4, 1)))


def test_an_exr_is_linear_half_and_comes_back_to_the_same_eight_bits(tmp_path: Path) -> None:
    image = np.tile(every_value(8), (4, 4, 1))
    write_still(tmp_path / "x.exr", image, ".exr", text="how it was made")
    file = OpenEXR.File(str(tmp_path / "x.exr"), separate_channels=True)
    assert file.channels()["R"].pixels.dtype == np.float16
    linear = np.stack([file.channels()[c].pixels for c in "RGB"], -1)
    assert np.array_equal(linear, linear_from_srgb(image).astype(np.float16))
    assert np.allclose(file.header()["chromaticities"], (0.64, 0.33, 0.3, 0.6, 0.15, 0.06, 0.3127, 0.329))
    assert file.header()["sfserver"] == "how it was made"
    assert np.array_equal(conformed(read_picture(tmp_path / "x.exr").image, RGB8), image)


def test_sixteen_bits_in_an_exr_err_by_half_a_half(tmp_path: Path) -> None:
    image = every_value(16)
    write_still(tmp_path / "x.exr", image, ".exr")
    file = OpenEXR.File(str(tmp_path / "x.exr"), separate_channels=True)
    linear = np.stack([file.channels()[c].pixels for c in "RGB"], -1).astype(np.float32)
    exact = linear_from_srgb(image)
    assert np.abs(linear / np.maximum(exact, 1e-4) - 1)[exact > 1e-4].max() <= 2**-11 * 1.001


def test_pictures_are_numbered_as_asked(tmp_path: Path) -> None:
    shape = ClipShape(128, 96, 3, (0, 2), Fraction(24))
    out = Outputs(tmp_path / "new" / "shot.%05d.exr", shape, "text", Keeping(start_number=1001))
    for i in range(3):
        out.write(i, np.full((96, 128, 3), i, np.uint8))
    out.close("", "")
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == [f"shot.{i:05}.exr" for i in (1001, 1002, 1003)]


def test_a_sequence_beside_another_is_written_and_over_its_own_is_not(tmp_path: Path) -> None:
    (tmp_path / "a.0001.png").touch()
    SequenceWriter(tmp_path, numbering=numbering_of("b.%04d.png")).write(0, np.zeros((16, 16, 3), np.uint8))
    with pytest.raises(MediaError, match="already holds pictures"):
        SequenceWriter(tmp_path, numbering=numbering_of("a.%04d.png"))


def test_every_container_has_a_usual_codec(tmp_path: Path) -> None:
    for suffix in FORMAT_OF:
        write(tmp_path / f"usual{suffix}")
        assert (tmp_path / f"usual{suffix}").stat().st_size
