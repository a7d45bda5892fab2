"""Every message of the wire as one frozen class; nothing else. PROTOCOL.md says in words who sends which and when.

A validator on a field is the protocol's limit for it: an object that exists is one that may be sent.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import attrs
from attrs import Attribute, field, frozen

from . import limits as L
from .errors import ErrorCode

Value = bool | int | float | str
"""What a parameter of an engine may be set to."""
ParameterKind = Literal["bool", "int", "float", "choice"]
Encoding = Literal["raw", "png"]
Outcome = Literal["finished", "cancelled"]
Priority = Literal["interactive", "batch"]
"""Somebody waits for it, or nobody does: a batch lets others go first."""
Steering = Literal["list", "pause", "resume", "cancel", "move"]
WorkerState = Literal["starting", "idle", "busy", "dead"]

Check = Callable[[Any], str | None]
"""Says what is wrong with a value, or None."""


class Refused(ValueError):
    """A value that the protocol does not allow, and the name of the field that held it."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name}: {message}")
        self.name = name
        self.message = message


def _checks(*checks: Check) -> Callable[[Any, Attribute[Any], Any], None]:
    """An attrs validator that raises Refused with what the first unhappy check says. None is a matter of the type."""

    def validate(instance: object, attribute: Attribute[Any], value: Any) -> None:
        for check in checks if value is not None else ():
            complaint = check(value)
            if complaint:
                raise Refused(attribute.name, complaint)

    return validate


def _between(low: float, high: float = L.MAX_INT) -> Check:
    return lambda value: None if low <= value <= high else f"{value} is outside {low} to {high}"


def _count(low: int, high: int) -> Check:
    return lambda value: None if low <= len(value) <= high else f"{len(value)} of them, allowed are {low} to {high}"


def _one_of(*allowed: int) -> Check:
    return lambda value: None if value in allowed else f"{value} is none of {', '.join(map(str, allowed))}"


def _each(check: Check) -> Check:
    return lambda values: next((f"[{i}]: {bad}" for i, v in enumerate(values) if (bad := check(v))), None)


_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def _identifier(value: str) -> str | None:
    if len(value) > L.MAX_ID_CHARS:
        return f"{len(value)} characters, at most {L.MAX_ID_CHARS}"
    return None if _IDENTIFIER.fullmatch(value) else f"{value!r} is not made of letters, digits, '.', '_' and '-'"


_UNFIT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""What no text may hold: control characters, of both blocks, but newline and tab; and what Python makes of bytes that
are no text."""


def _text(max_chars: int) -> Check:
    """Bounded text without control characters: these strings are shown in terminals and in Blender's interface."""

    def check(value: str) -> str | None:
        if len(value) > max_chars:
            return f"{len(value)} characters, at most {max_chars}"
        return "holds control characters" if _UNFIT.search(value) else None

    return check


def fit(text: str, max_chars: int = L.MAX_SENTENCE_CHARS) -> str:
    """`text` as a message may hold it, whatever was in it: for sentences that quote what somebody else said."""
    fitting = _UNFIT.sub("?", text)
    return fitting if len(fitting) <= max_chars else f"{fitting[: max_chars - 1]}…"


def _number(value: Value) -> str | None:
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{value} is not a finite number"
    if isinstance(value, int) and not -L.MAX_INT <= value <= L.MAX_INT:
        return "has more than 64 bits"
    return None


def _default(value: Value) -> str | None:
    return _text(L.MAX_NAME_CHARS)(value) if isinstance(value, str) else _number(value)


def _rising(prompts: Sequence[PromptAt]) -> str | None:
    bad = next((b.at for a, b in pairwise(prompts) if a.at >= b.at), None)
    return None if bad is None else f"{bad} comes after a frame that is not before it"


def _parameter_values(values: Mapping[str, Value]) -> str | None:
    short = _text(L.MAX_NAME_CHARS)
    for name, value in values.items():
        bad = _identifier(name) or (short(value) if isinstance(value, str) else _number(value))
        if bad:
            return f"{fit(name, L.MAX_ID_CHARS)!r}: {bad}"
    return None


