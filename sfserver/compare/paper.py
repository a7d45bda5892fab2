"""What of a comparison goes where no page does, into a README or a message: a picture of strips, and a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..media.files import appearing
from ..train.sheets import strips
from .measures import Clip
from .page import HEADINGS, Row, figures

WIDTH_PX = 96
PICTURES = 9


def write_strips(path: Path, rows: Sequence[Row]) -> None:
    """PNG: below the name of each clip some of its frames. Raises MediaError where it cannot be written."""
    with appearing(path) as part:
        strips([(row.name, torch.from_numpy(_small(row.clip))) for row in rows], part, PICTURES, scale=1)


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Markdown: a line for each clip. Raises MediaError where it cannot be written."""
    headings = ["Clip", *(name for name, _ in HEADINGS.values())]
    lines = [headings, ["---"] * len(headings), *([row.name, *figures(row)] for row in rows)]
    with appearing(path) as part:
        part.write_text("".join(f"| {' | '.join(line)} |\n" for line in lines), "utf-8")


def _small(clip: Clip) -> np.ndarray:
    """[T, 3, H, W] 0 to 1, as wide as a strip's pictures; smaller ones are blown up."""
    height, width = clip.shape[1:3]
    size = (WIDTH_PX, max(1, round(WIDTH_PX * height / width)))
    small = [np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS)) for frame in clip]
    return np.stack(small).transpose(0, 3, 1, 2).astype(np.float32) / 255
