"""The 1.3B model with random weights as a server's worker: how soon a client sees its first picture.

As a module it is a table of engines that has this model alone; run as a script, a worker. With the argument `toy` it is
of toy size and on the CPU.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import torch
from attrs import evolve
from sfwire.client import Client
from sfwire.messages import EngineInfo
from sfwire.request import Request

from ..config import ServerConfig
from ..engine import wan
from ..engine.base import Engine
from ..engine.presets import SELF_FORCING
from ..engine.wan_engine import WanEngine, Weights
from ..model.config import TOY
from ..model.dit import Dit
from ..model.tae import Tae, TaeConfig
from ..model.vae import VaeConfig, WanVae
from . import road
from .report import Measure
from .tiny import randomised

IS_TOY = "toy" in sys.argv
PRESET = evolve(
    SELF_FORCING, id="full", title="Full", summary="Random weights", dit=TOY if IS_TOY else SELF_FORCING.dit
)
MEASURED = 7


def describe_all(config: ServerConfig) -> tuple[EngineInfo, ...]:
    info = wan.info_of(PRESET, Path(), config, remedy="")
    parameters = tuple(wan.parameters_of(PRESET, has_tae=True))
    return (evolve(info, available=True, missing=(), parameters=parameters),)


def choose(infos: Iterable[EngineInfo], config: ServerConfig) -> tuple[str, str]:
    return PRESET.id, "nothing else is measured"


def load(engine_id: str, config: ServerConfig) -> Engine:
    device, dtype = (torch.device("cpu"), torch.float32) if IS_TOY else (torch.device("cuda"), torch.bfloat16)
    small = TaeConfig(decoder_widths=(16, 12, 8, 8), encoder_width=8) if IS_TOY else TaeConfig()
    with device:
        vae = randomised(WanVae(VaeConfig(dim=2) if IS_TOY else VaeConfig()), 2).to(dtype)
        tae = randomised(Tae(small), 3).to(dtype)
        dit = randomised(Dit(PRESET.dit), 1).set_compute_dtype(dtype)
    for codec in (vae, tae):
        codec.use_channels_last()
    (info,) = describe_all(config)
    weights = Weights(dit=dit, vae=vae, tae=tae, embed=lambda prompt: torch.zeros(1, 1, PRESET.dit.text_dim))
    return WanEngine(info, PRESET, weights, device)


def first_picture(width: int, height: int, num_frames: int, *arguments: str) -> Measure:
    """From `submit` to the first picture at a client; the prompt is known, two keyframes are given."""
    took = []
    with road.server("sfserver.bench.full", *arguments) as served:
        for _ in range(MEASURED + 1):
            took.append(_seconds_to_first(served.client, width, height, num_frames))
    ms = 1000 * statistics.median(took[1:])  # the first is cold
    how = f"submit to first picture through server and client, {width}x{height}, {num_frames} frames, TAE, RGB8"
    return Measure("first picture", ms, None, "low", "ms", f"{how}, median of {MEASURED}", goal="G5")


def _seconds_to_first(client: Client, width: int, height: int, num_frames: int) -> float:
    black = bytes(width * height * 3)
    keyframes = ((0, black), (num_frames - 1, black))
    request = Request(keyframes, width, height, num_frames, engine=PRESET.id, params={"decoder": "tae"})
    began = time.perf_counter()
    with client.submit(request) as stream:
        next(iter(stream))
        return time.perf_counter() - began


if __name__ == "__main__":
    from ..serve.worker import Engines, run

    run(cast(Engines, sys.modules["__main__"]))
