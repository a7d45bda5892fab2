"""A Wan model with random weights, small enough for a CPU and large enough that arithmetic outweighs Python.

As a module it is a table of engines, and run as a script a server's worker, that have this model alone.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Iterable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from attrs import evolve
from sfwire.messages import EngineInfo

from ..config import ServerConfig
from ..engine import wan
from ..engine.base import Engine, Event, Job, Step
from ..engine.choice import Choice, Wanted
from ..engine.presets import SELF_FORCING
from ..model.config import DitConfig

if TYPE_CHECKING:
    from torch import nn

    from ..model.vae import WanVae

Network = TypeVar("Network", bound="nn.Module")
WIDTH, HEIGHT = 160, 96
CONFIG = DitConfig(dim=384, ffn_dim=1536, layers=2, heads=6, text_dim=64, text_len=64)
PRESET = evolve(SELF_FORCING, id="tiny", title="Tiny", summary="Random weights", dit=CONFIG)
DECODER_WIDTHS = (32, 16, 8, 8)
"""Decoding a block then takes about as long as two passes over it; with the published VAE it is one to two and a half
passes' work."""
WEIGHT_STD = 0.02
PASSES_FILE = "passes"


def randomised(network: Network, seed: int) -> Network:
    """The network with normal weights, norms and biases left as they are made. On any device."""
    import torch

    generator = torch.Generator(next(network.parameters()).device).manual_seed(seed)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.ndim > 1 and not name.endswith("gamma"):
                weight.normal_(0, WEIGHT_STD, generator=generator)
    return network.eval().requires_grad_(False)


def describe_all(config: ServerConfig) -> tuple[EngineInfo, ...]:
    info = wan.info_of(PRESET, Path(), config, remedy="")
    return (evolve(info, available=True, missing=()),)


def choose(infos: Iterable[EngineInfo], config: ServerConfig) -> tuple[str, str]:
    return PRESET.id, "nothing else is measured"


def choose_for(infos: Iterable[EngineInfo], config: ServerConfig, clip: Wanted) -> Choice:
    return Choice(*choose(infos, config))


def load(engine_id: str, config: ServerConfig) -> Engine:
    import torch

    from ..engine.wan_engine import WanEngine, Weights
    from ..model.dit import Dit
    from ..model.tae import Tae, TaeConfig

    # The same verbs; the VAE's convolutions, when as narrow as this, take a CPU twenty times as long.
    small_vae = randomised(Tae(TaeConfig(decoder_widths=DECODER_WIDTHS, encoder_width=8)), 2)
    weights = Weights(
        dit=randomised(Dit(CONFIG), 1),
        vae=cast("WanVae", small_vae),
        embed=lambda prompt: torch.zeros(1, 1, CONFIG.text_dim),
    )
    (info,) = describe_all(config)
    return TimedEngine(WanEngine(info, PRESET, weights, torch.device("cpu")), config.log_dir / PASSES_FILE)


class TimedEngine:
    """An engine that writes down when each of its steps was over, in seconds of the clock that all processes share."""

    def __init__(self, engine: Engine, file: Path) -> None:
        self._engine = engine
        self._file = file

    @property
    def info(self) -> EngineInfo:
        return self._engine.info

    def open(self, job: Job) -> Generator[Event, None, None]:
        with self._file.open("a", buffering=1) as file, closing(self._engine.open(job)) as events:
            for event in events:
                if isinstance(event, Step):
                    file.write(f"{time.monotonic()}\n")
                yield event


if __name__ == "__main__":
    from ..serve.worker import Engines, run

    run(cast(Engines, sys.modules["__main__"]))
