"""What the system must allow before a server can start: found out at once and said in a sentence, not in the middle.

A process that runs out of descriptors or addresses fails wherever it happens to be, in libraries too, and not always
with a word.
"""

from __future__ import annotations

import sys

from ..config import ConfigError

LEAST_DESCRIPTORS = 64
"""A front at rest has 30; each client takes one, each worker six."""
WANTED_DESCRIPTORS = 4096
LEAST_ADDRESSES = 1024**3
"""Threads, libraries and torch in a worker take most of it before any picture is there."""


def require_enough() -> None:
    """Raises ConfigError where a limit is too low; one that we may raise ourselves is raised."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    most = WANTED_DESCRIPTORS if hard == unlimited else min(WANTED_DESCRIPTORS, hard)
    if soft != unlimited and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    if soft != unlimited and soft < LEAST_DESCRIPTORS:
        raise ConfigError(
            f"this shell allows {soft} open files, a server needs {LEAST_DESCRIPTORS} at least; "
            "raise the limit (ulimit -n 1024) and start it again"
        )
    addresses, _ = resource.getrlimit(resource.RLIMIT_AS)
    if addresses != unlimited and addresses < LEAST_ADDRESSES:
        raise ConfigError(
            f"this shell allows {addresses >> 20} MiB of memory, a server needs {LEAST_ADDRESSES >> 20} at least; "
            "raise the limit (ulimit -v unlimited) and start it again"
        )
