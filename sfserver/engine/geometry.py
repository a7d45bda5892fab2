"""Frames, latents, tokens and blocks of one clip, and how they map. The only home of 4, 8 and 2.

The first latent stands for the first frame, each later one for four frames. Blocks are runs of latents that are made
together. The last block may be shorter than the others: no latent is made that no frame needs.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

FRAMES_PER_LATENT = 4
PIXELS_PER_LATENT = 8
PATCH = 2
SIZE_MULTIPLE = PIXELS_PER_LATENT * PATCH
"""Width and height of a clip, in pixels, are multiples of this."""
LATENT_CHANNELS = 16
STRIPS, STRIP_OVERLAP = 3, 12
"""A decoder that must work in less memory decodes so many parts of the longer side one after the other, which overlap
by so many latent pixels: as little at once as four quarters would be, for half of their overlaps."""


def latent_of(frame: int) -> int:
    """The latent that holds a frame: 0, then 1 for frames 1 to 4, and so on."""
    return -(-frame // FRAMES_PER_LATENT)


def latent_from(frame: int) -> int:
    """The first latent that holds no frame before this one."""
    return latent_of(frame - 1) + 1 if frame > 0 else 0


def frames_of(latent: int) -> range:
    """The frames that a latent holds: one for the first latent, four for each other."""
    if latent == 0:
        return range(1)
    return range(FRAMES_PER_LATENT * (latent - 1) + 1, FRAMES_PER_LATENT * latent + 1)


def strips(length: int) -> list[range]:
    """A side of so many latent pixels in parts of the same length, which overlap; a short one in fewer, or as it is."""
    count = max(1, min(STRIPS, length // (2 * STRIP_OVERLAP)))
    each = -(-(length + (count - 1) * STRIP_OVERLAP) // count)
    starts = [i * (length - each) // (count - 1) for i in range(count)] if count > 1 else [0]
    return [range(start, start + each) for start in starts]


@frozen
class Block:
    """Latents `start` to `stop` of the clip, made together. `given` ones are known beforehand and not made at all."""

    index: int
    """Counts the blocks that are made, from 0; given ones have -1."""
    start: int
    count: int

    @property
    def stop(self) -> int:
        return self.start + self.count

    @property
    def latents(self) -> range:
        return range(self.start, self.stop)

    @property
    def given(self) -> bool:
        return self.index < 0


@frozen
class Geometry:
    """Everything about a clip that is a number of something. Made by `plan`."""

    width: int
    height: int
    num_frames: int
    """Frames that were asked for, keyframes counted."""
    blocks: tuple[Block, ...]

    @property
    def latents(self) -> int:
        """Latents of all blocks: enough for `num_frames`, and more only where more are given."""
        return self.blocks[-1].stop

    @property
    def needed_latents(self) -> int:
        """Latents that are worth decoding."""
        return latent_of(self.num_frames - 1) + 1

    @property
    def made(self) -> tuple[Block, ...]:
        """Blocks that cost denoising."""
        return tuple(block for block in self.blocks if not block.given)

    @property
    def longest(self) -> int:
        """Latents of the largest block: what one pass is over, at most."""
        return max(block.count for block in self.blocks)

    @property
    def latent_height(self) -> int:
        return self.height // PIXELS_PER_LATENT

    @property
    def latent_width(self) -> int:
        return self.width // PIXELS_PER_LATENT

    @property
    def rows(self) -> int:
        """Token rows of one latent."""
        return self.latent_height // PATCH

    @property
    def columns(self) -> int:
        return self.latent_width // PATCH

    @property
    def tokens_per_latent(self) -> int:
        return self.rows * self.columns

    def latent_shape(self, count: int) -> tuple[int, int, int, int, int]:
        """[B, F, C, H, W] of `count` latents."""
        return (1, count, LATENT_CHANNELS, self.latent_height, self.latent_width)


def plan(
    width: int, height: int, num_frames: int, per_block: int | None, given: Sequence[int] = (), first: int = 0
) -> Geometry:
    """The blocks of a clip: those `given`, as counts of latents, then as many of `per_block` as it takes. The last of
    these is as long as the clip needs it: a whole one would reach beyond the positions that a model was trained at.

    `per_block` None makes all of the rest one block; `first` above 0 is the count of the first block that is made,
    where it is another. Sizes are in pixels, multiples of `SIZE_MULTIPLE`.
    """
    assert width % SIZE_MULTIPLE == height % SIZE_MULTIPLE == 0, (width, height)
    assert num_frames > 0, num_frames
    needed = latent_of(num_frames - 1) + 1
    blocks = [Block(-1, sum(given[:i]), count) for i, count in enumerate(given)]
    start, index = sum(given), 0
    while start < needed or not blocks:
        usual = first if first and index == 0 else per_block or needed
        count = max(1, min(usual, needed - start))
        blocks.append(Block(index, start, count))
        start, index = start + count, index + 1
    return Geometry(width, height, num_frames, tuple(blocks))
