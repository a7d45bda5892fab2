"""An engine that cannot say what it is: one engine less, with the reason, and nobody else's loss.

What engines say of themselves comes from folders that anybody may have filled, and all of it travels in one message.
"""

from __future__ import annotations

from collections.abc import Callable

from sfwire import limits as L
from sfwire.codec import encode
from sfwire.errors import BadMessage, RequestError
from sfwire.messages import EngineInfo, Welcome, fit

from ..errors import UserError

MAX_REASON_CHARS = 400
"""So that the reasons of all engines together fit into one message."""
_ROOM_BYTES = L.MAX_HEADER_BYTES - 4096
"""For the engines; the rest of a Welcome has a few hundred bytes."""


def described(id: str, title: str, ask: Callable[[], EngineInfo]) -> EngineInfo:
    """What an engine says of itself, or in its place that it cannot be used, and why. Raises nothing."""
    try:
        info = ask()
        _size(info)
    except (RequestError, UserError) as error:
        return stand_in(id, title, str(error))
    except Exception as error:  # the boundary to what lies in the models folder
        return stand_in(id, title, f"cannot be described ({type(error).__name__}: {error}); convert or fetch it again")
    return info


def stand_in(id: str, title: str, reason: str) -> EngineInfo:
    return EngineInfo(
        id=id,
        title=fit(title, L.MAX_NAME_CHARS),
        summary="Cannot be used as it is",
        version="0",
        licence="unknown",
        uses_prompt=False,
        uses_negative_prompt=False,
        available=False,
        missing=(fit(reason, MAX_REASON_CHARS),),
    )


def within_one_message(infos: list[EngineInfo], needed: int) -> tuple[EngineInfo, ...]:
    """As many as one message can name: all of the first `needed`, and of the others those that fit."""
    sizes = [_size(info) for info in infos]
    while len(infos) > needed and (len(infos) > L.MAX_ENGINES or sum(sizes) > _ROOM_BYTES):
        infos, sizes = infos[:-1], sizes[:-1]
    return tuple(infos)


def _size(info: EngineInfo) -> int:
    """Of an engine on the wire. Raises BadMessage or OverflowError for what cannot travel."""
    (header,) = encode(Welcome(L.PROTOCOL, "b", "s", (info,), "e", ""))
    if len(header) > _ROOM_BYTES:
        raise BadMessage(f"{len(header)} bytes to describe one engine")
    return len(header)