# What an engine is --------------------------------------------------------------------------------------------------


@frozen
class Parameter:
    """One setting of an engine, described so that a client can draw a control for it."""

    name: str = field(validator=_checks(_identifier))
    kind: ParameterKind
    default: Value = field(validator=_checks(_default))
    help: str = field(validator=_checks(_text(L.MAX_SENTENCE_CHARS)))
    """One sentence, without a full stop, fit for a tooltip."""
    low: float | None = field(default=None, validator=_checks(_number))
    """Smallest value of an int or float."""
    high: float | None = field(default=None, validator=_checks(_number))
    choices: tuple[str, ...] = field(
        default=(), validator=_checks(_count(0, L.MAX_CHOICES), _each(_text(L.MAX_NAME_CHARS)))
    )


@frozen
class EngineInfo:
    """What a client may know and ask of one engine. Also what an engine says of itself to the server."""

    id: str = field(validator=_checks(_identifier))
    title: str = field(validator=_checks(_text(L.MAX_NAME_CHARS)))
    summary: str = field(validator=_checks(_text(L.MAX_SENTENCE_CHARS)))
    version: str = field(validator=_checks(_text(L.MAX_NAME_CHARS)))
    """Changes whenever the same request would give other pixels."""
    licence: str = field(validator=_checks(_text(L.MAX_SENTENCE_CHARS)))
    """Of the weights."""
    uses_prompt: bool
    uses_negative_prompt: bool
    available: bool
    missing: tuple[str, ...] = field(
        default=(), validator=_checks(_count(0, L.MAX_MISSING_FILES), _each(_text(L.MAX_SENTENCE_CHARS)))
    )
    """Files or facts that keep it from running, each with its remedy; empty when available."""
    size_multiple: int = field(default=1, validator=_checks(_between(1, 256)))
    """Width and height are multiples of this."""
    min_side_px: int = field(default=L.MIN_SIDE_PX, validator=_checks(_between(1, L.MAX_SIDE_PX)))
    max_pixels: int = field(default=L.MAX_PIXELS, validator=_checks(_between(1, L.MAX_PIXELS)))
    min_frames: int = field(default=L.MIN_FRAMES, validator=_checks(_between(L.MIN_FRAMES, L.MAX_FRAMES)))
    max_frames: int = field(default=L.MAX_FRAMES, validator=_checks(_between(L.MIN_FRAMES, L.MAX_FRAMES)))
    max_keyframes: int = field(default=L.MAX_KEYFRAMES, validator=_checks(_between(1, L.MAX_KEYFRAMES)))
    can_skip: bool = False
    """A resumed request costs only the frames still missing; otherwise they are all made again and not sent."""
    memory_bytes: int = field(default=0, validator=_checks(_between(0)))
    """Device memory it needs at its usual size; 0 when that is small."""
    max_channels: int = field(default=L.CHANNELS, validator=_checks(_one_of(L.CHANNELS, L.RGBA)))
    """4 if it keeps alpha. Otherwise keyframes with alpha lie over grey, and its frames have none."""
    max_depth: int = field(default=L.DEPTH, validator=_checks(_one_of(*L.DEPTHS)))
    """The most bits a sample that it keeps; deeper keyframes are rounded to it, in sRGB."""
    parameters: tuple[Parameter, ...] = field(default=(), validator=_checks(_count(0, L.MAX_PARAMETERS)))


# Greeting -----------------------------------------------------------------------------------------------------------


@frozen
class Hello:
    """Client to server, first on every connection."""

    protocol: int = field(validator=_checks(_between(0, 2**31)))
    client: str = field(validator=_checks(_text(L.MAX_NAME_CHARS)))
    """Name and version of the program, for the server's log."""
    session: str = field(validator=_checks(_identifier))
    """Made by the client once. A new connection that names the same session takes the old one's place."""


