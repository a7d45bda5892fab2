"""What one run of the command line leaves: a folder with a sequence, a clip and a contact sheet, or one thing alone."""

from __future__ import annotations

import re
from collections.abc import Collection
from fractions import Fraction
from pathlib import Path

from attrs import frozen
from filelock import FileLock

from ..samples import RGB8, Form, Picture
from . import codecs
from .clip import ClipWriter
from .codecs import codec_for, codec_named
from .files import MediaError, claim, let_go, make_folder, remove_folders
from .sequence import Numbering, SequenceWriter, is_pattern, numbering_of
from .sheet import ContactSheet
from .stills import DEPTHS

_FOREIGN = {".webm", ".avi", ".gif", ".png", ".jpg", ".jpeg", ".exr", ".tif", ".tiff"}
"""Names that nobody gives to a folder."""
_TIMECODE = re.compile(r"\d\d:[0-5]\d:[0-5]\d[:;.]\d\d")
_DROP_FRAME = {Fraction(30000, 1001), Fraction(60000, 1001)}
"""The rates at which timecode skips numbers; written with a semicolon."""


@frozen
class ClipShape:
    """What has to be known of a clip before its first frame."""

    width: int
    height: int
    num_frames: int
    keyframes: Collection[int]
    fps: Fraction
    form: Form = RGB8
    """Of its pictures."""


@frozen
class Keeping:
    """How frames are to be kept. The defaults are what is usual for each kind of file."""

    codec: str = ""
    """Of the movie; see `codecs.CODECS`."""
    depth: int | None = None
    """Bits a sample of PNG and TIFF; None for those of the pictures, at most 16. An EXR has half floats."""
    start_number: int = 0
    """Of the first frame's file."""
    timecode: str = ""
    """Of the movie's first frame."""


USUAL = Keeping()


def is_movie(out: Path) -> bool:
    """`out` is one movie alone."""
    return out.suffix.lower() in codecs.FORMAT_OF


def check_name(out: Path, keeping: Keeping = USUAL, fps: Fraction | None = None) -> None:
    """Raises MediaError where `out` can be neither a movie, a sequence nor the folder that is to be made."""
    suffix = out.suffix.lower()
    if is_movie(out):
        if out.is_dir():
            raise MediaError(f"{out}: is a folder; choose another name with --out")
        codec_for(out, keeping.codec)
    elif is_pattern(out.name):
        numbering_of(out.name)
    elif suffix in _FOREIGN and not out.is_dir():
        movies = ", ".join(codecs.FORMAT_OF)
        raise MediaError(
            f"{out}: {suffix} is not written; name a folder, numbered pictures as in shot.%04d.exr, or a file that "
            f"ends in {movies}, with --out"
        )
    elif keeping.codec:
        codec_named(keeping.codec)
    if keeping.depth not in (None, *DEPTHS):
        raise MediaError(f"--depth {keeping.depth}: a sample has 8 or 16 bits; an EXR has half floats by itself")
    if keeping.timecode and not _TIMECODE.fullmatch(keeping.timecode):
        raise MediaError(f"--timecode {keeping.timecode}: is none, as in 01:00:00:00")
    if ";" in keeping.timecode and fps is not None and fps not in _DROP_FRAME:
        raise MediaError(
            f"--timecode {keeping.timecode}: drop-frame is for 29.97 and 59.94; write a colon, or set --fps"
        )


class Outputs:
    """`out` names a movie, or numbered pictures (shot.%04d.exr); any other name is a folder for frames/, clip.mp4 and
    contact_sheet.png.

    Everything that can be found out about the place is found out at once, before hours of work depend on it. Frames
    come in order. `close` lets the clip appear with what was written, `abort` leaves nothing but whole pictures.
    Every method raises MediaError; after that, call `abort`.
    """

    def __init__(self, out: Path, shape: ClipShape, text: str = "", keeping: Keeping = USUAL) -> None:
        """`text` goes into every picture and into the clip: how they were made."""
        check_name(out, keeping, shape.fps)
        self.out = out
        self.written = 0
        is_clip, is_sequence = is_movie(out), is_pattern(out.name)
        self._made = make_folder(out.parent if is_clip or is_sequence else out)
        self._claim = self._claimed(out)
        self._sequence: SequenceWriter | None = None
        self._sheet: ContactSheet | None = None
        self._clip: ClipWriter | None = None
        try:
            if is_sequence:
                numbering = numbering_of(out.name, keeping.start_number)
                self._sequence = SequenceWriter(out.parent, text, numbering, keeping.depth)
                return
            if not is_clip:
                numbering = Numbering(first=keeping.start_number)
                self._sequence = SequenceWriter(out / "frames", text, numbering, keeping.depth)
                self._sheet = ContactSheet(shape.num_frames, shape.keyframes, shape.width, shape.height)
            suffix = codec_named(keeping.codec).suffixes[0] if keeping.codec else ".mp4"
            path = out if is_clip else out / f"clip{suffix}"
            codec = codec_for(path, keeping.codec)
            self._clip = ClipWriter(
                path, shape.width, shape.height, shape.fps, text, codec, keeping.timecode, shape.form
            )
        except MediaError:
            let_go(self._claim)
            self._remove_empty_folders()
            raise

    def write(self, index: int, image: Picture) -> None:
        """The frame at `index` of the clip."""
        if self._sequence:
            self._sequence.write(index, image)
        if self._sheet:
            self._sheet.add(index, image)
        if self._clip:
            self._clip.write(image)
        self.written += 1

    def close(self, title: str, subtitle: str) -> None:
        """`title` and `subtitle` are for the contact sheet."""
        if self._clip:
            self._clip.close()
        if self._sheet and self.written:
            self._sheet.save(self.out / "contact_sheet.png", title, subtitle)
        let_go(self._claim)
        self._remove_empty_folders()

    def abort(self) -> None:
        if self._clip:
            self._clip.abort()
        let_go(self._claim)
        self._remove_empty_folders()

    def _claimed(self, out: Path) -> FileLock | None:
        try:
            return claim(out)
        except MediaError:
            remove_folders(self._made)
            raise

    def _remove_empty_folders(self) -> None:
        if self._sequence:
            self._sequence.close()
        remove_folders(self._made)
