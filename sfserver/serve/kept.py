"""Places that are kept: a request whose client is away, or whose server was started anew, waits where it stood.

A client that comes back asks again, under another id, in another connection, perhaps as another process. So a request
is known by its content: the same pictures, prompts and settings, by hash. Whoever asks for that takes the place.

What is kept holds no picture and no prompt. It is what the journal writes down, and what comes out of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b

from attrs import define, evolve, field, frozen
from sfwire import messages as m
from sfwire.codec import Buffer, encode

from .jobs import Job

KEPT_S = 24 * 3600.0
MAX_KEPT = 64
"""As many as may wait. The oldest gives way."""
_HASH_BYTES = 20


@frozen
class Entry:
    """One accepted request that has not ended, or whose place is kept."""

    key: str
    """Its name between the server's processes, and for who steers the queue."""
    owner: str
    id: str
    content: str
    client: str
    engine: str
    num_frames: int
    first: int
    """Position of the first frame that its client has not taken."""
    round: int
    priority: m.Priority


@frozen
class Entered:
    """It was accepted."""

    entry: Entry


@frozen
class Taken:
    """Its client has taken what comes before `first`."""

    owner: str
    id: str
    first: int


@frozen
class Left:
    """It got its terminal message. `keeps`: its place is kept all the same."""

    owner: str
    id: str
    how: m.Done | m.Failed
    keeps: bool


@frozen
class Claimed:
    """A place is not kept any more: somebody took it, or it was given up."""

    owner: str
    id: str


@frozen
class Paused:
    """Whether workers are given anything."""

    is_paused: bool


Fact = Entered | Taken | Left | Claimed | Paused


@frozen
class Past:
    """What earlier servers left behind."""

    entries: tuple[Entry, ...] = ()
    ends: tuple[tuple[str, m.Done | m.Failed], ...] = ()
    """(owner, terminal message) in order of time."""
    is_paused: bool = False


def content_of(request: m.Generate, buffers: Sequence[Buffer]) -> str:
    """What decides the pictures of a request, as a hash: not its id, nor where it goes on, nor how it is sent."""
    digest = blake2b(digest_size=_HASH_BYTES)
    for part in encode(
        evolve(request, id="x", resume_from=0, credit=0, encoding="raw", priority="interactive"), buffers
    ):
        digest.update(part)
    return digest.hexdigest()


def entry_of(job: Job) -> Entry:
    """The place that it has now."""
    request = job.request
    facts = (request.engine, request.num_frames, job.first_untaken, job.round, request.priority)
    return Entry(job.key, job.owner, request.id, job.content, job.client, *facts)


@define
class Kept:
    """All places that are kept, the oldest first."""

    _entries: list[tuple[float, Entry]] = field(factory=list[tuple[float, Entry]])

    @staticmethod
    def of(past: Past, now: float) -> Kept:
        """What earlier servers left; keys are of one server's run."""
        return Kept([(now, evolve(entry, key=f"past{i + 1}")) for i, entry in enumerate(past.entries)][-MAX_KEPT:])

    def __iter__(self) -> Iterator[Entry]:
        return (entry for _, entry in self._entries)

    def keep(self, entry: Entry, now: float) -> list[Entry]:
        """Keep a place; those that are given up for it."""
        self._entries.append((now, entry))
        return self._give_up(len(self._entries) - MAX_KEPT)

    def find(self, content: str, owner: str) -> Entry | None:
        """The place of this request, the owner's own before another's."""
        same = [entry for entry in self if entry.content == content]
        return next((entry for entry in same if entry.owner == owner), same[0] if same else None)

    def drop(self, key: str) -> Entry | None:
        """It is kept no more: it was taken, or given up."""
        found = next((entry for entry in self if entry.key == key), None)
        self._entries = [(at, entry) for at, entry in self._entries if entry.key != key]
        return found

    def expire(self, now: float) -> list[Entry]:
        """Those that have been kept for too long, and are no more."""
        return self._give_up(sum(now - at > KEPT_S for at, _ in self._entries))

    def _give_up(self, count: int) -> list[Entry]:
        gone, self._entries = self._entries[: max(count, 0)], self._entries[max(count, 0) :]
        return [entry for _, entry in gone]