@frozen
class Welcome:
    """Server's answer to Hello."""

    protocol: int = field(validator=_checks(_between(0, 2**31)))
    boot: str = field(validator=_checks(_identifier))
    """Names this run of the server: another boot has none of the old one's requests."""
    server: str = field(validator=_checks(_text(L.MAX_NAME_CHARS)))
    engines: tuple[EngineInfo, ...] = field(validator=_checks(_count(0, L.MAX_ENGINES)))
    default_engine: str = field(validator=_checks(_identifier))
    """What `auto` mostly means on this machine now: for a clip of the usual size and length."""
    default_reason: str = field(validator=_checks(_text(L.MAX_SENTENCE_CHARS)))


# A request ----------------------------------------------------------------------------------------------------------


@frozen
class Keyframe:
    """A picture that is given: its place in the clip and the buffer that holds it."""

    at: int = field(validator=_checks(_between(0, L.MAX_FRAMES - 1)))
    """Frame index in the clip, from 0."""
    buffer: int = field(validator=_checks(_between(0, L.MAX_KEYFRAMES - 1)))
    """Index among the buffers behind the header."""
    width: int = field(validator=_checks(_between(L.MIN_SIDE_PX, L.MAX_SIDE_PX)))
    height: int = field(validator=_checks(_between(L.MIN_SIDE_PX, L.MAX_SIDE_PX)))
    channels: int = field(default=L.CHANNELS, validator=_checks(_one_of(L.CHANNELS, L.RGBA)))
    """3 is RGB, 4 is RGBA; alpha is straight: colours are not multiplied by it."""
    depth: int = field(default=L.DEPTH, validator=_checks(_one_of(*L.DEPTHS)))
    """Bits a sample: 8 and 16 are whole numbers, 32 is a float; little-endian."""


@frozen
class PromptAt:
    """Another prompt from a frame of the clip on."""

    at: int = field(validator=_checks(_between(0, L.MAX_FRAMES - 1)))
    """Frame index in the clip, from 0. Engines switch at the first run of frames that begins here or later."""
    text: str = field(validator=_checks(_text(L.MAX_PROMPT_CHARS)))


@frozen
class Generate:
    """Client to server: make the frames at all positions of the clip that hold no keyframe."""

    id: str = field(validator=_checks(_identifier))
    """Made by the client. The same id again is the same request again, and is not done twice."""
    engine: str = field(validator=_checks(_identifier))
    width: int = field(validator=_checks(_between(L.MIN_SIDE_PX, L.MAX_SIDE_PX)))
    height: int = field(validator=_checks(_between(L.MIN_SIDE_PX, L.MAX_SIDE_PX)))
    num_frames: int = field(validator=_checks(_between(L.MIN_FRAMES, L.MAX_FRAMES)))
    """Length of the clip, keyframes counted."""
    keyframes: tuple[Keyframe, ...] = field(validator=_checks(_count(1, L.MAX_KEYFRAMES)))
    seed: int = field(validator=_checks(_between(0, L.MAX_SEED)))
    prompt: str = field(default="", validator=_checks(_text(L.MAX_PROMPT_CHARS)))
    negative_prompt: str = field(default="", validator=_checks(_text(L.MAX_PROMPT_CHARS)))
    params: Mapping[str, Value] = field(
        factory=dict[str, Value], validator=_checks(_count(0, L.MAX_PARAMETERS), _parameter_values)
    )
    """Values for the engine's parameters; those not named keep their default."""
    resume_from: int = field(default=0, validator=_checks(_between(0, L.MAX_FRAMES)))
    """Frames at positions before this one are not sent."""
    credit: int = field(default=8, validator=_checks(_between(0, L.MAX_CREDIT_AHEAD)))
    """Frames that may be sent before the first Credit."""
    encoding: Encoding = "raw"
    prompts: tuple[PromptAt, ...] = field(default=(), validator=_checks(_count(0, L.MAX_PROMPTS), _rising))
    """What takes the place of `prompt` later in the clip, in order of time."""
    priority: Priority = "interactive"


