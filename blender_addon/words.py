"""What is asked for at which frame of a gap: the text strips over it say so, and where none lies the panel's prompt.

Knows nothing of Blender. Frames are counted from the start of the gap.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from .sheet import Sheet

Words = list[tuple[int, str]]
"""(frame, prompt from there on), in order of time, the first at 0."""


def spoken(texts: Sequence[tuple[int, int, str]], frames: int, otherwise: str) -> Words:
    """The prompts of a gap over which texts stand at [left, right). Where several stand the one that began last counts.

    Where none stands it is `otherwise`; if that is empty the text before goes on, and the first begins at once.
    """
    said = [(max(left, 0), right, text.strip()) for left, right, text in texts if right > 0 and left < frames]
    edges = sorted({0, *(left for left, _, _ in said), *(right for _, right, _ in said if right < frames)})
    words: Words = []
    for edge in edges:
        here = [text for left, right, text in sorted(said) if left <= edge < right and text]
        text = here[-1] if here else otherwise
        if text and (not words or text != words[-1][1]):
            words.append((edge, text))
    return [(0, words[0][1]), *words[1:]] if words else [(0, otherwise)]


def changes(words: Words, sheet: Sheet) -> tuple[tuple[int, str], ...]:
    """(index in the clip, prompt) of every change after the first prompt, as a request holds them."""
    return tuple({sheet.shown[frame]: text for frame, text in words[1:]}.items())


def to_text(words: Words) -> str:
    """As a record holds the changes: JSON, "" where there are none."""
    return json.dumps(words[1:]) if len(words) > 1 else ""


def from_text(text: str, frames: int) -> Words | None:
    """The changes that a record holds; None where it holds none, or something else."""
    try:
        loaded: object = json.loads(text) if text else []
    except (ValueError, RecursionError):
        return None
    if not isinstance(loaded, list):
        return None
    words: Words = []
    for pair in loaded:
        if not (isinstance(pair, list) and len(pair) == 2 and type(pair[0]) is int and isinstance(pair[1], str)):
            return None
        if not (words[-1][0] if words else -1) < pair[0] < frames:
            return None
        words.append((pair[0], pair[1]))
    return words
