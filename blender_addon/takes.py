"""Takes: strips made for one gap, of which one is seen, in the gap's own channel. The others are muted above it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import bpy

from . import sequencer, strips, written
from .plan import CannotFill, Gap
from .strips import Place
from .written import Mark


@dataclass(frozen=True)
class Aside:
    """A take that was taken off for another, and the channel it had."""

    job: str
    gap: str
    place: Place
    channel: int


def set_aside(scene: bpy.types.Scene, gap: Gap, named: str = "") -> list[Aside]:
    """Mute the takes that are seen in a gap, and the one that is named, and lift them out of its channel."""
    marks = written.marks(scene, gap.start, gap.end)
    where = sequencer.span_of(scene, named)
    marks += [mark for mark in written.marks(scene, *where[:2]) if mark.name == named] if where is not None else []
    seen = {mark.name: mark for mark in marks if not mark.muted and not mark.growing}.values()
    mine = [mark for mark in seen if named == mark.name or _fills(mark, gap)]
    places = [(mark, Place(scene.name, mark.name)) for mark in mine]
    return [Aside(mark.job, mark.gap, place, strips.hide(mark.job, place)) for mark, place in places]


def _fills(mark: Mark, gap: Gap) -> bool:
    return mark.between == (gap.before, gap.after) or mark.channel == gap.channel


def bring_back(taken_off: Sequence[Aside]) -> None:
    """Show again what was set aside, where it was."""
    for aside in taken_off:
        strips.show(aside.job, aside.place, aside.channel)


def of_gap(scene: bpy.types.Scene, name: str) -> list[Mark]:
    """The strips that lie over one another with this one and were made for its gap, the oldest first."""
    where = sequencer.span_of(scene, name)
    there = written.marks(scene, *where[:2]) if where is not None else []
    gap = next((mark.gap for mark in there if mark.name == name), None)
    return sorted((mark for mark in there if mark.gap == gap), key=lambda mark: (mark.started, mark.job))


def number_of(scene: bpy.types.Scene, name: str) -> tuple[int, int]:
    """(which take it is, of how many), from 1; what is written on it may be nothing that can be read."""
    marks = of_gap(scene, name)
    jobs = list(dict.fromkeys(mark.job for mark in marks))
    job = next((mark.job for mark in marks if mark.name == name), None)
    return (jobs.index(job) + 1, len(jobs)) if job is not None else (1, 1)


def step(scene: bpy.types.Scene, by: int) -> str:
    """Show the next or the previous take of the active one's gap; says which it is. Raises CannotFill."""
    name = written.active(scene)
    if name is None:
        raise CannotFill("Make a strip active whose frames were made here")
    marks = of_gap(scene, name)
    jobs = list(dict.fromkeys(mark.job for mark in marks))
    if len(jobs) < 2:
        raise CannotFill("This gap has one take only: New Take makes another")
    seen = next((mark.job for mark in marks if not mark.muted), jobs[0])
    number = (jobs.index(seen) + by) % len(jobs)
    hidden = [strips.hide(seen, Place(scene.name, mark.name)) for mark in marks if mark.job == seen]
    for mark in marks:
        if mark.job == jobs[number]:
            strips.show(mark.job, Place(scene.name, mark.name), hidden[0])
            strips.make_active(scene, mark.name)
    return f"Take {number + 1} of {len(jobs)}"
