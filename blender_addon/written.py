"""What is written on a strip of ours, read where the user is editing: its job, its record, the prompt for another take.

Reading is cheap enough for every drawing, and strict where something is done with it: a .blend may come from anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import bpy

from . import sequencer
from .plan import CannotFill
from .record import Record, from_properties, is_job, spans_of
from .sequencer import level, strips_in

JOB = "inbetween_job"
RECORD = "inbetween"
PROMPT = "inbetween_prompt"
"""The prompt for the strip's next take, which the user may edit."""
UNREADABLE = "What is written on this strip cannot be read: fill the gap anew"


@dataclass(frozen=True)
class Mark:
    """What tells takes apart and where their gap is, read off a strip without making a record of it."""

    name: str
    job: str
    gap: str
    between: tuple[str, str]
    """Names of the strips before and after."""
    started: str
    channel: int
    muted: bool
    growing: bool
    starts_at: int
    """Where its first picture would be, were nothing trimmed off it."""
    frames: int
    """Length of the gap."""
    inside: tuple[tuple[int, int], ...]
    """Given pictures within the gap, counted from its start."""
    loop: bool


def is_ours(scene: bpy.types.Scene, name: str) -> bool:
    """Whether a strip where the user is editing is one that we made."""
    strip = strips_in(level(scene)).get(name)
    return strip is not None and strip.type == "IMAGE" and is_job(strip.get(JOB))


def active(scene: bpy.types.Scene) -> str | None:
    """Name of the active strip, where it is one that we made."""
    name = sequencer.active_name(scene)
    return name if name is not None and is_ours(scene, name) else None


def active_job(scene: bpy.types.Scene) -> tuple[str, str]:
    """(name, job) of the active strip. Raises CannotFill where it is none of ours."""
    name = active(scene)
    if name is None:
        raise CannotFill("Make a strip active whose frames were made here")
    return name, strips_in(level(scene))[name][JOB]


def note(strip: bpy.types.Strip, name: str) -> str | int:
    """One number or text of a strip's record as it is written, "" where there is none: for showing, never to act on."""
    written = strip.get(RECORD)
    value = written.get(name, "") if hasattr(written, "to_dict") else ""
    return value if isinstance(value, str | int) else ""


def number(strip: bpy.types.Strip, name: str) -> int:
    """The same where it should be a number; 0 where it is none."""
    value = note(strip, name)
    return value if isinstance(value, int) else 0


def is_growing(scene: bpy.types.Scene, name: str) -> bool:
    return note(strips_in(level(scene))[name], "state") == "growing"


def marks(scene: bpy.types.Scene, start: int, end: int) -> list[Mark]:
    """The strips of ours that lie at any frame of [start, end) where the user is editing."""
    found = (_mark(strips_in(level(scene))[name]) for name in sequencer.names_over(scene, start, end))
    return [mark for mark in found if mark is not None]


def _mark(strip: Any) -> Mark | None:
    job, written = strip.get(JOB), strip.get(RECORD)
    if strip.type != "IMAGE" or not is_job(job) or not hasattr(written, "to_dict"):
        return None
    gap, before, after, started = (str(written.get(key, "")) for key in ("gap", "before", "after", "started"))
    frames = written.get("frames_wanted")
    if type(frames) is not int or frames < 1:
        return None
    return Mark(
        strip.name,
        job,
        gap or job,
        (before, after),
        started,
        strip.channel,
        strip.mute,
        growing=written.get("state") == "growing",
        starts_at=sequencer.content_start(strip),
        frames=frames,
        inside=tuple(spans_of(str(written.get("inside", "")), frames) or ()),
        loop=written.get("loop") == 1,
    )


def mark_of(scene: bpy.types.Scene, name: str) -> Mark | None:
    """The mark of a strip where the user is editing, None where it has none that can be read."""
    strip = strips_in(level(scene)).get(name)
    return _mark(strip) if strip is not None else None


def record_of(scene: bpy.types.Scene, name: str) -> Record | None:
    """What a strip where the user is editing knows of its frames."""
    strip = strips_in(level(scene)).get(name)
    return record_on(strip) if strip is not None else None


def read(scene: bpy.types.Scene, name: str) -> Record:
    """The same, to go by. Raises CannotFill where it cannot be read."""
    record = record_of(scene, name)
    if record is None:
        raise CannotFill(UNREADABLE)
    return record


def next_prompt(scene: bpy.types.Scene, name: str, default: str) -> str:
    """The prompt that the user has written on a strip for its next take."""
    prompt = strips_in(level(scene))[name].get(PROMPT)
    return prompt if isinstance(prompt, str) else default


def record_on(strip: Any) -> Record | None:
    """What a strip knows of its frames, None where it is nothing that can be read."""
    properties = strip.get(RECORD)
    return from_properties(properties.to_dict()) if hasattr(properties, "to_dict") else None
