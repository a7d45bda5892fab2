"""The small world's model as an engine: what it says of itself, and how it is loaded. It comes with the package.

Everything that runs is `wan_engine`'s: the same rollout, cache, keyframes and seam as the large models, at toy size.
`sfserver.train` makes the weights. Asking imports no torch.
"""

from __future__ import annotations

from pathlib import Path

from attrs import evolve
from sfwire.messages import EngineInfo

from ..config import ServerConfig
from . import wan
from .base import Engine
from .presets import SMALL_WORLD

ID = SMALL_WORLD.id
FOLDER = Path(__file__).parent.parent / "data" / "small_world"
TAUGHT_FOLDER = FOLDER.parent / "small_world_taught"
"""The transformer that saw teacher forcing alone, for as long: what `bench.exposure` measures self rollout against."""
SIDE_PX = 64
"""Of every clip that it was trained on; other shapes of the same area run, and look like nothing."""
VERSION = "4"
"""Goes up with the weights."""


def describe(config: ServerConfig) -> EngineInfo:
    """What the small world says of itself."""
    info = wan.info_of(SMALL_WORLD, FOLDER, config, "install sfserver again")
    return evolve(info, version=f"{info.version}+{VERSION}", max_pixels=SIDE_PX**2, memory_bytes=0)


def load(config: ServerConfig) -> Engine:
    """Raises RequestError where its files are missing or spoiled."""
    return wan.load_preset(SMALL_WORLD, describe(config), FOLDER, config)
