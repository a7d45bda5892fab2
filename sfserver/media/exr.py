"""EXR keyframes: scene-linear light as renderers write it. Layered and multi-part files give their combined picture.

Format: the OpenEXR file layout; alpha is associated (premultiplied), and the display window is the picture.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import OpenEXR
from numpy.typing import NDArray

from ..samples import straight
from .files import MediaError

_MAGIC = b"\x76\x2f\x31\x01"
_MAX_DECODED_BYTES = 1024**3
"""All channels of a file are decoded at once, the render passes that nobody asked for too."""
_BYTES_PER_SAMPLE = 4
"""At most: the samples are half, float or uint."""
REC709 = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, 0.3127, 0.3290)
"""Chromaticities of red, green, blue and white: also what a file without that attribute has."""


def is_exr(path: Path) -> bool:
    """By content: the name may say anything."""
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def text_of(path: Path, name: str) -> str | None:
    """An attribute of the header that is a text; None where there is none, or no header that can be read."""
    try:
        with quiet():
            found = OpenEXR.File(str(path), header_only=True).header().get(name)
    except Exception:  # a boundary: the library raises what it likes about damaged files
        return None
    return found if isinstance(found, str) else None


def read_linear(path: Path, max_pixels: int) -> tuple[NDArray[np.float32], list[str]]:
    """The picture in linear light, [H, W, 3], or [H, W, 4] with straight alpha where it hides anything, and notes for
    its owner.

    Raises MediaError, and what OpenEXR raises. Sizes are checked from the header, before pixels are decoded.
    """
    with quiet():
        header_file = OpenEXR.File(str(path), header_only=True)
        for i in range(len(header_file.parts)):
            _check_header(header_file.header(i), max_pixels)
        file = OpenEXR.File(str(path), separate_channels=True)
    if len(file.parts) < len(header_file.parts):  # it drops a part that it cannot decode, without raising
        raise MediaError("is truncated or damaged; export it again")
    part, prefix = _find_picture(file)
    header, channels = file.header(part), file.channels(part)
    names = [prefix + c for c in "RGB"] if prefix + "R" in channels else [prefix + "Y"] * 3
    shape = channels[names[0]].pixels.shape
    if any(channels[name].pixels.shape != shape for name in names):
        raise MediaError("has colour channels of different sizes; export it as RGB")
    notes: list[str] = []
    linear = np.stack([channels[name].pixels.astype(np.float32) for name in names], axis=-1)
    if prefix + "A" in channels and channels[prefix + "A"].pixels.min() < 1:
        opacity = np.clip(channels[prefix + "A"].pixels.astype(np.float32), 0, 1)[..., None]
        linear = straight(np.concatenate((linear, opacity), axis=-1))
    if "chromaticities" in header and not np.allclose(header["chromaticities"], REC709, atol=2e-3):
        notes.append("its primaries are not Rec.709, so colours will look wrong; export it as linear Rec.709 (sRGB)")
    return _display_window(linear, header), notes


def _check_header(header: dict[str, Any], max_pixels: int) -> None:
    for window in ("dataWindow", "displayWindow"):
        width, height = _window_size(header[window])
        if width < 1 or height < 1:
            raise MediaError(f"has a {window} of {width}x{height}; export it again")
        if width * height > max_pixels:
            raise MediaError(f"{width}x{height} has more than {max_pixels // 10**6} megapixels; scale it down first")
    width, height = _window_size(header["dataWindow"])
    channels = len(header["channels"])
    if width * height * channels * _BYTES_PER_SAMPLE > _MAX_DECODED_BYTES:
        raise MediaError(f"has {channels} channels of {width}x{height}, too many to read at once; export RGB alone")


def _window_size(window: Any) -> tuple[int, int]:
    (left, top), (right, bottom) = ((int(c) for c in corner) for corner in window)
    return right - left + 1, bottom - top + 1


def _find_picture(file: OpenEXR.File) -> tuple[int, str]:
    """(part, prefix of the channel names): the plain channels, else a layer called Combined, else the first layer."""
    found: list[tuple[int, int, str]] = []
    for part in range(len(file.parts)):
        channels = file.channels(part)
        for name in channels:
            prefix = name[:-1]
            if name == "Y" or (name[-1:] == "R" and {prefix + "G", prefix + "B"} <= channels.keys()):
                rank = 0 if not prefix else 1 if "combined" in prefix.lower() else 2
                found.append((rank, part, prefix))
    if not found:
        raise MediaError("has no channels R, G, B or Y; export it as RGB")
    _, part, prefix = min(found)
    return part, prefix


def _display_window(linear: NDArray[np.float32], header: dict[str, Any]) -> NDArray[np.float32]:
    """What is shown of the data: cut where there is overscan, black where there is nothing."""
    width, height = _window_size(header["displayWindow"])
    (data_left, data_top), (left, top) = header["dataWindow"][0], header["displayWindow"][0]
    x, y = int(data_left - left), int(data_top - top)
    if (x, y) == (0, 0) and linear.shape[:2] == (height, width):
        return linear
    shown = np.zeros((height, width, linear.shape[2]), np.float32)
    data = linear[max(0, -y) : max(0, height - y), max(0, -x) : max(0, width - x)]
    shown[max(0, y) : max(0, y) + data.shape[0], max(0, x) : max(0, x) + data.shape[1]] = data
    return shown


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """OpenEXR writes about damaged files on both standard streams, below Python's too; our own sentence is enough."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere, contextlib.redirect_stdout(io.StringIO()):
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
