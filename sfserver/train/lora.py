"""LoRA: a low-rank addition to chosen layers of a transformer whose own weights stay as they are.

y = W x becomes y = W x + up (down x), up all zeros at first. The transformer is not rebuilt: its layers keep their
names, and a hook adds what the addition says. What is learnt is written under PEFT's names at a scale of 1 (its alpha
is the rank), so `sfserver convert --lora` merges it, and PEFT loads it. Source: LoRA (arXiv 2106.09685).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Generator, Tensor, nn

from ..model.dit import Dit
from .passes import device_of

TARGETS = ("q", "k", "v", "o")
"""Of self-attention: what a keyframe to come must be looked at with, which no published causal model has seen."""
FILE_NAME = "adapter_model.safetensors"
CONFIG_NAME = "adapter_config.json"


class Addition(nn.Module):
    """What is added to one layer, float32."""

    def __init__(self, layer: nn.Linear, rank: int, random: Generator, device: torch.device):
        super().__init__()
        down = torch.randn(rank, layer.in_features, generator=random) * layer.in_features**-0.5
        self.down = nn.Parameter(down.to(device))
        self.up = nn.Parameter(torch.zeros(layer.out_features, rank, device=device))

    def forward(self, x: Tensor) -> Tensor:
        down: Tensor = self.down
        return F.linear(F.linear(x.to(down.dtype), down), self.up)


class Lora(nn.Module):
    """Additions to a transformer's self-attention; `attach` makes them count."""

    def __init__(self, dit: Dit, rank: int, random: Generator):
        super().__init__()
        self.names = tuple(f"blocks.{i}.self_attn.{name}" for i in range(len(dit.blocks)) for name in TARGETS)
        self.rank = rank
        self.additions = nn.ModuleList(Addition(layer, rank, random, device_of(dit)) for layer in self._layers(dit))

    def attach(self, dit: Dit) -> Dit:
        """The transformer with the additions, its own weights frozen. They go wherever its passes go."""
        dit.requires_grad_(False)
        for layer, addition in zip(self._layers(dit), self.additions, strict=True):
            layer.register_forward_hook(_adding(addition))
        return dit

    def _layers(self, dit: Dit) -> list[nn.Linear]:
        layers = [dit.get_submodule(name) for name in self.names]
        return [layer for layer in layers if isinstance(layer, nn.Linear)]


def _adding(addition: nn.Module) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    return lambda _, inputs, output: output + addition(inputs[0]).to(output.dtype)


def write_lora(lora: Lora, weights: Mapping[str, Tensor], folder: Path) -> Path:
    """The file of additions, named as in `lora`, with the values `weights` of its state; PEFT's own beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    for i, name in enumerate(lora.names):
        for ours, theirs in (("down", "lora_A"), ("up", "lora_B")):
            tensors[f"base_model.model.{name}.{theirs}.weight"] = weights[f"additions.{i}.{ours}"].contiguous()
    save_file(tensors, folder / FILE_NAME, metadata={"format": "pt"})
    config = {"peft_type": "LORA", "r": lora.rank, "lora_alpha": lora.rank, "lora_dropout": 0.0, "bias": "none"}
    modules = {"target_modules": [f"self_attn.{name}" for name in TARGETS]}
    (folder / CONFIG_NAME).write_text(json.dumps(config | modules, indent=2), "utf-8")
    return folder / FILE_NAME


def twin(dit: Dit) -> Dit:
    """Another transformer of the same tensors: additions to one are none to the other."""
    with torch.device("meta"):
        other = Dit(dit.config)
    other.load_state_dict(dit.state_dict(), assign=True)
    return other.requires_grad_(False)
