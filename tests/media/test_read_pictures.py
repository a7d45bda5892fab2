"""Keyframes from files: what every format and colour model becomes, and what is refused in one line."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
import textwrap
import zlib
from pathlib import Path

import numpy as np
import OpenEXR
import pytest
from PIL import Image, ImageCms

from sfserver.media import MediaError, read_picture
from sfserver.media.read import MAX_SOURCE_PIXELS
from sfserver.media.stills import write_still
from sfserver.samples import RGB8, Form, conformed, form_of


def ramp(width: int = 64, height: int = 48) -> np.ndarray:
    """Smooth, asymmetric in both directions, so that a turn or a lossy codec can be told apart."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)], -1).astype(np.uint8)


def write_exr(path: Path, channels: dict[str, np.ndarray], **header: object) -> Path:
    OpenEXR.File({"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage, **header}, channels).write(
        str(path)
    )
    return path


def png_header_only(path: Path, width: int, height: int) -> Path:
    """A valid PNG of black pixels whose rows are never all written to memory: zlib packs them a thousandfold."""
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(b"\0" * (width + 1)) for _ in range(height)) + packer.flush()

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    return path


# What is read


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.webp"])
def test_lossless_formats_give_the_same_bytes(tmp_path: Path, name: str) -> None:
    Image.fromarray(ramp()).save(tmp_path / name, **({"lossless": True} if name == "a.webp" else {}))
    loaded = read_picture(tmp_path / name)
    assert np.array_equal(loaded.image, ramp())
    assert loaded.notes == ()


def test_jpeg_is_close(tmp_path: Path) -> None:
    Image.fromarray(ramp()).save(tmp_path / "a.jpg", quality=95)
    assert np.abs(read_picture(tmp_path / "a.jpg").image.astype(int) - ramp()).mean() < 2


def test_phone_picture_with_a_second_one_inside_is_a_still(tmp_path: Path) -> None:
    Image.fromarray(ramp()).save(
        tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[Image.new("RGB", (64, 48))]
    )
    assert np.abs(read_picture(tmp_path / "a.jpg").image.astype(int) - ramp()).mean() < 3


def test_kind_is_told_by_content_not_by_name(tmp_path: Path) -> None:
    Image.fromarray(ramp()).save(tmp_path / "a.exr", format="PNG")
    assert np.array_equal(read_picture(tmp_path / "a.exr").image, ramp())


@pytest.mark.parametrize(
    ("orientation", "undo"),
    [
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: np.rot90(a, 2)),
        (6, lambda a: np.rot90(a, 1)),
        (8, lambda a: np.rot90(a, 3)),
    ],
)
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, undo) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(undo(ramp()))).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_picture(tmp_path / "a.png").image, ramp())


def test_sixteen_bit_grey_is_kept(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 64 * 48).astype(np.uint16).reshape(48, 64)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert np.array_equal(read_picture(tmp_path / "a.png").image, np.repeat(values[..., None], 3, -1))


def test_sixteen_bit_colour_is_brought_down_with_rounding(tmp_path: Path) -> None:
    deep = ramp().astype(">u2") * 257
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in deep))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 48, 16, 2, 0, 0, 0))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", body) + chunk(b"IEND", b""))
    assert np.array_equal(read8(tmp_path / "a.png"), ramp())


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.webp"])
def test_alpha_is_kept_and_lies_over_grey_where_it_cannot_be(tmp_path: Path, name: str) -> None:
    rgba = np.dstack([ramp(), np.full((48, 64), 255, np.uint8)])
    rgba[:, :32, 3] = 0
    rgba[:, 32:48, 3] = 51
    Image.fromarray(rgba).save(tmp_path / name, **({"lossless": True, "exact": True} if name == "a.webp" else {}))
    loaded = read_picture(tmp_path / name)
    assert np.array_equal(loaded.image, rgba)
    assert loaded.notes == ()
    grey = conformed(loaded.image, RGB8)
    assert (grey[:, :32] == 128).all()
    assert np.abs(grey[:, 32:48] - (ramp()[:, 32:48] * 0.2 + 128 * 0.8)).max() <= 0.51
    assert np.array_equal(grey[:, 48:], ramp()[:, 48:])


