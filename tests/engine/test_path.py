"""The way between two keyframes is one that an editor would key."""

import math

import pytest
import torch

from sfserver.engine.path import Path, field, inside, sampled, slopes, standing
from sfserver.model.motion import moved

SIZE = HEIGHT, WIDTH = 90, 160
MIDDLE = torch.tensor((WIDTH / 2, HEIGHT / 2), dtype=torch.float64)


def similarity(size: float, degrees: float, x: float, y: float) -> torch.Tensor:
    a = math.radians(degrees)
    cos, sin = size * math.cos(a), size * math.sin(a)
    return torch.tensor(((cos, -sin, x), (sin, cos, y), (0, 0, 1)), dtype=torch.float64)


TILTED = torch.tensor(((1.2, 0.1, -20), (0.05, 1.1, 6), (8e-4, 3e-4, 1)), dtype=torch.float64)
MOTIONS = [similarity(1, 0, 30, -9), similarity(1.8, 0, -50, -40), similarity(0.7, 35, 40, 4), TILTED]


@pytest.mark.parametrize("matrix", MOTIONS)
@pytest.mark.parametrize("is_camera", [True, False])
def test_it_begins_in_one_keyframe_and_ends_in_the_other(matrix, is_camera):
    path = Path(matrix, MIDDLE, is_camera)
    places = torch.rand(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 90
    to_a, to_b = path.places(0)
    assert torch.allclose(moved(to_a, places), places, atol=1e-9)
    assert torch.allclose(moved(to_b, places), moved(matrix, places), atol=1e-9)
    to_a, to_b = path.places(1)
    assert torch.allclose(moved(to_b, places), places, atol=1e-9)
    assert torch.allclose(moved(matrix, moved(to_a, places)), places, atol=1e-9)


def test_size_grows_by_equal_factors_and_the_angle_evenly():
    path = Path(similarity(1.8, 40, 10, -30), MIDDLE, True)
    turns, sizes = [], []
    for t in (0, 0.25, 0.5, 0.75, 1):
        (xx, xy), (yx, yy) = slopes(torch.linalg.inv(path.places(t)[0]), MIDDLE).tolist()
        turns.append(math.degrees(math.atan2(yx - xy, xx + yy)))
        sizes.append(math.hypot(xx + yy, yx - xy) / 2)
    assert turns == pytest.approx([0, 10, 20, 30, 40])
    assert sizes == pytest.approx([1.8**t for t in (0, 0.25, 0.5, 0.75, 1)])


def test_what_a_camera_sees_in_its_middle_lies_on_a_straight_line():
    path = Path(similarity(1.8, 40, 10, -30), MIDDLE, True)
    seen = torch.stack([moved(path.places(t)[0], MIDDLE) for t in torch.linspace(0, 1, 9).tolist()])
    along = seen[-1] - seen[0]
    off = (seen - seen[0]) @ torch.stack((-along[1], along[0])) / along.norm()
    assert off.abs().max() < 1e-9
    assert seen[:, 0].diff().sign().unique().numel() == 1


def test_a_camera_passes_over_the_picture_evenly_while_it_pushes():
    """Nearer, it sees less and moves less: on the screen the speed is that of its start all along."""
    path = Path(similarity(2, 0, -300, -90), MIDDLE, True)
    speeds = []
    for t in (0.1, 0.5, 0.9):
        here = moved(path.places(t)[0], MIDDLE)
        soon = moved(torch.linalg.inv(path.places(t + 1e-4)[0]), here)
        speeds.append((soon - MIDDLE).norm().item())
    assert speeds == pytest.approx([speeds[0]] * 3, rel=1e-2)


def test_the_middle_of_a_thing_moves_on_a_straight_line_at_even_speed():
    anchor = torch.tensor((40.0, 20.0), dtype=torch.float64)
    path = Path(similarity(1.5, 70, 60, 5), anchor, False)
    end = moved(path.matrix, anchor)
    for t in (0.2, 0.5, 0.9):
        assert torch.allclose(moved(path.places(t)[0], torch.lerp(anchor, end, t)), anchor, atol=1e-9)


def test_a_camera_that_stands_is_no_motion():
    for matrix in standing().places(0.3):
        assert torch.allclose(matrix, torch.eye(3, dtype=torch.float64))


def test_a_picture_of_any_size_is_read_where_its_plan_says():
    """A ramp is its own coordinate."""
    for k in (1, 2, 0.5):
        size = round(HEIGHT * k), round(WIDTH * k)
        ramp = ((torch.arange(size[1]) + 0.5) / k).expand(1, 1, *size)
        places = field(similarity(1, 0, 10, 0), size, SIZE, ramp.device)
        read = sampled(ramp, places, SIZE)[0, 0]
        inner = inside(places, SIZE)[0]
        assert inner.any()
        assert not inner.all()
        expected = ramp[0, 0] + 10
        assert (read - expected)[inner & (expected < WIDTH - 1 / k)].abs().max() < 1e-3
