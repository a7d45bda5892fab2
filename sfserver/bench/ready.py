"""From the start of a process to a transformer that has made a pass on its device: files, imports, weights, kernels.

As a script it is that process. The files were read a moment before, so they come from the page cache.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from ..model.dit import Dit
from ..model.rope import RopeTable
from ..weights.convert import Wish, convert
from ..weights.loading import load_transformer
from .report import Measure

STARTS = 3
READY = "ready"
SIZE_LATENTS = 4
"""Of the pass, in latent pixels a side: what it takes is the kernels' loading."""


def measure(dit: Dit, device: torch.device, dtype: torch.dtype) -> Measure:
    """With the weights of a transformer, converted into a model folder as a user's are."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "model"
        source = Path(root) / "source.safetensors"
        save_file(dit.state_dict(), source)
        config = dit.config
        sizes = {"num_heads": config.heads, "text_len": config.text_len, "eps": config.eps, "freq_dim": config.freq_dim}
        source.with_name("config.json").write_text(json.dumps(sizes), "utf-8")
        convert(source, folder, Wish(roles=("dit",), dtype=dtype))
        source.unlink()
        took = [_seconds(folder, device, dtype) for _ in range(STARTS)]
    how = f"process start to a first pass of the transformer alone, without server or codec; median of {STARTS}"
    return Measure("start to ready", statistics.median(took), None, "low", "s", how, goal="G10")


def _seconds(folder: Path, device: torch.device, dtype: torch.dtype) -> float:
    command = [sys.executable, "-m", __name__, str(folder), device.type, str(dtype).removeprefix("torch.")]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        line = process.stdout.readline().strip()
        took = time.perf_counter() - began
    if line != READY:
        raise RuntimeError(f"a process that loads {folder} ended with {process.returncode}")
    return took


@torch.no_grad()
def load(folder: Path, device: torch.device, dtype: torch.dtype) -> None:
    dit, _ = load_transformer(folder, None, device, dtype)
    side = SIZE_LATENTS // 2
    rotation = RopeTable(dit.config.head_dim, 1, side, side, device).at(0, 1)
    text = dit.embed_prompt(torch.zeros(1, 1, dit.config.text_dim, device=device))
    x = torch.zeros(1, 1, dit.config.in_channels, SIZE_LATENTS, SIZE_LATENTS, device=device)
    assert dit(x, torch.zeros(1, 1, device=device), text, rotation).isfinite().all()


if __name__ == "__main__":
    load(Path(sys.argv[1]), torch.device(sys.argv[2]), getattr(torch, sys.argv[3]))
    sys.stdout.write(f"{READY}\n")
    sys.stdout.flush()
