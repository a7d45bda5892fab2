"""`make bench-files`: what each codec does to the pictures of a folder, and what another program reads of its files.

    python -m sfserver.bench.files examples

Errors are in steps of 8 bit, over all pictures: of pictures with 8 bits, and with 16; of those with a soft alpha the
error of that too. They are of what is in the file, as it is read here (`media.movie`); what FFmpeg's own conversion to
RGB makes of it, as many programs show it, is beside them. Times are of one processor and for writing alone; they are
to compare codecs of one run with each other. The tags are ffprobe's words, where it is installed.
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
from ..media.movie import read_movie
from ..samples import RGB8, Form, Picture, conformed

_RATE = Fraction(24000, 1001)
_TIMECODE = "01:00:00:00"
_READ = {RGB8: "rgb24", Form(4): "rgba", Form(3, 16): "rgb48le", Form(4, 16): "rgba64le"}


@frozen
class Row:
    """One codec in one kind of file."""

    codec: str
    kind: str
    suffix: str
    worst: float
    mean: float
    worst_alpha: float | None
    worst_by_ffmpeg: float
    ms_a_frame: float
    bytes_a_frame: int
    tags: str


def kinds(codec: Codec) -> list[Form]:
    """Of pictures that are tried: those that it keeps, and the same with 8 bits where it has more."""
    tried = {*codec.pixels, *(Form(form.channels) for form in codec.pixels)}
    return sorted(tried, key=lambda form: (form.depth, form.channels))


def drawn(picture: Picture, form: Form) -> Picture:
    """RGB8 in another kind: alpha that rises from left to right, low bits that are drawn at random."""
    if form.has_alpha:
        rising = np.rint(np.linspace(0, 255, picture.shape[1]))[None, :, None].repeat(len(picture), 0)
        picture = np.concatenate((picture, rising.astype(np.uint8)), axis=2)
    if form.depth == 8:
        return picture
    low = np.random.default_rng(0).integers(-128, 129, picture.shape)
    return np.clip(picture.astype(np.int64) * 257 + low, 0, form.most).astype(form.type)


def measure(codec: Codec, form: Form, suffix: str, pictures: list[Picture], folder: Path) -> Row:
    """Write all pictures, which have one size, and read them back."""
    pictures = [drawn(picture, form) for picture in pictures]
    path = folder / f"{codec.name}_{form.channels}_{form.depth}{suffix}"
    height, width = pictures[0].shape[:2]
    began = time.process_time()
    clip = ClipWriter(path, width, height, _RATE, codec=codec, timecode=_TIMECODE, form=form)
    for picture in pictures:
        clip.write(picture)
    clip.close()
    spent = time.process_time() - began
    count = len(pictures)
    errors = _errors([conformed(read_movie(path, i / _RATE).image, form) for i in range(count)], pictures, form)
    colours, alpha = errors[..., :3], errors[..., 3:]
    with av.open(str(path)) as container:
        shown = [frame.to_ndarray(format=_READ[form]) for frame in container.decode(video=0)]
    by_ffmpeg = float(_errors(shown, pictures, form)[..., :3].max())
    per_frame = path.stat().st_size // count
    worst, mean = float(colours.max()), float(colours.mean())
    worst_alpha = float(alpha.max()) if form.has_alpha else None
    kind = f"{'RGBA'[: form.channels]}{form.depth}"
    ms_a_frame = 1000 * spent / count
    return Row(codec.name, kind, suffix, worst, mean, worst_alpha, by_ffmpeg, ms_a_frame, per_frame, tags(path))


def _errors(read: list[Picture], pictures: list[Picture], form: Form) -> np.ndarray:
    """[N, H, W, C] in steps of 8 bit."""
    return np.abs(np.stack(read).astype(int) - np.stack(pictures)) * (255 / form.most)


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
    loaded = [conformed(read_picture(path).image, RGB8) for path in sorted(Path(folder).glob("*.png"))]
    pictures = [image for image in loaded if image.shape == loaded[0].shape]
    table = Table(title=f"{len(pictures)} pictures of {pictures[0].shape[1]}x{pictures[0].shape[0]}", box=None)
    for heading in (
        "codec",
        "pictures",
        "file",
        "worst",
        "mean",
        "of alpha",
        "by FFmpeg",
        "ms a frame",
        "kB a frame",
        "as ffprobe reads it",
    ):
        table.add_column(heading, no_wrap=True)
    with tempfile.TemporaryDirectory() as scratch:
        for codec in CODECS.values():
            for suffix, form in ((suffix, form) for suffix in codec.suffixes for form in kinds(codec)):
                r = measure(codec, form, suffix, pictures, Path(scratch))
                of_alpha = "" if r.worst_alpha is None else f"{r.worst_alpha:.2f}"
                figures = (
                    f"{r.worst:.2f}",
                    f"{r.mean:.3f}",
                    of_alpha,
                    f"{r.worst_by_ffmpeg:.2f}",
                    f"{r.ms_a_frame:.0f}",
                    f"{r.bytes_a_frame / 1000:.0f}",
                )
                table.add_row(r.codec, r.kind, r.suffix, *figures, r.tags)
    Console(width=200, highlight=False).print(table)


if __name__ == "__main__":
    main(sys.argv[1])