@pytest.mark.parametrize("suffix", [".png", ".tif", ".exr"])
@pytest.mark.parametrize("channels", [3, 4])
def test_deep_pictures_that_we_wrote_are_read_as_they_were(tmp_path: Path, suffix: str, channels: int) -> None:
    image = np.random.default_rng(2).integers(0, 65536, (48, 64, channels), np.uint16)
    if suffix == ".exr":  # a half has fewer bits: what one of our own files has comes back as it is
        image = from_half(image)
    write_still(tmp_path / "x.part", image, suffix, None)
    back = read_picture(tmp_path / "x.part").image
    assert form_of(back) == Form(channels, 32 if suffix == ".exr" else 16)
    if suffix != ".exr":
        assert np.array_equal(back, image)
        return
    write_still(tmp_path / "again.part", back, suffix, None)
    assert (tmp_path / "again.part").read_bytes() == (tmp_path / "x.part").read_bytes()


def from_half(image: np.ndarray) -> np.ndarray:
    """Floats, some of them brighter than white."""
    floats = image.astype(np.float32) / 30000
    floats[..., 3:] = np.clip(floats[..., 3:], 0, 1)
    return floats


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_deep_picture_is_turned_as_pillow_turns_it(tmp_path: Path, orientation: int) -> None:
    image = np.random.default_rng(3).integers(0, 256, (48, 64, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(image).save(tmp_path / "a.png", exif=exif)
    write_still(tmp_path / "deep.part", image.astype(np.uint16) * 257, ".png", 16)
    head, body = (tmp_path / "deep.part").read_bytes(), b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    (tmp_path / "deep.png").write_bytes(head[:33] + chunk + head[33:])
    assert np.array_equal(
        read_picture(tmp_path / "deep.png").image, read_picture(tmp_path / "a.png").image.astype(np.uint16) * 257
    )


def test_opaque_alpha_changes_nothing_and_is_not_said(tmp_path: Path) -> None:
    Image.fromarray(np.dstack([ramp(), np.full((48, 64), 255, np.uint8)])).save(tmp_path / "a.png")
    loaded = read_picture(tmp_path / "a.png")
    assert np.array_equal(loaded.image, ramp())
    assert loaded.notes == ()


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "CMYK", "PA", "YCbCr"])
def test_every_colour_model_becomes_rgb(tmp_path: Path, mode: str) -> None:
    name = "a.png" if mode in ("L", "LA", "P", "1") else "a.tiff" if mode in ("CMYK", "PA") else "a.jpg"
    picture = (
        Image.fromarray(ramp()).convert("P").convert("PA") if mode == "PA" else Image.fromarray(ramp()).convert(mode)
    )
    picture.save(tmp_path / name)
    image = read_picture(tmp_path / name).image
    assert image.shape == (48, 64, 3)
    assert image.dtype == np.uint8
    assert image.std() > 20


def test_embedded_profile_is_converted_to_srgb(tmp_path: Path) -> None:
    """Lab D50 is the one profile that lcms makes from nothing; its L = 53.4 is sRGB middle grey."""
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    srgb = ImageCms.createProfile("sRGB")
    as_lab = ImageCms.profileToProfile(Image.fromarray(ramp()), srgb, lab, outputMode="LAB")
    assert as_lab is not None
    as_lab.save(tmp_path / "a.tiff", icc_profile=lab.tobytes())
    loaded = read_picture(tmp_path / "a.tiff")
    assert np.abs(loaded.image.astype(int) - ramp()).mean() < 3
    assert loaded.notes == ()


def test_srgb_profile_does_not_change_a_single_value(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(ramp()).save(tmp_path / "a.png", icc_profile=profile)
    assert np.array_equal(read_picture(tmp_path / "a.png").image, ramp())


def test_broken_profile_is_ignored_and_said(tmp_path: Path) -> None:
    Image.fromarray(ramp()).save(tmp_path / "a.png", icc_profile=b"not a profile")
    loaded = read_picture(tmp_path / "a.png")
    assert np.array_equal(loaded.image, ramp())
    assert "profile" in loaded.notes[0]


# EXR


def read8(path: Path) -> np.ndarray:
    """As an engine of 8 bits is given it."""
    return conformed(read_picture(path).image, RGB8)


def linear_of(image: np.ndarray) -> np.ndarray:
    c = image / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4).astype(np.float32)


