"""A rate as the fraction that is meant, and times as whole frames of it.

OpenTimelineIO keeps rates and times as doubles, and programs write 23.976, 23.98 or 23.976023976 for the same thing.
"""

from __future__ import annotations

import math
from fractions import Fraction

from opentimelineio.opentime import RationalTime, to_timecode

MIN_RATE, MAX_RATE = 0.01, 1000
_NEAR = 1e-3
"""Relative. 23.98 is 1.7e-4 from 24000/1001, and 24 is 1e-3 from it: the nearer one wins."""
_MAX_COUNT = 1e15
"""Of frames or samples: beyond it a double has no whole numbers, and its products may be none at all."""
_A_FRAME_LESS = Fraction(1, 100)
"""Of a frame: what rounding in doubles may add to or take from a whole number of them."""


class OddTime(ValueError):
    """A rate or a time that no film has; the message is the end of a sentence about what has it."""


def exact(rate: float) -> Fraction:
    """The fraction that is meant by a double: n or n * 1000/1001 where one is near. Raises OddTime."""
    if not math.isfinite(rate) or not MIN_RATE <= rate <= MAX_RATE:
        raise OddTime(f"has a rate of {rate:g} frames a second; {MIN_RATE} to {MAX_RATE} are understood")
    whole = max(1, math.ceil(rate - _NEAR * rate))
    near = min((Fraction(whole), Fraction(whole * 1000, 1001)), key=lambda f: abs(float(f) - rate))
    if abs(float(near) - rate) <= _NEAR * rate:
        return near
    return Fraction(rate).limit_denominator(1001)


def seconds(time: RationalTime) -> Fraction:
    """Raises OddTime."""
    if not math.isfinite(time.value) or abs(time.value) > _MAX_COUNT:
        raise OddTime("has a time that no film has")
    return Fraction(time.value) / exact(time.rate)


def frames(duration: Fraction, rate: Fraction) -> int | None:
    """How many whole frames of `rate` a duration in seconds is, or None where it ends within one."""
    count = duration * rate
    whole = round(count)
    return whole if abs(count - whole) <= _A_FRAME_LESS else None


def shown(duration: Fraction, rate: Fraction) -> int:
    """How many frames of `rate` show something that lasts so many seconds: a begun one counts."""
    return math.ceil(duration * rate - _A_FRAME_LESS)


def place(at: Fraction, rate: float) -> str:
    """A position in a timeline as editors show it: timecode, with a semicolon where it is drop-frame."""
    count = round(at * exact(rate))
    try:
        return to_timecode(RationalTime(count, rate), rate)
    except (ValueError, TypeError):  # timecode is not defined for this rate, or for a negative time
        return f"frame {count}"
