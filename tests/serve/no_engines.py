"""A worker on a machine where no engine is complete; otherwise as `fake_engines.py`."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from fake_engines import MISSING, choose_for, load
from sfwire.errors import ErrorCode, RequestError
from sfwire.messages import EngineInfo

from sfserver.config import ServerConfig
from sfserver.serve.worker import run

__all__ = ["choose", "choose_for", "describe_all", "load"]


def describe_all(config: ServerConfig) -> tuple[EngineInfo, ...]:
    return (MISSING,)


def choose(infos: Iterable[EngineInfo], config: ServerConfig) -> tuple[str, str]:
    raise RequestError(ErrorCode.ENGINE_UNAVAILABLE, "no engine is complete; run sfserver models", "engine")


if __name__ == "__main__":
    run(sys.modules["__main__"])
