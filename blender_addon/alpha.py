"""Keyframes with something transparent in them: sent with their alpha to an engine that keeps it, else over black.

Over black, because that is what the timeline shows where nothing lies below. Alpha is straight. No Blender here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import numpy as np

from .sfwire.limits import AUTO, CHANNELS, RGBA

if TYPE_CHECKING:
    from .sfwire.codec import Buffer
    from .sfwire.messages import EngineInfo, Welcome
    from .sfwire.request import Request

Given = tuple[int, "Buffer"]
"""A place in the clip, and RGB8 or RGBA8."""


_COLOUR_TYPE_AT, _WITH_ALPHA = 25, (4, 6)
"""In a PNG (specification, 11.2.2): where its head says how pixels are made up, and what it says where alpha is."""


def kept_by(engine: EngineInfo) -> bool:
    return engine.max_channels == RGBA


def may_hide(picture: Path) -> bool:
    """Whether a PNG has room for something transparent. Of other files nothing is said."""
    try:
        return _has_alpha(picture, picture.stat().st_mtime_ns)
    except OSError:
        return False


@lru_cache(maxsize=64)
def _has_alpha(picture: Path, _mtime_ns: int) -> bool:
    """Once for each state of a file: it is asked for at each drawing."""
    with picture.open("rb") as file:
        head = file.read(_COLOUR_TYPE_AT + 1)
    return head.startswith(b"\x89PNG") and len(head) > _COLOUR_TYPE_AT and head[_COLOUR_TYPE_AT] in _WITH_ALPHA


def alike(keyframes: Sequence[Given], width: int, height: int) -> tuple[tuple[Given, ...], int]:
    """The keyframes with alpha, if one of them has it, and how many channels that is."""
    if not any(len(picture) == width * height * RGBA for _, picture in keyframes):
        return tuple(keyframes), CHANNELS
    return tuple((at, _with_alpha(picture, width * height)) for at, picture in keyframes), RGBA


def as_kept(request: Request, welcome: Welcome | None) -> Request:
    """The request as its engine can do it; `auto` is taken for what it mostly comes to."""
    wanted = welcome.default_engine if welcome is not None and request.engine == AUTO else request.engine
    keeps = welcome is not None and any(e.id == wanted and kept_by(e) for e in welcome.engines)
    if request.channels == CHANNELS or keeps:
        return request
    keyframes = tuple((at, _over_black(picture)) for at, picture in request.keyframes)
    return attrs.evolve(request, keyframes=keyframes, channels=CHANNELS)


def over_black(pixels: np.ndarray) -> np.ndarray:
    """[..., 4] RGBA8 -> [..., 3] RGB8."""
    return (pixels[..., :CHANNELS] * (pixels[..., CHANNELS:] / np.float32(255)) + np.float32(0.5)).astype(np.uint8)


def divided(pixels: np.ndarray) -> np.ndarray:
    """[..., 4] floats whose colours are multiplied by alpha -> straight; black where nothing is seen."""
    alpha = pixels[..., CHANNELS:]
    colours = np.where(alpha > 0, pixels[..., :CHANNELS] / np.where(alpha > 0, alpha, 1), 0)
    return np.concatenate((colours, alpha), axis=-1)


def _with_alpha(picture: Buffer, pixels: int) -> Buffer:
    if len(picture) == pixels * RGBA:
        return picture
    opaque = np.full((pixels, RGBA), 255, np.uint8)
    opaque[:, :CHANNELS] = np.frombuffer(picture, np.uint8).reshape(pixels, CHANNELS)
    return memoryview(opaque).cast("B").toreadonly()


def _over_black(picture: Buffer) -> Buffer:
    pixels = np.frombuffer(picture, np.uint8).reshape(-1, RGBA)
    return memoryview(np.ascontiguousarray(over_black(pixels))).cast("B").toreadonly()
