"""One picture in a file: PNG and TIFF with 8 or 16 bits a sample in sRGB, EXR with half floats in linear light.

Sources: PNG (third edition) for the chunk of text; the OpenEXR file layout for `chromaticities`.
"""

from __future__ import annotations

import struct
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import OpenEXR
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..samples import Form, Picture, conformed, form_of, premultiplied, to_linear, unit
from .exr import REC709, quiet

TEXT_KEY = "sfserver"
"""Keyword of a text chunk (PNG, 11.3.3), and name of an EXR attribute."""
SUFFIXES = (".png", ".tif", ".tiff", ".exr")
DEPTHS = (8, 16)
_MOST_HALF = 65504
"""The largest number that a half can be."""
_COMPRESS_LEVEL = 3
"""zlib: half the time of the default 6 for files a few percent larger."""
TIFF_DESCRIPTION = 270
_BEFORE_CHUNKS = 33
"""Bytes of a PNG: its signature and the header chunk, which is the first."""


def write_still(path: Path, image: Picture, suffix: str, depth: int | None = None, text: str = "") -> None:
    """Write `image` to `path`, whose own suffix does not count. `text` is kept in the file. Raises OSError.

    `depth` is bits a sample of PNG and TIFF; None is as many as the picture has, at most 16.
    """
    form = form_of(image)
    if suffix == ".exr":
        _write_exr(path, image, text)
    elif (depth or form.depth) > 8:
        _write_16(path, conformed(image, Form(form.channels, 16)), suffix, text)
    else:
        _write_8(path, conformed(image, Form(form.channels, 8)), suffix, text)


def _write_8(path: Path, image: Picture, suffix: str, text: str) -> None:
    picture = Image.fromarray(image)
    if suffix == ".png":
        info = PngInfo()
        if text:
            info.add_text(TEXT_KEY, text)
        picture.save(path, format="PNG", compress_level=_COMPRESS_LEVEL, pnginfo=info)
    else:
        tags = {TIFF_DESCRIPTION: text} if text else {}
        picture.save(path, format="TIFF", compression="tiff_adobe_deflate", tiffinfo=tags)


def _write_16(path: Path, image: Picture, suffix: str, text: str) -> None:
    """By FFmpeg's encoders: Pillow writes no colours of 16 bits."""
    colours = "rgba64" if form_of(image).has_alpha else "rgb48"
    name, pixels = ("png", f"{colours}be") if suffix == ".png" else ("tiff", f"{colours}le")
    encoder = av.VideoCodecContext.create(name, "w")
    encoder.height, encoder.width = image.shape[:2]
    encoder.pix_fmt, encoder.time_base = pixels, Fraction(1)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format=pixels)
    content = b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])
    if suffix == ".png" and text:
        content = content[:_BEFORE_CHUNKS] + _text_chunk(text) + content[_BEFORE_CHUNKS:]
    path.write_bytes(content)


def _text_chunk(text: str) -> bytes:
    body = b"tEXt" + TEXT_KEY.encode() + b"\0" + text.encode("latin-1")
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


def _write_exr(path: Path, image: Picture, text: str) -> None:
    """Alpha is associated there: the light is multiplied by it."""
    linear = linear_from_srgb(image)
    linear = (premultiplied(linear) if form_of(image).has_alpha else linear).clip(max=_MOST_HALF).astype(np.float16)
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage, "chromaticities": REC709}
    if text:
        header[TEXT_KEY] = text
    channels = {name: np.ascontiguousarray(linear[..., i]) for i, name in enumerate("RGBA"[: linear.shape[2]])}
    try:
        with quiet():
            OpenEXR.File(header, channels).write(str(path))
    except RuntimeError as error:  # what the library makes of a full disk or a folder that is gone
        raise OSError(f"{error}") from error


def linear_from_srgb(image: Picture) -> Picture:
    """A picture as linear light, 0..1 and above; alpha as it is."""
    of_unit = unit(image)
    return np.concatenate((to_linear(of_unit[..., :3]), of_unit[..., 3:]), axis=-1)
