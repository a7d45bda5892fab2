"""A movie written while the frames arrive: usually H.264 in MP4, yuv420p, BT.709 in limited range, index at the front.

Every player and editor reads that; `codecs.py` has the others. Colours are tagged on the stream and on every frame:
ProRes keeps primaries and transfer only from frames.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from ..samples import RGB8, Form, Picture, conformed
from . import codecs, ycbcr
from .codecs import Codec, codec_for
from .files import PART_SUFFIX, MediaError, begin, write_error

_BITS_PER_PIXEL = 0.25
"""For encoders without a constant quality mode."""
_SOURCE = {RGB8: "rgb24", Form(4): "rgba", Form(3, 16): "rgb48le", Form(4, 16): "rgba64le"}
_ROUNDED_BY_US = "yuv444p10le", "yuva444p10le"
_ACCURATE_RND = 0x40000
_CONVERSION = Interpolation.BICUBIC | _ACCURATE_RND
"""FFmpeg's usual way to other pixels, rounded alike. Its quicker code gives other bits from run to run where a
side is no multiple of 16: 60 conversions of a picture of 130x98 were of 4 kinds."""


def h264_encoder() -> str | None:
    """Name of the best H.264 encoder in this PyAV, or None."""
    return codecs.H264.encoder()


class ClipWriter:
    """Takes frames one by one; the file appears, whole, at `close`. `abort` leaves nothing.

    Where colours are subsampled an odd side gets its last row or column twice; nothing of the picture is lost. Every
    method raises MediaError for what the disk or the installation is to blame for, and leaves nothing then.
    """

    def __init__(
        self,
        path: Path,
        width: int,
        height: int,
        fps: Fraction,
        comment: str = "",
        codec: Codec | None = None,
        timecode: str = "",
        form: Form = RGB8,
    ) -> None:
        """`comment`: text for the file's metadata. `timecode`: of the first frame, as in 01:00:00:00. `form`: of the
        pictures that will come; as much of it is kept as the codec can."""
        codec = codec or codec_for(path)
        encoder = codec.encoder()
        if encoder is None:
            name = "H.264" if codec is codecs.H264 else codec.name
            raise MediaError(
                f"{path}: this PyAV has no {name} encoder; install it with: pip install --force-reinstall av"
            )
        self.path = path
        self.frames = 0
        self._codec = codec
        self._form = codec.form(form)
        self._pixels = codec.pixels[self._form]
        self._part = path.with_name(path.name + PART_SUFFIX)
        self._pad = ((0, height % 2), (0, width % 2), (0, 0)) if codec.is_subsampled else ((0, 0),) * 3
        self._reformatter = VideoReformatter()
        container = codecs.FORMAT_OF[path.suffix.lower()]
        options = {} if container == "matroska" else {"movflags": "faststart"}
        with self._writing():
            begin(self._part)  # so that a folder that cannot be written is told now and not after the first frame
            self._container = av.open(str(self._part), "w", format=container, options=options)
        if comment:
            self._container.metadata["comment"] = comment
        stream = self._container.add_stream(encoder, rate=fps)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width + self._pad[1][1], height + self._pad[0][1], self._pixels
        if encoder == codec.encoders[0]:
            stream.options = dict(codec.options)
        else:
            stream.bit_rate = round(width * height * float(fps) * _BITS_PER_PIXEL)
        if timecode:
            stream.metadata["timecode"] = timecode
        _tag(stream.codec_context, codec)
        self._stream = stream

    def write(self, image: Picture) -> None:
        """The next frame, of the size that was announced."""
        image = conformed(image, self._form)
        if any(end for _, end in self._pad):
            image = np.pad(image, self._pad, mode="edge")
        frame = self._frame(image)
        _tag(frame, self._codec)
        frame.pts = self.frames
        with self._writing():
            self._container.mux(self._stream.encode(frame))
        self.frames += 1

    def _frame(self, image: Picture) -> av.VideoFrame:
        if self._pixels in _ROUNDED_BY_US:
            return ycbcr.frame_of(image, self._pixels)
        return self._reformatter.reformat(
            av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format=_SOURCE[self._form]),
            format=self._pixels,
            src_color_range=ColorRange.JPEG,
            dst_color_range=self._codec.tags.range,
            dst_colorspace=None if self._codec.is_rgb else self._codec.tags.matrix,
            interpolation=_CONVERSION,
        )

    def close(self) -> None:
        """Finish the file and let it appear, replacing what was there. Without a single frame it is an `abort`."""
        if not self.frames:
            self.abort()
            return
        with self._writing():
            self._container.mux(self._stream.encode(None))
            self._container.close()
            os.replace(self._part, self.path)

    def abort(self) -> None:
        with contextlib.suppress(OSError):
            self._container.close()
        with contextlib.suppress(OSError):
            self._part.unlink()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            with contextlib.suppress(OSError):
                self._part.unlink()
            raise write_error(self.path, error) from error


def _tag(what: av.VideoCodecContext | av.VideoFrame, codec: Codec) -> None:
    what.colorspace, what.color_range = codec.tags.matrix, codec.tags.range
    what.color_primaries, what.color_trc = codec.tags.primaries, codec.tags.transfer
