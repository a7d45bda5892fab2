"""A folder of numbered pictures, one for each frame of a clip, there as soon as it is made."""

from __future__ import annotations

import re
from pathlib import Path

from attrs import frozen

from ..samples import Picture
from .files import MediaError, appearing, make_folder, remove_folders
from .stills import SUFFIXES, write_still

_PLACE = re.compile(r"%(?:0(\d{1,2}))?d")


@frozen
class Numbering:
    """How the pictures of a sequence are called: what stands before and after the number, and its digits."""

    before: str = ""
    after: str = ".png"
    digits: int = 4
    """Clips have at most `limits.MAX_FRAMES` frames; four digits sort well and are what editors expect."""
    first: int = 0
    """Number of the clip's first frame; 1001 where films are made."""

    def name(self, index: int) -> str:
        """Of the frame at `index` of the clip."""
        return f"{self.before}{self.first + index:0{self.digits}}{self.after}"

    @property
    def suffix(self) -> str:
        return Path(f"x{self.after}").suffix.lower()


def is_pattern(name: str) -> bool:
    """As in shot.%04d.exr."""
    return _PLACE.search(name) is not None


def numbering_of(name: str, first: int = 0) -> Numbering:
    """Of a name as in shot.%04d.exr. Raises MediaError."""
    places = list(_PLACE.finditer(name))
    if len(places) != 1:
        raise MediaError(f"{name}: needs one number, as in shot.%04d.exr; choose another name with --out")
    (place,) = places
    found = Numbering(name[: place.start()], name[place.end() :], int(place[1] or 1), first)
    if found.suffix not in SUFFIXES:
        raise MediaError(f"{name}: pictures end in {', '.join(SUFFIXES)}; choose another name with --out")
    return found


class SequenceWriter:
    """Writes `folder`/0000.png, 0001.png and so on; the number is the frame's place in the clip.

    Refuses a folder that already holds such pictures, unless it is told to go on there: a sequence mixed of two runs
    would play as one.
    """

    def __init__(
        self,
        folder: Path,
        text: str = "",
        numbering: Numbering | None = None,
        depth: int | None = None,
        *,
        goes_on: bool = False,
    ) -> None:
        """`text` goes into each file; `depth` is bits a sample of PNG and TIFF, None as pictures have. Raises
        MediaError."""
        self._numbering = numbering or Numbering()
        if not goes_on and folder.is_dir() and any(self._is_one(path.name) for path in folder.iterdir()):
            raise MediaError(f"{folder}: already holds pictures; remove it or choose another place with --out")
        self.folder = folder
        self._text, self._depth = text, depth
        self._made = make_folder(folder)

    def _is_one(self, name: str) -> bool:
        numbering = self._numbering
        inner = name.removeprefix(numbering.before)
        return name.startswith(numbering.before) and inner.lower().endswith(numbering.after.lower())

    def write(self, index: int, image: Picture) -> Path:
        """Raises MediaError."""
        path = self.folder / self._numbering.name(index)
        with appearing(path) as part:
            write_still(part, image, self._numbering.suffix, self._depth, self._text)
        return path

    def close(self) -> None:
        """Takes the folders that it made away again if nothing was written in them."""
        remove_folders(self._made)
