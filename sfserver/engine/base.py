"""What an engine is: a request goes in, steps and frames come out of one generator.

The command line, the server's worker, the tests and the benchmark all iterate `Engine.open(job)`; there is no other way
to run one. Closing the generator cancels the job and frees everything it held.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from attrs import evolve, field, frozen
from sfwire.errors import ErrorCode, RequestError
from sfwire.messages import EngineInfo, Parameter, Value

if TYPE_CHECKING:  # the server's front process checks requests and has no numpy
    from ..samples import Picture


@frozen(eq=False)
class Keyframe:
    """A picture that is given. `at` is its frame index in the clip, from 0; for `image` see `sfserver.samples`."""

    at: int
    image: Picture


@frozen(eq=False)
class Job:
    """Everything an engine is told. `params` holds a checked value for every parameter of the engine."""

    width: int
    height: int
    num_frames: int
    """Length of the clip, keyframes counted."""
    keyframes: tuple[Keyframe, ...]
    """Sorted by `at`, no position twice, all of the clip's size and of one form, that which the engine keeps."""
    prompt: str = ""
    negative_prompt: str = ""
    seed: int = 0
    params: Mapping[str, Value] = field(factory=dict[str, Value])
    resume_from: int = 0
    """Frames before this position are not wanted: an engine that `can_skip` does not make them."""
    prompts: tuple[tuple[int, str], ...] = ()
    """(frame index, prompt), rising: from that frame on it takes the place of `prompt`."""

    def wanted(self) -> list[int]:
        """Positions to deliver, in order: all that hold no keyframe, from `resume_from` on."""
        return [i for i in range(self.resume_from, self.num_frames) if self.wants(i)]

    def wants(self, position: int) -> bool:
        """Whether a position is one of those to deliver."""
        held = any(k.at == position for k in self.keyframes)
        return self.resume_from <= position < self.num_frames and not held


SILENCE_S = 120.0
"""How long an engine may be silent that says nothing else. A pass takes far less, on a machine that is busy too."""


@frozen
class Step:
    """One forward pass (or the like) is over: the heartbeat, and the place where cancelling happens."""

    stage: str
    """One or two words for a progress bar, e.g. `loading`, `text`, `keyframes`, `denoising`; or, after FOUND, a line
    worth keeping about the frames that come next. At most 80 characters."""
    step: int
    of: int
    silence_s: float = field(default=SILENCE_S, eq=False)
    """The longest time until the next event: an engine that is silent for longer hangs, and its process is replaced."""


FOUND = "found: "
"""Begins a stage that says what an engine saw in the keyframes on both sides of the next frame."""

CHOSEN = "auto: "
"""Begins a stage that says which engine `auto` is for this clip, and why."""


@frozen(eq=False)
class Frame:
    """One finished picture, of the keyframes' form. `confidence` is how far the engine trusts it, 0 to 1, or None for
    no opinion."""

    index: int
    image: Picture
    confidence: float | None = None


@frozen(eq=False)
class Chunk:
    """Frames that became ready together, in order of position: the positions of `Job.wanted()`, each exactly once."""

    frames: tuple[Frame, ...]
    silence_s: float = SILENCE_S
    """As of a Step."""


Event = Step | Chunk


class Engine(Protocol):
    """A loaded engine. Holds weights and caches that outlive a job; what belongs to one job lives in its generator."""

    @property
    def info(self) -> EngineInfo: ...

    def open(self, job: Job) -> Generator[Event, None, None]:
        """Run `job`, already passed through `checked`.

        Yields a Step after each forward pass and a Chunk whenever frames are ready. Raises RequestError, and only that,
        for what the request or the machine is to blame for (`out_of_memory`, `not_finite`, `bad_value`).
        """
        ...


@frozen
class Place:
    """Where a keyframe is and how large, without its pixels."""

    at: int
    width: int
    height: int


def checked(job: Job, info: EngineInfo) -> Job:
    """The job in the form engines may rely on: keyframes sorted and of one form, parameters complete.

    Raises as `check` does.
    """
    from ..samples import common, conformed

    switches = [at for at, _ in job.prompts]
    places = [Place(k.at, k.image.shape[1], k.image.shape[0]) for k in job.keyframes]
    params = check(info, job.width, job.height, job.num_frames, places, job.params, job.resume_from, switches)
    form = common(k.image for k in job.keyframes).kept_by(info)
    keyframes = (evolve(k, image=conformed(k.image, form)) for k in sorted(job.keyframes, key=lambda k: k.at))
    return evolve(job, keyframes=tuple(keyframes), params=params)


