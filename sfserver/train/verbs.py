"""What happens between two keyframes of the small world: verbs, and the sentences that say them.

Time t runs from 0 to 1. All verbs but for the pace of the way begin and end with nothing: none shows in the keyframes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from attrs import frozen
from torch import Tensor


@frozen
class Verb:
    """One motion, as functions of t, tensors in and out."""

    phrases: tuple[str, ...]
    progress: Callable[[Tensor], Tensor] = lambda t: t
    """Share of the way from the first place to the last."""
    fall_px: Callable[[Tensor], Tensor] = torch.zeros_like
    """How far below the straight way; above it is negative."""
    growth: Callable[[Tensor], Tensor] = torch.zeros_like
    """Size, beyond 1."""
    fading: Callable[[Tensor], Tensor] = torch.zeros_like
    """What is lost of being solid."""
    turns: Callable[[Tensor], Tensor] = torch.zeros_like
    """Turned so far, in whole turns, towards where it goes."""


def _arc(t: Tensor) -> Tensor:
    return torch.sin(math.pi * t)


def _smooth(t: Tensor) -> Tensor:
    t = t.clamp(0, 1)
    return t * t * (3 - 2 * t)


VERBS = {
    "rolls": Verb(("rolls straight across", "moves evenly across", "glides over")),
    "jumps": Verb(
        ("jumps across in one high arc", "leaps over to the other side", "jumps over"), fall_px=lambda t: -15 * _arc(t)
    ),
    "dips": Verb(("dips down and comes up again", "goes round below", "dives under"), fall_px=lambda t: 15 * _arc(t)),
    "bounces": Verb(
        ("bounces three times", "hops across in three hops", "bounces along"),
        fall_px=lambda t: -11 * torch.sin(3 * math.pi * t).abs(),
    ),
    "waits": Verb(
        ("waits and then darts across", "stays still, then rushes over", "waits, then runs"),
        progress=lambda t: _smooth((t - 0.5) / 0.5),
    ),
    "slows": Verb(
        ("starts fast and slows down", "darts off and then slows to rest", "rushes over, then brakes"),
        progress=lambda t: 1 - (1 - t) ** 3,
    ),
    "returns": Verb(
        ("runs ahead, comes back and goes on", "goes there and back, then there again", "turns back halfway"),
        progress=lambda t: t + 0.32 * torch.sin(2 * math.pi * t),
    ),
    "swells": Verb(("swells and becomes small again", "grows on the way", "puffs up"), growth=lambda t: 0.7 * _arc(t)),
    "shrinks": Verb(
        ("shrinks and grows back", "becomes tiny on the way", "gets small"), growth=lambda t: -0.5 * _arc(t)
    ),
    "fades": Verb(("fades away and comes back", "vanishes halfway", "turns invisible"), fading=lambda t: 0.9 * _arc(t)),
    "spins": Verb(("spins once on the way", "makes one full turn", "rolls over once"), turns=lambda t: t),
    "twirls": Verb(("twirls, two turns in all", "spins twice", "rolls over and over"), turns=lambda t: 2 * t),
    "hides": Verb(
        ("hides behind the post for a while", "stays behind the post, then comes out", "hides, then goes on"),
        progress=lambda t: 0.5 * _smooth(t / 0.32) + 0.5 * _smooth((t - 0.68) / 0.32),
    ),
}
VERB_NAMES = tuple(VERBS)

OPEN = {
    "goes a longer way": ("jumps", "dips"),
    "makes a detour": ("jumps", "dips"),
    "changes its size": ("swells", "shrinks"),
    "is not always as big": ("swells", "shrinks"),
    "does not keep its pace": ("waits", "slows"),
    "moves unevenly": ("waits", "slows"),
}
"""Sentences that leave something open, each with the two verbs that do as it says."""
_OTHER = {verb: other for pair in OPEN.values() for verb, other in (pair, pair[::-1])}
OTHERS = torch.tensor([VERB_NAMES.index(_OTHER.get(name, name)) for name in VERBS])
"""Of each verb, the one that an open sentence allows as well; itself where there is none."""


def open_phrases(verb: str) -> tuple[str, ...]:
    """The open sentences that a verb obeys."""
    return tuple(phrase for phrase, pair in OPEN.items() if verb in pair)


def timelines(num_frames: int) -> dict[str, Tensor]:
    """Each trait of all verbs over a clip, [verbs, T], by the trait's name in `Verb`."""
    t = torch.linspace(0, 1, num_frames)
    traits = ("progress", "fall_px", "growth", "fading", "turns")
    return {trait: torch.stack([getattr(verb, trait)(t) for verb in VERBS.values()]) for trait in traits}
