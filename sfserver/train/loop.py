"""The training loop, the same for every stage: draw a batch, step, average, write down, and survive being killed.

A batch is a function of the seed and the step, and so is every random number in it. What lies between two steps is
therefore the weights, their averages and the optimizer's moments, all in one file: a run that was killed goes on from
it with the losses that it would have had.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Protocol

import torch
from attrs import frozen
from torch import Tensor, nn

from ..errors import UserError

CHECKPOINT_NAME = "checkpoint.pt"
METRICS_NAME = "metrics.jsonl"
FIRST_AVERAGED_STEPS = 20
"""Averages follow quickly at first: the decay of step s is s / (s + this), up to the recipe's own."""


@frozen
class Pace:
    """How long a stage learns, and how fast."""

    steps: int
    learning_rate: float
    warm_up_steps: int = 60
    decay_from: float = 0.5
    """Share of the steps after which the rate falls along a cosine, to `final_rate` of it at the end."""
    final_rate: float = 0.02
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    ema: float = 0.995
    """Decay of the averages that are kept of all weights; they are what a stage leaves behind."""
    checkpoint_steps: int = 100

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        rising = min(1.0, (step + 1) / self.warm_up_steps)
        share = step / self.steps
        if share < self.decay_from:
            return self.learning_rate * rising
        falling = 0.5 + 0.5 * math.cos(math.pi * (share - self.decay_from) / (1 - self.decay_from))
        return self.learning_rate * rising * (self.final_rate + (1 - self.final_rate) * falling)


class Stage(Protocol):
    """What is learnt, and from what."""

    @property
    def network(self) -> nn.Module:
        """Whatever requires gradient in it is trained."""
        ...

    def loss(self, random: torch.Generator) -> Tensor:
        """The loss of one batch, a scalar with a graph. All randomness comes from `random`."""
        ...


@frozen
class Report:
    """One step."""

    step: int
    loss: float
    rate: float
    grad_norm: float


def step_random(seed: int, step: int) -> torch.Generator:
    """The generator of one step: neighbours have nothing in common."""
    digest = hashlib.sha256(f"{seed}:{step}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))


def train(stage: Stage, pace: Pace, folder: Path, seed: int = 0) -> Generator[Report, None, None]:
    """A Report after each step, from the last checkpoint in `folder` on. Closing it writes a checkpoint too.

    Raises UserError where the loss or a gradient is no number, naming the tensor.
    """
    folder.mkdir(parents=True, exist_ok=True)
    trained = [p for p in stage.network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, pace.learning_rate, betas=pace.betas, weight_decay=pace.weight_decay)
    averages = {name: value.detach().clone() for name, value in stage.network.state_dict().items()}
    step = _resume(folder, stage.network, optimizer, averages)
    try:
        while step < pace.steps:
            for group in optimizer.param_groups:
                group["lr"] = pace.rate(step)
            loss = stage.loss(step_random(seed, step))
            loss.backward()
            _check_finite(loss, stage.network, step)
            norm = float(nn.utils.clip_grad_norm_(trained, pace.clip_norm))
            optimizer.step()
            optimizer.zero_grad()
            _average(averages, stage.network, min(pace.ema, (step + 1) / (step + 1 + FIRST_AVERAGED_STEPS)))
            report = Report(step, float(loss.detach()), pace.rate(step), norm)
            step += 1
            if step % pace.checkpoint_steps == 0:
                _save(folder, step, stage.network, optimizer, averages)
            yield report
    finally:
        _save(folder, step, stage.network, optimizer, averages)


def averages_of(folder: Path) -> Mapping[str, Tensor]:
    """The averaged weights that a stage has left in its folder so far."""
    return _load(folder / CHECKPOINT_NAME)["averages"]


def write_metrics(folder: Path, report: Report, **more: float | str) -> None:
    """Append a line to the stage's metrics."""
    line = {"step": report.step, "loss": report.loss, "rate": report.rate, "grad_norm": report.grad_norm, **more}
    with (folder / METRICS_NAME).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


@torch.no_grad()
def _average(averages: Mapping[str, Tensor], network: nn.Module, decay: float) -> None:
    for name, value in network.state_dict().items():
        averages[name].lerp_(value, 1 - decay)


def _check_finite(loss: Tensor, network: nn.Module, step: int) -> None:
    value = float(loss.detach())
    if not math.isfinite(value):
        raise UserError(f"step {step}: the loss is {value}; lower the learning rate, or look at the data")
    for name, parameter in network.named_parameters():
        if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all()):
            raise UserError(f"step {step}: the gradient of {name} is not finite; lower the learning rate")


def _save(
    folder: Path, step: int, network: nn.Module, optimizer: torch.optim.Optimizer, averages: Mapping[str, Tensor]
) -> None:
    path = folder / CHECKPOINT_NAME
    state = {"step": step, "weights": network.state_dict(), "optimizer": optimizer.state_dict(), "averages": averages}
    temporary = path.with_suffix(".part")
    torch.save(state, temporary)
    os.replace(temporary, path)


def _resume(folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer, averages: dict[str, Tensor]) -> int:
    """The step to go on with, 0 where nothing was left."""
    path = folder / CHECKPOINT_NAME
    if not path.exists():
        return 0
    state = _load(path)
    network.load_state_dict(state["weights"])
    optimizer.load_state_dict(state["optimizer"])
    averages.update(state["averages"])
    return int(state["step"])


def _load(path: Path) -> dict:
    return torch.load(path, map_location="cpu", weights_only=True)
