"""The engine on a CPU, as ratios: what the cache saves, how soon frames leave, what loading costs and a server adds.

A model of toy size with random weights stands for the real one: see `tiny`.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from attrs import evolve
from sfwire.client import Client
from sfwire.request import Request
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ..config import load_config
from ..engine.base import Chunk, Engine, Job, checked
from ..engine.geometry import Geometry, plan
from ..engine.noise import Noise, Schedule, make_schedule, seeded_noise
from ..engine.rollout import Made, Memory, Networks, Prompt, Rollout, Sampling
from ..model.attention import Attend, attend, kernel_preference
from ..model.config import WAN_1_3B
from ..model.dit import Dit, How, TextKv
from ..model.rope import RopeTable
from ..weights import loading
from ..weights.convert import convert
from . import dials, road, tiny
from .flops import pass_flops
from .report import Measure
from .tiny import CONFIG, HEIGHT, PRESET, WIDTH

PAIRS = 5
"""Of measurements that are alternated; their median counts."""
BLOCKS = 7
"""As many as the clips have that the models were trained at."""
CACHED_SIZE, CACHED_BLOCKS = (416, 240), 4
"""A preview's 1170 tokens a block: with fewer, what is measured is how much better a CPU multiplies larger matrices."""
LOADED_LAYERS = 2
"""Of the published width: 400 MB in float32."""


def measure(on_stage: Callable[[str], None]) -> list[Measure]:
    """All measures of the engine. `on_stage` is told the name of each part as it begins."""
    on_stage("cache against recomputing")
    measures = [_caching(), _calls()]
    on_stage("dials of a keyframe's pull")
    measures += dials.measure()
    on_stage("loading weights")
    with tempfile.TemporaryDirectory() as folder:
        measures += _loading(Path(folder))
    on_stage("tiny model, here and served")
    with tempfile.TemporaryDirectory() as folder:
        engine = tiny.load(PRESET.id, load_config({"log_dir": folder}, {}))
        with road.server("sfserver.bench.tiny") as served:
            measures += _serving(engine, served.client)
            measures.append(_cancelling(served.client, served.folder / tiny.PASSES_FILE))
    return measures


# What the cache saves


class Clip:
    """One clip of latents, to be made in two ways: with a cache, and with the past computed anew in every pass."""

    def __init__(self) -> None:
        self.dit = tiny.randomised(Dit(CONFIG), 1)
        self.geometry = plan(*CACHED_SIZE, num_frames=12 * CACHED_BLOCKS - 3, per_block=PRESET.per_block)
        self.schedule = make_schedule(PRESET.steps, PRESET.shift)
        self.noise = seeded_noise(0, self.geometry)
        self.text = self.dit.embed_prompt(torch.zeros(1, 1, CONFIG.text_dim))

    def rollout(self) -> Rollout:
        sampling, memory = Sampling(self.schedule), Memory(self.geometry.latents)
        return Rollout(Networks(self.dit), self.geometry, sampling, [Prompt(self.text)], self.noise, memory=memory)

    def cached(self) -> Tensor:
        return torch.cat([event.latents for event in self.rollout().run() if isinstance(event, Made)], dim=1)

    def recomputed(self) -> Tensor:
        table = RopeTable(CONFIG.head_dim, self.geometry.latents, self.geometry.rows, self.geometry.columns)
        return recompute(self.dit, self.geometry, self.schedule, self.text, self.noise, table)


@torch.no_grad()
def recompute(
    dit: Dit, geometry: Geometry, schedule: Schedule, text: list[TextKv], noise: Noise, table: RopeTable
) -> Tensor:
    """The latents of a clip without a cache: every pass is over all latents so far, the clean ones at timestep 0."""
    clean = torch.empty(geometry.latent_shape(0))
    for block in geometry.blocks:
        how = How(block_causal(block.count * geometry.tokens_per_latent))
        x = noise(block.index, 0)
        for i, t in enumerate(schedule.timesteps):
            timesteps = torch.zeros(1, block.stop)
            timesteps[:, block.start :] = t
            with kernel_preference():
                flow = dit(torch.cat((clean, x), dim=1), timesteps, text, table.at(0, block.stop), how=how)
            x = schedule.advance(i, x, flow[:, block.start :], partial(noise, block.index, i + 1))
        clean = torch.cat((clean, x), dim=1)
    return clean


