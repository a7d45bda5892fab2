"""What is to happen in a gap, from what people wrote on the timeline: markers in it, else notes of the clip before.

One marker says it for the whole gap, wherever in it it stands. Of several each holds from its frame on, the first from
the beginning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction

from attrs import frozen
from opentimelineio import opentime, schema
from opentimelineio.exceptions import OTIOError

from .rates import OddTime, seconds

NOTES = ("prompt", "note", "notes", "comment", "description")
"""Keys of a clip's metadata that are read where it has no marker, in this order."""


@frozen
class Words:
    """Prompts of one gap. Empty ones leave it to the command line."""

    prompt: str = ""
    later: tuple[tuple[int, str], ...] = ()
    """(frame of the gap from 0, prompt), rising: from there on it takes the place of `prompt`."""


@frozen
class Said:
    """A marker's text, and its place in seconds from the gap's beginning."""

    at: Fraction
    text: str


def of_gap(said: Iterable[Said], rate: Fraction, before: schema.Clip, cut_s: Fraction = Fraction(0)) -> Words:
    """`said` in the gap, or else of the clip before, of which `cut_s` seconds at the end belong to the gap."""
    texts: dict[int, list[str]] = {}
    for one in sorted(said, key=lambda one: one.at):
        at = texts.setdefault(int(one.at * rate), [])
        if one.text not in at:
            at.append(one.text)
    prompts = [(frame, ", ".join(words)) for frame, words in sorted(texts.items())]
    if not prompts:
        return Words(_of_clip(before, cut_s))
    return Words(prompts[0][1], tuple(prompts[1:]))


def between(markers: Iterable[schema.Marker], start: Fraction, duration: Fraction) -> Iterator[Said]:
    """What markers say that begin within `duration` seconds from `start`, in the markers' own time."""
    for marker in markers:
        if begins_within(marker, start, duration) and (text := _text(marker)):
            yield Said(seconds(marker.marked_range.start_time) - start, text)


def begins_within(marker: schema.Marker, start: Fraction, duration: Fraction) -> bool:
    """One whose time cannot be read is nowhere."""
    try:
        return start <= seconds(marker.marked_range.start_time) < start + duration
    except OddTime:
        return False


def _of_clip(clip: schema.Clip, cut_s: Fraction) -> str:
    try:
        shown = clip.trimmed_range()
        start, duration = seconds(shown.start_time), seconds(shown.duration) - cut_s
    except (OddTime, OTIOError):
        start, duration = Fraction(0), Fraction(0)
    said = sorted(between(clip.markers, start, duration), key=lambda one: one.at)
    if said:
        return said[-1].text
    for key in NOTES:
        value = clip.metadata.get(key)
        if isinstance(value, str) and value.strip():
            return _clean(value)
    return ""


def _text(marker: schema.Marker) -> str:
    return _clean(marker.comment or "") or _clean(marker.name or "")


def _clean(text: str) -> str:
    """As the wire takes it: newlines and tabs may stay, other control characters not."""
    return "".join(c if c in "\n\t" or c.isprintable() else " " for c in text).strip()


def shifted(marker: schema.Marker, by: opentime.RationalTime) -> schema.Marker:
    """The same marker, so much later in its item's time."""
    moved = marker.deepcopy()
    moved.marked_range = opentime.TimeRange(marker.marked_range.start_time + by, marker.marked_range.duration)
    return moved
