"""What an engine is: a request goes in, steps and frames come out of one generator.

The command line, the server's worker, the tests and the benchmark all iterate `Engine.open(job)`; there is no other way
to run one. Closing the generator cancels the job and frees everything it held.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Protocol

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray
from sfwire.errors import ErrorCode, RequestError
from sfwire.messages import EngineInfo, Parameter, Value

Picture = NDArray[np.uint8]
"""[H, W, 3] sRGB, rows top to bottom."""


@frozen(eq=False)
class Keyframe:
    """A picture that is given. `at` is its frame index in the clip, from 0; `image` is [H, W, 3] uint8."""

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
    """Sorted by `at`, no position twice, all [height, width, 3]."""
    prompt: str = ""
    negative_prompt: str = ""
    seed: int = 0
    params: Mapping[str, Value] = field(factory=dict[str, Value])
    resume_from: int = 0
    """Frames before this position are not wanted: an engine that `can_skip` does not make them."""

    def wanted(self) -> list[int]:
        """Positions to deliver, in order: all that hold no keyframe, from `resume_from` on."""
        held = {k.at for k in self.keyframes}
        return [i for i in range(self.resume_from, self.num_frames) if i not in held]


@frozen
class Step:
    """One forward pass (or the like) is over: the heartbeat, and the place where cancelling happens."""

    stage: str
    """One or two words for a progress bar, e.g. `loading`, `text`, `keyframes`, `denoising`."""
    step: int
    of: int


@frozen(eq=False)
class Frame:
    """One finished picture. `confidence` is how far the engine trusts it, 0 to 1, or None for no opinion."""

    index: int
    image: Picture
    confidence: float | None = None


@frozen(eq=False)
class Chunk:
    """Frames that became ready together, in order of position: the positions of `Job.wanted()`, each exactly once."""

    frames: tuple[Frame, ...]


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


def checked(job: Job, info: EngineInfo) -> Job:
    """The job in the form engines may rely on: keyframes sorted, parameters complete.

    Raises RequestError naming the field, the value, the limit and the remedy.
    """
    if not info.available:
        what = "; ".join(info.missing) or "it is not complete"
        raise RequestError(ErrorCode.ENGINE_UNAVAILABLE, f"engine {info.id} cannot run here: {what}", "engine")
    _check_size(job, info)
    if not info.min_frames <= job.num_frames <= info.max_frames:
        raise _bad(
            "num_frames",
            f"{job.num_frames} frames: engine {info.id} makes clips of {info.min_frames} to {info.max_frames}, "
            "keyframes counted",
        )
    if not 0 <= job.resume_from <= job.num_frames:
        raise _bad("resume_from", f"{job.resume_from} is outside the clip of {job.num_frames} frames")
    keyframes = _checked_keyframes(job, info)
    return Job(
        width=job.width,
        height=job.height,
        num_frames=job.num_frames,
        keyframes=keyframes,
        prompt=job.prompt,
        negative_prompt=job.negative_prompt,
        seed=job.seed,
        params=checked_params(job.params, info),
        resume_from=job.resume_from,
    )


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
    if p.low is not None and value < p.low or p.high is not None and value > p.high:
        raise _bad(where, f"{p.name} is {value}; it must lie between {p.low:g} and {p.high:g}")
    return float(value) if p.kind == "float" else value


def _check_size(job: Job, info: EngineInfo) -> None:
    for name, side in (("width", job.width), ("height", job.height)):
        if side % info.size_multiple:
            near = max(info.size_multiple, round(side / info.size_multiple) * info.size_multiple)
            raise _bad(name, f"{name} {side}: engine {info.id} needs a multiple of {info.size_multiple}, try {near}")
        if side < info.min_side_px:
            raise _bad(name, f"{name} {side}: engine {info.id} needs at least {info.min_side_px}")
    if job.width * job.height > info.max_pixels:
        raise _bad(
            "width",
            f"{job.width}x{job.height} is {job.width * job.height} pixels: engine {info.id} makes at most "
            f"{info.max_pixels}; choose a smaller size",
        )


def _checked_keyframes(job: Job, info: EngineInfo) -> tuple[Keyframe, ...]:
    if not 1 <= len(job.keyframes) <= info.max_keyframes:
        raise _bad("keyframes", f"{len(job.keyframes)} keyframes: engine {info.id} takes 1 to {info.max_keyframes}")
    seen: dict[int, int] = {}
    for i, k in enumerate(job.keyframes):
        if not 0 <= k.at < job.num_frames:
            raise _bad(f"keyframes[{i}].at", f"keyframe at {k.at} is outside the clip of {job.num_frames} frames")
        if k.at in seen:
            raise _bad(f"keyframes[{i}].at", f"two keyframes at frame {k.at}; remove one or move it")
        seen[k.at] = i
        if k.image.shape != (job.height, job.width, 3):
            height, width = k.image.shape[:2]
            raise _bad(
                f"keyframes[{i}]",
                f"keyframe at {k.at} is {width}x{height}, the clip {job.width}x{job.height}; "
                "fit all keyframes to the clip's size first",
            )
    return tuple(sorted(job.keyframes, key=lambda k: k.at))


def _bad(field_name: str, message: str) -> RequestError:
    return RequestError(ErrorCode.BAD_VALUE, message, field_name)
