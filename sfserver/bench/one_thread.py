"""A worker whose one thread drives the engine, encodes, waits for credit and writes: what a road is measured against.

That is how it was until pictures had a road of their own.
"""

from __future__ import annotations

from functools import partial
from types import TracebackType

from sfwire import messages as m

from ..engine.base import Frame
from ..serve.road import Road, as_png, as_raw
from ..serve.worker import Request, Worker


class OneThread(Road):
    """Everything is over when the call returns."""

    def __enter__(self) -> Road:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def put(self, frame: Frame) -> None:
        self._leave(frame, as_raw(frame.image) if self._encoding == "raw" else as_png(frame.image))

    def tell(self, progress: m.Progress) -> None:
        self._say(progress)


class OneThreadWorker(Worker):
    def _road(self, request: Request) -> Road:
        return OneThread(partial(self._send_frame, request), self._send, request.message.encoding, self._encoders)
