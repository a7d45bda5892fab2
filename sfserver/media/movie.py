"""One frame of a movie, the exact one, as a keyframe: sRGB with the alpha and the depth it has, upright, square pixels.

The frame is found by its time, not by seeking to where it should be: files begin with negative times, skip frames and
have keyframes where they like.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from attrs import frozen
from av.container import InputContainer
from av.video.reformatter import ColorRange, Colorspace

from ..samples import RGB8, Form, hides
from . import ycbcr
from .container import open_film
from .files import MediaError, Picture
from .fit import fit
from .read import MAX_SOURCE_PIXELS, Loaded, check_file

_HD_HEIGHT_PX = 720
"""Untagged colours of at least this height are BT.709 to everyone, of less BT.601."""
_READ = {RGB8: "rgb24", Form(4): "rgba", Form(3, 16): "rgb48le", Form(4, 16): "rgba64le"}
_SAME_RATE = 2e-3
"""Relative: 24 and 24000/1001 are the same rate, told sloppily by one of the two."""
_MOST_DECODED = 2000
"""Frames that are decoded to get at one, where a file has few keyframes or says nothing true about them."""


@frozen
class _Wanted:
    """`time` in seconds from the first frame, counted in frames of `rate` by whoever says so."""

    time: Fraction
    rate: Fraction | None

    def index(self, real: Fraction) -> int:
        """Which frame of a file of `real` frames a second that is."""
        counted = self.rate if self.rate and abs(self.rate / real - 1) < _SAME_RATE else real
        return round(self.time * counted)


def read_movie(path: Path, time: Fraction, rate: Fraction | None = None) -> Loaded:
    """The picture that is seen `time` seconds after the first one, [H, W, 3 or 4] uint8 or uint16 sRGB.

    Alpha that hides nothing is left out. `rate`: frames a second by which `time` was counted. Raises MediaError.
    """
    check_file(path)
    try:
        with open_film(path) as container:
            if not container.streams.video:
                raise MediaError(f"{path}: has no pictures in it")
            stream = container.streams.video[0]
            if stream.width * stream.height > MAX_SOURCE_PIXELS:
                raise MediaError(f"{path}: {stream.width}x{stream.height} is too large; scale it down first")
            frame = _find(path, container, stream, _Wanted(time, rate))
            return Loaded(_upright(_picture(frame), frame, stream))
    except MediaError:
        raise
    except Exception as error:  # a boundary: what decoders raise about bytes of strangers is not a documented set
        reason = " ".join(str(error).split()) or type(error).__name__
        raise MediaError(f"{path}: is no movie that can be read ({reason}); render it again") from None


def _find(path: Path, container: InputContainer, stream: av.VideoStream, wanted: _Wanted) -> av.VideoFrame:
    real = stream.average_rate or stream.base_rate
    if not real or real <= 0 or stream.time_base is None:
        raise MediaError(f"{path}: does not say how many frames a second it has; render it again")
    index = wanted.index(real)
    start = (stream.start_time or 0) * stream.time_base
    target = start + index / real
    half = Fraction(1, 2) / real
    for seeks in (True, False):  # an index that lies leads behind the frame: then all from the beginning
        container.seek(int((target - half) / stream.time_base) if seeks and index else 0, stream=stream)
        found: av.VideoFrame | None = None
        for count, frame in enumerate(container.decode(stream)):
            if frame.pts is None or count > _MOST_DECODED or frame.pts * stream.time_base > target + half:
                break
            found = frame
        if found is not None and found.pts is not None and found.pts * stream.time_base >= target - half:
            return found
    raise MediaError(f"{path}: has no frame {index}; it may be shorter than the timeline believes")


def _picture(frame: av.VideoFrame) -> Picture:
    parts = frame.format.components
    form = Form(4 if any(part.is_alpha for part in parts) else 3, 16 if max(part.bits for part in parts) > 8 else 8)
    image = _pixels(frame, form)
    return np.ascontiguousarray(image if hides(image) else image[..., :3])


def _pixels(frame: av.VideoFrame, form: Form) -> Picture:
    if frame.format.is_rgb:
        return frame.to_ndarray(format=_READ[form])
    matrix = Colorspace(frame.colorspace) if frame.colorspace in {int(c) for c in ycbcr.WEIGHTS} else None
    matrix = matrix or (Colorspace.ITU709 if frame.height >= _HD_HEIGHT_PX else Colorspace.ITU601)
    full = frame.color_range == int(ColorRange.JPEG)
    if ycbcr.is_whole(frame):
        return ycbcr.picture_of(frame, matrix, full)
    converted = frame.reformat(
        format=_READ[form],
        src_colorspace=matrix,
        src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
    )
    return converted.to_ndarray()


def _upright(image: Picture, frame: av.VideoFrame, stream: av.VideoStream) -> Picture:
    """Pixels made square, turned as the file says."""
    aspect = stream.sample_aspect_ratio
    if aspect and aspect > 0 and aspect != 1 and 1 / 8 <= aspect <= 8:
        height, width = image.shape[:2]
        image = fit(image, max(1, round(width * aspect)), height, "stretch")
    turns = round((frame.rotation or 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image
