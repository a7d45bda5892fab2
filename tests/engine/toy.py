"""A Wan model small enough to run clips on a CPU: random weights, the real code."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import torch
from networks import random_weights

from sfserver.config import ServerConfig
from sfserver.engine import draft, wan
from sfserver.engine.base import Chunk, Event, Frame, Job, Keyframe, checked
from sfserver.engine.presets import SELF_FORCING_VACE, Preset
from sfserver.engine.wan_engine import WanEngine, Weights
from sfserver.model.config import TOY_VACE, DitConfig
from sfserver.model.dit import Dit
from sfserver.model.tae import Tae, TaeConfig
from sfserver.model.vace import Vace
from sfserver.model.vae import VaeConfig, WanVae

if TYPE_CHECKING:
    from sfserver.engine.base import Picture

PRESET = attrs.evolve(SELF_FORCING_VACE, dit=TOY_VACE, steps=(1000, 500))
"""Two steps: every rule of a rollout shows with two, in half the time."""
CPU = torch.device("cpu")
WIDTH, HEIGHT = 48, 32


def embed_prompt(prompt: str) -> torch.Tensor:
    """[1, 16, 32], a few rows that depend on the prompt and zeros: what a text encoder gives."""
    rows = torch.zeros(1, TOY_VACE.text_len, TOY_VACE.text_dim)
    generator = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:4]))
    rows[:, :5] = torch.randn(5, TOY_VACE.text_dim, generator=generator)
    return rows


def weights(config: DitConfig = TOY_VACE) -> Weights:
    """Shared by tests, which never write to it."""
    return _shared_weights(config)


def fresh_weights(config: DitConfig = TOY_VACE) -> Weights:
    return Weights(
        dit=random_weights(Dit(config), 1),
        vae=random_weights(WanVae(VaeConfig(dim=6)), 3),
        embed=embed_prompt,
        vace=random_weights(Vace(config), 2) if config.vace_layers else None,
        draft=cache(partial(draft.load, ServerConfig(device="cpu"))),
        tae=random_weights(Tae(TaeConfig(decoder_widths=(16, 12, 8, 8), encoder_width=8)), 4),
    )


_shared_weights = cache(fresh_weights)


def engine(preset: Preset = PRESET, loaded: Weights | None = None, has_tae: bool = False) -> WanEngine:
    info = wan.info_of(preset, Path("/nowhere"), ServerConfig(), remedy="")
    parameters = tuple(wan.parameters_of(preset, has_tae))
    info = attrs.evolve(info, available=True, missing=(), parameters=parameters)
    return WanEngine(info, preset, loaded or weights(preset.dit), CPU)


def picture(seed: int, width: int = WIDTH, height: int = HEIGHT) -> Picture:
    """A smooth picture, so that a VAE has something to work with."""
    random = np.random.default_rng(seed)
    coarse = torch.from_numpy(random.uniform(0, 255, (1, 3, 3, 4)))
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")[0]
    return smooth.movedim(0, -1).round().to(torch.uint8).numpy()


def job(num_frames: int = 25, at: tuple[int, ...] = (0, 24), **fields: Any) -> Job:
    """A small clip with a picture of its own at each of `at`; not `checked` yet."""
    keyframes = fields.pop("keyframes", tuple(Keyframe(a, picture(a)) for a in at))
    return Job(width=WIDTH, height=HEIGHT, num_frames=num_frames, keyframes=keyframes, prompt="a cat", **fields)


def run(request: Job, with_engine: WanEngine | None = None) -> list[Event]:
    with_engine = with_engine or engine()
    return list(with_engine.open(checked(request, with_engine.info)))


def frames(events: Iterable[Event]) -> list[Frame]:
    return [frame for event in events if isinstance(event, Chunk) for frame in event.frames]


def pixels(events: Iterable[Event]) -> Picture:
    """All frames of a run, [T, H, W, 3]."""
    return np.stack([frame.image for frame in frames(events)])