@pytest.mark.parametrize("sample", ["float16", "float32"])
def test_exr_linear_light_becomes_srgb(tmp_path: Path, sample: str) -> None:
    path = write_exr(tmp_path / "a.exr", {"RGB": linear_of(ramp()).astype(sample)})
    assert np.abs(read8(path).astype(int) - ramp()).max() <= (1 if sample == "float16" else 0)


def test_exr_highlights_are_kept_and_nan_is_black(tmp_path: Path) -> None:
    values = np.full((48, 64, 3), 7.5, np.float32)
    values[0, 0], values[0, 1], values[0, 2] = np.nan, np.inf, -3
    image = read_picture(write_exr(tmp_path / "a.exr", {"RGB": values})).image
    assert image[0, 0].tolist() == image[0, 2].tolist() == [0, 0, 0]
    assert np.allclose(image[1:], 1.055 * 7.5 ** (1 / 2.4) - 0.055)
    eight = conformed(image, RGB8)
    assert eight[0, :3, 0].tolist() == [0, 255, 0]
    assert (eight[1:] == 255).all()


def test_exr_alpha_is_associated(tmp_path: Path) -> None:
    rgba = np.zeros((48, 64, 4), np.float32)
    rgba[..., :3], rgba[..., 3] = 0.25, 0.5
    rgba[:, :32] = 0
    image = read_picture(write_exr(tmp_path / "a.exr", {"RGBA": rgba})).image
    assert form_of(image) == Form(4, 32)
    assert not image[:, :32].any()
    assert image[0, 40] == pytest.approx([1.055 * 0.5 ** (1 / 2.4) - 0.055] * 3 + [0.5], abs=1e-6)


@pytest.mark.parametrize("prefix", ["ViewLayer.Combined.", "beauty."])
def test_layered_exr_gives_the_combined_picture(tmp_path: Path, prefix: str) -> None:
    channels = {prefix + c: linear_of(ramp())[..., i].copy() for i, c in enumerate("RGB")}
    channels |= {f"diffuse.{c}": np.zeros((48, 64), np.float32) for c in "RGB"} if "Combined" in prefix else {}
    path = write_exr(tmp_path / "a.exr", channels | {"depth.Z": np.ones((48, 64), np.float32)})
    assert np.array_equal(read8(path), ramp())


def test_grey_exr_is_read(tmp_path: Path) -> None:
    grey = linear_of(ramp())[..., 0].copy()
    image = read8(write_exr(tmp_path / "a.exr", {"Y": grey}))
    assert np.array_equal(image, np.repeat(ramp()[..., :1], 3, -1))


def test_exr_display_window_is_the_picture(tmp_path: Path) -> None:
    """Data from (-8, 4) to (55, 51), shown from (0, 0) to (47, 59): overscan at the left, nothing at top and bottom."""
    header = {
        "dataWindow": (np.array([-8, 4], np.int32), np.array([55, 51], np.int32)),
        "displayWindow": (np.array([0, 0], np.int32), np.array([47, 59], np.int32)),
    }
    image = read8(write_exr(tmp_path / "a.exr", {"RGB": linear_of(ramp())}, **header))
    assert image.shape == (60, 48, 3)
    assert np.array_equal(image[4:52], ramp()[:, 8:56])
    assert not image[:4].any()
    assert not image[52:].any()


def test_foreign_primaries_are_said(tmp_path: Path) -> None:
    ap0 = (0.7347, 0.2653, 0.0, 1.0, 0.0001, -0.077, 0.32168, 0.33767)
    loaded = read_picture(write_exr(tmp_path / "a.exr", {"RGB": linear_of(ramp())}, chromaticities=ap0))
    assert "Rec.709" in loaded.notes[0]


# What is refused


def _missing(folder: Path) -> Path:
    return folder / "nowhere.png"


