"""Pictures that say which one they are: a number in black and white fields, which survives any codec and scaler."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

BITS = 12
SIDE_PX = 16
WIDTH, HEIGHT = BITS * SIDE_PX, 4 * SIDE_PX


def picture(number: int) -> np.ndarray:
    """[HEIGHT, WIDTH, 3]: the most significant bit first, above its opposite, so that a wrong picture is noticed."""
    assert 0 <= number < 2**BITS
    bits = np.array([(number >> (BITS - 1 - i)) & 1 for i in range(BITS)], np.uint8) * 255
    upper = np.repeat(np.repeat(bits[None], HEIGHT // 2, 0), SIDE_PX, 1)
    return np.repeat(np.concatenate([upper, 255 - upper])[..., None], 3, axis=2)


def number(image: np.ndarray) -> int:
    """What the picture of any size says. Raises where it is none of ours."""
    height, width = image.shape[:2]
    rows, columns = (height * np.array([1, 3])) // 4, ((np.arange(BITS) * 2 + 1) * width) // (2 * BITS)
    upper, lower = (image[row, columns].mean(axis=-1) > 127 for row in rows)
    assert (upper != lower).all(), "not a barcode"
    return int("".join(str(int(bit)) for bit in upper), 2)


def still(path: Path, which: int) -> Path:
    Image.fromarray(picture(which)).save(path)
    return path


def movie(path: Path, numbers: Iterable[int], rate: Fraction, gop: int = 12) -> Path:
    """H.264 with few keyframes and pictures that refer to later ones: no frame is where its bytes are."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"g": str(gop), "bf": "3", "preset": "ultrafast"}
        for i, which in enumerate(numbers):
            frame = av.VideoFrame.from_ndarray(picture(which), format="rgb24")
            frame.pts = i
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def read_numbers(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        return [number(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
