"""The 1.3B model on a GPU, with random weights: passes, blocks, decoding and memory, against what the work must take.

Floors are FLOPs over the rate of a large matrix product of the same run, so a figure says how far from the hardware
the software is and not how fast the hardware is. Weights are normal, their results are asserted to be finite.
"""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from functools import cached_property, partial
from pathlib import Path

import torch
from attrs import field, frozen
from torch import Tensor

from ..engine.capacity import OVERHEAD_BYTES, Need
from ..engine.geometry import FRAMES_PER_LATENT, plan
from ..engine.guide import Guide
from ..engine.noise import make_schedule, seeded_noise
from ..engine.pipeline import line_of, to_pictures
from ..engine.presets import SELF_FORCING, TRAINED_LATENTS
from ..engine.rollout import Made, Memory, Networks, Prompt, Rollout, Sampling
from ..errors import UserError
from ..model.attention import choose_attention, kernel_preference
from ..model.cache import CacheShape, KvCache
from ..model.config import WAN_1_3B, DitConfig
from ..model.dit import Dit, How
from ..model.eightbit import Kind, kind_in, quantise, why_not
from ..model.rope import RopeTable
from ..model.tae import Tae, TaeConfig
from ..model.vae import VaeConfig, WanVae
from . import ready
from .against import compare, published
from .flops import decode_flops, pass_flops
from .full import first_picture
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


def measure(on_stage: Callable[[str], None], profile: Path | None = None, against: Path | None = None) -> list[Measure]:
    """All measures of the GPU. `profile` is where a chrome trace of two blocks goes, `against` a checkout of the
    published pipeline. Raises UserError where there is no GPU, or no such checkout.
    """
    if not torch.cuda.is_available():
        raise UserError("bench --gpu needs a GPU that torch can use through CUDA; without --gpu, the CPU is measured")
    measures = measure_on(torch.device("cuda"), torch.bfloat16, Scale(), on_stage, profile, against)
    on_stage("first picture, through a server")
    return [*measures, first_picture(*Scale().sizes[0], 81)]


