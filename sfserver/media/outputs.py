"""What one run of the command line leaves: a folder with a sequence, a clip and a contact sheet, or one MP4 alone."""

from __future__ import annotations

from collections.abc import Collection
from fractions import Fraction
from pathlib import Path

from attrs import frozen
from filelock import FileLock

from .clip import ClipWriter
from .files import MediaError, Picture, claim, let_go, make_folder, remove_folders
from .sequence import SequenceWriter
from .sheet import ContactSheet

_FOREIGN = {".mov", ".mkv", ".webm", ".avi", ".gif", ".png", ".jpg", ".jpeg", ".exr"}
"""Names that nobody gives to a folder."""


@frozen
class ClipShape:
    """What has to be known of a clip before its first frame."""

    width: int
    height: int
    num_frames: int
    keyframes: Collection[int]
    fps: Fraction


def check_name(out: Path) -> None:
    """Raises MediaError where `out` can be neither the clip nor the folder that is to be made."""
    suffix = out.suffix.lower()
    if suffix in _FOREIGN and not out.is_dir():
        raise MediaError(f"{out}: {suffix} is not written; name a folder, or a file that ends in .mp4, with --out")
    if suffix == ".mp4" and out.is_dir():
        raise MediaError(f"{out}: is a folder; choose another name with --out")


class Outputs:
    """`out` ending in .mp4 is the clip alone; any other is a folder for frames/, clip.mp4 and contact_sheet.png.

    Everything that can be found out about the place is found out at once, before hours of work depend on it. Frames
    come in order. `close` lets the clip appear with what was written, `abort` leaves nothing but whole PNG files.
    Every method raises MediaError; after that, call `abort`.
    """

    def __init__(self, out: Path, shape: ClipShape, text: str = "") -> None:
        """`text` goes into every picture and into the clip: how they were made."""
        check_name(out)
        self.out = out
        self.written = 0
        is_clip = out.suffix.lower() == ".mp4"
        self._made = make_folder(out.parent if is_clip else out)
        self._claim = self._claimed(out)
        self._sequence: SequenceWriter | None = None
        self._sheet: ContactSheet | None = None
        try:
            if not is_clip:
                self._sequence = SequenceWriter(out / "frames", text)
                self._sheet = ContactSheet(shape.num_frames, shape.keyframes, shape.width, shape.height)
            path = out if is_clip else out / "clip.mp4"
            self._clip = ClipWriter(path, shape.width, shape.height, shape.fps, text)
        except MediaError:
            let_go(self._claim)
            self._remove_empty_folders()
            raise

    def write(self, index: int, image: Picture) -> None:
        """The frame at `index` of the clip, [H, W, 3] uint8."""
        if self._sequence and self._sheet:
            self._sequence.write(index, image)
            self._sheet.add(index, image)
        self._clip.write(image)
        self.written += 1

    def close(self, title: str, subtitle: str) -> None:
        """`title` and `subtitle` are for the contact sheet."""
        self._clip.close()
        if self._sheet and self.written:
            self._sheet.save(self.out / "contact_sheet.png", title, subtitle)
        let_go(self._claim)
        self._remove_empty_folders()

    def abort(self) -> None:
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