def check(
    info: EngineInfo,
    width: int,
    height: int,
    num_frames: int,
    keyframes: Sequence[Place],
    params: Mapping[str, Value],
    resume_from: int = 0,
    switches: Sequence[int] = (),
) -> dict[str, Value]:
    """Can the engine do this? Returns its parameters, complete. `switches` are the frames of `Job.prompts`.

    Raises RequestError naming the field, the value, the limit and the remedy.
    """
    if not info.available:
        what = "; ".join(info.missing) or "it is not complete"
        raise RequestError(ErrorCode.ENGINE_UNAVAILABLE, f"engine {info.id} cannot run here: {what}", "engine")
    _check_size(width, height, info)
    if not info.min_frames <= num_frames <= info.max_frames:
        raise _bad(
            "num_frames",
            f"{num_frames} frames: engine {info.id} makes clips of {info.min_frames} to {info.max_frames}, "
            "keyframes counted; make it in parts, or choose another engine (sfserver models)",
        )
    if not 0 <= resume_from <= num_frames:
        raise _bad("resume_from", f"{resume_from} is outside the clip of {num_frames} frames")
    _check_keyframes(keyframes, width, height, num_frames, info)
    for i, at in enumerate(switches):
        if not 0 <= at < num_frames:
            raise _bad(f"prompts[{i}].at", f"prompt from frame {at} on: outside the clip of {num_frames} frames")
    return checked_params(params, info)


def checked_params(given: Mapping[str, Value], info: EngineInfo) -> dict[str, Value]:
    """A value for each of the engine's parameters, in its declared type and range. Raises RequestError."""
    known = {p.name: p for p in info.parameters}
    for name in given:
        if name not in known:
            names = ", ".join(known) or "none"
            raise _bad(f"params.{name}", f"engine {info.id} has no parameter {name!r}; it has: {names}")
    return {p.name: _checked_value(given.get(p.name, p.default), p) for p in info.parameters}


def _checked_value(value: Value, p: Parameter) -> Value:
    where = f"params.{p.name}"
    if p.kind == "choice":
        if value not in p.choices:
            raise _bad(where, f"{p.name} is {value!r}; choose one of {', '.join(p.choices)}")
        return value
    if p.kind == "bool":
        if not isinstance(value, bool):
            raise _bad(where, f"{p.name} is {value!r}; it must be true or false")
        return value
    if isinstance(value, bool) or not isinstance(value, int if p.kind == "int" else (int, float)):
        raise _bad(where, f"{p.name} is {value!r}; it must be {'a whole number' if p.kind == 'int' else 'a number'}")
    low = p.low if p.low is not None else value
    high = p.high if p.high is not None else value
    if not low <= value <= high:
        raise _bad(where, f"{p.name} is {value}; it must lie between {low:g} and {high:g}")
    return float(value) if p.kind == "float" else value


def _check_size(width: int, height: int, info: EngineInfo) -> None:
    for name, side in (("width", width), ("height", height)):
        if side % info.size_multiple:
            near = max(info.size_multiple, round(side / info.size_multiple) * info.size_multiple)
            raise _bad(name, f"{name} {side}: engine {info.id} needs a multiple of {info.size_multiple}, try {near}")
        if side < info.min_side_px:
            raise _bad(name, f"{name} {side}: engine {info.id} needs at least {info.min_side_px}")
    if width * height > info.max_pixels:
        raise _bad(
            "width",
            f"{width}x{height} is {width * height} pixels: engine {info.id} makes at most {info.max_pixels}; "
            "choose a smaller size",
        )


def _check_keyframes(keyframes: Sequence[Place], width: int, height: int, num_frames: int, info: EngineInfo) -> None:
    if not 1 <= len(keyframes) <= info.max_keyframes:
        raise _bad("keyframes", f"{len(keyframes)} keyframes: engine {info.id} takes 1 to {info.max_keyframes}")
    seen: set[int] = set()
    for i, k in enumerate(keyframes):
        if not 0 <= k.at < num_frames:
            raise _bad(f"keyframes[{i}].at", f"keyframe at {k.at} is outside the clip of {num_frames} frames")
        if k.at in seen:
            raise _bad(f"keyframes[{i}].at", f"two keyframes at frame {k.at}; remove one or move it")
        seen.add(k.at)
        if (k.width, k.height) != (width, height):
            raise _bad(
                f"keyframes[{i}]",
                f"keyframe at {k.at} is {k.width}x{k.height}, the clip {width}x{height}; "
                "fit all keyframes to the clip's size first",
            )


def _bad(field_name: str, message: str) -> RequestError:
    return RequestError(ErrorCode.BAD_VALUE, message, field_name)
