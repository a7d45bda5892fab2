"""Whether a request can be done, before it waits: well-formed it is already."""

from __future__ import annotations

from collections.abc import Mapping

from sfwire import limits as L
from sfwire import messages as m
from sfwire.errors import ErrorCode, RequestError

from ..engine.base import Place, check


def require_possible(request: m.Generate, engines: Mapping[str, m.EngineInfo], default: str) -> None:
    """Raises RequestError where none of `engines` can do it. `default`: what `auto` mostly is."""
    if request.engine != L.AUTO:
        return _require(request.engine, request, engines)
    refused: list[RequestError] = []
    for engine in sorted(engines, key=lambda engine: engine != default):
        try:
            return _require(engine, request, engines)  # the worker, which knows the device's memory, chooses
        except RequestError as error:
            refused.append(error)
    raise refused[0] if refused else RequestError(ErrorCode.ENGINE_UNAVAILABLE, "there is no engine here", "engine")


def _require(engine: str, request: m.Generate, engines: Mapping[str, m.EngineInfo]) -> None:
    info = engines.get(engine)
    if info is None:
        known = ", ".join(engines) or "none yet, the server is starting"
        message = f"there is no engine {engine!r}; there are: {known}"
        raise RequestError(ErrorCode.UNKNOWN_ENGINE, message, "engine")
    places = [Place(k.at, k.width, k.height) for k in request.keyframes]
    switches = [prompt.at for prompt in request.prompts]
    size, params = (request.width, request.height), request.params
    check(info, *size, request.num_frames, places, params, request.resume_from, switches)
