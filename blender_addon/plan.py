"""What can be filled, and with what request: gaps between spans of the timeline, sizes that an engine takes.

Knows nothing of Blender: frames are whole numbers, a span is [left, right).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .sfwire.messages import EngineInfo


class CannotFill(Exception):
    """Why there is nothing to fill, in one sentence with the remedy."""


@dataclass(frozen=True)
class Span:
    """A strip that shows a picture at the frames from `left` up to, and not including, `right`."""

    left: int
    right: int
    name: str
    channel: int


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

    @property
    def frames(self) -> int:
        return self.end - self.start

    def sentence(self, frames_per_second: float) -> str:
        """As in: 38 frames between 'A' and 'B', 1.6 s at 24 fps."""
        frames = f"{self.frames} frame" if self.frames == 1 else f"{self.frames} frames"
        seconds = self.frames / frames_per_second
        return f"{frames} between '{self.before}' and '{self.after}', {seconds:.1f} s at {frames_per_second:.4g} fps"


def gaps_between(spans: Iterable[Span]) -> list[Gap]:
    """Every stretch between the first and the last of the spans at which none of them shows a picture, in order."""
    gaps: list[Gap] = []
    last: Span | None = None
    for span in sorted(spans, key=lambda span: (span.left, span.right)):
        if last is not None and span.left > last.right:
            gaps.append(Gap(last.right, span.left, last.name, span.name, last.channel))
        if last is None or span.right > last.right:
            last = span
    return gaps


def gap_to_fill(selected: Sequence[Span], all_spans: Iterable[Span], playhead: int) -> Gap:
    """The gap between the selected strips if there are two or more, else the one under the playhead.

    Raises CannotFill.
    """
    if len(selected) < 2:
        return gap_at(playhead, all_spans)
    gaps = gaps_between(selected)
    if len(gaps) > 1:
        raise CannotFill(f"The selected strips have {len(gaps)} gaps between them: select two, or use Fill All Gaps")
    if not gaps:
        raise CannotFill("The selected strips touch or overlap: move them apart by the frames that you want between")
    return gaps[0]


def gap_at(frame: int, spans: Iterable[Span]) -> Gap:
    """The gap that `frame` lies in. Raises CannotFill."""
    spans = list(spans)
    over = [span for span in spans if span.left <= frame < span.right]
    before = [span for span in spans if span.right <= frame]
    after = [span for span in spans if span.left > frame]
    if over:
        raise CannotFill(f"Select two strips, or put the playhead into a gap: now it is over '{over[0].name}'")
    if not before or not after:
        side = "before" if not before else "after"
        raise CannotFill(f"There is no picture {side} the playhead: select two strips with a gap between them")
    first, last = max(before, key=lambda span: span.right), min(after, key=lambda span: span.left)
    return Gap(first.right, last.left, first.name, last.name, first.channel)


def check_length(gap: Gap, engine: EngineInfo) -> None:
    """Raises CannotFill where the engine cannot make a clip of the gap and its two keyframes."""
    most, least = engine.max_frames - 2, max(1, engine.min_frames - 2)
    if gap.frames > most:
        raise CannotFill(
            f"The gap has {gap.frames} frames, {engine.title} fills {most} at most: "
            "put a picture into the middle, or choose another engine"
        )
    if gap.frames < least:
        raise CannotFill(
            f"The gap has {gap.frames} frames, {engine.title} needs at least {least}: move the strips apart"
        )


def check_engine(engine: EngineInfo) -> None:
    """Raises CannotFill where the engine cannot run on the server."""
    if not engine.available:
        raise CannotFill(f"{engine.title} cannot run: {'; '.join(engine.missing) or 'it is not complete'}")


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
