"""What the broker wants done: said to a client, to a worker, to whoever starts processes, or written down."""

from __future__ import annotations

from attrs import frozen
from sfwire import messages as m
from sfwire.codec import Buffer

from .kept import Fact


@frozen(eq=False)
class ToClient:
    peer: bytes
    message: m.ToClient
    buffers: tuple[Buffer, ...] = ()


@frozen(eq=False)
class ToWorker:
    worker: int
    message: m.Generate | m.Credit | m.Cancel
    buffers: tuple[Buffer, ...] = ()


@frozen
class Replace:
    """Kill the worker if it still lives, and start another in its place."""

    worker: int


@frozen
class Refuse:
    """A worker that dialled in is told why it cannot serve here, and its place is free."""

    worker: int
    why: str


@frozen
class Note:
    """Write it into the journal, before what comes after it is done."""

    fact: Fact


Action = ToClient | ToWorker | Replace | Refuse | Note
