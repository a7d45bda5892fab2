"""`make bench-files`: what each codec does to the pictures of a folder, and what another program reads of its files.

    python -m sfserver.bench.files examples

Errors are of 8 bit, over all pictures. Times are of one processor and for writing alone; they are to compare codecs of
one run with each other. The tags are ffprobe's words, where it is installed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from attrs import frozen
from rich.console import Console
from rich.table import Table

from ..media import read_picture
from ..media.clip import ClipWriter
from ..media.codecs import CODECS, Codec
from ..samples import Form, Picture, conformed

_RATE = Fraction(24000, 1001)
_TIMECODE = "01:00:00:00"


@frozen
class Row:
    """One codec in one kind of file."""

    codec: str
    suffix: str
    worst: int
    mean: float
    ms_a_frame: float
    bytes_a_frame: int
    tags: str


def measure(codec: Codec, suffix: str, pictures: list[Picture], folder: Path) -> Row:
    """Write all pictures, which have one size, and read them back."""
    path = folder / f"{codec.name}{suffix}"
    height, width = pictures[0].shape[:2]
    began = time.process_time()
    clip = ClipWriter(path, width, height, _RATE, codec=codec, timecode=_TIMECODE)
    for picture in pictures:
        clip.write(picture)
    clip.close()
    spent = time.process_time() - began
    with av.open(str(path)) as container:
        read = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    errors = np.abs(np.stack(read).astype(int) - np.stack(pictures))
    count = len(pictures)
    per_frame = path.stat().st_size // count
    worst, mean = int(errors.max()), float(errors.mean())
    return Row(codec.name, suffix, worst, mean, 1000 * spent / count, per_frame, tags(path))


def tags(path: Path) -> str:
    """Format, matrix, range, transfer, primaries, rate and timecode of a movie, as ffprobe says them."""
    if shutil.which("ffprobe") is None:
        return "no ffprobe here"
    command = ["ffprobe", "-v", "error", "-select_streams", "v", "-show_streams", "-of", "json", str(path)]
    seen = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)
    video = seen["streams"][0]
    names = ("pix_fmt", "color_space", "color_range", "color_transfer", "color_primaries", "r_frame_rate")
    code = {name.lower(): value for name, value in video.get("tags", {}).items()}.get("timecode", "no timecode")
    return " ".join([*(str(video.get(name, "?")) for name in names), code])


def main(folder: str) -> None:
    loaded = [conformed(read_picture(path).image, Form()) for path in sorted(Path(folder).glob("*.png"))]
    pictures = [image for image in loaded if image.shape == loaded[0].shape]
    table = Table(title=f"{len(pictures)} pictures of {pictures[0].shape[1]}x{pictures[0].shape[0]}", box=None)
    for heading in ("codec", "file", "worst", "mean", "ms a frame", "kB a frame", "as ffprobe reads it"):
        table.add_column(heading, no_wrap=True)
    with tempfile.TemporaryDirectory() as scratch:
        for codec in CODECS.values():
            for suffix in codec.suffixes:
                r = measure(codec, suffix, pictures, Path(scratch))
                figures = (str(r.worst), f"{r.mean:.3f}", f"{r.ms_a_frame:.0f}", f"{r.bytes_a_frame / 1000:.0f}")
                table.add_row(r.codec, r.suffix, *figures, r.tags)
    Console(width=180, highlight=False).print(table)


if __name__ == "__main__":
    main(sys.argv[1])
