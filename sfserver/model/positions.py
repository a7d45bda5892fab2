"""Where the latents that a cache holds seem to lie in time: three policies, as different models were trained.

`absolute` is where they are (Self Forcing and its kin): keys can be rotated once and for all. The others keep keys as
they are and rotate them when read, so that positions never grow beyond what the model has seen. `relative` counts what
is held (Reward Forcing, the endless variant of LongLive). `top` (Self Gradient Forcing) leaves the sink at the
beginning and counts the others down from the present block, which lies where it is until the trained range is full and
at its end from then on: the gap behind the sink stays as long as it can.

Latents still to come, as a keyframe's that was pinned, keep their distance to the present block, or seem nearer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from attrs import frozen

Policy = Literal["absolute", "relative", "top"]


@frozen
class Positions:
    """How positions are given. Counts of latents."""

    policy: Policy = "absolute"
    trained: int | None = None
    """As many positions as the model was trained at: none beyond is given to a latent to come, nor by `top` at all.
    None is no end."""
    reach: int | None = None
    """How far behind the present block's end a latent to come may seem to lie at most; None is its true distance."""

    def of(self, held: Sequence[int], start: int, count: int, sink: int = 0) -> dict[int, int]:
        """The position of each latent in `held`, which rise and of which those from `start` on are the block."""
        past = [p for p in held if p < start]
        block = list(range(start, start + count))
        seems = dict(zip([*past, *block], self._up_to([*past, *block], sink), strict=True))
        for latent in held:
            if latent >= start + count:
                seems[latent] = self._ahead(seems[block[-1]], latent - block[-1])
        return seems

    def _up_to(self, latents: Sequence[int], sink: int) -> list[int]:
        """Of latents the last of which is the block's last."""
        if self.policy == "absolute":
            return list(latents)
        if self.policy == "relative":
            return list(range(len(latents)))
        end = min(latents[-1], (self.trained or latents[-1] + 1) - 1)
        last = len(latents) - 1
        return [i if i < sink else max(sink, end - (last - i)) for i in range(len(latents))]

    def _ahead(self, end: int, distance: int) -> int:
        """Of a latent to come, for a block that ends at `end`."""
        seems = end + (distance if self.reach is None else min(distance, self.reach))
        return seems if self.trained is None else max(end, min(seems, self.trained - 1))


ABSOLUTE = Positions()
