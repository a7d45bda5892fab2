"""What is said to a client, so that it can be said: sentences that fit, and no more than it can read."""

from __future__ import annotations

import re
from typing import get_args

import attrs
from attrs import evolve
from sfwire import limits as L
from sfwire import messages as m
from sfwire.errors import RETRYABLE, RequestError


def field_of_ours(path: str) -> str:
    """The field that is to blame if it is one of the protocol's, without the keys and names that a client chose."""
    name = re.split(r"[.\[]", path, maxsplit=1)[0]
    return name if name in _FIELDS else ""


_FIELDS = {one.name for kind in get_args(m.ToServer) for one in attrs.fields(kind)} | {"type", "buffers"}


def failed(request_id: str, error: RequestError) -> m.Failed:
    field_name = m.fit(error.field, L.MAX_NAME_CHARS)
    return m.Failed(request_id, error.code, m.fit(error.message), field_name, error.code in RETRYABLE)


def welcome_in(protocol: int, welcome: m.Welcome) -> m.Welcome:
    """What a client of that protocol can read."""
    if protocol == L.PROTOCOL:
        return welcome
    most = L.MAX_KEYFRAMES_OF_1
    engines = (
        evolve(info, max_keyframes=min(most, info.max_keyframes), max_channels=L.CHANNELS, max_depth=L.DEPTH)
        for info in welcome.engines
    )
    return evolve(welcome, protocol=protocol, engines=tuple(engines))
