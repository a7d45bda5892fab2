"""What is said to a client, so that it can be said: sentences that fit, and no more than it can read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import get_args

import attrs
from attrs import evolve
from sfwire import limits as L
from sfwire import messages as m
from sfwire.errors import RETRYABLE, ErrorCode, RequestError

from .actions import ToClient
from .crew import Crew
from .jobs import Job, Jobs, State


def field_of_ours(path: str) -> str:
    """The field that is to blame if it is one of the protocol's, without the keys and names that a client chose."""
    name = re.split(r"[.\[]", path, maxsplit=1)[0]
    return name if name in _FIELDS else ""


_FIELDS = {one.name for kind in get_args(m.ToServer) for one in attrs.fields(kind)} | {"type", "buffers"}


def failed(request_id: str, error: RequestError) -> m.Failed:
    field_name = m.fit(error.field, L.MAX_NAME_CHARS)
    return m.Failed(request_id, error.code, m.fit(error.message), field_name, error.code in RETRYABLE)


def refusal(peer: bytes, code: ErrorCode, why: str) -> ToClient:
    """Of a whole connection, and not of one of its requests."""
    return ToClient(peer, m.Failed(None, code, m.fit(why)))


def welcome_in(protocol: int, welcome: m.Welcome) -> m.Welcome:
    """What a client of that protocol can read."""
    if protocol == L.PROTOCOL:
        return welcome
    most = L.MAX_KEYFRAMES_OF_1
    engines = (
        evolve(info, max_keyframes=min(most, info.max_keyframes), max_channels=L.CHANNELS, max_depth=L.DEPTH)
        for info in welcome.engines
    )
    return evolve(welcome, protocol=protocol, engines=tuple(engines))


def pong(nonce: int, boot: str, jobs: Jobs, its: Iterable[Job], crew: Crew) -> m.Pong:
    """`its`: the jobs of the client that asks."""
    return m.Pong(
        nonce=nonce,
        boot=boot,
        running=jobs.running,
        queued=jobs.queued,
        workers=crew.states(),
        yours=tuple(m.LiveRequest(job.request.id, job.sent) for job in its if job.state is not State.STOPPING),
    )


def report(boot: str, uptime_s: float, clients: int, jobs: Jobs, crew: Crew, *, names_devices: bool) -> m.Report:
    """`names_devices`: the client that asks can read them."""

    why_it_waits = crew.reasons()

    def state(job: Job) -> str:
        return why_it_waits(job.request) if job.state is State.QUEUED else job.state.name.lower()

    return m.Report(
        boot=boot,
        uptime_s=uptime_s,
        clients=clients,
        served=jobs.served,
        jobs=tuple(m.JobStatus(j.request.id, j.request.engine, state(j), j.sent, j.worker) for j in jobs),
        workers=crew.report(names_devices),
    )
