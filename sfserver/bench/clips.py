"""Whole clips through the rollout: what comes when, what it takes of memory, and against other ways to make them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cached_property, partial
from pathlib import Path

import torch

from ..engine.capacity import OVERHEAD_BYTES, Need
from ..engine.geometry import FRAMES_PER_LATENT, plan
from ..engine.guide import Guide
from ..engine.noise import make_schedule, seeded_noise
from ..engine.presets import SELF_FORCING
from ..engine.rollout import Made, Memory, Networks, Prompt, Rollout, Sampling
from ..model.dit import Dit
from ..model.eightbit import Kind, kind_in, quantise, why_not
from ..model.graphs import Record, recorder
from .against import compare, published
from .report import Measure
from .rig import PER_BLOCK, Decoder, Rig


class Clips:
    def __init__(self, rig: Rig) -> None:
        self._rig = rig

    def whole(self, name: str, decoder: Decoder, width: int, height: int) -> list[Measure]:
        """Whole clips through the rollout: their first block, their last, frames a second, and memory."""
        list(self._block_times(decoder, width, height))
        with self._rig.peak_memory() as peak:
            clips = [list(self._block_times(decoder, width, height)) for _ in range(self._rig.scale.repeats)]
        frames = FRAMES_PER_LATENT * (self._rig.scale.latents - 1) + 1
        fps = statistics.median(frames / sum(blocks) for blocks in clips)
        last_ms = statistics.median(blocks[-1] for blocks in clips) * 1e3
        where = f"{name}, {width}x{height}"
        how = f"{frames} frames, {len(clips[0])} blocks, median of {len(clips)} clips, wall time"
        target = 11.5 if (name, width, self._rig.on_cuda) == ("TAE", 832, True) else None  # G8
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
                goal="G8" if name == "TAE" and (width, height) == self._rig.scale.sizes[0] else "",
            ),
        ]

    def _planned_gb(self, name: str, width: int, height: int) -> float:
        """What `capacity` has for such a clip, without what a process takes before it has begun."""
        decoder = "tae" if name == "TAE" else "wan"
        need = Need(
            self._rig.scale.dit, PER_BLOCK, self._rig.scale.latents, 0, self._rig.dtype.itemsize, decoder=decoder
        )
        return (need.at(width, height) - OVERHEAD_BYTES) / 1e9

    def end_keyframe(self, width: int, height: int) -> Measure:
        """A clip that is led to a keyframe at its end against one that is not, alternating."""
        tae, last = self._rig.decoders["TAE"], self._rig.scale.latents - 1
        shape = plan(width, height, 1, PER_BLOCK).latent_shape(1)
        anchored = Guide(known={last: torch.randn(shape, device=self._rig.device)})
        ratios = [
            sum(self._block_times(tae, width, height, guide=anchored)) / sum(self._block_times(tae, width, height))
            for _ in range(self._rig.scale.repeats)
        ]
        how = f"anchored over free, {self._rig.scale.latents} latents, TAE, median of {len(ratios)} pairs in turns"
        return Measure("end keyframe", statistics.median(ratios), None, "low", "x", how, goal="G6")

    def growth(self, width: int, height: int) -> Measure:
        """Whether a late block takes longer than an early one, once the window is full."""
        times = list(
            self._block_times(
                self._rig.decoders["TAE"], width, height, self._rig.scale.long_blocks, self._rig.scale.window
            )
        )
        early, late = (statistics.median(times[max(0, i - 2) : i + 2]) for i in self._rig.scale.compared)
        how = f"block {self._rig.scale.compared[1]} over block {self._rig.scale.compared[0]}, each the median of four"
        return Measure("growth", late / early, None, "low", "x", f"{how}, window {self._rig.scale.window}", goal="G9")

    @cached_property
    def _rounded(self) -> Dit | None:
        """The transformer with its large matrices in 8 bits, as the card likes them best; None where it cannot."""
        kinds: tuple[Kind, ...] = ("fp8", "int8")
        kind: Kind | None = next((one for one in kinds if why_not(one, self._rig.device) is None), None)
        if kind is None:
            return None
        dit = deepcopy(self._rig.dit)
        quantise(dit, kind)
        return dit

    def recorded(self, width: int, height: int) -> list[Measure]:
        """What recording small passes and playing them brings of a clip's time; nothing where it cannot be had."""
        record = recorder(self._rig.device, "small")
        if record is None:
            return []
        tae = self._rig.decoders["TAE"]
        list(self._block_times(tae, width, height, record=record))
        ratios = [
            sum(self._block_times(tae, width, height)) / sum(self._block_times(tae, width, height, record=record))
            for _ in range(self._rig.scale.repeats)
        ]
        how = f"time of a clip at {width}x{height} over one whose passes are recorded and played, eager, TAE; in turns"
        return [Measure("recorded passes", statistics.median(ratios), None, "high", "x", how)]

    def in_eight_bits(self, width: int, height: int) -> list[Measure]:
        """What 8 bits bring of a clip's time, and what they take of it in memory; nothing where they cannot be had."""
        if self._rounded is None:
            return []
        tae = self._rig.decoders["TAE"]
        list(self._block_times(tae, width, height, dit=self._rounded))
        ratios = [
            sum(self._block_times(tae, width, height)) / sum(self._block_times(tae, width, height, dit=self._rounded))
            for _ in range(self._rig.scale.repeats)
        ]
        kind = kind_in(self._rounded)
        how = f"time of a clip in {self._rig.dtype} over one with its large matrices in {kind}, eager, TAE; in turns"
        return [Measure("8 bits", statistics.median(ratios), None, "high", "x", how)]

    def against(self, folder: Path, width: int, height: int) -> list[Measure]:
        """Whole clips, as the published pipeline makes them and as we do."""
        latents = self._rig.scale.latents
        geometry = plan(width, height, FRAMES_PER_LATENT * (latents - 1) + 1, PER_BLOCK)
        theirs = published(folder, self._rig.scale.dit, self._rig.device, self._rig.dtype)

        def clip(decoder: Decoder, dit: Dit | None = None) -> None:
            for _ in self._block_times(decoder, width, height, dit=dit):
                pass

        ours: dict[str, Callable[[], None]] = {
            goal: partial(clip, self._rig.decoders[name]) for goal, name in (("G1", "TAE"), ("G3", "Wan VAE"))
        }
        if self._rounded is not None:
            ours["G2"] = partial(clip, self._rig.decoders["TAE"], self._rounded)
        return compare(theirs, geometry.latent_shape(latents), ours, self._rig.wait, self._rig.scale.repeats)

    def profile(self, path: Path, width: int, height: int) -> None:
        """Two blocks of a clip as a chrome trace."""
        kinds = [torch.profiler.ProfilerActivity.CPU]
        kinds += [torch.profiler.ProfilerActivity.CUDA] if self._rig.on_cuda else []
        with torch.profiler.profile(activities=kinds) as trace:
            for i, _ in enumerate(self._block_times(self._rig.decoders["TAE"], width, height)):
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
        record: Record | None = None,
    ) -> Iterator[float]:
        """Seconds for each block of one clip, until its pixels are there."""
        latents = blocks * PER_BLOCK or self._rig.scale.latents
        geometry = plan(width, height, FRAMES_PER_LATENT * (latents - 1) + 1, PER_BLOCK)
        decode = partial(decoder.decode, state=decoder.new_decoder_state())
        rollout = Rollout(
            Networks(dit or self._rig.dit, how=self._rig.how, record=record),
            geometry,
            Sampling(make_schedule(SELF_FORCING.steps, SELF_FORCING.shift)),
            [Prompt(self._rig.text)],
            seeded_noise(0, geometry, self._rig.device),
            guide,
            Memory(window or latents),
            decode,
            self._rig.device,
            self._rig.dtype,
        )
        self._rig.wait()
        began = time.perf_counter()
        for event in rollout.run():
            if isinstance(event, Made):
                assert event.pixels is not None
                self._rig.wait()
                now = time.perf_counter()
                yield now - began
                assert event.pixels.isfinite().all()
                began = time.perf_counter()
