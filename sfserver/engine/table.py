"""The table of engines: which there are, what each says of itself, and how to load one.

Explicit on purpose. An engine's module is imported when something is asked of it, and torch only when one is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from sfwire.errors import ErrorCode, RequestError
from sfwire.messages import EngineInfo

from ..config import ServerConfig
from .base import Engine
from .capacity import USUAL_SIZE
from .choice import Choice, Wanted
from .choice import choose as choose_clip
from .presets import SMALL_WORLD

USUAL = Wanted(*USUAL_SIZE, num_frames=81)
"""The clip that models are made for, between two keyframes."""


def describe_all(config: ServerConfig) -> tuple[EngineInfo, ...]:
    """What every engine says of itself on this machine, complete or not, the best first. Imports no torch.

    One that cannot be described is in the list with the reason, and keeps no other from being there. A folder of
    converted weights below the models folder is an engine by its name, as a preset is.
    """
    from . import draft, small_world, wan
    from .stand_in import described, within_one_message

    presets, own = wan.describe(config), wan.describe_own(config)
    last = [described(one.ID, one.ID, partial(one.describe, config)) for one in (draft, small_world)]
    needed = [*presets, *last]
    fitting = within_one_message([*needed, *own], len(needed))
    return (*presets, *fitting[len(needed) :], *last)


def load(engine_id: str, config: ServerConfig) -> Engine:
    """Load the engine's weights onto its device. Raises RequestError where it is unknown, incomplete or too large."""
    from . import draft, presets, small_world, wan

    if engine_id == draft.ID:
        return draft.load(config)
    if engine_id == small_world.ID:
        return small_world.load(config)
    if presets.find(engine_id):
        return wan.load(engine_id, config)
    folder = wan.own_folder(engine_id, config)
    if folder is not None:
        return wan.load_folder(folder, config)
    known = ", ".join(info.id for info in describe_all(config))
    raise RequestError(ErrorCode.UNKNOWN_ENGINE, f"there is no engine {engine_id!r}; there are: {known}", "engine")


def choose(infos: Iterable[EngineInfo], config: ServerConfig) -> tuple[str, str]:
    """What `auto` mostly comes to here, for a clip of the usual size: (engine id, the reason in one sentence).

    Where nothing fits it is what needs the least memory. Raises RequestError where nothing is complete.
    """
    infos = list(infos)
    usable = [info for info in infos if info.available and info.id != SMALL_WORLD.id]
    if not usable:
        raise RequestError(ErrorCode.ENGINE_UNAVAILABLE, "no engine is complete; run sfserver models", "engine")
    try:
        choice = choose_for(infos, config, USUAL)
    except RequestError:
        best = min(usable, key=lambda info: info.memory_bytes)
        return best.id, f"{best.title}: nothing that is complete fits; this needs the least memory"
    return choice.engine, choice.reason


def choose_for(infos: Iterable[EngineInfo], config: ServerConfig, clip: Wanted) -> Choice:
    """What `auto` means for one clip, with settings that make it fit. Raises RequestError where nothing will do."""
    infos = list(infos)
    memory = gpu_memory_bytes(config) if any(info.available and info.memory_bytes for info in infos) else 0
    return choose_of(infos, memory, clip, eight_bit=config.precision in ("fp8", "int8"))


def choose_of(infos: Iterable[EngineInfo], memory_bytes: int, clip: Wanted, eight_bit: bool = False) -> Choice:
    """The same with so much memory. Never the small world."""
    return choose_clip([info for info in infos if info.id != SMALL_WORLD.id], memory_bytes, clip, eight_bit)


def gpu_memory_bytes(config: ServerConfig) -> int:
    """All memory of the GPU that engines would use; 0 without one."""
    if config.device == "cpu":
        return 0
    import torch

    return torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else 0