def _folder(folder: Path) -> Path:
    return folder


def _empty(folder: Path) -> Path:
    (folder / "a.png").touch()
    return folder / "a.png"


def _text(folder: Path) -> Path:
    (folder / "a.png").write_text("this is no picture, " * 100)
    return folder / "a.png"


def _truncated_png(folder: Path) -> Path:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(folder / "a.png")
    (folder / "a.png").write_bytes((folder / "a.png").read_bytes()[:5000])
    return folder / "a.png"


def _truncated_jpeg(folder: Path) -> Path:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(folder / "a.jpg")
    (folder / "a.jpg").write_bytes((folder / "a.jpg").read_bytes()[:1500])
    return folder / "a.jpg"


def _truncated_webp(folder: Path) -> Path:
    Image.fromarray(ramp()).save(folder / "a.webp", lossless=True)
    (folder / "a.webp").write_bytes((folder / "a.webp").read_bytes()[:-40])
    return folder / "a.webp"


def _truncated_exr(folder: Path) -> Path:
    noise = np.random.default_rng(0).random((64, 64, 3)).astype(np.float32)
    path = write_exr(folder / "a.exr", {"RGB": noise})
    path.write_bytes(path.read_bytes()[:20000])
    return path


def _exr_header_only(folder: Path) -> Path:
    path = _truncated_exr(folder)
    path.write_bytes(path.read_bytes()[:100])
    return path


def _exr_without_colour(folder: Path) -> Path:
    return write_exr(folder / "a.exr", {"Z": np.ones((48, 64), np.float32)})


def _single_pixel(folder: Path) -> Path:
    Image.new("RGB", (1, 1)).save(folder / "a.png")
    return folder / "a.png"


def _thin(folder: Path) -> Path:
    Image.new("RGB", (640, 15)).save(folder / "a.png")
    return folder / "a.png"


def _huge_png(folder: Path) -> Path:
    return png_header_only(folder / "a.png", 20000, 20000)


def _too_large_png(folder: Path) -> Path:
    """Over our limit, under the one that Pillow has of its own."""
    return png_header_only(folder / "a.png", 8200, 8200)


def _huge_exr(folder: Path) -> Path:
    path = write_exr(folder / "a.exr", {"RGB": np.zeros((16, 16, 3), np.float16)})
    body = bytearray(path.read_bytes())
    at = body.index(b"dataWindow\0box2i\0") + len(b"dataWindow\0box2i\0") + 4
    body[at : at + 16] = struct.pack("<4i", 0, 0, 19999, 19999)
    path.write_bytes(body)
    return path


def _crowded_exr(folder: Path) -> Path:
    names = [f"pass{i:02}.V" for i in range(40)]
    path = write_exr(folder / "a.exr", {name: np.zeros((16, 16), np.float32) for name in names})
    body = bytearray(path.read_bytes())
    for window in (b"dataWindow", b"displayWindow"):
        at = body.index(window + b"\0box2i\0") + len(window + b"\0box2i\0") + 4
        body[at : at + 16] = struct.pack("<4i", 0, 0, 3999, 3999)
    path.write_bytes(body)
    return path


def _animated(name: str):
    def make(folder: Path) -> Path:
        pictures = [Image.fromarray(np.roll(ramp(), 9 * i, 1)) for i in range(3)]
        pictures[0].save(folder / name, save_all=True, append_images=pictures[1:])
        return folder / name

    make.__name__ = f"_animated_{name}"
    return make


def _gif(folder: Path) -> Path:
    Image.fromarray(ramp()).save(folder / "a.gif")
    return folder / "a.gif"


def _float_tiff(folder: Path) -> Path:
    Image.fromarray(np.random.default_rng(0).random((48, 64)).astype(np.float32)).save(folder / "a.tiff")
    return folder / "a.tiff"


def _pipe(folder: Path) -> Path:
    import os

    if sys.platform == "win32":
        pytest.skip("has no named pipes in folders")
    os.mkfifo(folder / "a.png")
    return folder / "a.png"


