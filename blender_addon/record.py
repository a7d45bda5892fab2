"""What is kept on a strip about how its frames were made: enough to make them again, nothing that names this machine.

A .blend may come from anywhere, so reading is strict: values of the wrong kind or size make the record unreadable.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import Any

Value = bool | int | float | str

_JOB = re.compile(r"[0-9a-f]{32}")
_MAX_TEXT_CHARS = 8000
"""Twice the longest prompt: room for parameters as JSON."""
STATES = ("growing", "finished", "stopped")


def is_job(text: object) -> bool:
    """Whether it is an id as we make them. Only such a one may name a folder."""
    return isinstance(text, str) and _JOB.fullmatch(text) is not None


def timestamp() -> str:
    """Now, in local time, as records hold it."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


@dataclass
class Record:
    """Everything that a strip knows of its frames."""

    job: str
    frames_wanted: int
    width: int
    height: int
    seed: int
    engine: str
    version: str = ""
    """The engine's, which changes whenever the same request would give other pixels."""
    prompt: str = ""
    negative_prompt: str = ""
    params: dict[str, Value] = field(default_factory=dict)
    before: str = ""
    """Names of the strips that gave the keyframes."""
    after: str = ""
    started: str = ""
    """Local time, ISO 8601."""
    ended: str = ""
    frames: int = 0
    state: str = "growing"

    def to_properties(self) -> dict[str, Any]:
        """As custom properties: numbers and text. Parameters become JSON, since an empty group would be lost."""
        return {**asdict(self), "params": json.dumps(self.params)}


def from_properties(properties: Mapping[str, Any]) -> Record | None:
    """The record, or None where it is not one that we wrote."""
    values: dict[str, Any] = {}
    for known in fields(Record):
        if known.name in properties:
            value = _params(properties["params"]) if known.name == "params" else properties[known.name]
            if not _fits(value, known.type):
                return None
            values[known.name] = value
    required = ("job", "frames_wanted", "width", "height", "seed", "engine")
    if any(name not in values for name in required) or not is_job(values["job"]):
        return None
    record = Record(**values)
    return record if record.state in STATES and record.seed >= 0 else None


def _params(text: object) -> object:
    if not isinstance(text, str) or len(text) > _MAX_TEXT_CHARS:
        return None
    try:
        loaded: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return loaded


def _fits(value: object, annotation: object) -> bool:
    if annotation == "int":
        return type(value) is int
    if annotation == "str":
        return isinstance(value, str) and len(value) <= _MAX_TEXT_CHARS
    return isinstance(value, dict) and all(
        isinstance(key, str) and isinstance(item, bool | int | float | str) for key, item in value.items()
    )
