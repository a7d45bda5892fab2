"""Toy networks with random weights under which every parameter matters."""

from __future__ import annotations

from functools import cache
from typing import TypeVar

import torch

from sfserver.model.config import TOY_VACE, DitConfig
from sfserver.model.dit import Dit
from sfserver.model.rope import RopeTable
from sfserver.model.vace import Vace

Module = TypeVar("Module", bound=torch.nn.Module)
ROWS, COLUMNS = 2, 3


def random_weights(module: Module, seed: int) -> Module:
    """The module with weights under which signals neither die nor explode, without gradients."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            fan_in = parameter[0].numel()
            if name.endswith("gamma") or ("norm" in name and name.endswith("weight")):
                parameter.copy_(1 + 0.1 * noise)
            else:
                parameter.copy_(noise * (0.1 if fan_in == 1 else fan_in**-0.5))
    return module.requires_grad_(False)


@cache
def toy_dit(config: DitConfig = TOY_VACE) -> Dit:
    return random_weights(Dit(config), 1)


@cache
def toy_vace(config: DitConfig = TOY_VACE) -> Vace:
    return random_weights(Vace(config), 2)


def latents(count: int, seed: int = 0) -> torch.Tensor:
    """[1, F, 16, H, W] of ROWS x COLUMNS tokens each."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, count, 16, 2 * ROWS, 2 * COLUMNS, generator=generator)


def prompt(seed: int = 0, rows: int = 5) -> torch.Tensor:
    return torch.randn(1, rows, TOY_VACE.text_dim, generator=torch.Generator().manual_seed(seed))


def table(count: int) -> RopeTable:
    return RopeTable(TOY_VACE.head_dim, count, ROWS, COLUMNS)


def at(t: float, count: int = 1) -> torch.Tensor:
    return torch.full((1, count), t)
