"""Timelines for tests, built by hand and played by OpenTimelineIO's own arithmetic, not by ours."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import barcodes
import numpy as np
import opentimelineio as otio
from opentimelineio.opentime import RationalTime, TimeRange
from opentimelineio.schema import Clip, ExternalReference, Gap, ImageSequenceReference, Marker, Timeline, Track
from PIL import Image

RATES = {
    "24": (24.0, Fraction(24)),
    "25": (25.0, Fraction(25)),
    "23.976": (24000 / 1001, Fraction(24000, 1001)),
    "29.97": (30000 / 1001, Fraction(30000, 1001)),
    "60": (60.0, Fraction(60)),
}


def span(start: float, length: float, rate: float) -> TimeRange:
    return TimeRange(RationalTime(start, rate), RationalTime(length, rate))


def clip(url: str | Path, start: float, length: float, rate: float, available: TimeRange | None = None, **more) -> Clip:
    media = ExternalReference(str(url), available)
    return Clip(Path(str(url)).stem, media, span(start, length, rate), **more)


def gap(length: float, rate: float, markers: Sequence[Marker] = ()) -> Gap:
    made = Gap(duration=RationalTime(length, rate))
    made.markers.extend(markers)
    return made


def marker(at: float, text: str, rate: float) -> Marker:
    return Marker(name="note", marked_range=span(at, 1, rate), comment=text)


def timeline(*items, name: str = "V1") -> Timeline:
    made = Timeline("board")
    track = Track(name, kind="Video")
    track.extend(items)
    made.tracks.append(track)
    return made


def save(made: Timeline, path: Path) -> Path:
    otio.adapters.write_to_file(made, str(path))
    return path


def load(path: Path) -> Timeline:
    return otio.adapters.read_from_file(str(path))


def played(path: Path, track: int = 0) -> list[int | None]:
    """The number that each frame of the timeline shows, None where there is nothing."""
    made = load(path)
    rate = made.tracks[track].duration().rate
    return [_shown(made.tracks[track], RationalTime(t, rate), path.parent) for t in range(_frames(made.tracks[track]))]


def _frames(track: Track) -> int:
    return round(track.duration().value)


def _shown(track: Track, at: RationalTime, folder: Path) -> int | None:
    child = track.child_at_time(at, shallow_search=True)
    if not isinstance(child, Clip):
        assert isinstance(child, Gap)
        return None
    time = track.transformed_time(at, child)
    media = child.media_reference
    offset = time - media.available_range.start_time if media.available_range else time
    if isinstance(media, ImageSequenceReference):
        name = media.target_url_for_image_number(round(offset.rescaled_to(media.rate).value))
        return _of_still(folder / name)
    name = folder / unquote(media.target_url)
    if name.suffix == ".png":
        return _of_still(name)
    return _of_movie(name)[round(offset.value)]


@cache
def _of_still(path: Path) -> int:
    with Image.open(path) as picture:
        return barcodes.number(np.asarray(picture.convert("RGB")))


@cache
def _of_movie(path: Path) -> list[int]:
    return barcodes.read_numbers(path)
