"""Draws the animatic's pair, push_start.png and push_end.png: the camera pushes in on a street while a walker crosses.

    python examples/make_push.py

Needs the project installed, a few seconds. Licence of this script and of both pictures: CC0, see LICENSE.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from sfserver.bench import stills

HERE = Path(__file__).parent
SIZE_PX = (832, 480)
POSES = {
    "push_start": {"view": (640, 384, 1160), "walker": (230, 356, 1.15)},
    "push_end": {"view": (700, 404, 760), "walker": (540, 336, 1.5)},
}
"""What the camera sees of the street: its middle and width. The walker's middle and size in the picture."""


def draw(pose):
    """[480, 832, 3] bytes."""
    width, height = SIZE_PX
    x, y, wide = pose["view"]
    ground = _seen(stills.street(), x, y, wide / width)
    figure = stills.figure()
    x, y, size = pose["walker"]
    middle_x = figure.shape[2] / 2 + (width / 2 - x) / size
    middle_y = figure.shape[1] / 2 + (height / 2 - y) / size
    drawn = _seen(torch.cat((figure[:3] * figure[3:], figure[3:])), middle_x, middle_y, 1 / size)
    picture = ground * (1 - drawn[3:]) + drawn[:3]
    return (picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


def _seen(still, x, y, pixel, samples=3):
    """[_, H, W] around (x, y), one pixel being `pixel` wide on it."""
    width, height = SIZE_PX
    u = x + ((torch.arange(width * samples) + 0.5) / samples - width / 2) * pixel
    v = y + ((torch.arange(height * samples) + 0.5) / samples - height / 2) * pixel
    v, u = torch.meshgrid(v, u, indexing="ij")
    grid = torch.stack((2 * u / still.shape[2] - 1, 2 * v / still.shape[1] - 1), -1)[None]
    outside = "zeros" if len(still) == 4 else "border"
    return F.avg_pool2d(F.grid_sample(still[None], grid, padding_mode=outside, align_corners=False), samples)[0]


if __name__ == "__main__":
    for name, pose in POSES.items():
        Image.fromarray(np.ascontiguousarray(draw(pose))).save(HERE / f"{name}.png", optimize=True)
