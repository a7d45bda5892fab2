"""Draws the pictures of docs/self-forcing.md with the small world's model, and prints the figures beside them.

    python examples/self_forcing.py [FOLDER]

A quarter of a minute on two cores. Licence of this script and of the pictures: CC0, see LICENSE.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import typer
from attrs import evolve
from torch import Tensor

from sfserver.bench import exposure
from sfserver.config import ServerConfig
from sfserver.engine import small_world
from sfserver.engine.base import Chunk, Engine, Job, Keyframe, checked
from sfserver.model.tae import Tae
from sfserver.train import world
from sfserver.train.codec import decode
from sfserver.train.shapes import SHAPE_NAMES
from sfserver.train.sheets import strips
from sfserver.train.verbs import VERB_NAMES
from sfserver.weights import loading

PICTURES = Path(__file__).parent.parent / "docs" / "pictures"
SEED = 77_202
BALL = SHAPE_NAMES.index("ball")
FRAMES = 34
LATENTS = [slice(4 * n + 1, 4 * n + 5) for n in range((FRAMES - 2) // 4)]
"""The frames that each block makes."""


def main() -> None:
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURES
    torch.set_num_threads(2)
    draw_own_pasts(out / "own_pasts.png")
    engine = small_world.load(ServerConfig(device="cpu", precision="fp32"))
    draw_end_key(engine, out / "end_key.png")
    draw_windows(engine, out / "window.png")


def draw_own_pasts(path: Path) -> None:
    """A clip on the model's own past, with and without having learnt from such."""
    clips = exposure.held_out(FRAMES, 60)
    tae = loading.load_tae(small_world.FOLDER, torch.device("cpu"), torch.float32)
    made = {name: exposure.rolled_out(dit, clips) for name, dit in exposure.transformers().items()}
    errors = {name: (latents - clips.latents.clean[:, 1:-1]) ** 2 for name, latents in made.items()}
    typer.echo("own pasts: mean squared error of each latent between the keyframes")
    for name, error in errors.items():
        print_row(name, error.mean((0, 2, 3, 4)).tolist(), "{:.4f}")
    gained = (errors["teacher forcing"] - errors["self rollout"])[:, -3:].mean((1, 2, 3, 4))
    shown = int(gained.argsort()[len(gained) * 9 // 10])  # one of those that gained most, not the best of them
    rows = [("as it must be, through the codec", through(tae, clips.latents.clean, shown, clips.latents.clean))]
    rows += [(name, through(tae, latents, shown, clips.latents.clean)) for name, latents in made.items()]
    strips(rows, path, pictures=12)


@torch.no_grad()
def through(tae: Tae, latents: Tensor, row: int, clean: Tensor) -> Tensor:
    """Pixels [T, 3, H, W] of a clip whose keyframes are those of `clean`."""
    between = latents[row : row + 1, -(clean.shape[1] - 2) :] if latents is not clean else clean[row : row + 1, 1:-1]
    whole = torch.cat((clean[row : row + 1, :1], between, clean[row : row + 1, -1:]), 1)
    return decode(tae, whole)[0, :FRAMES].clamp(0, 1)


def draw_end_key(engine: Engine, path: Path) -> None:
    """The same beginning and sentence with three ends: as it should be, another place, and none."""
    scene = one_scene()
    elsewhere = evolve(scene, x_end=scene.x_end - 12 * scene.facing)
    verb = "rolls"
    first, last = pictures_of(scene, verb)
    other_last = pictures_of(elsewhere, verb)[1]
    said = world.caption(scene, 0, verb)
    clips = {
        "the end is here": in_between(engine, first, last, said),
        "the end is there": in_between(engine, first, other_last, said),
        "no end is given": in_between(engine, first, None, said),
    }
    strips(list(clips.items()), path, pictures=12)
    here = clips["the end is here"]
    typer.echo("end key: how far each block is from the first row's, rms in steps of 255")
    for name, clip in clips.items():
        print_row(name, [255 * float((clip[block] - here[block]).square().mean().sqrt()) for block in LATENTS])


def draw_windows(engine: Engine, path: Path) -> None:
    """What the model looks back at: all of its clip, or the latest latents alone."""
    scene, verb = one_scene(), "bounces"
    exact = world.of_verbs(scene, torch.tensor([VERB_NAMES.index(verb)]), FRAMES).pixels[0]
    first, last = pictures_of(scene, verb)
    said = world.caption(scene, 0, verb)
    rows = [("as it must be", exact)]
    typer.echo("window: error of each block against the true clip, rms in steps of 255")
    for window in (10, 5, 3):
        clip = in_between(engine, first, last, said, params={"window": window})
        rows.append((f"window of {window} latents, sink of 1", clip))
        print_row(f"{window}", [255 * float((clip[b] - exact[b]).square().mean().sqrt()) for b in LATENTS])
    strips(rows, path, pictures=12)


def one_scene() -> world.Scenes:
    """A held-out scene of a ball with nobody else in it, and no post: what the model draws best."""
    drawn = world.scenes(200, torch.Generator().manual_seed(SEED))
    alone = ~drawn.post & (drawn.by_colour < 0).all(1) & (drawn.x_end > drawn.x_start) & (drawn.shape == BALL)
    return drawn.pick(alone.nonzero()[:1, 0])


def pictures_of(scene: world.Scenes, verb: str) -> tuple[np.ndarray, np.ndarray]:
    """Both keyframes, uint8 [H, W, 3]."""
    pixels = world.of_verbs(scene, torch.tensor([VERB_NAMES.index(verb)]), 2).pixels[0]
    first, last = (pixels * 255).round().to(torch.uint8).movedim(1, -1).contiguous().numpy()
    return first, last


def in_between(
    engine: Engine,
    first: np.ndarray,
    last: np.ndarray | None,
    prompt: str,
    frames: int = FRAMES,
    seed: int = 1,
    params: Mapping[str, int] | None = None,
) -> Tensor:
    """[T, 3, H, W], 0 to 1, keyframes included; where no end is given, the last made frame once more."""
    given = {0: first} if last is None else {0: first, frames - 1: last}
    keyframes = tuple(Keyframe(at, picture) for at, picture in given.items())
    side = first.shape[0]
    job = checked(Job(side, side, frames, keyframes, prompt, seed=seed, params=dict(params or {})), engine.info)
    made: dict[int, np.ndarray] = dict(given)
    for event in engine.open(job):
        if isinstance(event, Chunk):
            made |= {frame.index: frame.image for frame in event.frames}
    made.setdefault(frames - 1, made[frames - 2])
    return torch.from_numpy(np.stack([made[i] for i in range(frames)])).movedim(-1, 1).float() / 255


def print_row(name: str, figures: Sequence[float], form: str = "{:5.1f}") -> None:
    typer.echo(f"  {name:<20} " + " ".join(form.format(figure) for figure in figures))


if __name__ == "__main__":
    main()