REFUSED = [
    (_missing, "there is no such file"),
    (_folder, "is a folder"),
    (_empty, "is empty"),
    (_text, "is not a PNG, JPEG, WebP, TIFF or EXR picture"),
    (_gif, "is not a PNG, JPEG, WebP, TIFF or EXR picture"),
    (_truncated_png, "truncated"),
    (_truncated_jpeg, "truncated"),
    (_truncated_webp, "damaged"),
    (_truncated_exr, "truncated"),
    (_exr_header_only, "truncated"),
    (_exr_without_colour, "no channels R, G, B or Y"),
    (_single_pixel, "1x1; a keyframe needs at least 16 pixels"),
    (_thin, "640x15; a keyframe needs at least 16 pixels"),
    (_huge_png, "more than 67 megapixels"),
    (_too_large_png, "8200x8200 has more than 67 megapixels"),
    (_huge_exr, "20000x20000 has more than 67 megapixels"),
    (_crowded_exr, "40 channels of 4000x4000"),
    (_animated("a.png"), "holds 3 pictures"),
    (_animated("a.webp"), "holds 3 pictures"),
    (_animated("a.tiff"), "holds 3 pictures"),
    (_float_tiff, "32-bit samples"),
    (_pipe, "is not a file"),
]


@pytest.mark.parametrize(("make", "sentence"), REFUSED, ids=[make.__name__.strip("_") for make, _ in REFUSED])
def test_bad_file_is_refused_in_one_line(tmp_path: Path, capfd, make, sentence: str) -> None:
    path = make(tmp_path)
    with pytest.raises(MediaError) as caught:
        read_picture(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert sentence in message
    assert "\n" not in message
    assert capfd.readouterr() == ("", ""), "a library complained beside our sentence"


def test_unreadable_file_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Permissions do not stop root, so the refusal of the system is played."""
    path = tmp_path / "a.png"
    Image.fromarray(ramp()).save(path)

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(MediaError, match="may not be read"):
        read_picture(path)


MEASURE = """
    import resource, sys
    from pathlib import Path
    import sfserver.media.read as read
    from PIL import Image
    if {unguarded}:
        read.MAX_SOURCE_PIXELS, Image.MAX_IMAGE_PIXELS = 10**12, None
    read.read_picture(Path({warm!r}))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        read.read_picture(Path({path!r}))
    except read.MediaError:
        pass
    sys.stdout.write(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux alone")
@pytest.mark.parametrize("unguarded", [False, True], ids=["guarded", "control"])
def test_size_is_checked_before_memory_is_taken_for_pixels(tmp_path: Path, unguarded: bool) -> None:
    """12000x12000: 144 MB as grey. The control takes the guard away and must take that memory."""
    bomb = png_header_only(tmp_path / "bomb.png", 12000, 12000)
    assert bomb.stat().st_size < 300_000
    assert MAX_SOURCE_PIXELS < 12000 * 12000
    Image.fromarray(ramp()).save(tmp_path / "warm.png")
    code = textwrap.dedent(MEASURE).format(path=str(bomb), warm=str(tmp_path / "warm.png"), unguarded=unguarded)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=True)
    grown_mib = int(done.stdout) / 1024
    assert (grown_mib > 130) if unguarded else (grown_mib < 10)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tiff", "a.exr"])
def test_damaged_bytes_raise_media_error_and_nothing_else(tmp_path: Path, name: str) -> None:
    """150 mutations of each kind; a mutation may also go unnoticed, which is a picture."""
    path = tmp_path / name
    if name == "a.exr":
        write_exr(path, {"RGB": linear_of(ramp())})
    else:
        Image.fromarray(ramp()).save(path)
    whole = path.read_bytes()
    rng = random.Random(20)
    refused = 0
    for _ in range(150):
        body = bytearray(whole)
        for _ in range(rng.randint(1, 6)):
            body[rng.randrange(min(len(body), 600) if rng.random() < 0.6 else len(body))] = rng.randrange(256)
        path.write_bytes(body[: rng.randint(1, len(body))] if rng.random() < 0.2 else body)
        try:
            read_picture(path)
        except MediaError:
            refused += 1
    assert 20 < refused < 150
