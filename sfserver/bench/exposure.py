"""Exposure bias, measured: what a model that learnt on perfect pasts does with its own.

Two transformers of the small world, trained alike up to a point and from there on for as long: one by teacher forcing
alone, one by self rollout. Both roll out held-out clips through the cache, as in use, and are compared with the truth,
latent by latent. The second is the shipped one, the first lies beside it for this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from attrs import frozen
from torch import Tensor

from ..engine.small_world import FOLDER, TAUGHT_FOLDER
from ..model.dit import Dit
from ..train import world
from ..train.latents import Latents, encode_clips
from ..train.run import small_schedule
from ..train.self_rollout import batch_noise, clip_geometry, roll_out
from ..train.small import SMALL_DIT
from ..train.verbs import VERB_NAMES
from ..weights import loading
from .report import Measure

CLIPS = {18: 100, 26: 80, 34: 60}
"""How many are held out, by length in frames."""
SEED = 77_101
_CPU = torch.device("cpu")


@frozen(eq=False)
class HeldOut:
    """Clips that training never saw, as latents, with what they are captioned."""

    latents: Latents
    text: Tensor
    """[B, T, text_dim]."""


@torch.no_grad()
def held_out(num_frames: int, count: int) -> HeldOut:
    """Random clips under sentences that leave nothing open."""
    tae = loading.load_tae(FOLDER, _CPU, torch.float32)
    embed = loading.load_text_encoder(FOLDER, FOLDER, _CPU, torch.bfloat16, SMALL_DIT.text_len)
    clips = world.clips(count, num_frames, torch.Generator().manual_seed(SEED + num_frames))
    said = [world.caption(clips.scenes, row, VERB_NAMES[v], row % 3) for row, v in enumerate(clips.verbs.tolist())]
    rows = {sentence: embed.encode(sentence) for sentence in sorted(set(said))}
    text = torch.stack([torch.nn.functional.pad(rows[s], (0, 0, 0, SMALL_DIT.text_len - len(rows[s]))) for s in said])
    return HeldOut(encode_clips(tae, clips, said), text.float())


def transformers() -> Mapping[str, Dit]:
    """By how they were trained at last."""
    folders = {"teacher forcing": TAUGHT_FOLDER, "self rollout": FOLDER}
    return {name: loading.load_transformer(folder, None, _CPU, torch.float32)[0] for name, folder in folders.items()}


@torch.no_grad()
def rolled_out(dit: Dit, clips: HeldOut, seed: int = 0) -> Tensor:
    """What the transformer makes between the keyframes, [B, F - 2, C, H, W]."""
    clean = clips.latents.clean
    geometry, known = clip_geometry(clean), {0: clean[:, :1], clean.shape[1] - 1: clean[:, -1:]}
    noise = batch_noise(clean, geometry, torch.Generator().manual_seed(seed))
    return roll_out(dit, clips.text, known, geometry, small_schedule(), noise)


def error_by_latent(dit: Dit, clips: HeldOut) -> Tensor:
    """Mean squared error of each latent between the keyframes, [F - 2]."""
    return ((rolled_out(dit, clips) - clips.latents.clean[:, 1:-1]) ** 2).mean((0, 2, 3, 4))


def measure(on_stage: Callable[[str], None]) -> list[Measure]:
    """What self rollout is worth over as much more teacher forcing, in the last third of each length."""
    measures: list[Measure] = []
    by_training = transformers()
    for num_frames, count in CLIPS.items():
        on_stage(f"own pasts, {num_frames} frames")
        clips = held_out(num_frames, count)
        last = {}
        for name, dit in by_training.items():
            errors = error_by_latent(dit, clips)
            last[name] = float(errors[-max(1, len(errors) // 3) :].mean())
        measures.append(
            Measure(
                f"self rollout, error of the last third, {num_frames} frames",
                last["self rollout"] / last["teacher forcing"],
                0.85 if num_frames == max(CLIPS) else None,
                "low",
                "x",
                f"{last['self rollout']:.4f} over {last['teacher forcing']:.4f} after as much more teacher forcing",
            )
        )
    return measures
