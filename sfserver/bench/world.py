"""`sfserver bench --world`: how well the small world's model does what it is told, on clips that it never saw.

Every scene is asked for under every verb, so the keyframes say nothing about the right answer and the prompt all. The
engine runs as for anybody; an oracle (`train.oracle`) names what is to be seen in the frames.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from attrs import frozen
from sfwire.messages import Value
from torch import Tensor

from ..config import ServerConfig
from ..engine import small_world
from ..engine.base import Chunk, Engine, Job, Keyframe, checked
from ..engine.wan_engine import WanEngine
from ..model.tae import Tae
from ..train import world
from ..train.codec import decode, encode, held, psnr_db
from ..train.oracle import name_verbs, observe
from ..train.world import VERBS, Clips
from .report import Measure

HELD_OUT_SEED = 77_001
"""Training draws from hashes of its own seed and step, see `train.loop.step_random`."""
SCENES = {18: 20, 34: 5}
"""By length in frames: 200 clips, and 50 of the longest."""
OnStage = Callable[[str], None]
USUAL: Mapping[str, Value] = {}


@frozen(eq=False)
class Shown:
    """What the engine made of held-out clips."""

    exact: Clips
    pixels: Tensor
    """[B, T, 3, H, W] 0 to 1, keyframes included."""
    seconds: float

    @property
    def obeyed(self) -> float:
        """Share of the clips that show the verb they were asked for."""
        return share_named(self.pixels, self.exact)


def measure(on_stage: OnStage) -> list[Measure]:
    """All figures of the shipped model. Raises RequestError where it is not there."""
    torch.set_num_threads(max(1, os.cpu_count() or 1))
    engine = small_world.load(ServerConfig(device="cpu", precision="fp32"))
    assert isinstance(engine, WanEngine)
    measures: list[Measure] = []
    for num_frames, scenes in SCENES.items():
        exact = world.all_verbs(scenes, num_frames, torch.Generator().manual_seed(HELD_OUT_SEED))
        on_stage(f"{len(exact.verbs)} clips of {num_frames} frames")
        through = through_codec(engine, exact)
        shown = show(engine, exact)
        measures += _of_length(num_frames, shown, through, without_end=show(engine, exact, with_end=False))
    on_stage("seeds")
    measures.append(_seeds(engine))
    return measures


def _of_length(num_frames: int, shown: Shown, through: Tensor, without_end: Shown) -> list[Measure]:
    exact, ceiling = shown.exact, share_named(through, shown.exact)
    between = len(exact.verbs) * (num_frames - 2)
    what = f"{len(exact.verbs)} clips of {num_frames} frames"
    last = [centre_error_px(one.pixels, exact, slice(num_frames - 2, num_frames - 1)) for one in (shown, without_end)]
    middle = centre_error_px(shown.pixels, exact, slice(num_frames // 3, 2 * num_frames // 3))
    threads = f"{torch.get_num_threads()} threads"
    codec_db = psnr_db(through, exact.pixels)
    return [
        Measure(
            f"prompt obeyed, {what}", shown.obeyed, 0.8, "high", "", "the oracle names the verb that was asked for"
        ),
        Measure(f"  of what it names through the codec, {num_frames}", shown.obeyed / ceiling, 0.9, "high", "x", ""),
        Measure(f"centre, middle third, {num_frames}", middle / world.SIDE_PX, 0.03, "low", "", "of the width"),
        Measure(
            f"last in-between, {num_frames}",
            last[0] / last[1],
            0.5,
            "low",
            "x",
            f"{last[0]:.1f} px from where it must be, over {last[1]:.1f} px without the end keyframe",
        ),
        Measure(f"codec alone, {num_frames}", codec_db, 32.0, "high", "dB", "PSNR of true clips through it"),
        Measure(f"oracle through the codec, {num_frames}", ceiling, 0.92, "high", "", ""),
        Measure(
            f"speed, {num_frames}",
            between / shown.seconds,
            24.0,
            "high",
            "frames/s",
            threads,
        ),
    ]


def _seeds(engine: Engine) -> Measure:
    """Captions leave nothing open in this world, so another seed should be the same clip."""
    exact = world.all_verbs(2, 18, torch.Generator().manual_seed(HELD_OUT_SEED + 1))
    one, other = (show(engine, exact, seed=seed).pixels for seed in (1, 2))
    by_scene = one.unflatten(0, (2, len(VERBS)))
    verbs = (by_scene - by_scene.roll(1, 1)).square().mean()
    return Measure(
        "another seed, against another verb", float((one - other).square().mean() / verbs), None, "low", "x", "MSE"
    )


def show(
    engine: Engine, exact: Clips, with_end: bool = True, seed: int = 0, params: Mapping[str, Value] = USUAL
) -> Shown:
    """The engine's clips between the same keyframes, under captions that name the verbs."""
    began = time.perf_counter()
    clips = [_clip(engine, pixels, caption, with_end, seed, params) for pixels, caption in _asked(exact)]
    return Shown(exact, torch.stack(clips), time.perf_counter() - began)


def _asked(exact: Clips) -> Iterator[tuple[Tensor, str]]:
    for row, verb in enumerate(exact.verbs.tolist()):
        yield exact.pixels[row], world.caption(exact.scenes, row, world.VERB_NAMES[verb], row % 3)


def _clip(
    engine: Engine, pixels: Tensor, caption: str, with_end: bool, seed: int, params: Mapping[str, Value]
) -> Tensor:
    """[T, 3, H, W] 0 to 1. What is given is as it is; a frame that was not asked for is the exact one."""
    pictures = (pixels * 255).round().to(torch.uint8).movedim(1, -1).contiguous().numpy()
    last = len(pictures) - 1
    keyframes = tuple(Keyframe(at, pictures[at]) for at in ((0, last) if with_end else (0,)))
    side = pictures.shape[1]
    job = checked(Job(side, side, len(pictures), keyframes, caption, seed=seed, params=params), engine.info)
    made: dict[int, np.ndarray] = {k.at: k.image for k in keyframes}
    for event in engine.open(job):
        if isinstance(event, Chunk):
            made |= {frame.index: frame.image for frame in event.frames}
    return torch.from_numpy(np.stack([made[i] for i in range(len(pictures))])).movedim(-1, 1).float() / 255


@torch.no_grad()
def through_codec(engine: WanEngine, exact: Clips, at_once: int = 20) -> Tensor:
    """True clips encoded and decoded: what no transformer could better."""
    tae = engine.codec
    assert isinstance(tae, Tae)
    clips = [decode(tae, encode(tae, held(part))) for part in exact.pixels.split(at_once)]
    return torch.cat(clips)[:, : exact.pixels.shape[1]].clamp(0, 1)


def share_named(pixels: Tensor, exact: Clips) -> float:
    return float((name_verbs(pixels, exact.scenes) == exact.verbs).float().mean())


def centre_error_px(pixels: Tensor, exact: Clips, frames: slice) -> float:
    """Mean distance of the shape from where it must be, where it was found; fading clips left out."""
    seen = observe(pixels, exact.scenes)
    truth = torch.stack((exact.track.x, exact.track.y), -1)
    kept = exact.verbs != world.VERB_NAMES.index("fades")
    apart = (seen.centre - truth).norm(dim=-1)[kept][:, frames]
    return float(apart[seen.found[kept][:, frames]].mean())
