"""Frames between neighbouring keyframes by flow: the running half of the draft engine.

Nothing is drawn at random, and each frame depends on its two keyframes and its time alone: same job, same bytes,
wherever it is resumed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import torch
from attrs import frozen
from sfwire.errors import ErrorCode, RequestError
from sfwire.messages import EngineInfo
from torch import Tensor

from ..model.rife import COLOURS, IFNet
from ..samples import Form, Picture, form_of, mixed
from . import looks
from .base import FOUND, Chunk, Event, Frame, Job, Keyframe, Step
from .capacity import draft_bytes
from .ends import MOST_AFTER, MOST_BEFORE, Runs, going_on
from .picture import Stage, between, staged
from .plan import PLANNED_PIXELS, at_most, plan

HOPELESS = 0.45
"""1 - SSIM of two keyframes, both moved to the middle, from which on no motion is believed: it is a cut."""
HELD_CONFIDENCE = 0.0
"""Of frames before the first and after the last keyframe: nothing is known about them, the keyframe just stays."""
EASES: dict[str, Callable[[float], float]] = {
    "linear": lambda t: t,
    "in": lambda t: t * t,
    "out": lambda t: t * (2 - t),
    "in-out": lambda t: t * t * (3 - 2 * t),
}
"""From the share of time that has passed between two keyframes to the share of the way."""


@frozen
class _Way:
    """How to come from one keyframe to the next."""

    confidence: float
    picture: Callable[[float], Picture]
    """Of the share of the way, 0 to 1."""
    findings: str = ""
    """What was seen in the keyframes, in one line."""


class FlowEngine:
    """Holds the weights; everything else lives in the generator of a job."""

    def __init__(self, net: IFNet, device: torch.device, info: EngineInfo, free_bytes: Callable[[], int]) -> None:
        """`free_bytes` says how much memory the device could give now."""
        self._net = net
        self._device = device
        self._info = info
        self._free_bytes = free_bytes

    @property
    def info(self) -> EngineInfo:
        return self._info

    def open(self, job: Job) -> Generator[Event, None, None]:
        """Two Steps when a pair of keyframes has been looked at, the second saying what was found, then a Step and a
        Chunk for each frame: `Engine.open`."""
        ease = EASES[str(job.params["easing"])]
        goes_on = job.params["easing"] == "linear"
        made, of = 0, len(job.wanted())
        for before, after, positions in _spans(job):
            runs = _runs(job, before, after) if goes_on else None
            way = self._way(before, after, runs, fine=job.params["quality"] == "fine", hold=job.params["cut"] == "hold")
            yield Step("motion", made, of)
            if way.findings:
                yield Step(FOUND + way.findings, made, of)
            for at in positions:
                image = way.picture(ease(_share(before, after, at)))
                made += 1
                yield Step("in-betweens", made, of)
                yield Chunk((Frame(at, image, way.confidence),))

    def _way(self, before: Keyframe | None, after: Keyframe | None, runs: Runs | None, fine: bool, hold: bool) -> _Way:
        if before is None or after is None:
            held = before or after
            assert held is not None, "a checked job has a keyframe"
            return _Way(HELD_CONFIDENCE, lambda t: held.image)
        a, b = before.image, after.image
        if np.array_equal(a, b):
            return _Way(1.0, lambda t: a)
        with self._at_work(*a.shape[:2], along=looks.may_carry_more(a, b)):
            pair = self._net.pair(looks.shown(np.stack((a, b)), self._device))
            planned = plan(self._net, pair)
            layers = going_on(self._net, planned.layers, runs) if runs else planned.layers
            stage = staged(self._net, pair, layers)
        trust, form = confidence(planned.distance), form_of(a)
        if planned.distance < HOPELESS:
            return _Way(trust, lambda t: self._moved(stage, t, fine, form), planned.findings)
        if hold:
            return _Way(trust, lambda t: a if t < 0.5 else b, "a cut, held")
        return _Way(trust, lambda t: mixed(a, b, t), "a cut, dissolved")

    def _moved(self, stage: Stage, t: float, fine: bool, form: Form) -> Picture:
        with self._at_work(*stage.size, along=stage.carries_more):
            return looks.picture(between(self._net, stage, t, fine).picture, form)

    @contextmanager
    def _at_work(self, height: int, width: int, along: bool) -> Generator[None]:
        """Asks for memory first, because Linux hands out what it has not got and kills the process later. `along`:
        more than colours is moved."""
        if draft_bytes(width, height, along) > self._free_bytes():
            raise self._too_large(width, height, along)
        try:
            yield
        except FloatingPointError:
            reason = f"the draft engine made values that are not numbers on {self._device}; try it with device cpu"
            raise RequestError(ErrorCode.NOT_FINITE, reason) from None
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
                raise self._too_large(width, height, along) from None
            raise

    def _too_large(self, width: int, height: int, along: bool) -> RequestError:
        free = self._free_bytes()
        smaller = ((int(width * k) // 16 * 16, int(height * k) // 16 * 16) for k in np.arange(0.95, 0, -0.05))
        fits = next((f"{w}x{h} would fit" for w, h in smaller if w and h and draft_bytes(w, h, along) < free), "")
        return RequestError(
            ErrorCode.OUT_OF_MEMORY,
            f"frames of {width}x{height} take about {draft_bytes(width, height, along) / 1e6:.0f} MB of working memory "
            f"and {free / 1e6:.0f} MB are free on {self._device}; {fits or 'free some memory'}",
            "width",
        )


def confidence(distance: float) -> float:
    """1 where both keyframes, moved to the middle, are one picture; halved by every `HOPELESS` of distance.

    Up to there about the SSIM that frames have against the true ones: see `sfserver.bench.draft`.
    """
    return 0.5 ** (max(0.0, distance) / HOPELESS)


def _spans(job: Job) -> Generator[tuple[Keyframe | None, Keyframe | None, list[int]]]:
    """Neighbouring keyframes, None at both ends of the clip, and the wanted positions between them, where any are."""
    wanted = job.wanted()
    for before, after in pairwise((None, *job.keyframes, None)):
        start = before.at if before else -1
        end = after.at if after else job.num_frames
        if positions := [at for at in wanted if start < at < end]:
            yield before, after, positions


def _runs(job: Job, before: Keyframe | None, after: Keyframe | None) -> Runs | None:
    """The given frames that lead up to the gap and on from it without a hole, small; None where there are none."""
    if before is None or after is None:
        return None
    given = {keyframe.at: keyframe.image for keyframe in job.keyframes}

    def run(at: int, step: int, most: int) -> list[Tensor]:
        found: list[Tensor] = []
        while len(found) < most and (image := given.get(at + step * (len(found) + 1))) is not None:
            found.append(at_most(looks.shown(image[None], torch.device("cpu"))[:, :COLOURS], PLANNED_PIXELS)[0])
        return found

    leading, following = run(before.at, -1, MOST_BEFORE), run(after.at, 1, MOST_AFTER)
    return Runs.of(leading, following, after.at - before.at) if leading or following else None


def _share(before: Keyframe | None, after: Keyframe | None, at: int) -> float:
    """How much of the time between the keyframes has passed; 0 where there is only one."""
    return (at - before.at) / (after.at - before.at) if before and after else 0.0
