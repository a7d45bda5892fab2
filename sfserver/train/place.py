"""Where a training runs: on one device, or on several at once, each in a process of its own that sees other clips.

Every process holds all networks. After each batch the gradients are averaged over the processes; the rest is the same
everywhere, so the weights stay the same without being sent. By hand and not by a wrapper around the network, because a
rollout calls a network many times before one backward pass, and not only its `forward`.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from typing import Protocol

import psutil
import torch
from attrs import frozen
from torch import Tensor

from ..errors import UserError


class Place(Protocol):
    """One process of a training."""

    @property
    def device(self) -> torch.device: ...

    @property
    def rank(self) -> int:
        """Which of the processes this is, from 0. The first alone writes files."""
        ...

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over all processes."""
        ...

    def wait(self) -> None:
        """Until all processes have come here."""
        ...


@frozen
class Alone:
    """One process."""

    device: torch.device
    rank: int = 0

    def average(self, tensors: Sequence[Tensor]) -> None:
        pass

    def wait(self) -> None:
        pass


ALONE = Alone(torch.device("cpu"))


class Accelerated:
    """One of the processes that `accelerate launch` has started; also the only one."""

    def __init__(self, on_cpu: bool) -> None:
        from accelerate import Accelerator  # seconds to import, and needed for several processes alone

        self._accelerator = Accelerator(cpu=on_cpu)
        self.device = self._accelerator.device
        self.rank = self._accelerator.process_index

    def average(self, tensors: Sequence[Tensor]) -> None:
        for tensor in tensors:
            mean = self._accelerator.reduce(tensor, reduction="mean")
            assert isinstance(mean, Tensor)
            tensor.copy_(mean)

    def wait(self) -> None:
        self._accelerator.wait_for_everyone()


def free_bytes(device: torch.device) -> int:
    """Of the device's memory."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available


def choose_place(device: str) -> Place:
    """The device that is named, `auto` for the best there is; one of several where `accelerate launch` says so.

    Raises UserError where it is not there, or accelerate is needed and not installed.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        if importlib.util.find_spec("accelerate") is None:
            raise UserError("several processes need accelerate; run: pip install 'sfserver[train]'")
        return Accelerated(on_cpu=device == "cpu")
    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise UserError("--device cuda: this machine has no CUDA device, or its torch none; choose --device cpu")
    return Alone(torch.device("cuda" if there and device != "cpu" else "cpu"))