@frozen
class Accepted:
    """Server to client: the request will be answered by exactly one Done or Failed."""

    id: str = field(validator=_checks(_identifier))
    position: int = field(validator=_checks(_between(0)))
    """Requests that will be started before it; 0 when it is being started. Sent again when it changes."""


@frozen
class Progress:
    """Server to client, after each forward pass: what is being done, and how much of it is over."""

    id: str = field(validator=_checks(_identifier))
    stage: str = field(validator=_checks(_text(L.MAX_NAME_CHARS)))
    step: int = field(validator=_checks(_between(0)))
    of: int = field(validator=_checks(_between(0)))


@frozen
class Frame:
    """Server to client, with one buffer: one picture of the clip, in order of position."""

    id: str = field(validator=_checks(_identifier))
    index: int = field(validator=_checks(_between(0, L.MAX_FRAMES - 1)))
    """Position in the clip. Positions that hold a keyframe are passed over."""
    width: int = field(validator=_checks(_between(L.MIN_SIDE_PX, L.MAX_SIDE_PX)))
    height: int = field(validator=_checks(_between(L.MIN_SIDE_PX, L.MAX_SIDE_PX)))
    encoding: Encoding
    confidence: float | None = field(default=None, validator=_checks(_between(0.0, 1.0)))
    """How far the engine trusts the frame, 0 to 1; None when it has no opinion."""
    channels: int = field(default=L.CHANNELS, validator=_checks(_one_of(L.CHANNELS, L.RGBA)))
    """As of a keyframe: 4 where a keyframe had 4 and the engine keeps alpha."""
    depth: int = field(default=L.DEPTH, validator=_checks(_one_of(*L.DEPTHS)))
    """As of a keyframe: that of the deepest one, as far as the engine keeps it. A PNG has 8."""


@frozen
class Credit:
    """Client to server: how many frames of this request may have been sent by now, counted from its start.

    A running total, so that a Credit that is lost, doubled or late does no harm: the largest one counts.
    """

    id: str = field(validator=_checks(_identifier))
    total: int = field(validator=_checks(_between(0, L.MAX_FRAMES + L.MAX_CREDIT_AHEAD)))


@frozen
class Cancel:
    """Client to server: stop it. Answered by Done with outcome `cancelled`, unless it had ended already."""

    id: str = field(validator=_checks(_identifier))


@frozen
class Done:
    """Server to client, terminal: all frames were sent, or it was cancelled."""

    id: str = field(validator=_checks(_identifier))
    outcome: Outcome
    frames: int = field(validator=_checks(_between(0, L.MAX_FRAMES)))
    """Frames sent under this id."""
    seed: int = field(validator=_checks(_between(0, L.MAX_SEED)))
    engine: str = field(validator=_checks(_identifier))
    version: str = field(validator=_checks(_text(L.MAX_NAME_CHARS)))


@frozen
class Failed:
    """Server to client, terminal for `id`; without an id it answers something that could not be read."""

    id: str | None = field(validator=_checks(_identifier))
    code: ErrorCode
    message: str = field(validator=_checks(_text(L.MAX_SENTENCE_CHARS)))
    field: str = attrs.field(default="", validator=_checks(_text(L.MAX_NAME_CHARS)))
    retryable: bool = False


# Health -------------------------------------------------------------------------------------------------------------


@frozen
class LiveRequest:
    id: str = field(validator=_checks(_identifier))
    sent: int = field(validator=_checks(_between(0, L.MAX_FRAMES)))
    """Frames sent so far under this id."""


@frozen
class Ping:
    """Client to server, every second: also how the server knows that the client is alive."""

    nonce: int = field(validator=_checks(_between(0, L.MAX_INT)))


