"""All places for workers, as the front sees them: those whose processes it starts, and those for who dials in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sfwire import messages as m
from sfwire.codec import Buffer

from .pool import Came, Died, Pool, Said
from .remote import RemotePool


class Pools:
    """`here` has the first places, `remote`, if workers may dial in, those after them."""

    def __init__(self, here: Pool, remote: RemotePool | None) -> None:
        self._here, self._remote = here, remote
        self.remote_places = range(here.size, here.size) if remote is None else remote.places
        self.wake_reader, self.wake = here.wake_reader, here.wake

    def start(self, index: int) -> tuple[int, str] | None:
        """Replace who is there: the new process's pid and device, or None where one may dial in. Raises OSError."""
        return self._of(index).start(index)

    def send(self, index: int, message: m.ToServer, buffers: Sequence[Buffer]) -> None:
        self._of(index).send(index, message, buffers)

    def refuse(self, index: int, why: str) -> None:
        """Tell one that dialled in that it cannot serve here."""
        if self._remote is not None and index in self.remote_places:
            self._remote.dismiss(index, "refused", why)

    def events(self) -> Iterator[Came | Said | Died]:
        yield from self._here.events()
        if self._remote is not None:
            yield from self._remote.events()

    def end_all(self) -> None:
        """The server ends, and not for a moment only."""
        if self._remote is not None:
            self._remote.end_all()

    def close(self) -> None:
        if self._remote is not None:
            self._remote.close()
        self._here.close()

    def _of(self, index: int) -> Pool | RemotePool:
        return self._remote if self._remote is not None and index in self.remote_places else self._here
