"""What is kept on a strip about how its frames were made: enough to make them again, nothing that names this machine.

A .blend may come from anywhere, so reading is strict: values of the wrong kind or size make the record unreadable.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import Any

from .sheet import Sheet, draw_up
from .words import Words, from_text

Value = bool | int | float | str

_JOB = re.compile(r"[0-9a-f]{32}")
_MAX_TEXT_CHARS = 8000
"""Twice the longest prompt: room for parameters as JSON."""
_MAX_PROMPTS_CHARS = 16 * _MAX_TEXT_CHARS
MAX_STEP = 4
"""Frames that one picture may stand: on fours."""
MAX_RUN = 5
"""Pictures that may be given before a gap, or after it."""
_MAX_FRAMES = 1000 * MAX_STEP
_MAX_SIDE_PX = 4096
AUTO = "auto"
"""For the wire: the server chooses, for this very clip."""
STATES = ("growing", "finished", "stopped")


def is_job(text: object) -> bool:
    """Whether it is an id as we make them. Only such a one may name a folder."""
    return isinstance(text, str) and _JOB.fullmatch(text) is not None


def timestamp() -> str:
    """Now, in local time, as records hold it."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")


@dataclass
class Record:
    """Everything that a strip knows of its frames."""

    job: str
    frames_wanted: int
    """Length of the gap."""
    width: int
    height: int
    seed: int
    engine: str
    """What made them; of what the server chose itself `auto`, until it has said what that was."""
    version: str = ""
    """The engine's, which changes whenever the same request would give other pixels; while that is not known, of all
    that the server chose among."""
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
    """Frames of the gap that can be shown."""
    kilobytes: int = 0
    """Of the pictures on disk."""
    state: str = "growing"
    gap: str = ""
    """The first job that filled this gap: takes of one gap have it in common."""
    step: int = 1
    """Frames that every picture stands: 2 is on twos."""
    inside: str = ""
    """Given pictures within the gap, counted from its start: `5-6 12-15`, the second number not included."""
    prompts: str = ""
    """Changes of the prompt, as JSON: [[frame of the gap, prompt from there on], ...]."""
    loop: int = 0
    """1 where it leads back to the first picture of the strip before it."""
    motion: int = 0
    """1 where pictures of neighbours that move were to go along."""
    lead: int = 1
    """Pictures that are given before the gap, and after it."""
    tail: int = 1
    draft_engine: str = ""
    """What made a draft first, "" for none."""
    draft_frames: int = 0
    """Frames of the gap that still show the draft."""
    found: str = ""
    """What the engine said that it saw in the keyframes."""
    auto: int = 0
    """1 where the server is to choose the engine."""
    chosen: str = ""
    """Which it chose, and why."""

    @property
    def asked(self) -> str:
        """Id of the engine that the server is asked for."""
        return AUTO if self.auto else self.engine

    def to_properties(self) -> dict[str, Any]:
        """As custom properties: numbers and text. Parameters become JSON, since an empty group would be lost."""
        return {**asdict(self), "params": json.dumps(self.params)}

    def words(self) -> Words:
        """What is asked for at which frame of the gap."""
        return [(0, self.prompt), *(from_text(self.prompts, self.frames_wanted) or ())]

    def sheet(self) -> Sheet:
        inside = spans_of(self.inside, self.frames_wanted) or ()
        return draw_up(self.frames_wanted, inside, self.step, self.lead, self.tail)


def text_of(spans: Sequence[tuple[int, int]]) -> str:
    return " ".join(f"{left}-{right}" for left, right in spans)


def spans_of(text: str, frames: int) -> list[tuple[int, int]] | None:
    """The stretches that a text names, None where it names none, or one that is not within a gap of so many frames."""
    spans: list[tuple[int, int]] = []
    for word in text.split():
        match = re.fullmatch(r"(\d{1,6})-(\d{1,6})", word)
        span = (int(match[1]), int(match[2])) if match else (0, 0)
        if not (spans[-1][1] if spans else 0) <= span[0] < span[1] <= frames:
            return None
        spans.append(span)
    return spans


def from_properties(properties: Mapping[str, Any]) -> Record | None:
    """The record, or None where it is not one that we wrote."""
    values: dict[str, Any] = {}
    for known in fields(Record):
        if known.name in properties:
            value = _params(properties["params"]) if known.name == "params" else properties[known.name]
            if not _fits(value, known.type, _MAX_PROMPTS_CHARS if known.name == "prompts" else _MAX_TEXT_CHARS):
                return None
            values[known.name] = value
    required = ("job", "frames_wanted", "width", "height", "seed", "engine")
    if any(name not in values for name in required) or not is_job(values["job"]):
        return None
    record = Record(**values)
    return record if _is_sound(record) else None


def _is_sound(record: Record) -> bool:
    sizes = 1 <= record.width <= _MAX_SIDE_PX and 1 <= record.height <= _MAX_SIDE_PX
    length = 1 <= record.frames_wanted <= _MAX_FRAMES and 1 <= record.step <= MAX_STEP
    gap = (not record.gap or is_job(record.gap)) and spans_of(record.inside, record.frames_wanted) is not None
    runs = 1 <= record.lead <= MAX_RUN and 1 <= record.tail <= MAX_RUN
    words = from_text(record.prompts, record.frames_wanted) is not None
    return sizes and length and gap and runs and words and record.state in STATES and record.seed >= 0


def _params(text: object) -> object:
    if not isinstance(text, str) or len(text) > _MAX_TEXT_CHARS:
        return None
    try:
        loaded: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return loaded


def _fits(value: object, annotation: object, max_chars: int) -> bool:
    if annotation == "int":
        return type(value) is int
    if annotation == "str":
        return isinstance(value, str) and len(value) <= max_chars
    return isinstance(value, dict) and all(
        isinstance(key, str) and isinstance(item, bool | int | float | str) for key, item in value.items()
    )
