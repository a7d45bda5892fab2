"""From the device to the host while the device goes on: a block is decoded beside the passes of the next one.

    main line   | passes of block 1 | passes of block 2 | passes of block 3 | ...
    beside it                       | decode 1, copy    | decode 2, copy    | ...
    host          queues a pass, waits for the pass before it, hands out what has arrived meanwhile

The host is never more than one pass ahead of the device, so that a Step means what it says and a cancel is in time, and
never waits for pictures while the device has nothing to do. At most two blocks' pictures exist at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import nullcontext
from typing import Any, Protocol, TypeVar

import torch
from attrs import frozen
from sfwire.errors import ErrorCode, RequestError
from torch import Tensor

from .geometry import Block

T = TypeVar("T")
POLL_S = 0.0005
"""Between two looks at the device. Waiting in its driver would keep a core busy, on which pictures are encoded."""


class Mark(Protocol):
    """A place in a line of work."""

    def reached(self) -> bool: ...


class Line(Protocol):
    """What the pipeline needs of a device: a main line of work, on which everybody queues, and another beside it."""

    def mark(self) -> Mark:
        """The end of what the main line was given so far."""
        ...

    def beside(self, work: Callable[[], T]) -> T:
        """Queue `work` beside the main line, after what that was given so far."""
        ...

    def fetch(self, tensors: Sequence[Tensor]) -> tuple[list[Tensor], Mark]:
        """Queue copies to the host after what is beside; they hold what they should once the mark is reached."""
        ...

    def join(self) -> None:
        """Let the main line go on only after what is beside it: what both have used may then be freed."""
        ...

    def pause(self) -> None:
        """Let some time pass."""
        ...

    def take_turns(self, turns: bool) -> None:
        """Whether what is `beside` the main line takes its turn on it from here on, which needs less memory."""
        ...


@frozen(eq=False)
class Leaving:
    """The pictures of one block on their way, [T, H, W, 3] uint8 from frame `first` on."""

    block: Block
    first: int
    pictures: Tensor
    sound: Tensor
    """[2] bool: whether all latents were finite, and all pixels."""
    there: Mark
    read: tuple[Tensor, ...] = ()
    """Made on the main line and read beside it: given back before that is over, they would be written to."""


class Pipeline:
    """One clip's way out of a device."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._leaving: Leaving | None = None
        self._last_pass: Mark | None = None

    def after_pass(self) -> Generator[Leaving, None, None]:
        """Call after a pass was queued. Waits for the one before it; meanwhile, what has arrived is handed out."""
        queued = self._line.mark()
        while self._last_pass is not None and not self._last_pass.reached():
            yield from self.arrived()
            self._line.pause()
        self._last_pass = queued
        yield from self.arrived()

    def add(self, block: Block, first: int, latents: Tensor, pixels: Tensor, pictures: Tensor) -> None:
        """Send a block off, all of it made beside the main line. What was sent before must have been handed out."""
        assert self._leaving is None, "two blocks at once"
        sound = self._line.beside(lambda: torch.stack((latents.isfinite().all(), pixels.isfinite().all())))
        (arriving, flags), there = self._line.fetch((pictures, sound))
        self._leaving = Leaving(block, first, arriving, flags, there, (latents, pixels, pictures))

    def arrived(self) -> Generator[Leaving, None, None]:
        """What is on the host by now. Raises RequestError (not_finite) instead of pictures that mean nothing."""
        if self._leaving is not None and self._leaving.there.reached():
            leaving, self._leaving = self._leaving, None
            for sound, maker in zip(leaving.sound.tolist(), ("the model", "the VAE's decoder"), strict=True):
                if not sound:
                    raise not_finite(leaving.block, maker)
            yield leaving

    def rest(self) -> Generator[Leaving, None, None]:
        """What is on its way, waited for."""
        while self._leaving is not None:
            yield from self.arrived()
            self._line.pause()


def not_finite(block: Block, maker: str) -> RequestError:
    return RequestError(
        ErrorCode.NOT_FINITE,
        f"{maker} produced NaN or infinity in latents {block.start} to {block.stop - 1}; "
        "its weights are damaged or do not bear this precision, try precision fp32",
    )


@frozen
class _Now:
    """Of a device that is waited for at once."""

    def reached(self) -> bool:
        return True


class InTurn:
    """A device with one line, whose work is over when the call returns: the CPU, or one that only seems to be so."""

    def mark(self) -> Mark:
        return _Now()

    def beside(self, work: Callable[[], T]) -> T:
        return work()

    def fetch(self, tensors: Sequence[Tensor]) -> tuple[list[Tensor], Mark]:
        return [tensor.cpu() for tensor in tensors], _Now()

    def join(self) -> None:
        pass

    def pause(self) -> None:
        pass

    def take_turns(self, turns: bool) -> None:
        pass


class CudaLine:
    """Streams and events.

    Pictures land in pinned memory, without which a copy would hold up the host. Torch keeps what was freed of it, so
    a clip's blocks take turns in the same few buffers.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._apart = torch.cuda.Stream(device)
        self._side: torch.cuda.Stream | None = self._apart

    def take_turns(self, turns: bool) -> None:
        self._side = None if turns else self._apart

    def mark(self) -> Mark:
        return _CudaMark(torch.cuda.current_stream(self._device))

    def beside(self, work: Callable[[], T]) -> T:
        if self._side is None:
            return work()
        self._side.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._side):
            return work()

    def fetch(self, tensors: Sequence[Tensor]) -> tuple[list[Tensor], Mark]:
        with torch.cuda.stream(self._side) if self._side else nullcontext():
            copies = [torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True) for tensor in tensors]
            for copy, tensor in zip(copies, tensors, strict=True):
                copy.copy_(tensor, non_blocking=True)
            return copies, _CudaMark(torch.cuda.current_stream(self._device))

    def join(self) -> None:
        if self._side is not None:
            torch.cuda.current_stream(self._device).wait_stream(self._side)

    def pause(self) -> None:
        time.sleep(POLL_S)


class _CudaMark:
    def __init__(self, stream: Any) -> None:
        self._event = torch.cuda.Event()
        self._event.record(stream)

    def reached(self) -> bool:
        return self._event.query()


def line_of(device: torch.device) -> Line:
    """Of a device. MPS has no streams to choose from."""
    return CudaLine(device) if device.type == "cuda" else InTurn()


def to_pictures(pixels: Tensor) -> Tensor:
    """[T, 3, H, W] in -1 to 1 to [T, H, W, 3] uint8."""
    return ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).movedim(1, -1).contiguous()
