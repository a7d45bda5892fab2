"""The table of engines: which there are, what each says of itself, and how to load one.

Explicit on purpose. An engine's module is imported when something is asked of it, and torch only when one is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable

from sfwire.errors import ErrorCode, RequestError
from sfwire.messages import EngineInfo

from ..config import ServerConfig
from .base import Engine


def describe_all(config: ServerConfig) -> tuple[EngineInfo, ...]:
    """What every engine says of itself on this machine, the available and the incomplete ones. Imports no torch."""
    from . import draft

    return (draft.describe(config),)


def load(engine_id: str, config: ServerConfig) -> Engine:
    """Load the engine's weights onto its device. Raises RequestError where it is unknown, incomplete or too large."""
    from . import draft

    if engine_id == draft.ID:
        return draft.load(config)
    known = ", ".join(info.id for info in describe_all(config))
    raise RequestError(ErrorCode.UNKNOWN_ENGINE, f"there is no engine {engine_id!r}; there are: {known}", "engine")


def choose(infos: Iterable[EngineInfo]) -> tuple[str, str]:
    """What `auto` means here: (engine id, the reason in one sentence)."""
    usable = [info for info in infos if info.available]
    if not usable:
        raise RequestError(ErrorCode.ENGINE_UNAVAILABLE, "no engine is complete; run sfserver models", "engine")
    best = usable[0]
    return best.id, f"{best.title}: the only engine that is complete on this machine"
