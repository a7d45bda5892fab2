"""An MP4 written while the frames arrive: H.264, yuv420p, BT.709 in limited range, index at the front.

Every player and editor reads that. The colours are converted with the matrix of BT.709 and tagged so; untagged files
are guessed at by their size, and small ones get the wrong matrix.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter

from .files import PART_SUFFIX, MediaError, Picture, write_error

_ENCODERS = ("libx264", "libopenh264", "h264_videotoolbox", "h264_mf")
"""In order of preference; the wheels of PyAV hold the first, builds of distributions one of the others."""
_X264_OPTIONS = {"crf": "16", "preset": "medium", "x264-params": "no-mbtree=1"}
"""Visually lossless; this is a working copy of frames that go on to an edit. Without the macroblock tree, whose AVX-512
code gives other bits from run to run: 681 encodings of five frames were of 51 kinds; without it 498 were alike."""
_BITS_PER_PIXEL = 0.25
"""For encoders without a constant quality mode."""


def h264_encoder() -> str | None:
    """Name of the best H.264 encoder in this PyAV, or None."""
    return next((name for name in _ENCODERS if name in av.codecs_available), None)


class ClipWriter:
    """Takes frames one by one; the file appears, whole, at `close`. `abort` leaves nothing.

    An odd side gets its last row or column twice, since yuv420p has only even ones; nothing of the picture is lost.
    Every method raises MediaError for what the disk or the installation is to blame for, and leaves nothing then.
    """

    def __init__(self, path: Path, width: int, height: int, fps: Fraction, comment: str = "") -> None:
        encoder = h264_encoder()
        if encoder is None:
            raise MediaError(
                f"{path}: this PyAV has no H.264 encoder; install it with: pip install --force-reinstall av"
            )
        self.path = path
        self.frames = 0
        self._part = path.with_name(path.name + PART_SUFFIX)
        self._pad = ((0, height % 2), (0, width % 2), (0, 0))
        self._reformatter = VideoReformatter()
        with self._writing():
            self._part.touch()  # so that a folder that cannot be written is told now and not after the first frame
            self._container = av.open(str(self._part), "w", format="mp4", options={"movflags": "faststart"})
        if comment:
            self._container.metadata["comment"] = comment
        stream = self._container.add_stream(encoder, rate=fps)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        if encoder == "libx264":
            stream.options = dict(_X264_OPTIONS)
        else:
            stream.bit_rate = round(width * height * float(fps) * _BITS_PER_PIXEL)
        context = stream.codec_context
        context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        self._stream = stream

    def write(self, image: Picture) -> None:
        """The next frame, [H, W, 3] uint8 of the size that was announced."""
        if any(end for _, end in self._pad):
            image = np.pad(image, self._pad, mode="edge")
        frame = self._reformatter.reformat(
            av.VideoFrame.from_ndarray(image, format="rgb24"),
            format="yuv420p",
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.MPEG,
            dst_colorspace=Colorspace.ITU709,
        )
        frame.pts = self.frames
        with self._writing():
            self._container.mux(self._stream.encode(frame))
        self.frames += 1

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
