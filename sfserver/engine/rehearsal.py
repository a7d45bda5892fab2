"""Compiling while others work: a clip is made as it is, and its compiled code rehearsed beside it for those to come.

    first clip of its kind    | made eagerly                         |
    beside it                   | its passes on one layer, compiled |
    the next ones                                                      | made by compiled code

A rehearsal is the clip's own rollout over the model's first layer: every pass that the clip takes has its shapes there,
and one layer's code is that of all. So a clip that was rehearsed is never held up by a compiler. A clip is made by one
of both ways from its beginning to its end; they differ by the last bits of a float, no more.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Generator, Hashable, Sequence
from contextlib import nullcontext
from threading import Thread
from typing import TypeVar

import torch
from attrs import evolve
from torch import Tensor, nn

from ..model.attention import Attend
from ..model.dit import Dit, How
from ..model.vace import Vace
from .base import Step
from .geometry import Geometry
from .guide import Context, Guide
from .noise import seeded_noise
from .rollout import Memory, Networks, Rollout, Sampling
from .script import Prompt

Network = TypeVar("Network", Dit, Vace)
logger = logging.getLogger(__name__)


class Rehearsals:
    """What has been compiled in this process, by kind of clip. One is rehearsed at a time, on a line of its own."""

    def __init__(self, attend: Attend, device: torch.device, backend: str = "inductor") -> None:
        self._eager, self._device, self._backend = How(attend), device, backend
        self._compiled: How | None = None
        self._known: set[Hashable] = set()
        self._failed: set[Hashable] = set()
        self._at_work: Thread | None = None

    def how(self, kind: Hashable) -> How:
        """Compiled where such a clip was rehearsed, and as it is elsewhere."""
        return self._compiled if self._compiled and kind in self._known else self._eager

    def begin(self, kind: Hashable, play: Callable[[How], None]) -> None:
        """Rehearse a kind of clip, unless that was done, has failed, or another is being rehearsed. `play` is called in
        a thread with the compiled way, and is to take every pass of such a clip.
        """
        if kind in self._known | self._failed or (self._at_work and self._at_work.is_alive()):
            return
        self._compiled = self._compiled or How.compiled(self._eager.attend, self._backend)
        self._at_work = Thread(target=self._rehearse, args=(kind, play, self._compiled), name="rehearsal", daemon=True)
        self._at_work.start()

    def wait(self) -> None:
        """Until what is being rehearsed is over."""
        if self._at_work:
            self._at_work.join()

    def _rehearse(self, kind: Hashable, play: Callable[[How], None], how: How) -> None:
        on_cuda = self._device.type == "cuda"
        try:
            with torch.no_grad(), torch.cuda.stream(torch.cuda.Stream(self._device)) if on_cuda else nullcontext():
                play(how)
        except Exception as error:  # no compiler, no memory, or a fault in either: clips are made all the same
            self._failed.add(kind)
            logger.warning("clips of this kind stay uncompiled: %s", error)
        else:
            self._known.add(kind)


def rehearsal(
    networks: Networks,
    geometry: Geometry,
    sampling: Sampling,
    prompts: Sequence[Prompt],
    guide: Guide,
    memory: Memory | None,
    device: torch.device,
) -> Callable[[How], None]:
    """What `Rehearsals.begin` plays: such a clip over the first layer, from noise of its own, told of nothing."""
    dit = networks.dit

    def play(how: How) -> None:
        rollout = Rollout(
            Networks(_thin(dit), networks.vace and _thin(networks.vace), how, networks.clean and _thin(networks.clean)),
            geometry,
            sampling,
            [Prompt(prompt.text[:1], prompt.vace_text[:1], prompt.clean_text[:1]) for prompt in prompts],
            seeded_noise(0, geometry, device),
            evolve(guide, context=guide.context and _blank(geometry, dit.config.vace_in_channels, device)),
            memory,
            None,
            device,
            dit.compute_dtype,
        )
        for _ in rollout.run():
            pass

    return play


def _thin(network: Network) -> Network:
    """The network as if it had one layer, its weights shared."""
    thin = copy.copy(network)
    layers = "blocks" if isinstance(network, Dit) else "vace_blocks"
    thin._modules = {**network._modules, layers: nn.ModuleList(list(getattr(network, layers))[:1])}
    thin.config = evolve(network.config, layers=1, vace_layers=(0,) if network.config.vace_layers else ())
    return thin


def _blank(geometry: Geometry, channels: int, device: torch.device) -> Context:
    """Stands for what the VACE branch is told."""

    def context(span: range) -> Generator[Step, None, Tensor]:
        yield from ()
        batch, count, _, *size = geometry.latent_shape(len(span))
        return torch.zeros(batch, count, channels, *size, device=device)

    return context
