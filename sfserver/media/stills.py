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
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from .exr import REC709, quiet

TEXT_KEY = "sfserver"
"""Keyword of a text chunk (PNG, 11.3.3), and name of an EXR attribute."""
SUFFIXES = (".png", ".tif", ".tiff", ".exr")
DEPTHS = (8, 16)
_COMPRESS_LEVEL = 3
"""zlib: half the time of the default 6 for files a few percent larger."""
TIFF_DESCRIPTION = 270
_BEFORE_CHUNKS = 33
"""Bytes of a PNG: its signature and the header chunk, which is the first."""

Samples = NDArray[np.uint8] | NDArray[np.uint16]
"""[H, W, 3] sRGB."""


def write_still(path: Path, image: Samples, suffix: str, depth: int = 8, text: str = "") -> None:
    """Write `image` to `path`, whose own suffix does not count. `text` is kept in the file. Raises OSError."""
    if suffix == ".exr":
        _write_exr(path, image, text)
    elif depth == 16:
        _write_16(path, _to_16(image), suffix, text)
    else:
        _write_8(path, np.asarray(image, np.uint8), suffix, text)


def _write_8(path: Path, image: NDArray[np.uint8], suffix: str, text: str) -> None:
    picture = Image.fromarray(image)
    if suffix == ".png":
        info = PngInfo()
        if text:
            info.add_text(TEXT_KEY, text)
        picture.save(path, format="PNG", compress_level=_COMPRESS_LEVEL, pnginfo=info)
    else:
        tags = {TIFF_DESCRIPTION: text} if text else {}
        picture.save(path, format="TIFF", compression="tiff_adobe_deflate", tiffinfo=tags)


def _write_16(path: Path, image: NDArray[np.uint16], suffix: str, text: str) -> None:
    """By FFmpeg's encoders: Pillow writes no colours of 16 bits."""
    name, pixels = ("png", "rgb48be") if suffix == ".png" else ("tiff", "rgb48le")
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


def _write_exr(path: Path, image: Samples, text: str) -> None:
    linear = linear_from_srgb(image).astype(np.float16)
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage, "chromaticities": REC709}
    if text:
        header[TEXT_KEY] = text
    channels = {name: np.ascontiguousarray(linear[..., i]) for i, name in enumerate("RGB")}
    try:
        with quiet():
            OpenEXR.File(header, channels).write(str(path))
    except RuntimeError as error:  # what the library makes of a full disk or a folder that is gone
        raise OSError(f"{error}") from error


def linear_from_srgb(image: Samples) -> NDArray[np.float32]:
    """IEC 61966-2-1: samples of 8 or 16 bits as linear light, 0..1."""
    most = np.iinfo(image.dtype).max
    value = image.astype(np.float32) / most
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4).astype(np.float32)


def _to_16(image: Samples) -> NDArray[np.uint16]:
    return image.astype(np.uint16) * 257 if image.dtype == np.uint8 else image.astype(np.uint16)
