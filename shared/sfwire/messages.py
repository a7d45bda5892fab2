"""Every message of the wire as one frozen class; nothing else. PROTOCOL.md says in words who sends which and when.

A validator on a field is the protocol's limit for it: an object that exists is one that may be sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import attrs
from attrs import field, frozen
from attrs.validators import and_, deep_iterable, ge, le, matches_re, max_len, min_len, optional

from . import limits as L
from .errors import ErrorCode

Value = bool | int | float | str
"""What a parameter of an engine may be set to."""
ParameterKind = Literal["bool", "int", "float", "choice"]
Encoding = Literal["raw", "png"]
Outcome = Literal["finished", "cancelled"]
WorkerState = Literal["starting", "idle", "busy", "dead"]


def _identifier(max_chars: int = L.MAX_ID_CHARS) -> Any:
    return and_(max_len(max_chars), matches_re(r"[A-Za-z0-9][A-Za-z0-9._-]*"))


def _between(low: float, high: float) -> Any:
    return and_(ge(low), le(high))


def _printable(max_chars: int) -> Any:
    """Bounded text without control characters: these strings are shown in terminals and in Blender's interface."""

    def check(instance: object, attribute: attrs.Attribute[str], value: str) -> None:
        if len(value) > max_chars:
            raise ValueError(f"{len(value)} characters, at most {max_chars}")
        if any(ord(c) < 32 and c not in "\n\t" or 0xD800 <= ord(c) <= 0xDFFF for c in value):
            raise ValueError("holds control characters")

    return check


