"""Alpha beside a model that makes none: colours are the model's, what is seen of them is the draft engine's.

keyframes -> laid over grey -> the model        -> a frame over grey -> the grey taken out, alpha put in -> RGBA
          -> as they are    -> the draft engine -> its alpha alone   -----------------------^

Both make the same positions in the same order, so each frame gets its alpha as it leaves and none waits for another.
Over that grey the frames are the model's own again. Where the model moves a thing another way than the draft engine
does, its outline does not follow; so it is said of every gap with something transparent beside it.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Generator
from contextlib import closing
from itertools import groupby

import numpy as np
from attrs import evolve

from ..samples import GREY, RGB8, Form, Picture, conformed, form_of, from_unit, hides, unit
from .base import FOUND, Chunk, Engine, Event, Job, Step, checked

SAID = FOUND + "alpha is the draft engine's motion, colours are the model's"
_RGBA8 = Form(4)
_LEAST = np.float32(1 / 255)
"""Of alpha that shows anything in 8 bits."""


def over_grey(job: Job) -> Job:
    """The same, with keyframes as a model of three channels and 8 bits takes them."""
    return evolve(job, keyframes=tuple(evolve(k, image=conformed(k.image, RGB8)) for k in job.keyframes))


def has_alpha(job: Job) -> bool:
    """Its frames are to have it. The keyframes of a checked job are of one form."""
    return form_of(job.keyframes[0].image).has_alpha


def needs_motion(job: Job) -> bool:
    """Something of its keyframes is transparent."""
    return any(hides(keyframe.image) for keyframe in job.keyframes)


def matted(
    events: Generator[Event, None, None], job: Job, draft: Callable[[], Engine] | None
) -> Generator[Event, None, None]:
    """The events of a model that made `over_grey(job)`, with the alpha that `job` wants, where it wants any.

    `draft` loads the draft engine. Raises RequestError as that does.
    """
    if not has_alpha(job):
        yield from events
        return
    places, told = [keyframe.at for keyframe in job.keyframes], set[int]()
    with closing(events), closing(_alphas(job, draft)) as alphas:
        for event in events:
            if isinstance(event, Step):
                yield event
                continue
            for gap, frames in groupby(event.frames, lambda frame: bisect(places, frame.index)):
                if gap not in told and any(hides(k.image) for k in job.keyframes[max(gap - 1, 0) : gap + 1]):
                    told.add(gap)
                    yield Step(SAID, 0, 0)
                yield evolve(event, frames=tuple(evolve(f, image=off_grey(f.image, next(alphas))) for f in frames))


def off_grey(image: Picture, alpha: Picture) -> Picture:
    """[H, W, 3] uint8 that lies over grey, and [H, W] uint8, as RGBA8: the grey is taken out of what shines through."""
    share = unit(alpha[..., None])
    colours = GREY + (unit(image) - GREY) / np.maximum(share, _LEAST)
    return from_unit(np.concatenate((np.where(share > 0, colours, 0), share), axis=2), _RGBA8)


def _alphas(job: Job, draft: Callable[[], Engine] | None) -> Generator[Picture, None, None]:
    """[H, W] uint8 of each wanted position in turn."""
    if not needs_motion(job):
        while True:
            yield np.full((job.height, job.width), _RGBA8.most, _RGBA8.type)
    assert draft, "an engine that keeps alpha has a draft engine beside it"
    engine = draft()
    clip = Job(job.width, job.height, job.num_frames, job.keyframes, resume_from=job.resume_from)
    with closing(engine.open(checked(clip, engine.info))) as events:
        for event in events:
            if isinstance(event, Chunk):
                yield from (conformed(frame.image, _RGBA8)[..., 3] for frame in event.frames)
