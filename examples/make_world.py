"""Draws the small world's pair, world_start.png and world_end.png: a red ball, first on the left and then on the right.

    python examples/make_world.py

Licence of this script and of both pictures: CC0, see LICENSE.
"""

from pathlib import Path

import torch
from PIL import Image

from sfserver.train.shapes import SHAPE_NAMES
from sfserver.train.world import BYSTANDERS, COLOURS, Scenes, of_verbs

HERE = Path(__file__).parent
BALL = {"radius": 9.0, "x_start": 15.0, "x_end": 49.0, "y_start": 33.0, "y_end": 33.0}
"""Pixels of 64."""


def main() -> None:
    lengths = {name: torch.tensor([value]) for name, value in BALL.items()}
    look = {"colour": list(COLOURS).index("red"), "ground": 0, "shape": SHAPE_NAMES.index("ball"), "post": False}
    nobody = torch.full((1, BYSTANDERS), -1)
    alone = {"by_x": nobody.float(), "by_radius": -nobody.float(), "by_colour": nobody, "by_shape": -nobody}
    scene = Scenes(**lengths, **{name: torch.tensor([value]) for name, value in look.items()}, **alone)
    clip = (of_verbs(scene, torch.tensor([0]), num_frames=2).pixels[0] * 255).round().to(torch.uint8)
    for name, picture in zip(("start", "end"), clip, strict=True):
        Image.fromarray(picture.movedim(0, -1).contiguous().numpy()).save(HERE / f"world_{name}.png", optimize=True)


if __name__ == "__main__":
    main()
