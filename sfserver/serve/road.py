"""The road of one request out of a worker: a few threads encode its pictures, one writes them in the order they came.

The thread that drives the engine puts things down here and goes back to the device. It is held up in one case alone:
where more than a set number of pictures are on the road, since the client takes no more of them. So a slow reader still
reaches the GPU, and what waits has a bound.
"""

from __future__ import annotations

import io
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING

from attrs import frozen
from sfwire import messages as m
from sfwire.codec import Buffer

from ..engine.base import FOUND, Frame

if TYPE_CHECKING:
    from ..samples import Picture

AHEAD = 24
"""Pictures on the road at once: two blocks of a Wan model, so that one can be put down while the other leaves."""
ENCODERS = min(4, os.cpu_count() or 1)
"""A PNG of 832x480 takes 15 to 50 ms of a core, and at 35 frames a second there are 29 ms for each."""


PNG_DEPTH = 8
"""Bits a sample of a picture that leaves as a PNG."""


class Cancelled(Exception):
    """The request in hand is not wanted any more."""


@frozen(eq=False)
class _Leaving:
    frame: Frame
    buffer: Buffer | Future[Buffer]


class Road:
    """A context for the length of one request; leaving it waits until everything has left, or drops it if cancelled.

    `leave` sends a picture, and may wait there until the client can take it; `say` sends a word about progress. Both
    are called by one thread of this road's own, and nobody else may write meanwhile.
    """

    def __init__(
        self,
        leave: Callable[[Frame, Buffer], None],
        say: Callable[[m.Progress], None],
        encoding: m.Encoding,
        encoders: ThreadPoolExecutor,
        ahead: int = AHEAD,
    ) -> None:
        self._leave, self._say, self._encoding, self._encoders = leave, say, encoding, encoders
        self._ahead = ahead
        self._queue: deque[_Leaving | m.Progress] = deque()
        self._pictures = 0
        """On the road, the one that is being written among them."""
        self._closing = False
        self._stopped_by: BaseException | None = None
        self._changed = threading.Condition()
        self._writer = threading.Thread(target=self._write, name="write", daemon=True)

    def __enter__(self) -> Road:
        self._writer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """What an engine made before it failed leaves all the same. Raises what `check` does, unless there is worse."""
        if isinstance(error, Cancelled):
            self._stop(error)
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._writer.join()
        if error is None:
            self.check()

    def check(self) -> None:
        """Raises what stopped the writing thread: Cancelled, or its mistake."""
        if self._stopped_by is not None:
            raise self._stopped_by

    def put(self, frame: Frame) -> None:
        """Send a picture on its way. Waits while too many are on the road. Raises as `check` does."""
        with self._changed:
            self._changed.wait_for(lambda: self._pictures < self._ahead or self._stopped_by is not None)
            self.check()
            self._pictures += 1
            if self._encoding == "raw":
                self._queue.append(_Leaving(frame, as_raw(frame.image)))
            else:
                self._queue.append(_Leaving(frame, self._encoders.submit(as_png, frame.image)))
            self._changed.notify_all()

    def tell(self, progress: m.Progress) -> None:
        """Send word in its turn: what is said of the frames that come next comes before them.

        Of several words in a row only the last is worth sending, unless one is worth keeping.
        """
        with self._changed:
            last = self._queue[-1] if self._queue else None
            if isinstance(last, m.Progress) and not last.stage.startswith(FOUND):
                self._queue.pop()
            self._queue.append(progress)
            self._changed.notify_all()

    def _write(self) -> None:
        try:
            while (item := self._next()) is not None:
                if isinstance(item, m.Progress):
                    self._say(item)
                    continue
                self._leave(item.frame, item.buffer.result() if isinstance(item.buffer, Future) else item.buffer)
                with self._changed:
                    self._pictures -= 1
                    self._changed.notify_all()
        except BaseException as error:  # the boundary of this thread: the engine's raises it
            self._stop(error)

    def _next(self) -> _Leaving | m.Progress | None:
        """What leaves next; None once there is nothing more to come."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._queue) or self._closing)
            return self._queue.popleft() if self._queue else None

    def _stop(self, error: BaseException) -> None:
        """Drop what has not left. The first reason counts."""
        with self._changed:
            self._stopped_by = self._stopped_by or error
            for item in self._queue:
                if isinstance(item, _Leaving) and isinstance(item.buffer, Future):
                    item.buffer.cancel()
            self._queue.clear()
            self._changed.notify_all()


def encoders() -> ThreadPoolExecutor:
    """The threads that encode, for the life of a worker."""
    return ThreadPoolExecutor(ENCODERS, thread_name_prefix="encode")


def as_raw(image: Picture) -> Buffer:
    """The rows of a picture, without a copy where they lie that way already."""
    import numpy as np

    return np.ascontiguousarray(image).data.cast("B")


def as_png(image: Picture) -> Buffer:
    """A picture as a PNG file of 8 bits a sample, made for speed rather than size."""
    from PIL import Image

    from ..samples import Form, conformed

    file = io.BytesIO()
    Image.fromarray(conformed(image, Form(image.shape[2], PNG_DEPTH))).save(file, "PNG", compress_level=1)
    return file.getbuffer()
