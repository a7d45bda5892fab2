"""Networks of the real sizes with random weights on one device, and how a piece of work on it is timed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from attrs import field, frozen
from torch import Tensor

from ..engine.presets import SELF_FORCING, TRAINED_LATENTS
from ..model.attention import choose_attention
from ..model.config import WAN_1_3B, DitConfig
from ..model.dit import Dit, How
from ..model.tae import Tae, TaeConfig
from ..model.vae import VaeConfig, WanVae
from .report import Measure
from .tiny import randomised

H100_BF16 = 989e12
"""FLOP/s of bf16 products without sparsity, as NVIDIA gives them for the SXM card."""
PER_BLOCK = SELF_FORCING.per_block
Decoder = WanVae | Tae


@frozen
class Scale:
    """What is measured; the default is the real thing."""

    dit: DitConfig = WAN_1_3B
    vae: VaeConfig = field(factory=VaeConfig)
    tae: TaeConfig = field(factory=TaeConfig)
    sizes: tuple[tuple[int, int], ...] = ((832, 480), (416, 240))
    """The usual size, and that of a preview."""
    held: tuple[int, ...] = (3, 12, 15, 21)
    """Latents that a pass attends to, its own among them."""
    latents: int = TRAINED_LATENTS
    repeats: int = 7
    long_blocks: int = 62
    compared: tuple[int, int] = (10, 60)
    """Blocks of a long clip that should take the same time."""
    window: int = 12
    """Latents, of the long clip."""
    matmul: int = 8192
    """Side of the matrices that set the yardstick."""


class Rig:
    """The networks on their device, and the rate of the yardstick once it was measured."""

    def __init__(self, device: torch.device, dtype: torch.dtype, scale: Scale):
        self.device, self.dtype, self.scale = device, dtype, scale
        self.on_cuda = device.type == "cuda"
        self.rate = 0.0  # FLOP/s
        self.device_name = torch.cuda.get_device_name(device) if self.on_cuda else "CPU"
        with device:
            self.dit = randomised(Dit(scale.dit), 1).set_compute_dtype(dtype)
            vae, tae = randomised(WanVae(scale.vae), 2).to(dtype), randomised(Tae(scale.tae), 3).to(dtype)
        self.decoders: dict[str, Decoder] = {"Wan VAE": vae, "TAE": tae}
        for decoder in self.decoders.values():
            decoder.use_channels_last()
        self.how = How(choose_attention("auto", device, dtype))
        self.text = self.dit.embed_prompt(torch.randn(1, scale.dit.text_len, scale.dit.text_dim, device=device))

    def yardstick(self) -> Measure:
        """The rate of one large matrix product."""
        side = self.scale.matmul
        a, b = (torch.randn(side, side, device=self.device, dtype=self.dtype) for _ in range(2))
        ms, _ = self.timed(lambda: a @ b)
        self.rate = 2 * side**3 / ms * 1e3
        share = f", {self.rate / H100_BF16:.0%} of 989" if "H100" in self.device_name else ""
        how = f"{self.device_name}: {side} x {side} matrices, {self.dtype}{share}"
        return Measure("matrix product", self.rate / 1e12, None, "high", "TFLOP/s", how)

    def against_floor(
        self, name: str, flops: float, ms: float, wall_ms: float, target: float | None = None, goal: str = ""
    ) -> Measure:
        floor_ms = flops / self.rate * 1e3
        how = f"{ms:.2f} ms ({wall_ms:.2f} by the wall) for {flops / 1e12:.3g} TFLOP, the yardstick {floor_ms:.2f} ms"
        return Measure(name, floor_ms / ms, target, "high", "of the rate", how, goal)

    def timed(self, work: Callable[[], Tensor]) -> tuple[float, float]:
        """(device ms, wall ms), medians. Without CUDA they are the same."""
        assert work().isfinite().all()
        device_ms, wall_ms = [], []
        for _ in range(self.scale.repeats):
            self.wait()
            began = time.perf_counter()
            if self.on_cuda:
                start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                start.record()
                work()
                end.record()
                self.wait()
                device_ms.append(start.elapsed_time(end))
            else:
                work()
            wall_ms.append((time.perf_counter() - began) * 1e3)
        return statistics.median(device_ms or wall_ms), statistics.median(wall_ms)

    def wait(self) -> None:
        if self.on_cuda:
            torch.cuda.synchronize(self.device)

    @contextmanager
    def peak_memory(self) -> Iterator[list[int]]:
        """Bytes that torch had allocated at most; one entry once the context is left."""
        peak: list[int] = []
        if self.on_cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
        yield peak
        peak.append(torch.cuda.max_memory_allocated(self.device) if self.on_cuda else 0)