@frozen
class Pong:
    """Server to client."""

    nonce: int = field(validator=_checks(_between(0, L.MAX_INT)))
    boot: str = field(validator=_checks(_identifier))
    running: int = field(validator=_checks(_between(0)))
    queued: int = field(validator=_checks(_between(0)))
    workers: tuple[WorkerState, ...] = field(validator=_checks(_count(0, L.MAX_WORKERS)))
    yours: tuple[LiveRequest, ...] = field(validator=_checks(_count(0, L.MAX_QUEUED + L.MAX_WORKERS)))
    """This connection's requests that have not ended. One that is missing here was lost, and so was a frame that
    counts as sent and never came."""


@frozen
class Status:
    """Client to server: what is going on? For people and dashboards."""


@frozen
class Bye:
    """Client to server, last: forget this connection now and stop what it asked for. Not answered."""


@frozen
class JobStatus:
    id: str = field(validator=_checks(_identifier))
    engine: str = field(validator=_checks(_identifier))
    state: str = field(validator=_checks(_text(L.MAX_NAME_CHARS)))
    frames: int = field(validator=_checks(_between(0, L.MAX_FRAMES)))
    worker: int | None = field(validator=_checks(_between(0, L.MAX_WORKERS - 1)))


@frozen
class WorkerStatus:
    index: int = field(validator=_checks(_between(0, L.MAX_WORKERS - 1)))
    pid: int = field(validator=_checks(_between(0, 2**32)))
    state: WorkerState
    restarts: int = field(validator=_checks(_between(0)))
    device: str = field(default="", validator=_checks(_text(L.MAX_NAME_CHARS)))
    """What it works with, and on which machine if it dialled in."""


@frozen
class Report:
    """Server's answer to Status."""

    boot: str = field(validator=_checks(_identifier))
    uptime_s: float = field(validator=_checks(_between(0.0)))
    clients: int = field(validator=_checks(_between(0)))
    served: int = field(validator=_checks(_between(0)))
    """Requests that have ended since boot."""
    jobs: tuple[JobStatus, ...] = field(validator=_checks(_count(0, L.MAX_QUEUED + L.MAX_WORKERS)))
    workers: tuple[WorkerStatus, ...] = field(validator=_checks(_count(0, L.MAX_WORKERS)))


@frozen
class Steer:
    """Client to server: show the queue, or change it. Answered by Queue. Only who can read the server's operator file
    may change it."""

    action: Steering
    operator: str = field(default="", validator=_checks(_text(L.MAX_NAME_CHARS)))
    """What that file says."""
    job: str = field(default="", validator=_checks(_text(L.MAX_NAME_CHARS)))
    """For `cancel` and `move`: as Queue names it."""
    to: int = field(default=0, validator=_checks(_between(0, L.MAX_QUEUED)))
    """For `move`: how many shall come before it."""


@frozen
class QueuedJob:
    job: str = field(validator=_checks(_text(L.MAX_NAME_CHARS)))
    client: str = field(validator=_checks(_text(L.MAX_NAME_CHARS)))
    engine: str = field(validator=_checks(_identifier))
    state: str = field(validator=_checks(_text(L.MAX_NAME_CHARS)))
    """`queued`, `running`, `stopping`; or `away`: its place is kept until its client asks for it again."""
    priority: Priority
    position: int = field(validator=_checks(_between(0)))
    """As in Accepted."""
    first: int = field(validator=_checks(_between(0, L.MAX_FRAMES)))
    """Position of the first frame that its client has not taken."""
    num_frames: int = field(validator=_checks(_between(0, L.MAX_FRAMES)))


@frozen
class Queue:
    """Server's answer to Steer: how things are now."""

    paused: bool
    jobs: tuple[QueuedJob, ...] = field(validator=_checks(_count(0, L.MAX_ARRAY_LENGTH)))
    """In the order in which they will be started."""
    refused: str = field(default="", validator=_checks(_text(L.MAX_SENTENCE_CHARS)))
    """Why nothing was changed; empty where it was."""


ToServer = Hello | Generate | Credit | Cancel | Ping | Status | Bye | Steer
ToClient = Welcome | Accepted | Progress | Frame | Done | Failed | Pong | Report | Queue
Message = ToServer | ToClient
