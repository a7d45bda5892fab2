"""What a rollout is told about the keyframes, and the dials of it. All of it may be empty.

Known latents steer through the KV cache: they are in it before anything is made. A VACE context steers beside it. The
pull of a known latent that is still to come has three dials, for no published causal model has met one in training:
`Pull.strength` adds to the logits of its keys, `Pull.fade` takes away from that early on, and `Pull.reach` lets it
seem nearer than it is. Passes that see the clip beyond their block have a `Focus`. Each is exact: nothing is masked,
and at rest each is the plain pass.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Generator, Iterable, Mapping, Set
from typing import NamedTuple

from attrs import field, frozen
from torch import Tensor

from .base import Step
from .geometry import Block

NO_PULL = -math.inf

Context = Callable[[range], Generator[Step, None, Tensor]]
"""The VACE context [B, F, 96, H, W] of a run of latents, encoded when it is first needed: a Step after each latent."""


def encoded(context: Tensor) -> Context:
    """The Context of a clip that is encoded as a whole already, [B, F, 96, H, W]."""

    def look_up(span: range) -> Generator[Step, None, Tensor]:
        yield from ()
        return context[:, span.start : span.stop]

    return look_up


class View(NamedTuple):
    """What the VACE branch sees in all passes over one block."""

    context: Tensor
    """[B, F, 96, H, W] of the block and of what comes after it, as far as look-ahead goes."""
    future: Tensor
    """Latents after the block [B, F, C, H, W]: as yet noise."""


@frozen
class Pull:
    """How a block feels known latents that come after it."""

    strength: float = 0.0
    """Added to the logits of their keys: each counts e^strength times. 0 is the model by itself, `NO_PULL` none."""
    fade: float = 0.0
    """Taken from the strength right after the known latent before, and less and less of it up to the one ahead."""
    reach: int | None = None
    """Latents that one may seem to lie behind the end of the block, at most; None leaves it where it is."""

    def biases(self, block: Block, known: Iterable[int]) -> dict[int, tuple[float, ...]]:
        """What is added to the logits of each known latent after the block; those that get nothing are left out."""
        places = sorted(known)
        ahead = places[bisect_left(places, block.stop) :]
        biases = {key: (self._at(block.start, key, places),) for key in ahead}
        return {key: bias for key, bias in biases.items() if bias != (0.0,)}

    def _at(self, position: int, key: int, known: list[int]) -> float:
        before = known[: bisect_left(known, key)]
        begin = before[-1] + 1 if before else 0
        way = (position - begin) / (key - begin) if key > begin else 1.0
        return self.strength - self.fade * (1.0 - max(0.0, way))


AT_REST = Pull()


@frozen
class Focus:
    """How a pass over all of a clip keeps to its keyframes: a bias of attention, and time rescaled (arXiv 2603.17651).

    Without training, and exact, as a pull is. How far each is turned up is for the user: no weights were at hand.
    """

    strength: float = 0.0
    """Added to the logits between a latent and the keyframes on both sides of it, shared out by how near each is."""
    time_scale: float = 1.0
    """Distances in time seem so many times as long: below 1, far keyframes are attended to like nearer ones."""

    def biases(self, queries: range, keyframes: Iterable[int]) -> dict[int, tuple[float, ...]]:
        """What is added for each keyframe among `queries`, one number for each of these; at rest, nothing."""
        seen = sorted(set(keyframes).intersection(queries)) if self.strength else []
        shares = [_nearness(position, seen) for position in queries]
        return {key: tuple(self.strength * share.get(key, 0.0) for share in shares) for key in seen}


AT_EASE = Focus()


def _nearness(position: int, keyframes: list[int]) -> dict[int, float]:
    """1 at a keyframe, shared out on the way from one to the next, 1 where there is one on one side alone."""
    i = bisect_right(keyframes, position)
    before, after = keyframes[:i][-1:], keyframes[i:][:1]
    if not (before and after):
        return dict.fromkeys([*before, *after], 1.0)
    way = (position - before[0]) / (after[0] - before[0])
    return {before[0]: 1.0 - way, after[0]: way}


@frozen(eq=False)
class Guide:
    """What the model is told about the keyframes."""

    known: Mapping[int, Tensor] = field(factory=dict[int, Tensor])
    """Clean latents [B, 1, C, H, W] by position. They go into the cache first, and into the clip as they are."""
    context: Context | None = None
    told: Set[int] | None = None
    """Latents that the context says something about: passes that see none of them go without VACE. None is all."""
    lookahead: int = 0
    """Latents that the VACE branch sees beyond the present block; 0 keeps it to the block."""
    strength: float = 1.0
    """Weight of VACE's hints."""
    stills: Set[int] = frozenset()
    """Known latents that show one picture standing still; the others move by themselves."""
    release: int = 0
    """Passes at the end of a block in which its stills are the model's own, so that they move like what is around
    them. A still that is never released stands for four frames."""
    pull: Pull = AT_REST
    focus: Focus = AT_EASE
    keyframes: Set[int] = frozenset()
    """Latents that hold one, whether they are known, told of or both."""

    def biases(self, block: Block) -> dict[int, tuple[float, ...]]:
        """What is added to logits in a pass over a block. Where VACE looks ahead, focus is for what it sees."""
        focus = {} if self.lookahead else self.focus.biases(block.latents, self.keyframes)
        return self.pull.biases(block, self.known) | focus

    def held(self, block: Block, passes_left: int) -> list[int]:
        """Positions in the block whose latents are put in as they are known."""
        released = self.stills if passes_left <= self.release and self.release else frozenset()
        return [position for position in block.latents if position in self.known and position not in released]
