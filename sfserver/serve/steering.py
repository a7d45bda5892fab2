"""What somebody who runs the server does to its queue: see it, pause it, take a request out, let one go first.

Everybody who holds the connection file may see it. To change it takes the operator file beside it, which is the
server's owner's alone: a colleague with a copy of the connection file stays in the own stream.
"""

from __future__ import annotations

from collections.abc import Iterable
from hmac import compare_digest

from sfwire import limits as L
from sfwire import messages as m
from sfwire.errors import ErrorCode

from .jobs import Job, Jobs, State
from .kept import Entry

NOT_THE_OPERATOR = "only who can read the server's operator file, beside its connection file, may change the queue"


def refusal_of(wish: m.Steer, operator: str, jobs: Jobs, kept: Iterable[Entry]) -> str:
    """Why the wish cannot be followed; empty where it can."""
    if wish.action == "list":
        return ""
    if not operator or not compare_digest(wish.operator.encode(), operator.encode()):
        return NOT_THE_OPERATOR
    if wish.action in ("pause", "resume"):
        return ""
    job = jobs.get(wish.job)
    if wish.action == "cancel":
        known = job is not None or any(entry.key == wish.job for entry in kept)
        return "" if known else f"there is no job {m.fit(wish.job)!r}; see: sfserver queue list"
    if job is None or job.state is not State.QUEUED:
        return f"no job {m.fit(wish.job)!r} is waiting; see: sfserver queue list"
    return ""


def taken_out(job: Job, protocol: int) -> m.Failed:
    """What its client is told, which may be an old one."""
    code = ErrorCode.TAKEN_OUT if protocol == L.PROTOCOL else ErrorCode.ENGINE_UNAVAILABLE
    return m.Failed(job.key, code, "somebody who runs the server took it out of the queue")


def queue(jobs: Jobs, kept: Iterable[Entry], is_paused: bool, refused: str) -> m.Queue:
    """How things are now. `refused`: why nothing was changed."""
    live = [
        m.QueuedJob(
            job=job.key,
            client=job.client,
            engine=job.request.engine,
            state=job.state.name.lower(),
            priority=job.request.priority,
            position=job.position,
            first=job.first_untaken,
            num_frames=job.request.num_frames,
        )
        for job in sorted(jobs, key=lambda job: (job.position, job.since))
    ]
    return m.Queue(is_paused, tuple([*live, *map(away, kept)][: L.MAX_ARRAY_LENGTH]), refused)


def away(entry: Entry) -> m.QueuedJob:
    """A place that is kept, as it is shown. Raises TypeError and messages.Refused where it cannot be."""
    e = entry
    return m.QueuedJob(e.key, e.client, e.engine, "away", e.priority, 0, e.first, e.num_frames)
