"""What is typed, one word at a time: each becomes a value, or a sentence that names it and shows how it is written."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from pathlib import Path

import typer
from sfwire.limits import MAX_SIDE_PX


def words_of(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def keyframe_of(text: str) -> tuple[int, Path]:
    index, colon, path = text.partition(":")
    if not (colon and path and index.isdecimal() and len(index) < 7):
        raise typer.BadParameter(f"{text!r} is not a frame and a picture, as in 16:middle.png", param_hint="--at")
    return int(index), Path(path)


def later_prompt_of(text: str) -> tuple[int, str]:
    index, colon, prompt = text.partition(":")
    if not (colon and prompt.strip() and index.isdecimal() and len(index) < 7):
        raise typer.BadParameter(f"{text!r} is not a frame and a prompt, as in 16:it rains", param_hint="--prompt-at")
    return int(index), prompt.strip()


def size_of(text: str) -> tuple[int, int] | None:
    """(width, height), or None for auto."""
    if text == "auto":
        return None
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if not found:
        raise typer.BadParameter(f"{text!r} is neither auto nor a size, as in 832x480", param_hint="--size")
    width, height = int(found[1]), int(found[2])
    if max(width, height) > MAX_SIDE_PX:
        raise typer.BadParameter(f"{text} is more than {MAX_SIDE_PX} pixels on a side", param_hint="--size")
    return width, height


def setting_of(text: str) -> tuple[str, str]:
    """NAME=VALUE of a --set."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise typer.BadParameter(f"{text!r} is not a name and a value, as in easing=in-out", param_hint="--set")
    return name, value


_NTSC = {"23.976": Fraction(24000, 1001), "23.98": Fraction(24000, 1001)} | {
    "29.97": Fraction(30000, 1001),
    "47.952": Fraction(48000, 1001),
    "59.94": Fraction(60000, 1001),
}
"""What people write for the rates of NTSC, which no decimal number hits."""


_RATE = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?|[0-9]{1,9}/[0-9]{1,9}")


def fps_of(text: str, option: str = "--fps") -> Fraction:
    """A rate that was typed, NTSC's by their usual names."""
    try:
        if not _RATE.fullmatch(text):  # Fraction("1e99999999") would be worked out for hours
            raise ValueError
        fps = _NTSC.get(text) or Fraction(text).limit_denominator(1001)
    except (ValueError, ZeroDivisionError):
        raise typer.BadParameter(f"{text!r} is not a rate, as in 24 or 30000/1001", param_hint=option) from None
    if not 1 <= fps <= 240:
        raise typer.BadParameter(f"{text} is outside 1 to 240", param_hint=option)
    return fps


def lora_of(text: str) -> tuple[Path, float]:
    path, equals, strength = text.rpartition("=")
    if not equals:
        return Path(text), 1.0
    try:
        if math.isfinite(float(strength)):
            return Path(path), float(strength)
    except ValueError:
        pass
    raise typer.BadParameter(f"{strength!r} is not a strength, as in style.safetensors=0.8", param_hint="--lora")
