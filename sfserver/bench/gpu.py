"""The 1.3B model on a GPU, with random weights: passes, blocks, decoding and memory, against what the work must take.

Floors are FLOPs over the rate of a large matrix product of the same run, so a figure says how far from the hardware
the software is and not how fast the hardware is. Weights are normal, their results are asserted to be finite.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from attrs import field, frozen
from torch import Tensor

from ..engine.geometry import FRAMES_PER_LATENT, plan
from ..engine.noise import make_schedule, seeded_noise
from ..engine.presets import SELF_FORCING, TRAINED_LATENTS
from ..engine.rollout import Made, Memory, Networks, Prompt, Rollout, Sampling
from ..errors import UserError
from ..model.attention import choose_attention, kernel_preference
from ..model.cache import CacheShape, KvCache
from ..model.config import WAN_1_3B, DitConfig
from ..model.dit import Dit, How
from ..model.rope import RopeTable
from ..model.tae import Tae, TaeConfig
from ..model.vae import VaeConfig, WanVae
from .flops import decode_flops, pass_flops
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
    matmul: int = 8192
    """Side of the matrices that set the yardstick."""


def measure(on_stage: Callable[[str], None]) -> list[Measure]:
    """All measures of the GPU. Raises UserError where there is none."""
    if not torch.cuda.is_available():
        raise UserError("bench --gpu needs a GPU that torch can use through CUDA; without --gpu, the CPU is measured")
    return measure_on(torch.device("cuda"), torch.bfloat16, Scale(), on_stage)


@torch.no_grad()
def measure_on(
    device: torch.device, dtype: torch.dtype, scale: Scale, on_stage: Callable[[str], None]
) -> list[Measure]:
    """The same on any device and at any scale, for the tests."""
    bench = Bench(device, dtype, scale)
    on_stage(f"{bench.device_name}, matrix products")
    measures = [bench.yardstick()]
    for size in scale.sizes:
        on_stage(f"passes at {size[0]}x{size[1]}")
        measures += bench.passes(*size)
        for name, decoder in bench.decoders.items():
            on_stage(f"blocks and {name} at {size[0]}x{size[1]}")
            measures += bench.decoding(name, decoder, *size)
            measures += bench.clips(name, decoder, *size)
    return measures


class Bench:
    """The networks on their device, and the rate of the yardstick once it was measured."""

    def __init__(self, device: torch.device, dtype: torch.dtype, scale: Scale):
        self._device, self._dtype, self._scale = device, dtype, scale
        self._on_cuda = device.type == "cuda"
        self._rate = 0.0  # FLOP/s
        self.device_name = torch.cuda.get_device_name(device) if self._on_cuda else "CPU"
        with device:
            self._dit = randomised(Dit(scale.dit), 1).set_compute_dtype(dtype)
            vae, tae = randomised(WanVae(scale.vae), 2).to(dtype), randomised(Tae(scale.tae), 3).to(dtype)
        self.decoders: dict[str, Decoder] = {"Wan VAE": vae, "TAE": tae}
        for decoder in self.decoders.values():
            decoder.use_channels_last()
        self._how = How(choose_attention("auto", device, dtype))
        self._text = self._dit.embed_prompt(torch.randn(1, scale.dit.text_len, scale.dit.text_dim, device=device))

    def yardstick(self) -> Measure:
        """The rate of one large matrix product."""
        side = self._scale.matmul
        a, b = (torch.randn(side, side, device=self._device, dtype=self._dtype) for _ in range(2))
        ms, _ = self._timed(lambda: a @ b)
        self._rate = 2 * side**3 / ms * 1e3
        share = f", {self._rate / H100_BF16:.0%} of 989" if "H100" in self.device_name else ""
        how = f"{self.device_name}: {side} x {side} matrices, {self._dtype}{share}"
        return Measure("matrix product", self._rate / 1e12, None, "high", "TFLOP/s", how)

    def passes(self, width: int, height: int) -> list[Measure]:
        """One pass over a block in mid-stream, with a full cache of each length."""
        return [self._pass(width, height, held) for held in self._scale.held]

    def _pass(self, width: int, height: int, held: int) -> Measure:
        geometry = plan(width, height, FRAMES_PER_LATENT * (held - 1) + 1, PER_BLOCK)
        config, tokens = self._scale.dit, geometry.tokens_per_latent
        table = RopeTable(config.head_dim, held, geometry.rows, geometry.columns, self._device)
        shape = CacheShape(config.layers, config.heads, config.head_dim, tokens, window=held)
        cache = KvCache(shape, table, device=self._device, dtype=self._dtype)
        x = torch.randn(geometry.latent_shape(PER_BLOCK), device=self._device)
        t = torch.full((1, 1), 937.5, device=self._device)

        def one_pass() -> Tensor:
            with kernel_preference():
                return self._dit(x, t, self._text, cache.rotation, cache, how=self._how)

        for block in geometry.blocks:
            cache.seat(block.start, block.count)
            one_pass()
        ms, wall_ms = self._timed(one_pass)
        target = 0.7 if held == 15 and self._on_cuda else None  # G4
        flops = pass_flops(config, PER_BLOCK * tokens, held * tokens)
        return self._against_floor(f"pass, KV {held}, {width}x{height}", flops, ms, wall_ms, target)

    def decoding(self, name: str, decoder: Decoder, width: int, height: int) -> list[Measure]:
        """Decoding a block in mid-stream."""
        geometry = plan(width, height, 1, PER_BLOCK)
        latents, state = torch.randn(geometry.latent_shape(PER_BLOCK), device=self._device), decoder.new_decoder_state()
        ms, wall_ms = self._timed(lambda: decoder.decode(latents, state))
        flops = decode_flops(decoder, width, height, PER_BLOCK)
        return [self._against_floor(f"decode by {name}, {width}x{height}", flops, ms, wall_ms)]

    def clips(self, name: str, decoder: Decoder, width: int, height: int) -> list[Measure]:
        """Whole clips through the rollout: their first block, their last, frames a second, and memory."""
        list(self._block_times(decoder, width, height))
        with self._peak_memory() as peak:
            clips = [list(self._block_times(decoder, width, height)) for _ in range(self._scale.repeats)]
        frames = FRAMES_PER_LATENT * (self._scale.latents - 1) + 1
        fps = statistics.median(frames / sum(blocks) for blocks in clips)
        last_ms = statistics.median(blocks[-1] for blocks in clips) * 1e3
        where = f"{name}, {width}x{height}"
        how = f"{frames} frames, {len(clips[0])} blocks, median of {len(clips)} clips, wall time"
        target = 11.5 if (name, width, self._on_cuda) == ("TAE", 832, True) else None  # G8
        return [
            Measure(f"first block, {where}", statistics.median(b[0] for b in clips) * 1e3, None, "low", "ms", how),
            Measure(f"last block, {where}", last_ms, None, "low", "ms", f"with clean pass and decode; {how}"),
            Measure(f"clip, {where}", fps, None, "high", "frames/s", how),
            Measure(f"peak memory, {where}", peak[0] / 1e9, target, "low", "GB", "both decoders' weights among it"),
        ]

    def _block_times(self, decoder: Decoder, width: int, height: int) -> Iterator[float]:
        """Seconds for each block of one clip, until its pixels are there."""
        geometry = plan(width, height, FRAMES_PER_LATENT * (self._scale.latents - 1) + 1, PER_BLOCK)
        rollout = Rollout(
            Networks(self._dit, how=self._how),
            geometry,
            Sampling(make_schedule(SELF_FORCING.steps, SELF_FORCING.shift)),
            [Prompt(self._text)],
            seeded_noise(0, geometry, self._device),
            memory=Memory(self._scale.latents),
            decode=partial(decoder.decode, state=decoder.new_decoder_state()),
            device=self._device,
            dtype=self._dtype,
        )
        self._wait()
        began = time.perf_counter()
        for event in rollout.run():
            if isinstance(event, Made):
                assert event.pixels is not None
                self._wait()
                now = time.perf_counter()
                yield now - began
                assert event.pixels.isfinite().all()
                began = time.perf_counter()

    def _against_floor(
        self, name: str, flops: float, ms: float, wall_ms: float, target: float | None = None
    ) -> Measure:
        floor_ms = flops / self._rate * 1e3
        how = f"{ms:.2f} ms ({wall_ms:.2f} by the wall) for {flops / 1e12:.3g} TFLOP, the yardstick {floor_ms:.2f} ms"
        return Measure(name, floor_ms / ms, target, "high", "of the rate", how)

    def _timed(self, work: Callable[[], Tensor]) -> tuple[float, float]:
        """(device ms, wall ms), medians. Without CUDA they are the same."""
        assert work().isfinite().all()
        device_ms, wall_ms = [], []
        for _ in range(self._scale.repeats):
            self._wait()
            began = time.perf_counter()
            if self._on_cuda:
                start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                start.record()
                work()
                end.record()
                self._wait()
                device_ms.append(start.elapsed_time(end))
            else:
                work()
            wall_ms.append((time.perf_counter() - began) * 1e3)
        return statistics.median(device_ms or wall_ms), statistics.median(wall_ms)

    def _wait(self) -> None:
        if self._on_cuda:
            torch.cuda.synchronize(self._device)

    @contextmanager
    def _peak_memory(self) -> Iterator[list[int]]:
        """Bytes that torch had allocated at most; one entry once the context is left."""
        peak: list[int] = []
        if self._on_cuda:
            torch.cuda.reset_peak_memory_stats(self._device)
        yield peak
        peak.append(torch.cuda.max_memory_allocated(self._device) if self._on_cuda else 0)
