"""From what training leaves to a model folder, by the way that every published file goes: `weights.convert`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..engine.presets import SMALL_WORLD
from ..model.config import DitConfig
from ..weights.convert import Wish, convert
from ..weights.manifest import Manifest
from .small import Words


def export(
    folder: Path, dit: Mapping[str, Tensor], config: DitConfig, tae: Mapping[str, Tensor], words: Words
) -> Manifest:
    """Write the folder that `sfserver models` lists. Large matrices are bfloat16. Raises WeightsError."""
    text = {name: value.contiguous() for name, value in words.stack.state_dict().items()}
    return _convert(folder, config, {"dit": dit, "tae": tae, "text": text}, words.spiece, SMALL_WORLD.id)


def export_transformer(folder: Path, dit: Mapping[str, Tensor], config: DitConfig) -> Manifest:
    """Write a folder of a transformer alone. Raises WeightsError."""
    return _convert(folder, config, {"dit": dit})


def _convert(
    folder: Path, config: DitConfig, networks: Mapping[str, Mapping[str, Tensor]], spiece: bytes = b"", preset: str = ""
) -> Manifest:
    sizes = {"num_heads": config.heads, "text_len": config.text_len, "text_dim": config.text_dim}
    with tempfile.TemporaryDirectory() as name:
        source = Path(name)
        (source / "config.json").write_text(json.dumps({**sizes, "freq_dim": config.freq_dim}), "utf-8")
        if spiece:
            (source / "spiece.model").write_bytes(spiece)
        for role, tensors in networks.items():
            save_file({key: value.contiguous() for key, value in tensors.items()}, source / f"{role}.safetensors")
        return convert(source, folder, Wish(preset=preset, dtype=torch.bfloat16))
