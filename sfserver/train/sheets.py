"""What a model makes of clips that it never saw, at one glance: above what must be, below what came."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

_BACKGROUND = (24, 25, 28)
_TEXT = (232, 233, 236)
_LABEL_PX = 18
_GAP_PX = 4


def read_clip(folder: Path) -> Tensor:
    """The pictures of a folder in order of their names, [T, 3, H, W] 0 to 1."""
    pictures = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.glob("*.png"))]
    return torch.from_numpy(np.stack(pictures)).movedim(-1, 1).float() / 255


def strips(rows: Sequence[tuple[str, Tensor]], path: Path, pictures: int = 9, scale: int = 2) -> None:
    """PNG at `path`: for each clip [T, 3, H, W] 0 to 1 its label and `pictures` of its frames at even distances."""
    height, width = (side * scale for side in rows[0][1].shape[-2:])
    across, down = pictures * (width + _GAP_PX) + _GAP_PX, _LABEL_PX + height + _GAP_PX
    sheet = Image.new("RGB", (across, len(rows) * down + _GAP_PX), _BACKGROUND)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for n, (label, clip) in enumerate(rows):
        pen.text((_GAP_PX, n * down + 2), label, _TEXT, font)
        for column, frame in enumerate(torch.linspace(0, len(clip) - 1, pictures).round().long().tolist()):
            pixels = (clip[frame].clamp(0, 1) * 255).round().to(torch.uint8).movedim(0, -1).contiguous()
            picture = Image.fromarray(pixels.numpy()).resize((width, height), Image.Resampling.BICUBIC)
            sheet.paste(picture, (_GAP_PX + column * (width + _GAP_PX), n * down + _LABEL_PX))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, format="PNG", optimize=True)
