"""The table of models against what their authors publish: how each is sampled, where its files are, who may use them.

The values below are literal, taken from the models' own pages and configurations and not from the code.
"""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from sfserver.engine.presets import (
    CAUSAL_FORCING,
    CAUSAL_FORCING_2STEP,
    CAUSVID,
    LONGLIVE,
    PRESETS,
    SELF_FORCING,
    SELF_FORCING_VACE,
    WAN_VACE,
    Part,
    Preset,
)

APACHE, NON_COMMERCIAL = "Apache-2.0", "CC-BY-NC-SA-4.0"
FOUR = (1000, 750, 500, 250)
EMA, PLAIN = "generator_ema", "generator"
UNBOUNDED = 21
"""Published as a window of -1, which their caches end at 21 latents."""

ROLLOUT = {
    "per_block": 3,
    "window": UNBOUNDED,
    "sink": 0,
    "steps": FOUR,
    "warp": True,
    "shift": 5.0,
    "first_steps": (),
    "even_steps": 0,
    "context_t": 0.0,
    "policy": "absolute",
    "renews": False,
    "trained": None,
    "guidance": 1.0,
    "negative_prompt": "",
}
"""Self Forcing's. Others are given below by what they do otherwise."""
NEGATIVE = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，"
    "JPEG压缩残留，丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，"
    "手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走"
)
SGF = ROLLOUT | {"policy": "top"}
SAMPLING: dict[str, dict[str, Any]] = {
    "self-forcing": ROLLOUT,
    "self-forcing-vace": ROLLOUT,
    "causal-forcing": ROLLOUT,
    "causal-forcing-frame": ROLLOUT | {"per_block": 1},
    "causal-forcing-2step": ROLLOUT | {"per_block": 1, "steps": (1000, 500), "first_steps": FOUR},
    "longlive": ROLLOUT | {"window": 12, "sink": 3, "renews": True},
    "causal-forcing-long": ROLLOUT | {"sink": 3, "policy": "relative", "trained": UNBOUNDED},
    "causal-forcing-1step": ROLLOUT | {"per_block": 1, "steps": (1000,), "first_steps": FOUR},
    "sgf": SGF | {"window": 12, "sink": 3, "trained": 12},
    "sgf-frame": SGF | {"per_block": 1, "window": 21, "sink": 4, "trained": 21},
    "sgf-plus": SGF | {"window": 12, "sink": 3, "trained": 12},
    "sgf-plus-frame": SGF | {"per_block": 1, "window": 21, "sink": 4, "trained": 21},
    "causvid": ROLLOUT | {"steps": (1000, 757, 522), "warp": False, "shift": 8.0},
    "wan-vace": {
        "even_steps": 50,
        "samplers": ("unipc", "euler"),
        "shift": 16.0,
        "guidance": 5.0,
        "strategies": ("joint",),
        "negative_prompt": NEGATIVE,
    },
}
"""The whole of what is published. Wan's model is no rollout: it has no blocks, window or list of steps."""
OURS_WHERE_PUBLISHED = {("sink", 0): 1}
"""What the presets do otherwise on purpose; `Preset.sink` says why."""

