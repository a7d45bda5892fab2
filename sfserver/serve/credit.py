"""How many frames a worker may be told to make, so that what waits for one client stays under a bound, in bytes.

A client says how many frames it can take. It may say so again and again and never read, so its word is not enough: what
counts is what its computer has acknowledged. What waits for it, and what its workers may still send, fit together into
`limits.MAX_WAITING_BYTES`. One frame more is allowed to a request that has none under way, so that none stands still
for another of the same client.
"""

from __future__ import annotations

from collections.abc import Iterable

from sfwire import limits as L

from .jobs import Job, State


def total(job: Job, of_its_owner: Iterable[Job], waiting_bytes: int) -> int:
    """The running total of frames that the worker of `job` may be told, `job.given` if no more than it knows.

    `of_its_owner`: all live requests of the same client. `waiting_bytes`: sent to it and not yet acknowledged.
    """
    running = (other for other in of_its_owner if other.state is State.RUNNING)
    promised = sum((other.given - other.sent) * frame_bytes(other) for other in running)
    free = L.MAX_WAITING_BYTES - waiting_bytes - promised
    more = max(0, free // frame_bytes(job))
    if free > -promised and job.given == job.sent:
        more = max(more, 1)
    return max(job.given, min(job.credit, job.sent + L.MAX_CREDIT_AHEAD, job.given + more))


def frame_bytes(job: Job) -> int:
    """The most that one of its frames takes on the wire."""
    channels = max(keyframe.channels for keyframe in job.request.keyframes)
    depth = max(keyframe.depth for keyframe in job.request.keyframes)
    return job.request.width * job.request.height * channels * (depth // 8) + L.PNG_SLACK_BYTES
