"""The training loop, the same for every stage: draw a batch, step, average, write down, and survive being killed.

A batch is a function of the seed and the step, and so is every random number in it. What lies between two steps is
therefore the weights, their averages and the optimizer's moments, all in one file: a run that was killed goes on from
it with the losses that it would have had.

A stage may have another beside it that learns along, as a critic does: a stage like any other, with an optimizer of its
own, that makes a few updates before each of the first one's.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from attrs import evolve, frozen
from torch import Tensor, nn

from ..errors import UserError
from .place import ALONE, Place

CHECKPOINT_NAME = "checkpoint.pt"
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
    accumulate: int = 1
    """Batches whose gradients are averaged before a step is made, where memory holds no larger one."""

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
        """Whatever requires gradient in it is trained, and all of it is averaged and kept."""
        ...

    def loss(self, random: torch.Generator) -> Tensor:
        """The loss of one batch, a scalar with a graph. All randomness comes from `random`."""
        ...


@frozen(eq=False)
class Beside:
    """A stage that learns along with another: `updates` steps before each of that one's, by a pace whose steps are the
    other's. No averages are kept of it."""

    stage: Stage
    pace: Pace
    updates: int = 5


@frozen
class Report:
    """One step."""

    step: int
    loss: float
    rate: float
    grad_norm: float
    beside_loss: float = math.nan
    """Of what learns along, its last update's."""


def step_random(seed: int, step: int, *more: int) -> torch.Generator:
    """The generator of one step, or of one part of it: neighbours have nothing in common."""
    digest = hashlib.sha256(":".join(map(str, (seed, step, *(more if any(more) else ())))).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))


def train(
    stage: Stage, pace: Pace, folder: Path, seed: int = 0, beside: Beside | None = None, place: Place = ALONE
) -> Generator[Report, None, None]:
    """A Report after each step, from the last checkpoint in `folder` on. Closing it writes a checkpoint too.

    Raises UserError where the loss or a gradient is no number, naming the tensor.
    """
    folder.mkdir(parents=True, exist_ok=True)
    learners = [_Learner(stage, pace, seed, place)]
    if beside:
        learners.append(_Learner(beside.stage, beside.pace, seed, place, averaged=False))
    step = _resume(folder, learners)
    try:
        while step < pace.steps:
            beside_loss = math.nan
            for turn in range(beside.updates if beside else 0):
                beside_loss = learners[1].update(step, turn + 1).loss
            report = evolve(learners[0].update(step), beside_loss=beside_loss)
            step += 1
            if step % pace.checkpoint_steps == 0:
                _save(folder, step, learners, place)
            yield report
    finally:
        _save(folder, step, learners, place)


class _Learner:
    """A stage's network and what grows beside it: the optimizer's moments, and the averages."""

    def __init__(self, stage: Stage, pace: Pace, seed: int, place: Place, averaged: bool = True):
        self._stage, self._pace, self._seed, self._place = stage, pace, seed, place
        self._trained = [p for p in stage.network.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(
            self._trained, pace.learning_rate, betas=pace.betas, weight_decay=pace.weight_decay
        )
        values = stage.network.state_dict() if averaged else {}
        self._averages = {name: value.detach().clone() for name, value in values.items()}

    def update(self, step: int, turn: int = 0) -> Report:
        """One step of the optimizer; a critic makes several `turn`s, counted from 1, in one step of the training."""
        pace, network = self._pace, self._stage.network
        for group in self._optimizer.param_groups:
            group["lr"] = pace.rate(step)
        total = 0.0
        for part in range(pace.accumulate):
            loss = self._stage.loss(step_random(self._seed, step, turn, self._place.rank, part))
            (loss / pace.accumulate).backward()
            total += float(loss.detach()) / pace.accumulate
        self._place.average([p.grad for p in self._trained if p.grad is not None])
        _check_finite(total, network, step)
        norm = float(nn.utils.clip_grad_norm_(self._trained, pace.clip_norm))
        self._optimizer.step()
        self._optimizer.zero_grad()
        if self._averages:
            decay = min(pace.ema, (step + 1) / (step + 1 + FIRST_AVERAGED_STEPS))
            _average(self._averages, network, decay)
        return Report(step, total, pace.rate(step), norm)

    def state(self) -> dict:
        weights, moments = self._stage.network.state_dict(), self._optimizer.state_dict()
        return {"weights": weights, "optimizer": moments, "averages": self._averages}

    def resume(self, state: Mapping) -> None:
        self._stage.network.load_state_dict(state["weights"])
        self._optimizer.load_state_dict(state["optimizer"])
        for name, value in state["averages"].items():
            self._averages[name].copy_(value)


def averages_of(folder: Path) -> Mapping[str, Tensor]:
    """The averaged weights that a stage has left in its folder so far."""
    return _load(folder / CHECKPOINT_NAME)["averages"]


@torch.no_grad()
def _average(averages: Mapping[str, Tensor], network: nn.Module, decay: float) -> None:
    for name, value in network.state_dict().items():
        averages[name].lerp_(value, 1 - decay)


def _check_finite(loss: float, network: nn.Module, step: int) -> None:
    if not math.isfinite(loss):
        raise UserError(f"step {step}: the loss is {loss}; lower the learning rate, or look at the data")
    for name, parameter in network.named_parameters():
        if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all()):
            raise UserError(f"step {step}: the gradient of {name} is not finite; lower the learning rate")


def _save(folder: Path, step: int, learners: Sequence[_Learner], place: Place) -> None:
    """The first learner's state, and with it those of the others. One process of several writes."""
    if place.rank:
        return
    path = folder / CHECKPOINT_NAME
    first, *others = (learner.state() for learner in learners)
    temporary = path.with_suffix(".part")
    torch.save({"step": step, **first, "beside": others}, temporary)
    os.replace(temporary, path)


def _resume(folder: Path, learners: Sequence[_Learner]) -> int:
    """The step to go on with, 0 where nothing was left."""
    path = folder / CHECKPOINT_NAME
    if not path.exists():
        return 0
    state = _load(path)
    for learner, its in zip(learners, [state, *state.get("beside", [])], strict=True):
        learner.resume(its)
    return int(state["step"])


def _load(path: Path) -> dict:
    return torch.load(path, map_location="cpu", weights_only=True)
