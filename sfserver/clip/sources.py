"""Where frames come from: an engine in this process, or a running server. What comes is the same."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import closing

import numpy as np
from sfwire import messages as m
from sfwire.client import Client
from sfwire.errors import ServerUnavailable
from sfwire.request import Ended, Interrupted, Picture, Request

from .. import samples
from ..engine import base
from .planning import Choice

Event = base.Step | base.Frame
"""What a source of frames yields: a sign of life, or one in-between frame."""


def frames_from_here(choice: Choice, job: base.Job) -> Generator[Event, None, None]:
    """Load the engine in this process and run the job. Closing the generator cancels it."""
    yield base.Step("loading", 0, 0)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # torch reads it once: threads that spin starve a busy machine
    engine = choice.load()
    with closing(engine.open(job)) as events:
        for event in events:
            if isinstance(event, base.Chunk):
                yield from event.frames
            else:
                yield event


def frames_from_server(client: Client, request: Request) -> Generator[Event, None, None]:
    """The same from a running server. Closing the generator cancels it."""
    with client.submit(request) as stream:
        for event in stream.events():
            if not isinstance(event, Ended):  # `events` keeps the last one to itself
                yield heard(event)
        if stream.done is not None and stream.done.outcome == "cancelled":
            raise ServerUnavailable("the server cancelled the request, for it is shutting down; start it and try again")


def heard(event: Picture | m.Progress | m.Accepted | Interrupted) -> Event:
    """What a server says, as an engine in this process would say it."""
    match event:
        case Picture():
            pixels = np.frombuffer(event.data, samples.Form(event.channels, event.depth).type)
            image = pixels.reshape(event.height, event.width, event.channels)
            return base.Frame(event.index, image, event.confidence)
        case m.Progress():
            return base.Step(event.stage, event.step, event.of)
        case m.Accepted():
            return base.Step(f"queued, {event.position} before" if event.position else "starting", 0, 0)
        case Interrupted():
            return base.Step("reconnecting", 0, 0)
