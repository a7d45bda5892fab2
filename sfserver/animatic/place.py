"""Movies put where the holes were. All else of the timeline stays what it was.

A new clip takes over what the gap carried: its markers, effects, colour and metadata. A still that gave the end of its
hold is shorter by it, so that nothing behind moves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from attrs import frozen
from opentimelineio import opentime, schema

from .holes import MARK, Hole
from .rates import exact, seconds
from .words import begins_within


@frozen(eq=False)
class Movie:
    """What was made for one hole."""

    hole: Hole
    name: str
    url: str
    """As the timeline is to write it."""
    record: Mapping[str, Any]
    """What goes into the clip's metadata: how it was made."""


def put(movies: Iterable[Movie]) -> None:
    """Change the holes' tracks in place. Holes are of one walk along an unchanged timeline."""
    for movie in sorted(movies, key=lambda movie: movie.hole.at, reverse=True):  # from behind: indices stay true
        hole = movie.hole
        if hole.is_hold:
            _shorten(hole)
        for at in reversed(range(hole.at, hole.at + len(hole.items))):
            del hole.track[at]
        hole.track.insert(hole.at, _clip(movie))


def _clip(movie: Movie) -> schema.Clip:
    hole = movie.hole
    whole = opentime.TimeRange(opentime.RationalTime(0, hole.rate), opentime.RationalTime(hole.num_frames, hole.rate))
    clip = schema.Clip(
        name=movie.name,
        media_reference=schema.ExternalReference(target_url=movie.url, available_range=whole),
        source_range=whole,
        markers=[marker.deepcopy() for marker in hole.markers],
        metadata={},
    )
    for item in hole.items:
        clip.effects.extend(effect.deepcopy() for effect in item.effects)
        for key, value in item.metadata.items():
            clip.metadata.setdefault(key, value)
        clip.enabled = clip.enabled and item.enabled
        clip.color = clip.color or item.color
    clip.metadata[MARK] = dict(movie.record)
    return clip


def _shorten(hole: Hole) -> None:
    still, taken = hole.before, hole.num_frames
    shown = still.trimmed_range()
    kept = opentime.TimeRange(shown.start_time, shown.duration - opentime.RationalTime(taken, hole.rate))
    start, length = seconds(kept.end_time_exclusive()), taken / exact(hole.rate)
    gone = [at for at, marker in enumerate(still.markers) if begins_within(marker, start, length)]
    for at in reversed(gone):
        del still.markers[at]
    still.source_range = kept
