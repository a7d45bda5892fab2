"""A models folder of toy size with all that a recipe for published weights needs, as `sfserver convert` makes it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from attrs import evolve
from published import write_official_repository

from sfserver.engine.presets import SELF_FORCING
from sfserver.media.clip import ClipWriter
from sfserver.model.config import TOY
from sfserver.train.published import Published
from sfserver.weights.convert import Wish, convert

WIDTH, HEIGHT, FRAMES = 48, 32, 17
"""Latents of 6 x 4, five of them in a clip."""


def write_models(folder: Path) -> Published:
    """The one model is Self Forcing and the teacher as well."""
    convert(write_official_repository(folder / "hub"), folder / "toy", Wish(dtype=torch.float32))
    for home in ("self-forcing", "wan-vace", "wan2.1"):
        (folder / home).symlink_to(folder / "toy", target_is_directory=True)
    return Published(evolve(SELF_FORCING, dit=TOY), folder)


def write_film(path: Path, frames: int = FRAMES, seed: int = 0) -> Path:
    """A bright square that goes to the right."""
    writer = ClipWriter(path, WIDTH, HEIGHT, Fraction(24))
    for frame in range(frames):
        picture = np.full((HEIGHT, WIDTH, 3), 40 + 20 * seed, dtype=np.uint8)
        picture[8:20, frame : frame + 12] = 220
        writer.write(picture)
    writer.close()
    return path
