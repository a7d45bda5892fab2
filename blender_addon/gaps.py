"""Which gap a press means: the selected strips say it, else the channel of the selected or active one, else the
playhead. A press on a gap that was filled means the same gap again, as another take."""

from __future__ import annotations

from dataclasses import replace

import bpy

from . import plan, runtime, sequencer, strips, written
from .plan import CannotFill, Gap, Pictures


def find(scene: bpy.types.Scene) -> Gap:
    """The gap that Fill Gap fills. Raises CannotFill."""
    growing = _growing(scene)
    chosen = sequencer.pictures(scene, growing, selected=True)
    if len(chosen) >= 2:
        return _not_growing(scene, _one_of(scene, chosen, _between(scene, chosen)))
    shown = sequencer.pictures(scene, growing)
    return _not_growing(scene, _by_channel(scene, shown, chosen) or _by_playhead(scene, shown))


def find_all(scene: bpy.types.Scene) -> list[Gap]:
    """The gaps that Fill All Gaps fills. Raises CannotFill."""
    gaps = between_selected(scene)
    if not gaps:
        raise CannotFill("Select strips with gaps between them")
    return [_not_growing(scene, gap) for gap in gaps]


def between_selected(scene: bpy.types.Scene) -> list[Gap]:
    """Every gap between the selected strips by itself."""
    chosen = sequencer.pictures(scene, _growing(scene), selected=True)
    return _between(scene, chosen) if len(chosen) >= 2 else []


def with_keyframes(scene: bpy.types.Scene, gap: Gap) -> Gap:
    """The gap, with the still pictures that lie in it on its own channel as keyframes."""
    if gap.inside:
        return gap
    there = sequencer.pictures(scene, _growing(scene)).on(gap.channel).within(gap.start, gap.end)
    return plan.joined([gap], there.where(_given(scene, there)))


def _given(scene: bpy.types.Scene, pictures: Pictures) -> list[bool]:
    """Which of them are still pictures of the user's."""
    return [sequencer.is_still(scene, name) and not written.is_ours(scene, name) for name in pictures.names()]


def _between(scene: bpy.types.Scene, chosen: Pictures) -> list[Gap]:
    """The gaps between selected strips; where takes fill them, the gaps that those fill."""
    return plan.gaps_between(chosen) or plan.gaps_between(
        chosen.where([not written.is_ours(scene, name) for name in chosen.names()])
    )


def _one_of(scene: bpy.types.Scene, chosen: Pictures, gaps: list[Gap]) -> Gap:
    """Of the gaps between selected strips the only one, or all of them where nothing but pictures parts them."""
    if not gaps:
        raise CannotFill("The selected strips touch or overlap: move them apart by the frames that you want between")
    if len(gaps) == 1:
        return gaps[0]
    inside = chosen.within(gaps[0].start, gaps[-1].end)
    if not all(_given(scene, inside)):
        raise CannotFill(
            f"The selected strips have {len(gaps)} gaps between them, and what parts them moves: select two, or use "
            "Fill All Gaps"
        )
    return plan.joined(gaps, inside)


def _by_channel(scene: bpy.types.Scene, shown: Pictures, chosen: Pictures) -> Gap | None:
    """The gap under the playhead on the channel of the selected or active strip; else the one right after it."""
    name = chosen.names()[0] if len(chosen) else sequencer.active_name(scene)
    where = sequencer.span_of(scene, name) if name is not None else None
    if where is None:
        return None
    on = shown.on(where[2])
    gap = plan.gap_at(scene.frame_current, on)
    if gap is None and len(chosen):
        gap = plan.gap_at(where[1], on)
        if gap is None and written.is_ours(scene, name):
            return of_take(scene, name)
    return gap


def _by_playhead(scene: bpy.types.Scene, shown: Pictures) -> Gap:
    """The shortest gap that the playhead is in on any channel, or that a take fills there. Raises CannotFill."""
    frame = scene.frame_current
    found = plan.gaps_at(frame, shown)
    found += [of_take(scene, name) for name in shown.over(frame).names() if written.is_ours(scene, name)]
    gap = min(found, key=lambda gap: (gap.frames, gap.channel), default=None) or plan.gap_at(frame, shown)
    if gap is None:
        raise plan.why_no_gap(frame, shown)
    return gap


def of_take(scene: bpy.types.Scene, name: str) -> Gap:
    """The gap that a take was made for, wherever the take was moved, trimmed or cut to since. Raises CannotFill."""
    mark = written.mark_of(scene, name)
    if mark is None:
        raise CannotFill(written.UNREADABLE)
    here = Gap(mark.starts_at, mark.starts_at + mark.frames, *mark.between, mark.channel)
    before, after = (sequencer.span_of(scene, other) for other in mark.between)
    if mark.loop and before is not None:
        return replace(here, start=before[1], end=before[1] + mark.frames, closes_at=before[0])
    if not _is_framed(scene, here):
        if before is None or after is None or before[1] >= after[0]:
            names = "'{}' and '{}'".format(*mark.between)
            raise CannotFill(f"The gap of this take is not there any more: {names} are gone, or touch")
        here = replace(here, start=before[1], end=after[0])
    if here.frames != mark.frames:
        return here
    return replace(here, inside=tuple((here.start + left, here.start + right) for left, right in mark.inside))


def of_loop(scene: bpy.types.Scene, frames: int) -> Gap:
    """So many frames after the active strip, back to its first picture. Raises CannotFill."""
    name = sequencer.active_name(scene)
    where = sequencer.span_of(scene, name) if name is not None else None
    if name is None or where is None:
        raise CannotFill("Make the strip active that shall become a loop")
    if where[1] - where[0] < 2:
        raise CannotFill("A loop needs a strip of two frames or more")
    return Gap(where[1], where[1] + frames, name, name, where[2], closes_at=where[0])


def check_still(scene: bpy.types.Scene, gap: Gap) -> None:
    """Raises CannotFill where strips were moved since the gap was found."""
    before = sequencer.span_of(scene, gap.before)
    loop = gap.closes_at is not None
    if not (before is not None and before[1] == gap.start if loop else _is_framed(scene, gap)):
        raise CannotFill("The strips around the gap were moved before the server was there: press Fill Gap again")


def _is_framed(scene: bpy.types.Scene, gap: Gap) -> bool:
    """Whether a picture ends right before the gap and another begins right after it."""
    shown = sequencer.pictures(scene)
    return bool((shown.right == gap.start).any() and (shown.left == gap.end).any())


def _growing(scene: bpy.types.Scene) -> set[str]:
    """Names of the strips that grow in this scene: they are what fills a gap."""
    pump = runtime.running_pump()
    return {fill.place.strip for fill in pump.fills if fill.place.scene == scene.name} if pump is not None else set()


def _not_growing(scene: bpy.types.Scene, gap: Gap) -> Gap:
    pump = runtime.running_pump()
    for fill in pump.fills if pump is not None else ():
        there = strips.bounds(fill.job, fill.place)
        if there is None or fill.place.scene != scene.name or not gap.start <= there[0] < gap.end:
            continue
        if there[2] == gap.channel or (fill.record.before, fill.record.after) == (gap.before, gap.after):
            raise CannotFill("This gap is being filled: wait for it, or cancel it in the queue")
    return gap