@torch.no_grad()
def measure_on(
    device: torch.device,
    dtype: torch.dtype,
    scale: Scale,
    on_stage: Callable[[str], None],
    profile: Path | None = None,
    against: Path | None = None,
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
    usual = scale.sizes[0]
    on_stage("stages of a block")
    measures += bench.stages(*usual)
    on_stage("an end keyframe, in turns with none")
    measures.append(bench.end_keyframe(*usual))
    on_stage(f"{scale.long_blocks} blocks behind a window")
    measures.append(bench.growth(*usual))
    on_stage("in 8 bits, in turns with more")
    measures += bench.in_eight_bits(*usual)
    on_stage("from process start to ready")
    measures.append(bench.start())
    if len(scale.sizes) > 1:
        measures.append(previews(measures, *scale.sizes[:2]))
    if against:
        on_stage("the published pipeline, in turns")
        measures += bench.against(against, *usual)
    if profile:
        on_stage("profile")
        bench.profile(profile, *usual)
    return measures


def previews(measures: Sequence[Measure], usual: tuple[int, int], preview: tuple[int, int]) -> Measure:
    """Frames a second at the preview's size against the usual one."""
    by_name = {measure.name: measure.value for measure in measures}
    fast, slow = (by_name[f"clip, TAE, {width}x{height}"] for width, height in (preview, usual))
    how = f"{preview[0]}x{preview[1]} over {usual[0]}x{usual[1]}, TAE, frames/s"
    return Measure("preview", fast / slow, None, "high", "x", how, goal="G7")


def facts(command: Sequence[str]) -> dict[str, str]:
    """What a figure of a GPU means nothing without."""
    found = {"torch": torch.__version__, "date": time.strftime("%Y-%m-%d"), "command": " ".join(command)}
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        found |= {"card": f"{card.name}, {card.total_memory / 1024**3:.0f} GB", "cuda": str(torch.version.cuda)}
        found["cudnn"] = str(torch.backends.cudnn.version())
        with suppress(OSError, subprocess.SubprocessError):
            query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
            found["driver"] = subprocess.run(query, capture_output=True, text=True, timeout=20).stdout.strip()
    return found


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
        one_pass = self._full_pass(width, height, held)
        config, tokens = self._scale.dit, plan(width, height, 1, PER_BLOCK).tokens_per_latent
        ms, wall_ms = self._timed(one_pass)
        target = 0.7 if held == 15 and self._on_cuda else None  # G4
        flops = pass_flops(config, PER_BLOCK * tokens, held * tokens)
        goal = "G4" if held == 15 and (width, height) == self._scale.sizes[0] else ""
        return self._against_floor(f"pass, KV {held}, {width}x{height}", flops, ms, wall_ms, target, goal)

    def _full_pass(self, width: int, height: int, held: int) -> Callable[[], Tensor]:
        """A pass over a block that attends to so many latents, all of them in the cache."""
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
        return one_pass

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
            Measure(
                f"peak memory, {where}",
                peak[0] / 1e9,
                target,
                "low",
                "GB",
                f"both decoders' weights among it; the memory plan says {self._planned_gb(name, width, height):.1f} GB",
                goal="G8" if name == "TAE" and (width, height) == self._scale.sizes[0] else "",
            ),
        ]

    def _planned_gb(self, name: str, width: int, height: int) -> float:
        """What `capacity` has for such a clip, without what a process takes before it has begun."""
        decoder = "tae" if name == "TAE" else "wan"
        need = Need(self._scale.dit, PER_BLOCK, self._scale.latents, 0, self._dtype.itemsize, decoder=decoder)
        return (need.at(width, height) - OVERHEAD_BYTES) / 1e9

    def stages(self, width: int, height: int) -> list[Measure]:
        """Where a block's time goes, at the full window: each stage by itself, as a share of all."""
        geometry = plan(width, height, FRAMES_PER_LATENT * (self._scale.latents - 1) + 1, PER_BLOCK)
        steps, tae = len(SELF_FORCING.steps), self.decoders["TAE"]
        one_pass = self._full_pass(width, height, self._scale.latents)
        latents, state = torch.randn(geometry.latent_shape(PER_BLOCK), device=self._device), tae.new_decoder_state()
        pixels = torch.rand(PER_BLOCK * FRAMES_PER_LATENT, 3, height, width, device=self._device)
        pictures = to_pictures(pixels)
        line = line_of(self._device)

        def fetched() -> Tensor:
            (copy,), there = line.fetch([pictures])
            while not there.reached():
                pass
            return copy.float()[:1]

        took = {
            f"{steps} denoising passes": steps * self._timed(one_pass)[0],
            "one clean pass": self._timed(one_pass)[0],
            "decoding by TAE": self._timed(lambda: tae.decode(latents, state))[0],
            "pixels to pictures": self._timed(lambda: to_pictures(pixels).float())[0],
            "pictures to the host": self._timed(fetched)[1],
        }
        total = sum(took.values())
        how = f"of {total:.1f} ms, were they done one after the other"
        return [
            Measure(f"stage: {name}", ms / total, None, "low", "of a block", f"{ms:.2f} ms, {how}")
            for name, ms in took.items()
        ]

    def end_keyframe(self, width: int, height: int) -> Measure:
        """A clip that is led to a keyframe at its end against one that is not, alternating."""
        tae, last = self.decoders["TAE"], self._scale.latents - 1
        shape = plan(width, height, 1, PER_BLOCK).latent_shape(1)
        anchored = Guide(known={last: torch.randn(shape, device=self._device)})
        ratios = [
            sum(self._block_times(tae, width, height, guide=anchored)) / sum(self._block_times(tae, width, height))
            for _ in range(self._scale.repeats)
        ]
        how = f"anchored over free, {self._scale.latents} latents, TAE, median of {len(ratios)} pairs in turns"
        return Measure("end keyframe", statistics.median(ratios), None, "low", "x", how, goal="G6")

    def growth(self, width: int, height: int) -> Measure:
        """Whether a late block takes longer than an early one, once the window is full."""
        times = list(
            self._block_times(self.decoders["TAE"], width, height, self._scale.long_blocks, self._scale.window)
        )
        early, late = (statistics.median(times[max(0, i - 2) : i + 2]) for i in self._scale.compared)
        how = f"block {self._scale.compared[1]} over block {self._scale.compared[0]}, each the median of four"
        return Measure("growth", late / early, None, "low", "x", f"{how}, window {self._scale.window}", goal="G9")

    @cached_property
    def _rounded(self) -> Dit | None:
        """The transformer with its large matrices in 8 bits, as the card likes them best; None where it cannot."""
        kinds: tuple[Kind, ...] = ("fp8", "int8")
        kind: Kind | None = next((one for one in kinds if why_not(one, self._device) is None), None)
        if kind is None:
            return None
        dit = deepcopy(self._dit)
        quantise(dit, kind)
        return dit

    def in_eight_bits(self, width: int, height: int) -> list[Measure]:
        """What 8 bits bring of a clip's time, and what they take of it in memory; nothing where they cannot be had."""
        if self._rounded is None:
            return []
        tae = self.decoders["TAE"]
        list(self._block_times(tae, width, height, dit=self._rounded))
        ratios = [
            sum(self._block_times(tae, width, height)) / sum(self._block_times(tae, width, height, dit=self._rounded))
            for _ in range(self._scale.repeats)
        ]
        kind = kind_in(self._rounded)
        how = f"time of a clip in {self._dtype} over one with its large matrices in {kind}, eager, TAE; in turns"
        return [Measure("8 bits", statistics.median(ratios), None, "high", "x", how)]

    def start(self) -> Measure:
        """A process that begins with nothing."""
        return ready.measure(self._dit, self._device, self._dtype)

    def against(self, folder: Path, width: int, height: int) -> list[Measure]:
        """Whole clips, as the published pipeline makes them and as we do."""
        latents = self._scale.latents
        geometry = plan(width, height, FRAMES_PER_LATENT * (latents - 1) + 1, PER_BLOCK)
        theirs = published(folder, self._scale.dit, self._device, self._dtype)

        def clip(decoder: Decoder, dit: Dit | None = None) -> None:
            for _ in self._block_times(decoder, width, height, dit=dit):
                pass

        ours: dict[str, Callable[[], None]] = {
            goal: partial(clip, self.decoders[name]) for goal, name in (("G1", "TAE"), ("G3", "Wan VAE"))
        }
        if self._rounded is not None:
            ours["G2"] = partial(clip, self.decoders["TAE"], self._rounded)
        return compare(theirs, geometry.latent_shape(latents), ours, self._wait, self._scale.repeats)

    def profile(self, path: Path, width: int, height: int) -> None:
        """Two blocks of a clip as a chrome trace."""
        kinds = [torch.profiler.ProfilerActivity.CPU]
        kinds += [torch.profiler.ProfilerActivity.CUDA] if self._on_cuda else []
        with torch.profiler.profile(activities=kinds) as trace:
            for i, _ in enumerate(self._block_times(self.decoders["TAE"], width, height)):
                if i == 1:
                    break
        trace.export_chrome_trace(str(path))

    def _block_times(
        self,
        decoder: Decoder,
        width: int,
        height: int,
        blocks: int = 0,
        window: int = 0,
        guide: Guide | None = None,
        dit: Dit | None = None,
    ) -> Iterator[float]:
        """Seconds for each block of one clip, until its pixels are there."""
        latents = blocks * PER_BLOCK or self._scale.latents
        geometry = plan(width, height, FRAMES_PER_LATENT * (latents - 1) + 1, PER_BLOCK)
        decode = partial(decoder.decode, state=decoder.new_decoder_state())
        rollout = Rollout(
            Networks(dit or self._dit, how=self._how),
            geometry,
            Sampling(make_schedule(SELF_FORCING.steps, SELF_FORCING.shift)),
            [Prompt(self._text)],
            seeded_noise(0, geometry, self._device),
            guide,
            Memory(window or latents),
            decode,
            self._device,
            self._dtype,
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
        self, name: str, flops: float, ms: float, wall_ms: float, target: float | None = None, goal: str = ""
    ) -> Measure:
        floor_ms = flops / self._rate * 1e3
        how = f"{ms:.2f} ms ({wall_ms:.2f} by the wall) for {flops / 1e12:.3g} TFLOP, the yardstick {floor_ms:.2f} ms"
        return Measure(name, floor_ms / ms, target, "high", "of the rate", how, goal)

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
