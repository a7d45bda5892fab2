"""A pass that is recorded on its device and played again: the host launches one thing instead of a thousand.

    first call    | as it is: kernels are chosen, and what is done once is done
    second        | recorded, then played
    those after   | what has changed is copied in, then played

Of use where kernels are so small that the device waits for the host: a preview's. A record holds addresses, so it is
good for as long as all else that the pass reads and writes stays where it is: in a rollout, for the passes over one
block. On a GPU nobody has seen it yet: it is taken by `graphs = "small"` alone, and a pass that cannot be recorded is
made as it is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

Record = Callable[[Callable[[], Tensor]], tuple[Callable[[], None], Tensor]]
"""Records work: what plays it, and where its answer then lies."""
SMALL_TOKENS = 1500
"""Of a block, up to which recording is worth it: three latents of 416x240 are 1170."""
logger = logging.getLogger(__name__)


class Played:
    """Calls of one function with tensors whose shapes stay, recorded at the second."""

    def __init__(self, work: Callable[..., Tensor], record: Record) -> None:
        self._work, self._record = work, record
        self._is_first, self._is_refused = True, False
        self._given: list[Tensor] = []
        self._play: Callable[[], None] | None = None
        self._answer: Tensor | None = None

    def __call__(self, *given: Tensor) -> Tensor:
        if self._is_first or self._is_refused:
            self._is_first = False
            return self._work(*given)
        if self._play is None:
            self._given = [tensor.clone() for tensor in given]
            try:
                self._play, self._answer = self._record(lambda: self._work(*self._given))
            except RuntimeError as error:
                logger.warning("a pass cannot be recorded and is made as it is: %s", error)
                self._is_refused = True
                return self._work(*given)
        else:
            for held, tensor in zip(self._given, given, strict=True):
                held.copy_(tensor)
        self._play()
        assert self._answer is not None
        return self._answer.clone()  # the next time it is played, something else lies there


def on_cuda(work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """A CUDA graph. On a stream of its own, and without waiting for the device: what decodes beside it goes on."""
    graph, apart = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    apart.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(apart):
        graph.capture_begin(capture_error_mode="thread_local")
        try:
            answer = work()
        finally:
            graph.capture_end()
    torch.cuda.current_stream().wait_stream(apart)
    return graph.replay, answer


def recorder(device: torch.device, graphs: str) -> Record | None:
    """What records passes on a device, if that is asked for and can be done there."""
    return on_cuda if graphs == "small" and device.type == "cuda" else None