def _finite(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if isinstance(value, float) and not -1e300 < value < 1e300:  # NaN fails both comparisons
        raise ValueError(f"{value} is not a finite number")


# What an engine is --------------------------------------------------------------------------------------------------


@frozen
class Parameter:
    """One setting of an engine, described so that a client can draw a control for it."""

    name: str = field(validator=_identifier())
    kind: ParameterKind
    default: Value = field(validator=_finite)
    help: str = field(validator=_printable(L.MAX_SENTENCE_CHARS))
    """One sentence, without a full stop, fit for a tooltip."""
    low: float | None = field(default=None, validator=_finite)
    """Smallest value of an int or float."""
    high: float | None = field(default=None, validator=_finite)
    choices: tuple[str, ...] = field(
        default=(), validator=and_(max_len(L.MAX_CHOICES), deep_iterable(_printable(L.MAX_NAME_CHARS)))
    )


@frozen
class EngineInfo:
    """What a client may know and ask of one engine. Also what an engine says of itself to the server."""

    id: str = field(validator=_identifier())
    title: str = field(validator=_printable(L.MAX_NAME_CHARS))
    summary: str = field(validator=_printable(L.MAX_SENTENCE_CHARS))
    version: str = field(validator=_printable(L.MAX_NAME_CHARS))
    """Changes whenever the same request would give other pixels."""
    licence: str = field(validator=_printable(L.MAX_SENTENCE_CHARS))
    """Of the weights."""
    uses_prompt: bool
    uses_negative_prompt: bool
    available: bool
    missing: tuple[str, ...] = field(
        default=(), validator=and_(max_len(L.MAX_MISSING_FILES), deep_iterable(_printable(L.MAX_SENTENCE_CHARS)))
    )
    """Files or facts that keep it from running, each with its remedy; empty when available."""
    size_multiple: int = field(default=1, validator=_between(1, 256))
    """Width and height are multiples of this."""
    min_side_px: int = field(default=L.MIN_SIDE_PX, validator=_between(1, L.MAX_SIDE_PX))
    max_pixels: int = field(default=L.MAX_PIXELS, validator=_between(1, L.MAX_PIXELS))
    min_frames: int = field(default=L.MIN_FRAMES, validator=_between(L.MIN_FRAMES, L.MAX_FRAMES))
    max_frames: int = field(default=L.MAX_FRAMES, validator=_between(L.MIN_FRAMES, L.MAX_FRAMES))
    max_keyframes: int = field(default=L.MAX_KEYFRAMES, validator=_between(1, L.MAX_KEYFRAMES))
    can_skip: bool = False
    """A resumed request costs only the frames still missing; otherwise they are all made again and not sent."""
    memory_bytes: int = field(default=0, validator=ge(0))
    """Device memory it needs at its usual size; 0 when that is small."""
    parameters: tuple[Parameter, ...] = field(default=(), validator=max_len(L.MAX_PARAMETERS))


# Greeting -----------------------------------------------------------------------------------------------------------


@frozen
class Hello:
    """Client to server, first on every connection."""

    protocol: int = field(validator=_between(0, 2**31))
    client: str = field(validator=_printable(L.MAX_NAME_CHARS))
    """Name and version of the program, for the server's log."""


@frozen
class Welcome:
    """Server's answer to Hello."""

    protocol: int = field(validator=_between(0, 2**31))
    boot: str = field(validator=_identifier())
    """Names this run of the server: another boot has none of the old one's requests."""
    server: str = field(validator=_printable(L.MAX_NAME_CHARS))
    engines: tuple[EngineInfo, ...] = field(validator=max_len(L.MAX_ENGINES))
    default_engine: str = field(validator=_identifier())
    """What `auto` means on this machine now."""
    default_reason: str = field(validator=_printable(L.MAX_SENTENCE_CHARS))


# A request ----------------------------------------------------------------------------------------------------------


@frozen
class Keyframe:
    """A picture that is given: its place in the clip and the buffer that holds it."""

    at: int = field(validator=_between(0, L.MAX_FRAMES - 1))
    """Frame index in the clip, from 0."""
    buffer: int = field(validator=_between(0, L.MAX_KEYFRAMES - 1))
    """Index among the buffers behind the header."""
    width: int = field(validator=_between(L.MIN_SIDE_PX, L.MAX_SIDE_PX))
    height: int = field(validator=_between(L.MIN_SIDE_PX, L.MAX_SIDE_PX))


@frozen
class Generate:
    """Client to server: make the frames at all positions of the clip that hold no keyframe."""

    id: str = field(validator=_identifier())
    """Made by the client. The same id again is the same request again, and is not done twice."""
    engine: str = field(validator=_identifier())
    width: int = field(validator=_between(L.MIN_SIDE_PX, L.MAX_SIDE_PX))
    height: int = field(validator=_between(L.MIN_SIDE_PX, L.MAX_SIDE_PX))
    num_frames: int = field(validator=_between(L.MIN_FRAMES, L.MAX_FRAMES))
    """Length of the clip, keyframes counted."""
    keyframes: tuple[Keyframe, ...] = field(validator=and_(min_len(1), max_len(L.MAX_KEYFRAMES)))
    seed: int = field(validator=_between(0, L.MAX_SEED))
    prompt: str = field(default="", validator=_printable(L.MAX_PROMPT_CHARS))
    negative_prompt: str = field(default="", validator=_printable(L.MAX_PROMPT_CHARS))
    params: Mapping[str, Value] = field(
        factory=dict[str, Value],
        validator=and_(
            max_len(L.MAX_PARAMETERS),
            attrs.validators.deep_mapping(key_validator=_identifier(), value_validator=_finite),
        ),
    )
    """Values for the engine's parameters; those not named keep their default."""
    resume_from: int = field(default=0, validator=_between(0, L.MAX_FRAMES))
    """Frames at positions before this one are not sent."""
    credit: int = field(default=8, validator=_between(0, L.MAX_CREDIT_AHEAD))
    """Frames that may be sent before the first Credit."""
    encoding: Encoding = "raw"


@frozen
class Accepted:
    """Server to client: the request will be answered by exactly one Done or Failed."""

    id: str = field(validator=_identifier())
    position: int = field(validator=ge(0))
    """Requests that will be started before it; 0 when it is being started. Sent again when it changes."""


@frozen
class Progress:
    """Server to client, after each forward pass: what is being done, and how much of it is over."""

    id: str = field(validator=_identifier())
    stage: str = field(validator=_printable(L.MAX_NAME_CHARS))
    step: int = field(validator=ge(0))
    of: int = field(validator=ge(0))


@frozen
class Frame:
    """Server to client, with one buffer: one picture of the clip, in order of position."""

    id: str = field(validator=_identifier())
    index: int = field(validator=_between(0, L.MAX_FRAMES - 1))
    """Position in the clip. Positions that hold a keyframe are passed over."""
    width: int = field(validator=_between(L.MIN_SIDE_PX, L.MAX_SIDE_PX))
    height: int = field(validator=_between(L.MIN_SIDE_PX, L.MAX_SIDE_PX))
    encoding: Encoding
    confidence: float | None = field(default=None, validator=optional(_between(0.0, 1.0)))
    """How far the engine trusts the frame, 0 to 1; None when it has no opinion."""


@frozen
class Credit:
    """Client to server: how many frames of this request may have been sent by now, counted from its start.

    A running total, so that a Credit that is lost, doubled or late does no harm: the largest one counts.
    """

    id: str = field(validator=_identifier())
    total: int = field(validator=_between(0, L.MAX_FRAMES + L.MAX_CREDIT_AHEAD))


@frozen
class Cancel:
    """Client to server: stop it. Answered by Done with outcome `cancelled`, unless it had ended already."""

    id: str = field(validator=_identifier())


@frozen
class Done:
    """Server to client, terminal: all frames were sent, or it was cancelled."""

    id: str = field(validator=_identifier())
    outcome: Outcome
    frames: int = field(validator=_between(0, L.MAX_FRAMES))
    """Frames sent under this id."""
    seed: int = field(validator=_between(0, L.MAX_SEED))
    engine: str = field(validator=_identifier())
    version: str = field(validator=_printable(L.MAX_NAME_CHARS))


@frozen
class Failed:
    """Server to client, terminal for `id`; without an id it answers something that could not be read."""

    id: str | None = field(validator=optional(_identifier()))
    code: ErrorCode
    message: str = field(validator=_printable(L.MAX_SENTENCE_CHARS))
    field: str = attrs.field(default="", validator=_printable(L.MAX_NAME_CHARS))
    retryable: bool = False


# Health -------------------------------------------------------------------------------------------------------------


@frozen
class Ping:
    """Client to server, every second: also how the server knows that the client is alive."""

    nonce: int = field(validator=_between(0, 2**63))


@frozen
class Pong:
    """Server to client."""

    nonce: int = field(validator=_between(0, 2**63))
    boot: str = field(validator=_identifier())
    running: int = field(validator=ge(0))
    queued: int = field(validator=ge(0))
    workers: tuple[WorkerState, ...]
    yours: tuple[str, ...] = field(validator=max_len(L.MAX_QUEUED + L.MAX_ENGINES))
    """Ids of this connection's requests that have not ended. One that is missing here was lost."""


@frozen
class Status:
    """Client to server: what is going on? For people and dashboards."""


@frozen
class JobStatus:
    id: str
    engine: str
    state: str
    frames: int
    worker: int | None


@frozen
class WorkerStatus:
    index: int
    pid: int
    state: WorkerState
    restarts: int


@frozen
class Report:
    """Server's answer to Status."""

    boot: str
    uptime_s: float
    clients: int
    served: int
    """Requests that have ended since boot."""
    jobs: tuple[JobStatus, ...]
    workers: tuple[WorkerStatus, ...]


ToServer = Hello | Generate | Credit | Cancel | Ping | Status
ToClient = Welcome | Accepted | Progress | Frame | Done | Failed | Pong | Report
Message = ToServer | ToClient
