"""Frames out of a film, one after the other, each at the size that is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .container import open_film
from .files import MediaError, Picture
from .fit import fit

SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")


def read_frames(path: Path, width: int, height: int) -> Iterator[Picture]:
    """All frames [height, width, 3] uint8, what sticks out cut off at both sides. Raises MediaError, also midway.

    This is a boundary: what a decoder raises about damaged bytes is not a documented set, so every Exception is caught.
    """
    try:
        with open_film(path) as container:
            if not container.streams.video:
                raise MediaError(f"{path}: holds no pictures; take a film")
            for frame in container.decode(video=0):
                picture = np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
                yield fit(picture, width, height, "crop")
    except MediaError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise MediaError(f"{path}: cannot be read as a film ({reason}); export it again") from None
