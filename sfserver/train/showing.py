"""What a model makes of clips that it does not learn from, as it learns: strips of pictures, now and then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from attrs import frozen
from torch import Tensor

from ..engine.noise import Schedule
from ..model.dit import Dit
from .latents import Latents
from .loop import step_random
from .self_rollout import Rolling, batch_noise, clip_geometry, roll_out
from .sheets import strips

MOST_CLIPS = 4
_SHOWN_SEED = 17
"""Of the noise, which is the same on every sheet: what differs is the model."""


@frozen(eq=False)
class Showing:
    """Clips of one length that are held out, and the way from latents to pictures."""

    latents: Latents
    sentences: Tensor
    decode: Callable[[Tensor], Tensor]
    """Latents [B, F, C, H, W] to pixels [B, T, 3, H, W] in 0 to 1."""
    schedule: Schedule
    scale: int = 1


@torch.no_grad()
def show(dit: Dit, rolling: Rolling, showing: Showing, path: Path) -> None:
    """PNG at `path`: each clip as it was, and as the model makes it between its first and its last picture."""
    latents = showing.latents.to(rolling.passes.device)
    geometry, last = clip_geometry(latents.clean, rolling.per_block), latents.clean.shape[1] - 1
    made = roll_out(
        dit,
        showing.sentences[latents.sentence].to(latents.clean.device),
        {position: latents.keyframe(position) for position in (0, last)},
        geometry,
        showing.schedule,
        batch_noise(latents.clean, geometry, step_random(_SHOWN_SEED, 0)),
        how=rolling.passes.plain(),
    )
    clips = torch.cat((latents.keyframe(0), made.float(), latents.keyframe(last)), 1)
    rows: list[tuple[str, Tensor]] = []
    for i in range(len(latents)):  # one by one: pictures are large
        pairs = (("as it was", latents.clean), ("as the model makes it", clips))
        rows += [(f"clip {i + 1}, {what}", showing.decode(of[i : i + 1])[0].cpu()) for what, of in pairs]
    strips(rows, path, scale=showing.scale)


def held_out(pool: Latents) -> tuple[Latents, Latents]:
    """A pool without its last clips, a tenth of them and at most MOST_CLIPS; and those. A few clips all stay."""
    count = min(MOST_CLIPS, len(pool) // 10)
    rows = torch.arange(len(pool))
    return pool.pick(rows[: len(pool) - count]), pool.pick(rows[len(pool) - count :])
