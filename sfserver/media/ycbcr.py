"""RGB as Y'CbCr in which every pixel has its own colour, and back, each sample rounded once.

FFmpeg's own way from 16 bits does not round: pictures of 8 bits that went it came back with a mean error of 0.69 steps,
and with 0.03 by this one. Its way back is right to a step or two of 8 bits and no more.
"""

from __future__ import annotations

from collections.abc import Mapping

import av
import numpy as np
from av.video.plane import VideoPlane
from av.video.reformatter import Colorspace

from ..samples import Form, Picture, from_unit, unit

_BT709 = 0.2126, 0.0722
WEIGHTS: Mapping[int, tuple[float, float]] = {
    Colorspace.ITU709: _BT709,
    Colorspace.ITU601: (0.299, 0.114),
    Colorspace.FCC: (0.30, 0.11),
    Colorspace.SMPTE240M: (0.212, 0.087),
}
"""Of red and blue in luma, by the matrix that a film says it has (ITU-T H.273, table 4)."""
_MOST = 1023
_OF_EIGHT_BITS = 219, 224
"""Steps of luma and of colour in limited range, which begins at 16, and with its middle at 128."""


def frame_of(image: Picture, pixels: str) -> av.VideoFrame:
    """[H, W, 3 or 4] as yuv444p10le or yuva444p10le, BT.709 in limited range (ITU-R BT.709-6, 3.2 to 3.5)."""
    samples, (of_red, of_blue) = unit(image), _BT709
    red, green, blue = samples[..., 0], samples[..., 1], samples[..., 2]
    luma = of_red * red + (1 - of_red - of_blue) * green + of_blue * blue
    planes = [64 + 876 * luma, *(512 + 448 * (c - luma) / (1 - of) for c, of in ((blue, of_blue), (red, of_red)))]
    planes += [_MOST * samples[..., 3]] if samples.shape[2] == 4 else []
    height, width = image.shape[:2]
    frame = av.VideoFrame(width, height, pixels)
    for plane, values in zip(frame.planes, planes, strict=True):
        rows = np.zeros((height, plane.line_size // 2), "<u2")
        rows[:, :width] = np.clip(np.rint(values), 0, _MOST)
        plane.update(rows.tobytes())
    return frame


def is_whole(frame: av.VideoFrame) -> bool:
    """Whether `picture_of` takes it: more than 8 bits a sample, and a colour for every pixel."""
    name = frame.format.name
    return name.startswith(("yuv444p1", "yuva444p1")) and name.endswith("le")


def picture_of(frame: av.VideoFrame, matrix: int, full: bool) -> Picture:
    """[H, W, 3 or 4] uint16. `full`: samples use all that their bits can say."""
    bits = frame.format.components[0].bits
    luma, of_blue, of_red, *alpha = (_samples(plane, frame.width) for plane in frame.planes)
    step, most = 2.0 ** (bits - 8), 2.0**bits - 1
    luma_steps, colour_steps = (most, most) if full else (n * step for n in _OF_EIGHT_BITS)
    red_weight, blue_weight = WEIGHTS[matrix]
    luma = (luma - (0 if full else 16 * step)) / luma_steps
    red = luma + 2 * (1 - red_weight) * (of_red - 128 * step) / colour_steps
    blue = luma + 2 * (1 - blue_weight) * (of_blue - 128 * step) / colour_steps
    green = (luma - red_weight * red - blue_weight * blue) / (1 - red_weight - blue_weight)
    planes = [red, green, blue, *(plane / most for plane in alpha)]
    return from_unit(np.stack(planes, axis=-1), Form(len(planes), 16))


def _samples(plane: VideoPlane, width: int) -> np.ndarray:
    rows = np.frombuffer(bytes(plane), "<u2").reshape(plane.height, plane.line_size // 2)
    return rows[:, :width].astype(np.float32)