def block_causal(tokens: int) -> Attend:
    """Attention of blocks of `tokens` to themselves and what came before. Exact, with nothing computed to be masked."""

    def attend_causally(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if k.shape[1] != q.shape[1]:  # the prompt, which all see
            return attend(q, k, v)
        ends = range(tokens, q.shape[1] + 1, tokens)
        return torch.cat([attend(q[:, end - tokens : end], k[:, :end], v[:, :end]) for end in ends], dim=1)

    return attend_causally


def saved_flops(blocks: int, tokens: int, steps: int) -> float:
    """How many times the work a clip is without a cache, a block being `tokens`."""
    by_block = [pass_flops(CONFIG, tokens, tokens * (i + 1)) for i in range(blocks)]
    cached = sum((steps + 1) * flops for flops in by_block) - by_block[-1]  # the last clean pass is left out
    recomputed = sum(steps * sum(by_block[: i + 1]) for i in range(blocks))
    return recomputed / cached


def _caching() -> Measure:
    clip = Clip()
    torch.testing.assert_close(clip.cached(), clip.recomputed(), atol=2e-5, rtol=1e-5)
    ratios = [_seconds(clip.recomputed) / _seconds(clip.cached) for _ in range(PAIRS)]
    tokens = PRESET.per_block * clip.geometry.tokens_per_latent
    theory = saved_flops(CACHED_BLOCKS, tokens, len(clip.schedule))
    measured = statistics.median(ratios)
    how = (
        f"{measured:.2f}x faster with a cache, {CACHED_BLOCKS} blocks of {tokens} tokens; by FLOPs {theory:.2f}x, "
        f"by passes of equal cost 0.4(n+1) = {0.4 * (CACHED_BLOCKS + 1):.1f}x"
    )
    return Measure("cache against recomputing", measured / theory, 0.95, "high", "x theory", how)


class Calls(TorchDispatchMode):
    """Counts the ATen calls made while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def _calls() -> Measure:
    rollout = Clip().rollout()
    with Calls() as calls:
        for _ in rollout.run():
            pass
    per_layer = calls.count / (rollout.total_passes * CONFIG.layers)
    return Measure("ATen calls", per_layer, 250, "low", "", "per layer and pass, the whole rollout shared out")


# Loading


def _loading(folder: Path) -> list[Measure]:
    """Both sides until every weight was read once, in bfloat16, from files that the page cache holds."""
    config = evolve(WAN_1_3B, layers=LOADED_LAYERS)
    checkpoint, converted = folder / "dit.pt", folder / "converted"
    torch.save(tiny.randomised(Dit(config), 1).state_dict(), checkpoint)
    convert(checkpoint, converted)
    published: list[float] = []
    ours: list[float] = []
    copied: list[float] = []
    for i in range(PAIRS):
        copy = folder / f"copy-{i}"  # of another time, so that its hash is checked
        shutil.copytree(converted, copy, copy_function=shutil.copyfile)
        published.append(_seconds(partial(_load_checkpoint, checkpoint, config)))
        ours.append(_seconds(partial(_load_folder, converted)))
        copied.append(_seconds(partial(_load_folder, copy)))
        shutil.rmtree(copy)
    size = f"{checkpoint.stat().st_size / 1e6:.0f} MB fp32 .pt: torch.load, load_state_dict, to bf16, read"
    return [
        Measure("loading", _ratio(published, ours), 8, "high", "x", f"{size}, over our safetensors as converted"),
        Measure("loading a copy", _ratio(published, copied), None, "high", "x", "the same, its hash checked first"),
    ]


def _load_checkpoint(path: Path, config: Any) -> None:
    with torch.device("meta"):
        dit = Dit(config)
    dit.load_state_dict(torch.load(path, weights_only=True), assign=True)
    _read(dit.set_compute_dtype(torch.bfloat16))


def _load_folder(folder: Path) -> None:
    _read(loading.load_transformer(folder, None, torch.device("cpu"), torch.bfloat16)[0])


def _read(network: torch.nn.Module) -> None:
    assert all(weight.sum().isfinite() for weight in network.parameters())


# A server around it


def _serving(engine: Engine, client: Client) -> list[Measure]:
    """The tiny model in this process and behind a server, in turns."""
    job, request = _job(engine), _request()
    wanted = len(job.wanted())
    _here(engine, job)
    assert sum(1 for _ in client.submit(request)) == wanted
    firsts: list[float] = []
    served: list[float] = []
    for _ in range(PAIRS):
        first_s, here_s = _here(engine, job)
        firsts.append(first_s / here_s)
        served.append(_seconds(lambda: sum(1 for _ in client.submit(request))) / here_s)
    size = f"tiny Wan, {WIDTH}x{HEIGHT}, {job.num_frames} frames"
    return [
        Measure(
            "first frames out",
            statistics.median(firsts),
            1 / BLOCKS + 0.05,
            "low",
            "of the clip",
            f"{size}: prompt, keyframes and the first of {BLOCKS} blocks over all",
        ),
        Measure(
            "server around the engine", statistics.median(served), 1.03, "low", "x", f"{size}: served over in process"
        ),
    ]


def _here(engine: Engine, job: Job) -> tuple[float, float]:
    """Seconds to the first frames and to the last."""
    began = time.perf_counter()
    ready = [time.perf_counter() - began for event in engine.open(job) if isinstance(event, Chunk)]
    return ready[0], ready[-1]


def _cancelling(client: Client, passes: Path) -> Measure:
    """How many passes come to their end after a client has cancelled: the one under way, and no other."""
    late: list[int] = []
    for i in range(PAIRS):
        with client.submit(_request()) as stream:
            next(iter(stream))
            time.sleep(0.013 * i)  # in another moment of the pass each time
            cancelled_at = time.monotonic()
            stream.cancel()
            while client.status().jobs:
                time.sleep(0.002)
        late.append(sum(float(line) > cancelled_at for line in passes.read_text().splitlines()))
    return Measure("cancel to last pass", max(late), 1, "low", "passes", f"that ended after it, the most of {PAIRS}")


def _request() -> Request:
    job = _job_of_pictures()
    keyframes = tuple((k.at, k.image.tobytes()) for k in job.keyframes)
    return Request(keyframes, job.width, job.height, job.num_frames, engine=PRESET.id)


def _job(engine: Engine) -> Job:
    return checked(_job_of_pictures(), engine.info)


def _job_of_pictures() -> Job:
    num_frames = 1 + 12 * BLOCKS  # the first picture is a latent by itself
    return Job(WIDTH, HEIGHT, num_frames, road.pictures(WIDTH, HEIGHT, num_frames))


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _ratio(slow: list[float], fast: list[float]) -> float:
    """Of the two sides of each pair; the median."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))
