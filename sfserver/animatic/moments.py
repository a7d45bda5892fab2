"""Which picture of which file a clip shows at one of its frames. Nothing is opened here.

A clip's time runs in its media's own time, which may begin anywhere (a timecode), and may be warped.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from urllib.parse import unquote

from attrs import frozen
from opentimelineio import opentime, schema
from opentimelineio.exceptions import OTIOError

from .rates import OddTime, exact, seconds, shown

STILL_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".exr"})
"""Files that are one picture for as long as they are shown."""
_MAX_FRAME = 10**9


class NoPicture(ValueError):
    """Why a clip shows no picture that could be a keyframe; the end of a sentence that begins with the clip."""


@frozen
class Moment:
    """One picture: of a still (`time` is None), or of a movie, counted from its first frame."""

    path: Path
    time: Fraction | None = None
    """In seconds from the movie's first frame."""
    rate: Fraction | None = None
    """In which the timeline counts the movie's frames, where it says so."""

    def __str__(self) -> str:
        return self.path.name


def first(clip: schema.Clip, folder: Path) -> Moment:
    """What the clip shows first. Relative names are of `folder`. Raises NoPicture."""
    return _moment(clip, 0, Fraction(1), folder)


def last(clip: schema.Clip, rate: Fraction, folder: Path, cut: int = 0) -> Moment:
    """What it shows last in a timeline of `rate`, if `cut` frames were taken off its end. Raises NoPicture."""
    return _moment(clip, length(clip, rate) - 1 - cut, rate, folder)


def length(clip: schema.Clip, rate: Fraction) -> int:
    """Frames of the timeline that show the clip. Raises NoPicture."""
    try:
        return shown(seconds(_range(clip).duration), rate)
    except OddTime as error:
        raise NoPicture(str(error)) from None


def is_held(clip: schema.Clip, folder: Path) -> bool:
    """It shows one picture all the time. Raises NoPicture where it shows none."""
    return any(isinstance(effect, schema.FreezeFrame) for effect in clip.effects) or first(clip, folder).time is None


def _moment(clip: schema.Clip, offset_frames: int, rate: Fraction, folder: Path) -> Moment:
    try:
        return _of_media(clip, offset_frames, rate, folder)
    except OddTime as error:
        raise NoPicture(str(error)) from None


def _of_media(clip: schema.Clip, offset_frames: int, rate: Fraction, folder: Path) -> Moment:
    if not clip.enabled:
        raise NoPicture("is switched off")
    media = clip.media_reference
    if isinstance(media, schema.ExternalReference):
        path = local_path(media.target_url, folder)
        if path.suffix.lower() in STILL_SUFFIXES:
            return Moment(path)
        time, counted = _media_time(clip, offset_frames, rate)
        return Moment(path, time, counted)
    if isinstance(media, schema.ImageSequenceReference):
        return Moment(_numbered(clip, media, *_media_time(clip, offset_frames, rate), folder))
    if isinstance(media, schema.GeneratorReference):
        raise NoPicture(f"is made by a generator ({media.generator_kind or media.name or 'unnamed'}); render it first")
    raise NoPicture("has no media")


def _range(clip: schema.Clip) -> opentime.TimeRange:
    try:
        found = clip.trimmed_range()
    except OTIOError:
        raise NoPicture("has neither a range nor media that says how long it is") from None
    if found.duration.value <= 0:
        raise NoPicture(f"has a length of {found.duration.value:g} frames")
    return found


def _media_time(clip: schema.Clip, offset_frames: int, rate: Fraction) -> tuple[Fraction, Fraction]:
    """(seconds from the media's first frame, the rate in which its frames are counted)."""
    trimmed = _range(clip)
    available = clip.media_reference.available_range
    counted = available.duration.rate if available else trimmed.start_time.rate
    speed = _speed(clip.effects)
    start, offset = seconds(trimmed.start_time), offset_frames / rate
    if speed < 0:  # played from its end: at -1, which frames these are is beyond doubt
        offset = seconds(trimmed.duration) - 1 / rate - offset
    time = start + offset * abs(speed) - (seconds(available.start_time) if available else 0)
    if not 0 <= time * exact(counted) + Fraction(1, 2) <= _MAX_FRAME:
        raise NoPicture(f"asks for {float(time):.4g} s of its media, where nothing is")
    return time, exact(counted)


def _speed(effects: Iterable[schema.TimeEffect]) -> Fraction:
    """How fast the media runs. Raises NoPicture for what is no even speed."""
    speed = Fraction(1)
    for effect in effects:
        if isinstance(effect, schema.LinearTimeWarp):  # a FreezeFrame is one of speed 0
            if not math.isfinite(effect.time_scalar):
                raise NoPicture("has a speed that is no number")
            speed *= Fraction(effect.time_scalar).limit_denominator(10**6)
        elif isinstance(effect, schema.TimeEffect):
            raise NoPicture(f"has a change of speed that is not understood ({effect.effect_name or effect.name})")
    if speed < 0 and speed != -1:
        raise NoPicture(f"plays backwards at {float(-speed):g} times its speed; render it first")
    return speed


def _numbered(
    clip: schema.Clip, media: schema.ImageSequenceReference, time: Fraction, counted: Fraction, folder: Path
) -> Path:
    """The file of an image sequence that is shown at `time`."""
    rate = exact(media.rate) if media.rate > 0 else counted
    index = round(time * rate)
    if media.frame_step < 1:
        raise NoPicture(f"counts its pictures in steps of {media.frame_step}")
    available = media.available_range
    count = round(seconds(available.duration) * rate) if available else index + 1
    if not 0 <= index < count:
        raise NoPicture(f"asks for picture {index} of {count}")
    number = f"{abs(media.start_frame + index * media.frame_step):0{max(0, min(media.frame_zero_padding, 20))}}"
    sign = "-" if media.start_frame + index * media.frame_step < 0 else ""
    base = media.target_url_base.rstrip("/")
    name = f"{media.name_prefix}{sign}{number}{media.name_suffix}"
    return local_path(f"{base}/{name}" if base else name, folder)


def local_path(url: str, folder: Path) -> Path:
    """The file that a reference means; relative ones are of `folder`. Raises NoPicture for what is elsewhere.

    Programs write names as they are and names with %20 alike, so the one that is there is meant.
    """
    scheme, mark, rest = url.partition("://")
    if mark and scheme != "file":
        raise NoPicture(f"has its media elsewhere ({scheme}://{rest.partition('/')[0]}); download it first")
    name = url
    if url.startswith("file:"):
        host, slash, name = url.removeprefix("file:").removeprefix("//").partition("/")
        if host not in ("", "localhost"):
            raise NoPicture(f"has its media on another machine ({host}); copy it here first")
        name = name if os.name == "nt" else slash + name
    if not name or "\0" in name:
        raise NoPicture("names no file")
    written, meant = folder / name, folder / unquote(name)
    return written if written == meant or _is_there(written) else meant


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long for this system
        return False
