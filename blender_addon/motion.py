"""Motion goes on: where a neighbour of the gap moves, some of its pictures go along as given ones, so that the engine
sees where things are going and not only where they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import bpy

from . import sequencer
from .sheet import clip_length

if TYPE_CHECKING:
    from .plan import Gap
    from .sfwire.messages import EngineInfo

MAX_LEAD, MAX_TAIL = 5, 4
"""Pictures before the gap and after it, the keyframes themselves counted. A video model reads one picture, then four at
a time: five at the beginning and four at the end are whole."""


def runs(scene: bpy.types.Scene, gap: Gap, step: int) -> tuple[int, int]:
    """(given pictures before the gap, and after it): those that its neighbours can show at every `step`th frame; one
    each where they stand still."""
    before, after = sequencer.span_of(scene, gap.before), sequencer.span_of(scene, gap.after)
    first_after = gap.end if gap.closes_at is None else gap.closes_at
    lead = tail = 1
    if before is not None and not sequencer.is_still(scene, gap.before):
        lead = min(MAX_LEAD, 1 + max(0, gap.start - 1 - before[0]) // step)
    if after is not None and not sequencer.is_still(scene, gap.after):
        tail = min(MAX_TAIL, 1 + max(0, after[1] - 1 - first_after) // step)
    return lead, tail


def fitted(lead: int, tail: int, gap: Gap, step: int, width: int, height: int, engine: EngineInfo) -> tuple[int, int]:
    """As many of them as the engine and the wire take: the gap itself comes first."""
    from .sfwire.limits import CHANNELS, MAX_REQUEST_BYTES

    most = min(engine.max_keyframes, MAX_REQUEST_BYTES // (width * height * CHANNELS))
    while lead + tail > 2:
        frames, given = clip_length(gap.frames, gap.inside_counted, step, lead, tail)
        if frames <= engine.max_frames and given <= most:
            break
        lead, tail = (lead - 1, tail) if lead > tail else (lead, tail - 1)
    return lead, tail