SELF_FORCING_FILE = ("gdhe17/Self-Forcing", "checkpoints/self_forcing_dmd.pt")
VACE_FILE = ("Wan-AI/Wan2.1-VACE-1.3B", "diffusion_pytorch_model.safetensors")
TRANSFORMERS = {
    "self-forcing": (*SELF_FORCING_FILE, EMA),
    "self-forcing-vace": (*SELF_FORCING_FILE, EMA),
    "causal-forcing": ("zhuhz22/Causal-Forcing", "chunkwise/causal_forcing.pt", PLAIN),
    "causal-forcing-frame": ("zhuhz22/Causal-Forcing", "framewise/causal_forcing.pt", EMA),
    "causal-forcing-2step": ("zhuhz22/Causal-Forcing", "causal-forcing++/framewise-2step.pt", EMA),
    "causal-forcing-1step": ("zhuhz22/Causal-Forcing", "causal-forcing++/framewise-1step.pt", EMA),
    "causal-forcing-long": ("zhuhz22/Causal-Forcing", "chunkwise/longvideo.pt", EMA),
    "sgf": ("JunhaoZhuang/Self_Gradient_Forcing", "chunkwise/ar/model.pt", EMA),
    "sgf-frame": ("JunhaoZhuang/Self_Gradient_Forcing", "framewise/ar/model.pt", EMA),
    "sgf-plus": ("ZihanSu/Self_Gradient_Forcing_Plus", "chunkwise/model.pt", EMA),
    "sgf-plus-frame": ("ZihanSu/Self_Gradient_Forcing_Plus", "framewise/model.pt", EMA),
    "longlive": ("Efficient-Large-Model/LongLive-1.3B", "models/longlive_base.pt", PLAIN),
    "causvid": ("tianweiy/CausVid", "autoregressive_checkpoint/model.pt", PLAIN),
    "wan-vace": (*VACE_FILE, None),
}
"""Repository, file, and which of a training checkpoint's dictionaries is taken; None where the file is bare tensors."""
OTHER_FILES = {
    "vae": ("Wan-AI/Wan2.1-T2V-1.3B", "Wan2.1_VAE.pth", APACHE),
    "tae": ("Kijai/WanVideo_comfy", "taew2_1.safetensors", "MIT"),
    "text": ("Wan-AI/Wan2.1-T2V-1.3B", "models_t5_umt5-xxl-enc-bf16.pth", APACHE),
    "tokenizer": ("Wan-AI/Wan2.1-T2V-1.3B", "google/umt5-xxl/", APACHE),
    "vace": (*VACE_FILE, APACHE),
    "lora": ("Efficient-Large-Model/LongLive-1.3B", "models/lora.pt", APACHE),
}
"""Repository, file and licence by role."""
FURTHER_ROLES = {
    "sgf-plus": {"clean"},
    "sgf-plus-frame": {"clean"},
    "self-forcing-vace": {"vace"},
    "wan-vace": {"vace"},
    "longlive": {"lora"},
}
"""Beside the transformer, and what all models share."""
LICENCES = {
    "self-forcing": (f"{APACHE} since 2025-09-11, {NON_COMMERCIAL} before: check the model card", True),
    "self-forcing-vace": (f"{APACHE} since 2025-09-11, {NON_COMMERCIAL} before: check the model card", True),
    "causvid": (f"{NON_COMMERCIAL}, non-commercial", True),
}
"""Of the transformer, and whether it must be accepted; all others are Apache-2.0."""


def differences(preset: Preset) -> set[str]:
    """Names of everything in which a preset is not as published, differences on purpose aside."""
    found = {
        name
        for name, published in SAMPLING[preset.id].items()
        if getattr(preset, name) != OURS_WHERE_PUBLISHED.get((name, published), published)
    }
    parts = {part.role: part for part in preset.parts}
    if set(parts) != {"dit", "vae", "tae", "text", "tokenizer"} | FURTHER_ROLES.get(preset.id, set()):
        found.add("roles")
    repository, file, prefers = TRANSFORMERS[preset.id]
    others = OTHER_FILES | {"clean": (repository, file, APACHE)}
    found |= {role for role, part in parts.items() if role != "dit" and _origin(part) != (others[role], False)}
    licence, confirm = LICENCES.get(preset.id, (APACHE, False))
    if _origin(parts["dit"]) != ((repository, file, licence), confirm):
        found.add("dit")
    if prefers and parts["dit"].source.prefer[0] != prefers:
        found.add("prefer")
    return found


def _origin(part: Part) -> tuple[tuple[str, str, str], bool]:
    return (part.source.repository, part.source.file, part.source.licence), part.source.confirm


def test_the_table_is_of_every_preset() -> None:
    assert set(SAMPLING) == set(TRANSFORMERS) == {preset.id for preset in PRESETS}


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.id)
def test_a_preset_is_as_published_but_for_a_first_frame_that_is_never_forgotten(preset: Preset) -> None:
    assert differences(preset) == set()


def with_dit(preset: Preset, **changes: Any) -> Preset:
    parts = (evolve(p, source=evolve(p.source, **changes)) if p.role == "dit" else p for p in preset.parts)
    return evolve(preset, parts=tuple(parts))


@pytest.mark.parametrize(
    ("falsified", "named"),
    [
        (evolve(CAUSVID, steps=FOUR), "steps"),
        (evolve(CAUSVID, warp=True), "warp"),
        (evolve(LONGLIVE, window=9), "window"),
        (evolve(LONGLIVE, sink=1), "sink"),
        (evolve(SELF_FORCING, sink=0), "sink"),
        (evolve(LONGLIVE, parts=LONGLIVE.parts[:1] + LONGLIVE.parts[2:]), "roles"),
        (evolve(CAUSAL_FORCING_2STEP, first_steps=()), "first_steps"),
        (with_dit(CAUSAL_FORCING, file="chunkwise/longvideo.pt"), "dit"),
        (with_dit(CAUSAL_FORCING, prefer=(EMA, PLAIN)), "prefer"),
        (with_dit(SELF_FORCING_VACE, confirm=False), "dit"),
        (evolve(WAN_VACE, guidance=1.0), "guidance"),
    ],
)
def test_a_falsified_preset_is_noticed(falsified: Preset, named: str) -> None:
    assert differences(falsified) == {named}
