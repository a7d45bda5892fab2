"""How frames are kept in a movie: codecs, which files hold them, and what tells a reader about their colours.

Measured by `make bench-files`: worst error of 8 bit, tags as an independent reader sees them, time.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import av
from attrs import field, frozen
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from ..samples import Form
from .files import MediaError

FORMAT_OF = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""Names of containers to FFmpeg, by the suffix of a movie."""


@frozen
class Tags:
    """What a movie says of its colours."""

    matrix: int
    range: ColorRange
    transfer: ColorTrc
    primaries: ColorPrimaries = ColorPrimaries.BT709


_NO_MATRIX = 0
"""RGB as it is (ITU-T H.273, table 4)."""
_VIDEO = Tags(Colorspace.ITU709, ColorRange.MPEG, ColorTrc.BT709)
"""As every player reads video. Untagged files are guessed at by their size, and small ones get the wrong matrix."""
_RGB = Tags(_NO_MATRIX, ColorRange.JPEG, ColorTrc.IEC61966_2_1)
"""No matrix at all: sRGB as the pictures have it."""


@frozen
class Codec:
    """One way of keeping frames."""

    name: str
    title: str
    encoders: tuple[str, ...]
    """In order of preference; the wheels of PyAV hold the first, builds of distributions perhaps another."""
    suffixes: tuple[str, ...]
    pixels: Mapping[Form, str]
    """FFmpeg's name of what is encoded, for each kind of picture that it can keep."""
    tags: Tags
    options: Mapping[str, str] = field(factory=dict[str, str])
    """Of the first encoder."""
    is_subsampled: bool = False
    """It has colours for every second pixel alone, so sides are even."""

    def form(self, wanted: Form) -> Form:
        """As much of a kind of picture as it keeps."""
        channels = max(form.channels for form in self.pixels if form.channels <= wanted.channels)
        depth = max(form.depth for form in self.pixels if form.depth <= max(wanted.depth, self.least_depth))
        return Form(channels, depth)

    @property
    def least_depth(self) -> int:
        return min(form.depth for form in self.pixels)

    @property
    def is_rgb(self) -> bool:
        """Pixels are kept as they come."""
        return self.tags.matrix == _NO_MATRIX

    def encoder(self) -> str | None:
        """The best that this PyAV has."""
        return next((name for name in self.encoders if name in av.codecs_available), None)


H264 = Codec(
    "h264",
    "H.264, 8 bit 4:2:0, visually lossless: every player and editor reads it",
    ("libx264", "libopenh264", "h264_videotoolbox", "h264_mf"),
    (".mp4", ".mov", ".mkv"),
    {Form(): "yuv420p"},
    _VIDEO,
    # Without the macroblock tree, whose AVX-512 code gives other bits from run to run: 681 encodings of five frames
    # were of 51 kinds; without it 498 were alike.
    {"crf": "16", "preset": "medium", "x264-params": "no-mbtree=1"},
    is_subsampled=True,
)
PRORES = Codec(
    "prores",
    "ProRes 4444, 10 bit, with alpha: what editors work in",
    ("prores_ks",),
    (".mov", ".mkv"),
    {Form(3, 16): "yuv444p10le", Form(4, 16): "yuva444p10le"},
    _VIDEO,
    # By default 8 bit errs by up to 14, with these bits by 3, with the finest matrix of FFmpeg (XQ luma, unnamed) by 1
    {"profile": "4444", "bits_per_mb": "8000", "quant_mat": "5", "vendor": "apl0"},
)
FFV1 = Codec(
    "ffv1",
    "FFV1, lossless: archives",
    ("ffv1",),
    (".mkv",),
    {Form(): "bgr0", Form(4): "bgra", Form(3, 16): "gbrp16le", Form(4, 16): "gbrap16le"},
    _RGB,
    {"level": "3", "slicecrc": "1", "slices": "4", "g": "1"},
)
PNG = Codec(
    "png",
    "PNG pictures in a movie, lossless: compositing",
    ("png",),
    (".mov",),
    {Form(): "rgb24", Form(4): "rgba", Form(3, 16): "rgb48be", Form(4, 16): "rgba64be"},
    _RGB,
)
CODECS = {codec.name: codec for codec in (H264, PRORES, FFV1, PNG)}
_USUAL = {".mp4": H264, ".mov": PRORES, ".mkv": FFV1}


def codec_named(name: str) -> Codec:
    """Raises MediaError where there is none of that name."""
    if name not in CODECS:
        raise MediaError(f"--codec {name}: there are {', '.join(CODECS)}")
    return CODECS[name]


def codec_for(path: Path, name: str = "") -> Codec:
    """The codec `name`, or the usual one for a file of that suffix. Raises MediaError where they do not go together."""
    suffix = path.suffix.lower()
    if suffix not in FORMAT_OF:
        raise MediaError(f"{path}: movies end in {', '.join(FORMAT_OF)}; choose another name with --out")
    codec = codec_named(name) if name else _USUAL[suffix]
    if suffix not in codec.suffixes:
        raise MediaError(
            f"{path}: {codec.name} is kept in {' or '.join(codec.suffixes)}; choose such a name with --out"
        )
    return codec
