"""Whole rollouts of the models that came after Self Forcing, as the engine runs their presets, against their formulas.

No golden files of them are at hand. The other side is `by_formula`, which shares no line with the product, under rules
that are typed out here as they are published. Weights are random and small; clips are longer than what a model was
trained at wherever it may be, since nothing of its positions shows before.
"""

from __future__ import annotations

from typing import Any, cast

import attrs
import numpy as np
import pytest
import torch
import toy
from by_formula import Array, Network, RollOut, Rules, counted, sink_before_window, top_aligned, true_places
from networks import random_weights
from torch import Tensor

from sfserver.engine.presets import find
from sfserver.engine.wan_engine import Weights
from sfserver.model.config import TOY
from sfserver.model.dit import Dit
from sfserver.model.vae import WanVae

SEED = 5
CHUNK_WISE, FRAME_WISE = 97, 97
"""Frames of 25 latents: one that is given and eight blocks of three, or twenty-four of one."""

SGF = Rules(per_block=3, window=12, sink=3, positions=top_aligned(12))
SGF_FRAME = Rules(per_block=1, window=21, sink=4, positions=top_aligned(21))
ONE_STEP = Rules(per_block=1, window=21, steps=(1000,), first_steps=(1000, 750, 500, 250))
LONG = Rules(per_block=3, window=21, sink=3, positions=sink_before_window)
PUBLISHED: dict[str, tuple[Rules, int]] = {
    "sgf": (SGF, CHUNK_WISE),
    "sgf-frame": (SGF_FRAME, FRAME_WISE),
    "sgf-plus": (SGF, CHUNK_WISE),
    "sgf-plus-frame": (SGF_FRAME, FRAME_WISE),
    "causal-forcing-1step": (ONE_STEP, 81),
    "causal-forcing-2step": (attrs.evolve(ONE_STEP, steps=(1000, 500)), 81),
    "causal-forcing-long": (LONG, 109),
}
"""By preset: its rules, and how long a clip is compared."""


class Glass:
    """In place of a VAE: what is encoded is one fixed latent, and what is to be decoded is kept as it is."""

    def __init__(self) -> None:
        self.first = torch.randn(1, 1, 16, toy.HEIGHT // 8, toy.WIDTH // 8, generator=torch.Generator().manual_seed(3))
        self.seen: list[Tensor] = []

    def new_decoder_state(self) -> None:
        return None

    def encode(self, pixels: Tensor) -> Tensor:
        assert pixels.shape[1] == 1, "one picture, the clip's first"
        return self.first

    def decode(self, latents: Tensor, state: None) -> Tensor:
        frames = 4 * latents.shape[1] - (0 if self.seen else 3)
        self.seen.append(latents.clone())
        return torch.zeros(1, frames, 3, toy.HEIGHT, toy.WIDTH)


def tensors_of(dit: Dit) -> Network:
    tensors = {name: value.double().numpy() for name, value in dit.state_dict().items()}
    return Network(tensors, TOY.heads, TOY.text_len)


def transformers(preset_id: str) -> tuple[Dit, Dit | None]:
    preset = find(preset_id)
    assert preset
    return random_weights(Dit(TOY), 1), random_weights(Dit(TOY), 2) if preset.transformers == 2 else None


def as_the_engine_runs_it(preset_id: str, num_frames: int) -> Array:
    """[F, C, H, W] of a clip from a first picture, by the preset's own settings."""
    preset, glass = find(preset_id), Glass()
    assert preset
    dit, clean = transformers(preset_id)
    weights = Weights(dit, cast(WanVae, glass), toy.embed_prompt, clean=clean)
    engine = toy.engine(attrs.evolve(preset, dit=TOY), weights)
    toy.run(toy.job(num_frames, (0,), seed=SEED, params={"seam": False}), engine)
    return torch.cat(glass.seen, dim=1)[0].double().numpy()


def by_the_formulas(preset_id: str, rules: Rules, num_frames: int, one_transformer: bool = False) -> Array:
    dit, clean = transformers(preset_id)
    denoiser = tensors_of(dit)
    memory = denoiser if clean is None or one_transformer else tensors_of(clean)
    height, width = toy.HEIGHT // 8, toy.WIDTH // 8

    def noise(block: int, step: int, count: int) -> Array:
        random = np.random.default_rng((SEED, block, step))
        return random.standard_normal((count, 16, height, width), dtype=np.float32).astype(np.float64)

    prompt = toy.embed_prompt("a cat")[0].double().numpy()
    first = Glass().first[0, 0].double().numpy()
    return RollOut(rules, denoiser, memory, prompt, noise).run(first, 1 + (num_frames - 1) // 4)


@pytest.mark.parametrize("preset_id", PUBLISHED)
def test_a_clip_is_the_one_that_the_formulas_give(preset_id: str) -> None:
    rules, num_frames = PUBLISHED[preset_id]
    ours = as_the_engine_runs_it(preset_id, num_frames)
    np.testing.assert_allclose(ours, by_the_formulas(preset_id, rules, num_frames), atol=5e-4, rtol=0)


@pytest.mark.parametrize(
    ("preset_id", "falsified"),
    [
        ("sgf", {"positions": true_places}),
        ("sgf", {"positions": top_aligned(21)}),
        ("sgf", {"sink": 1}),
        ("sgf-frame", {"positions": true_places}),
        ("sgf-frame", {"window": 12}),
        ("causal-forcing-1step", {"first_steps": ()}),
        ("causal-forcing-long", {"positions": true_places}),
        ("causal-forcing-long", {"window": 18}),
    ],
)
def test_the_control_by_other_rules_it_is_another(preset_id: str, falsified: dict[str, Any]) -> None:
    rules, num_frames = PUBLISHED[preset_id]
    ours = as_the_engine_runs_it(preset_id, num_frames)
    other = by_the_formulas(preset_id, attrs.evolve(rules, **falsified), num_frames)
    assert np.abs(ours - other).max() > 0.01


@pytest.mark.parametrize("preset_id", ["sgf-plus", "sgf-plus-frame"])
def test_the_control_with_one_transformer_it_is_another(preset_id: str) -> None:
    rules, num_frames = PUBLISHED[preset_id]
    ours = as_the_engine_runs_it(preset_id, num_frames)
    assert np.abs(ours - by_the_formulas(preset_id, rules, num_frames, one_transformer=True)).max() > 0.1


def test_every_way_to_place_the_past_is_among_them_and_none_is_another() -> None:
    """Where nothing has left the window they agree; where something has, counting closes the gap as moving it does."""
    assert [list(way(range(9), 3)) for way in (true_places, counted, top_aligned(12), sink_before_window)] == [
        [*range(9)]
    ] * 4
    held = [0, 1, 2, *range(9, 18)]
    assert np.diff(sink_before_window(held, 3)).tolist() == np.diff(list(counted(held, 3))).tolist()
    assert list(top_aligned(12)(held, 3)) == [*range(12)]
