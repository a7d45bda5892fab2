"""Which prompt holds when, and what a cache must forget when another one begins.

Prompts change over where a block begins. What is in the cache by then was computed under the prompt before; most models
keep it, which lets the old words fade out with the past. LongLive was trained otherwise: the latest blocks are passed
again, in their order, so that all that is looked back at was seen under the words that hold now. The sink stays.
"""

from __future__ import annotations

from collections.abc import Sequence, Set

from attrs import field, frozen

from ..model.dit import TextKv
from .geometry import Block, Geometry


@frozen(eq=False)
class Prompt:
    """What one prompt is to all layers. For guidance in two passes there are two of them."""

    text: list[TextKv]
    vace_text: list[TextKv] = field(factory=list)
    clean_text: list[TextKv] = field(factory=list)
    """Of the network that makes the clean passes, where it is another."""


@frozen(eq=False)
class Switch:
    """Other prompts for the blocks that begin at a latent or later; as many as the clip began with."""

    latent: int
    prompts: Sequence[Prompt]


@frozen(eq=False)
class Script:
    """The prompts of a clip. `switches` rise."""

    opening: Sequence[Prompt]
    switches: Sequence[Switch] = ()

    def at(self, block: Block) -> Sequence[Prompt]:
        """The prompts that a block is made under."""
        held = [switch.prompts for switch in self.switches if switch.latent <= block.start]
        return held[-1] if held else self.opening

    def changes(self, geometry: Geometry) -> list[Block]:
        """The blocks at which prompts change over."""
        prompts = [self.opening, *(self.at(block) for block in geometry.blocks)]
        pairs = zip(prompts, prompts[1:], geometry.blocks, strict=False)
        return [block for before, now, block in pairs if now is not before]


def looked_back_at(block: Block, geometry: Geometry, window: int, sink: int, pinned: Set[int]) -> list[Block]:
    """What a cache holds when a block is about to be made, the sink left out: runs of latents, no longer than a block.

    `pinned` latents stay, and do not count for the window.
    """
    rolling = [position for position in range(block.start) if position not in pinned]
    latest = rolling[sink:][-(window - sink) :] if window > sink else []
    held = {*latest, *(position for position in pinned if position < block.start)}
    return [run for past in geometry.blocks if past.start < block.start for run in _runs(past, held)]


def _runs(block: Block, held: Set[int]) -> list[Block]:
    runs: list[Block] = []
    for position in block.latents:
        if position not in held:
            continue
        if runs and runs[-1].stop == position:
            position, count = runs[-1].start, runs.pop().count + 1
        else:
            count = 1
        runs.append(Block(block.index, position, count))
    return runs
