"""How a clip arrives at its end keyframe, against the clip as it truly is: does it stand still there, does it stray?

Looked at in 17 frames, whose last picture is the last of the four of its latent: the three before it are the model's
alone, where it is told of a still. (The lengths that the small world was trained at end on a latent's first frame.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from attrs import frozen
from sfwire.messages import Value
from torch import Tensor

from ..config import ServerConfig
from ..engine import small_world
from ..train import world
from ..train.world import Clips
from .report import Measure
from .world import HELD_OUT_SEED, show

NUM_FRAMES = 17
SCENES = 2
"""Times ten verbs."""
OWN = 3
"""In-betweens in the end keyframe's latent."""
WAYS: Mapping[str, dict[str, Value]] = {
    "as it is": {},
    "held": {"anchor_release": 0},
    "held, shown the draft's": {"anchor_release": 0, "anchor_shows": "draft"},
}


@frozen
class End:
    """Of clips [B, T, 3, H, W] that end on a keyframe, 0 to 1."""

    motion: float
    """From frame to frame among the last in-betweens, over the same of the true clips: 1 is right, 0 stands still."""
    last_step: float
    """The change from the last in-between to the keyframe, over the same of the true clips."""
    error: float
    """Mean square of their distance from the true frames, over that of the in-betweens before them."""


def end_of(pixels: Tensor, true: Tensor) -> End:
    last, before = slice(-1 - OWN, -1), slice(1, -1 - OWN)
    steps = [clips.diff(dim=1).abs().mean(dim=(0, 2, 3, 4)) for clips in (pixels, true)]
    motion, last_step = (float(a / b) for a, b in zip(*((s[-OWN:-1].mean(), s[-1]) for s in steps), strict=True))
    wrong = (pixels - true).square()
    return End(motion, last_step, float(wrong[:, last].mean() / wrong[:, before].mean()))


def clips_to_end(scenes: int = SCENES) -> Clips:
    """Held-out scenes of that length under every verb."""
    return world.all_verbs(scenes, NUM_FRAMES, torch.Generator().manual_seed(HELD_OUT_SEED + 2))


def measure(on_stage: Callable[[str], None]) -> list[Measure]:
    """Of the shipped model, and beside it what holding the end latent to the last step would make of it."""
    engine = small_world.load(ServerConfig(device="cpu", precision="fp32"))
    true, measures = clips_to_end(), list[Measure]()
    for name, params in WAYS.items():
        on_stage(f"end keyframe, {name}")
        end = end_of(show(engine, true, params=params).pixels, true.pixels)
        wanted = None if params else 0.6
        how = f"mean square of the last {OWN} in-betweens over those before, {len(true.verbs)} clips of {NUM_FRAMES}"
        measures += [
            Measure(f"end, {name}: motion", end.motion, wanted, "high", "x", "of the true clip's; 0 stands still"),
            Measure(f"end, {name}: error", end.error, None, "low", "x", how),
            Measure(f"end, {name}: last step", end.last_step, None, "low", "x", "to the keyframe, over the true one"),
        ]
    return measures
