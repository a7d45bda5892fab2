"""What is thin and hangs on a cut-out goes along; the ground beside it stays."""

import pytest
import torch
import torch.nn.functional as F

from sfserver.engine.limbs import with_limbs
from sfserver.engine.path import Path
from sfserver.engine.picture import CutOut

HEIGHT, WIDTH, RIGHT = 96, 200, 60
LEG = (slice(62, 84), slice(38, 41))


def shift(x: int, y: int) -> torch.Tensor:
    return torch.tensor(((1, 0, x), (0, 1, y), (0, 0, 1)), dtype=torch.float64)


@pytest.mark.parametrize("down", [0, 40], ids=["both keyframes show that ground", "one alone shows it"])
def test_a_leg_goes_along_and_the_ground_beside_it_does_not(down):
    noise = torch.rand(1, 3, 20, 30, generator=torch.Generator().manual_seed(1)) * 0.5 + 0.3
    still = F.interpolate(noise, size=(HEIGHT + 40, WIDTH), mode="bicubic")[0]
    a, b = still[:, 40:].clone(), still[:, 40 - down : 40 - down + HEIGHT].clone()
    body, shapes = torch.rand(3, 32, 40, generator=torch.Generator().manual_seed(2)), torch.zeros(2, 1, HEIGHT, WIDTH)
    for picture, shape, x in ((a, shapes[0], 0), (b, shapes[1], RIGHT)):
        picture[:, 30:62, 20 + x : 60 + x] = body
        picture[:, LEG[0], LEG[1].start + x : LEG[1].stop + x] = 0.02
        shape[:, 30:62, 20 + x : 60 + x] = 1
    thing = CutOut(Path(shift(RIGHT, 0), torch.tensor((40.0, 46.0), dtype=torch.float64), False), shapes)
    found = with_limbs(torch.stack((a, b)), shift(0, down), thing)
    assert found.shapes[0, 0][LEG].mean() > 0.9
    assert found.shapes[1, 0][LEG[0], LEG[1].start + RIGHT : LEG[1].stop + RIGHT].mean() > 0.9
    assert found.shapes[0, 0][66:84, 50:58].mean() < 0.1
    assert (found.path.matrix - shift(RIGHT, 0)).abs().max() < 0.05
