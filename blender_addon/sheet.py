"""The exposure sheet of a gap: which picture of the clip stands at which frame of the film, as animators note it.

Knows nothing of Blender and of no file. Frames are counted from the start of the gap; the clip's first picture is the
keyframe before the gap, its last the one after it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Sheet:
    keys: tuple[tuple[int, int], ...]
    """(index in the clip, frame) of the pictures that are given: before the gap up to -1, then behind its end."""
    shown: tuple[int, ...]
    """For every frame of the gap the index in the clip of the picture that stands there; it never falls."""

    @property
    def clip_frames(self) -> int:
        """Length of the clip, given pictures counted."""
        return self.keys[-1][0] + 1

    @property
    def wanted(self) -> list[int]:
        """Indices of the pictures that have to be made, in order."""
        given = {index for index, _ in self.keys}
        return [index for index in range(self.clip_frames) if index not in given]

    def ready(self, missing: int) -> tuple[int, ...]:
        """What stands at the first frames of the gap, as far as it can be shown while the picture `missing` is."""
        return self.shown[: bisect_left(self.shown, missing)]


def clip_length(
    frames: int, inside: Sequence[tuple[int, int]] = (), step: int = 1, lead: int = 1, tail: int = 1
) -> tuple[int, int]:
    """(pictures of the clip, those of them that are given), without drawing the sheet up."""
    lefts, rights = [left for left, _ in inside], [right for _, right in inside]
    holes = zip([0, *rights], [*lefts, frames], strict=True)
    given = lead + len(inside) + tail
    return sum(-(-(left - right) // step) for right, left in holes) + given, given


def draw_up(frames: int, inside: Sequence[tuple[int, int]] = (), step: int = 1, lead: int = 1, tail: int = 1) -> Sheet:
    """The sheet of a gap of so many frames, every picture that is made standing `step` of them.

    A given picture at [left, right) of `inside` stands there as long as it does on the timeline: time rests in the
    clip while it does, so the motion goes through it and not past it. `lead` pictures are given before the gap and
    `tail` after it, as far apart as those that are made.
    """
    keys, shown, index, at = [(i, -1 - (lead - 1 - i) * step) for i in range(lead)], [], lead - 1, 0
    for left, right in (*inside, (frames, frames)):
        shown += [index + 1 + frame // step for frame in range(left - at)]
        index += -(-(left - at) // step) + 1
        keys.append((index, left))
        shown += [index] * (right - left)
        at = right
    keys += [(index + i, frames + i * step) for i in range(1, tail)]
    return Sheet(tuple(keys), tuple(shown))
