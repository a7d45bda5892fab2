"""The contact sheet: the clip at one glance, frames in reading order with their numbers, keyframes outlined."""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path

from attrs import frozen
from PIL import Image, ImageDraw, ImageFont

from ..samples import RGB8, Picture, conformed
from .files import appearing

MAX_PICTURES = 48
"""A longer clip is shown by frames at even distances, and all its keyframes."""
_BACKGROUND = (24, 25, 28)
_TEXT = (232, 233, 236)
_FAINT = (139, 143, 152)
_ACCENT = (255, 176, 64)


@frozen
class _Layout:
    """Everything in pixels."""

    thumb_width: int
    thumb_height: int
    columns: int
    rows: int
    margin: int = 36
    gap: int = 14
    label: int = 24
    """Strip below each picture that holds its number."""
    header: int = 76

    @property
    def size(self) -> tuple[int, int]:
        across = self.columns * self.thumb_width + (self.columns - 1) * self.gap
        down = self.rows * (self.thumb_height + self.label) + (self.rows - 1) * self.gap
        return across + 2 * self.margin, down + 2 * self.margin + self.header

    def place(self, n: int) -> tuple[int, int]:
        row, column = divmod(n, self.columns)
        return (
            self.margin + column * (self.thumb_width + self.gap),
            self.margin + self.header + row * (self.thumb_height + self.label + self.gap),
        )


class ContactSheet:
    """Collects small copies of the frames while they arrive, so that memory does not grow with the clip."""

    def __init__(self, num_frames: int, keyframes: Collection[int], width: int, height: int) -> None:
        self._keyframes = frozenset(keyframes)
        self._shown = _shown(num_frames, self._keyframes)
        self._thumbs: dict[int, Image.Image] = {}
        thumb_width = 256 if width >= height else max(96, round(256 * width / height))
        self._thumb_size = (thumb_width, max(1, round(thumb_width * height / width)))

    def add(self, index: int, image: Picture) -> None:
        """`image` is the frame at `index` of the clip."""
        if index in self._shown:
            self._thumbs[index] = Image.fromarray(conformed(image, RGB8)).resize(
                self._thumb_size, Image.Resampling.LANCZOS
            )

    def draw(self, title: str, subtitle: str, columns: int | None = None) -> Image.Image:
        """The sheet of the frames that came so far, in so many columns, or as they fit a screen best."""
        layout = _layout(len(self._thumbs), *self._thumb_size, columns)
        sheet = Image.new("RGB", layout.size, _BACKGROUND)
        pen = ImageDraw.Draw(sheet)
        inner = layout.size[0] - 2 * layout.margin
        for text, size, colour, y in ((title, 26, _TEXT, 0), (subtitle, 16, _FAINT, 38)):
            font = ImageFont.load_default(size)
            pen.text((layout.margin, layout.margin - 8 + y), _elided(text, font, inner), colour, font)
        font = ImageFont.load_default(14)
        for n, (index, thumb) in enumerate(sorted(self._thumbs.items())):
            x, y = layout.place(n)
            right, bottom = x + layout.thumb_width, y + layout.thumb_height
            sheet.paste(thumb, (x, y))
            is_key = index in self._keyframes
            if is_key:
                pen.rectangle((x - 3, y - 3, right + 2, bottom + 2), outline=_ACCENT, width=3)
                pen.text((right, bottom + 6), "keyframe", _ACCENT, font, anchor="ra")
            pen.text((x, bottom + 6), str(index), _ACCENT if is_key else _FAINT, font)
        return sheet

    def save(self, path: Path, title: str, subtitle: str, columns: int | None = None) -> None:
        """PNG at `path`. Raises MediaError."""
        sheet = self.draw(title, subtitle, columns)
        with appearing(path) as part:
            sheet.save(part, format="PNG", optimize=True)


def _shown(num_frames: int, keyframes: frozenset[int]) -> frozenset[int]:
    """At most MAX_PICTURES positions: all keyframes, and between them the finest even distance that fits."""
    step = 1
    while len(shown := keyframes | set(range(0, num_frames, step))) > MAX_PICTURES:
        step += 1
    return frozenset(shown)


def _layout(count: int, thumb_width: int, thumb_height: int, columns: int | None) -> _Layout:
    """About as wide as a screen: the number of columns that brings the sheet closest to 16:10."""

    def off_screen(columns: int) -> float:
        width, height = _Layout(thumb_width, thumb_height, columns, math.ceil(count / columns)).size
        return abs(math.log(width / height / 1.6))

    columns = columns or min(range(2, max(3, count + 1)), key=off_screen)
    return _Layout(thumb_width, thumb_height, columns, math.ceil(max(1, count) / columns))


def _elided(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text.rstrip() + "..."
