"""What can be filled, and with what request: gaps between pictures of the timeline, sizes that an engine takes.

Knows nothing of Blender: frames are whole numbers, a picture is shown at the frames [left, right).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .sfwire.messages import EngineInfo

    Column = np.ndarray[tuple[int], np.dtype[np.int32]]
    Mask = np.ndarray[tuple[int], np.dtype[np.bool_]]


class CannotFill(Exception):
    """Why there is nothing to fill, in one sentence with the remedy."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """Strips that show a picture, as columns: looking at 1,500 of them costs as many calls as looking at ten."""

    left: Column
    right: Column
    """The first frame after the strip."""
    channel: Column
    row: Column
    """Where the strip stands in the list that `name` knows."""
    name: Callable[[int], str]

    def __len__(self) -> int:
        return len(self.left)

    def where(self, mask: Mask) -> Pictures:
        return replace(
            self, left=self.left[mask], right=self.right[mask], channel=self.channel[mask], row=self.row[mask]
        )

    def on(self, channel: int) -> Pictures:
        return self.where(self.channel == channel)

    def within(self, start: int, end: int) -> Pictures:
        """Those that begin and end in [start, end)."""
        return self.where((self.left >= start) & (self.right <= end))

    def over(self, frame: int) -> Pictures:
        return self.where((self.left <= frame) & (self.right > frame))

    def names(self) -> list[str]:
        return [self.name(int(row)) for row in self.row]

    def gap(self, before: int, after: int) -> Gap:
        """Between the strips at two places in the columns."""
        names = self.name(int(self.row[before])), self.name(int(self.row[after]))
        return Gap(int(self.right[before]), int(self.left[after]), *names, int(self.channel[before]))


@dataclass(frozen=True)
class Gap:
    """Frames `start` up to, and not including, `end`, to be made between two pictures that exist."""

    start: int
    end: int
    before: str
    """Name of the strip whose last picture is the first keyframe, at `start - 1`."""
    after: str
    """Name of the strip whose first picture is the last keyframe, at `end`."""
    channel: int
    """Of the strip before: where a strip that fills the gap looks at home."""
    inside: tuple[tuple[int, int], ...] = ()
    """[left, right) of pictures within the gap that stay as they are and are keyframes too, in order."""
    closes_at: int | None = None
    """Of a loop: the frame of its last keyframe, which is its first picture; else that is at `end`."""

    @property
    def frames(self) -> int:
        return self.end - self.start

    @property
    def inside_counted(self) -> list[tuple[int, int]]:
        """The pictures within the gap, counted from its start."""
        return [(left - self.start, right - self.start) for left, right in self.inside]

    def sentence(self, frames_per_second: float) -> str:
        """As in: 38 frames between 'A' and 'B', 1.6 s at 24 fps."""
        frames = f"{self.frames} frame" if self.frames == 1 else f"{self.frames} frames"
        seconds = self.frames / frames_per_second
        through = ""
        if self.inside:
            through = f" through {len(self.inside)} picture{'s' if len(self.inside) > 1 else ''}"
        where = f"between '{self.before}' and '{self.after}'{through}"
        if self.closes_at is not None:
            where = f"from the end of '{self.before}' to its beginning"
        return f"{frames} {where}, {seconds:.1f} s at {frames_per_second:.4g} fps"


def gaps_between(pictures: Pictures) -> list[Gap]:
    """Every stretch between the first and the last picture at which none of them is shown, in order."""
    order = np.lexsort((pictures.right, pictures.left))
    left, right = pictures.left[order], pictures.right[order]
    reach = np.maximum.accumulate(right)
    gaps = []
    for i in np.flatnonzero(left[1:] > reach[:-1]):
        before = order[np.flatnonzero(right[: i + 1] == reach[i])[0]]
        gaps.append(pictures.gap(before, order[i + 1]))
    return gaps


def gap_at(frame: int, pictures: Pictures) -> Gap | None:
    """The gap that `frame` lies in, None where a picture is shown there or there is none on one side."""
    before, after = np.flatnonzero(pictures.right <= frame), np.flatnonzero(pictures.left > frame)
    if len(before) + len(after) < len(pictures) or not len(before) or not len(after):
        return None
    return pictures.gap(before[np.argmax(pictures.right[before])], after[np.argmin(pictures.left[after])])


def gaps_at(frame: int, pictures: Pictures) -> list[Gap]:
    """The gap that `frame` lies in on each channel that has one: a background or a title hides none."""
    found = (gap_at(frame, pictures.on(int(channel))) for channel in np.unique(pictures.channel))
    return [gap for gap in found if gap is not None]


def why_no_gap(frame: int, pictures: Pictures) -> CannotFill:
    """What to say where neither the selection nor the playhead shows a gap."""
    over = pictures.over(frame)
    if len(over):
        return CannotFill(f"Select two strips, or put the playhead into a gap: now it is over '{over.names()[0]}'")
    side = "after" if len(pictures) and int(pictures.right.min()) <= frame else "before"
    return CannotFill(f"There is no picture {side} the playhead: select two strips with a gap between them")


def joined(gaps: list[Gap], inside: Pictures) -> Gap:
    """One gap from the start of the first to the end of the last, with the pictures between them as keyframes."""
    first, last = gaps[0], gaps[-1]
    spans: list[tuple[int, int]] = []
    for left, right in sorted(zip(inside.left.tolist(), inside.right.tolist(), strict=True)):
        if not spans or left >= spans[-1][1]:
            spans.append((left, right))
    return replace(first, end=last.end, after=last.after, inside=tuple(spans))


def check_length(gap: Gap, clip_frames: int, keyframes: int, engine: EngineInfo) -> None:
    """Raises CannotFill where the engine cannot make a clip of so many pictures, keyframes counted."""
    most, least = engine.max_frames, max(3, engine.min_frames)
    if clip_frames > most:
        remedy = "put a picture into the middle, fill on twos, or choose another engine"
        if gap.inside:
            remedy = "select two neighbours, or press Fill All Gaps, which fills each gap by itself"
        raise CannotFill(f"The gap has {gap.frames} frames, {engine.title} fills {most - 2} at most: {remedy}")
    if clip_frames < least:
        raise CannotFill(
            f"The gap has {gap.frames} frames, {engine.title} needs at least {least - 2}: move the strips apart"
        )
    if keyframes > engine.max_keyframes:
        raise CannotFill(
            f"There are {keyframes} keyframes, {engine.title} takes {engine.max_keyframes}: select a shorter stretch, "
            "or press Fill All Gaps, which fills each gap by itself"
        )


def check_engine(engine: EngineInfo) -> None:
    """Raises CannotFill where the engine cannot run on the server."""
    if not engine.available:
        raise CannotFill(f"{engine.title} cannot run: {'; '.join(engine.missing) or 'it is not complete'}")


def takes_size(width_px: int, height_px: int, engine: EngineInfo) -> bool:
    """Whether the engine can make pictures of exactly this size."""
    fits = min(width_px, height_px) >= engine.min_side_px and width_px * height_px <= engine.max_pixels
    return fits and width_px % engine.size_multiple == height_px % engine.size_multiple == 0


def fitted_size(width_px: int, height_px: int, scale: float, engine: EngineInfo) -> tuple[int, int]:
    """The size to make for a picture of the given size: `scale` of it, or the largest that the engine takes.

    Rounded to the engine's multiples, so the shape may change by a little; the strip stretches it back. Raises
    CannotFill where the shape leaves no such size.
    """
    step = engine.size_multiple
    scale = min(scale, sqrt(engine.max_pixels / (width_px * height_px)), _MAX_SIDE_PX / max(width_px, height_px))
    scale = max(scale, engine.min_side_px / min(width_px, height_px))
    width, height = (max(step, round(side * scale / step) * step) for side in (width_px, height_px))
    if min(width, height) < engine.min_side_px:
        width, height = (max(side, -(-engine.min_side_px // step) * step) for side in (width, height))
    while width * height > engine.max_pixels or max(width, height) > _MAX_SIDE_PX:  # rounding up went too far
        if width >= height:
            width -= step
        else:
            height -= step
        if min(width, height) < max(step, engine.min_side_px):
            raise CannotFill(f"{engine.title} has no size for a picture of {width_px} x {height_px}: change its shape")
    return width, height


_MAX_SIDE_PX = 4096
"""The wire's limit for one side, a multiple of every engine's step."""
