"""What a program holds of one request: pictures to iterate or poll, a way to cancel, and how it ended."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from types import TracebackType

from . import messages as m
from .request import Ended, Event, Interrupted, Picture, Request


class Stream:
    """The in-betweens of one request, as they come. Closing it before its end cancels the request.

    Iterating blocks until the next picture; `poll` never blocks. Both give the server credit for what they hand out,
    so a program that stops taking pictures stops the server making them.
    """

    def __init__(
        self, request: Request, taken: Callable[[int], None], cancel: Callable[[], None], batch: int = 1
    ) -> None:
        """`taken` hears of pictures handed out, `batch` at a time."""
        self.request = request
        self.position: int | None = None
        """Requests before this one in the server's queue; None until it was accepted."""
        self.progress: m.Progress | None = None
        self.interrupted: str | None = None
        """Why the stream stands still, until the next thing that comes."""
        self.done: m.Done | None = None
        """How it ended, once it has."""
        self._error: Exception | None = None
        self._ended = False
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._taken = taken
        self._batch = batch
        self._untold = 0
        self._cancel = cancel

    @property
    def ended(self) -> bool:
        """All there is was handed out."""
        return self._ended

    def __iter__(self) -> Iterator[Picture]:
        """Pictures in order of position. Raises RequestError or ServerUnavailable where the request fails."""
        return (event for event in self.events() if isinstance(event, Picture))

    def events(self) -> Iterator[Event]:
        """Everything that happens, in order, without the Ended at its end. Raises as iterating does."""
        while not self._ended:
            event = self._wait()
            if not isinstance(event, Ended):
                yield event
        if self._error is not None:
            raise self._error

    def poll(self, most: int = 64) -> list[Event]:
        """At most `most` things that have happened since, now. An Ended among them is the last; it holds the error."""
        events: list[Event] = []
        while len(events) < most and not self._ended:
            try:
                events.append(self._note(self._events.get_nowait()))
            except queue.Empty:
                break
        return events

    def cancel(self) -> None:
        """Stop making frames. Those that came already can still be taken; the end is an Ended as always."""
        self._cancel()

    def close(self) -> None:
        """Cancel if it is still going, and drop what was not taken."""
        if not self._ended:
            self._cancel()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wait(self) -> Event:
        while True:
            try:  # a short time-out, since Ctrl-C cannot interrupt a lock on every platform
                return self._note(self._events.get(timeout=0.2))
            except queue.Empty:
                continue

    def _note(self, event: Event) -> Event:
        self.interrupted = None
        match event:
            case Picture():
                self._untold += 1
                if self._untold >= self._batch:
                    self._taken(self._untold)
                    self._untold = 0
            case m.Accepted():
                self.position = event.position
            case m.Progress():
                self.progress = event
            case Interrupted():
                self.interrupted = event.reason
            case Ended():
                self.done, self._error, self._ended = event.done, event.error, True
        return event

    def put(self, event: Event) -> None:
        """For the client's thread."""
        self._events.put(event)
