"""The engine of all Wan 2.1 models: what there is on this machine, how it is loaded, and how one job runs.

The job itself is told here as it happens: prompt, keyframes, then `Rollout`, whose blocks leave as frames. Torch and
everything built on it is imported when a model is loaded, not when one is asked about.
"""

from __future__ import annotations

from pathlib import Path

from sfwire.messages import EngineInfo, Parameter

from ..config import ServerConfig
from . import capacity
from .geometry import SIZE_MULTIPLE
from .presets import PRESETS, TRAINED_LATENTS, Preset

VERSION = "1"
"""Of the pixels that these engines make; raised whenever the same request gives others."""
MAX_PIXELS = 1280 * 720
"""Twice the area that the models were trained at; beyond it they repeat themselves."""


def describe(config: ServerConfig) -> tuple[EngineInfo, ...]:
    """What every preset says of itself on this machine, complete or not."""
    return tuple(info_of(preset, config.models_dir, config) for preset in PRESETS)


def info_of(preset: Preset, folder: Path, config: ServerConfig) -> EngineInfo:
    """An EngineInfo of a preset whose parts lie below `folder`."""
    missing = tuple(
        f"{folder / part.path} is not there; run: sfserver fetch {preset.id}"
        for part in preset.parts
        if not part.optional and not (folder / part.path).exists()
    )
    return EngineInfo(
        id=preset.id,
        title=preset.title,
        summary=preset.summary,
        version=f"{VERSION}-{config.precision}",
        licence=preset.licence,
        uses_prompt=True,
        uses_negative_prompt=True,
        available=not missing,
        missing=missing,
        size_multiple=SIZE_MULTIPLE,
        max_pixels=MAX_PIXELS,
        min_frames=preset.frames[0],
        max_frames=preset.frames[1],
        memory_bytes=capacity.usual_bytes(preset),
        parameters=tuple(_parameters(preset, folder)),
    )


def _parameters(preset: Preset, folder: Path) -> list[Parameter]:
    parameters = [
        Parameter(
            "strategy",
            "choice",
            preset.strategies[0],
            "How the keyframes reach the model; anchor and look-ahead steer from the first block on",
            choices=preset.strategies,
        ),
        Parameter(
            "seam",
            "bool",
            True,
            "Take the colour shift of the VAE, as seen at the keyframes, out of the frames between them",
        ),
        Parameter(
            "compile",
            "bool",
            False,
            "Compile the model first: minutes once for each size, faster blocks ever after",
        ),
    ]
    if preset.strategies != ("joint",):
        parameters.append(
            Parameter(
                "window",
                "int",
                preset.window,
                "Latents of four frames that each block looks back at; fewer are faster and are forgotten sooner",
                low=preset.sink + preset.per_block,
                high=max(preset.window, 2 * TRAINED_LATENTS),
            )
        )
    if preset.dit.vace_layers:
        parameters.append(
            Parameter("vace_strength", "float", 1.0, "Weight of the VACE branch, 0 switches it off", low=0.0, high=2.0)
        )
    if preset.guidance > 1:
        parameters.append(
            Parameter("guidance", "float", preset.guidance, "How closely to follow the prompt", low=1.0, high=20.0)
        )
    else:
        parameters.append(
            Parameter(
                "negative_strength", "float", 11.0, "How far to keep from the negative prompt", low=1.0, high=30.0
            )
        )
    tae = preset.part("tae")
    if tae and (folder / tae.path).exists():
        parameters.append(
            Parameter(
                "decoder",
                "choice",
                "wan",
                "wan is the model's own; tae is a small one, many times faster and a little softer",
                choices=("wan", "tae"),
            )
        )
    return parameters
