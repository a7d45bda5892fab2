"""A folder of numbered PNG files, one for each frame of a clip, there as soon as it is made."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from .files import MediaError, Picture, appearing, make_folder, remove_folders

_DIGITS = 4
"""Clips have at most `limits.MAX_FRAMES` frames; four digits sort well and are what editors expect."""
TEXT_KEY = "sfserver"
"""Keyword of a text chunk (PNG, 11.3.3)."""
_COMPRESS_LEVEL = 3
"""zlib: half the time of the default 6 for files a few percent larger."""


class SequenceWriter:
    """Writes `folder`/0000.png, 0001.png and so on; the number is the frame's place in the clip.

    Refuses a folder that already holds pictures: a sequence mixed of two runs would play as one.
    """

    def __init__(self, folder: Path, text: str = "") -> None:
        """`text` goes into each file, under TEXT_KEY. Raises MediaError."""
        if folder.is_dir() and any(folder.glob("*.png")):
            raise MediaError(f"{folder}: already holds pictures; remove it or choose another place with --out")
        self.folder = folder
        self._info = PngInfo()
        if text:
            self._info.add_text(TEXT_KEY, text)
        self._made = make_folder(folder)

    def write(self, index: int, image: Picture) -> Path:
        """Raises MediaError."""
        path = self.folder / f"{index:0{_DIGITS}}.png"
        with appearing(path) as part:
            Image.fromarray(image).save(part, format="PNG", compress_level=_COMPRESS_LEVEL, pnginfo=self._info)
        return path

    def close(self) -> None:
        """Takes the folders that it made away again if nothing was written in them."""
        remove_folders(self._made)
