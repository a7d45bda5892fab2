"""Motions of planes are found again from pictures of them, and none where there is none."""

import math

import pytest
import torch
import torch.nn.functional as F

from sfserver.bench import stills
from sfserver.model import motion
from sfserver.model.motion import Matches, match, motions, moved, spread

HEIGHT, WIDTH = 192, 320
CORNERS = torch.tensor(((0.0, 0), (WIDTH, 0), (0, HEIGHT), (WIDTH, HEIGHT)), dtype=torch.float64)


@pytest.fixture(scope="module")
def still() -> torch.Tensor:
    return stills.rocks(width=900, height=600)[None]


def seen(still: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """What a picture of the still's middle shows after `matrix`, [3, 3], has moved it."""
    y, x = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    places = moved(torch.linalg.inv(matrix), torch.stack((x, y), -1).double())
    corner = torch.tensor(((900 - WIDTH) / 2, (600 - HEIGHT) / 2))
    grid = 2 * (places + corner) / torch.tensor((900, 600)) - 1
    return F.grid_sample(still, grid[None].float(), align_corners=False)


def similarity(size: float, degrees: float, x: float, y: float) -> torch.Tensor:
    """About the picture's middle."""
    a = math.radians(degrees)
    linear = size * torch.tensor(((math.cos(a), -math.sin(a)), (math.sin(a), math.cos(a))), dtype=torch.float64)
    middle = torch.tensor((WIDTH / 2, HEIGHT / 2), dtype=torch.float64)
    matrix = torch.eye(3, dtype=torch.float64)
    matrix[:2, :2], matrix[:2, 2] = linear, middle - linear @ middle + torch.tensor((x, y), dtype=torch.float64)
    return matrix


STAND = torch.eye(3, dtype=torch.float64)
TILTED = torch.tensor(((1.05, 0.03, -20), (0.02, 1.0, 6), (3e-4, 1e-4, 1)), dtype=torch.float64)
SHEARED = torch.tensor(((1.1, 0.12, -30), (0.0, 0.95, 6), (0, 0, 1)), dtype=torch.float64)


@pytest.mark.parametrize(
    "matrix",
    [
        STAND,
        similarity(1, 0, 70, -24),
        similarity(1.7, 0, 10, 8),
        similarity(0.6, 0, 0, 0),
        similarity(1, 25, 12, 0),
        similarity(1.3, -14, 30, 10),
        SHEARED,
        TILTED,
    ],
    ids=["stands", "pan", "push", "pull", "roll", "all of it", "affinity", "tilted plane"],
)
def test_a_motion_is_found_to_a_pixel(still, matrix):
    found = motions(match(torch.cat((seen(still, STAND), seen(still, matrix)))))
    error = (moved(found[0].matrix, CORNERS) - moved(matrix, CORNERS)).norm(dim=1)
    assert error.max() < 1


def test_a_tilted_plane_needs_its_homography(still, monkeypatch):
    matches = match(torch.cat((seen(still, STAND), seen(still, TILTED))))

    def error() -> float:
        return (moved(motions(matches)[0].matrix, CORNERS) - moved(TILTED, CORNERS)).norm(dim=1).max().item()

    whole = error()
    monkeypatch.setattr(motion, "FOR_HOMOGRAPHY", 10**6)
    assert error() > 2 * whole


def test_two_motions_are_told_apart(still):
    a, pan = seen(still, STAND), similarity(1, 0, 40, 0)
    b = seen(still, pan)
    a[..., 60:140, 40:140] = stills.street(width=300, height=200)[:, 60:140, 40:140]
    b[..., 70:150, 150:250] = stills.street(width=300, height=200)[:, 60:140, 40:140]
    found = motions(match(torch.cat((a, b))))
    shifts = [(one.matrix[:2, 2] * one.matrix[2, 2]).round().tolist() for one in found]
    assert [40, 0] in shifts
    assert [110, 10] in shifts


def test_pictures_of_different_things_share_no_motion(still):
    other = stills.street(seed=9, width=WIDTH, height=HEIGHT)[None]
    found = motions(match(torch.cat((seen(still, STAND), other))))
    assert all(spread(one.a, 48) < 4 for one in found)


def test_plain_and_tiny_pictures_have_no_matches():
    assert len(match(torch.full((2, 3, HEIGHT, WIDTH), 0.5))) == 0
    for size in ((16, 16), (16, 400), (400, 16)):
        found = match(torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)))
        assert motions(found) == [] or len(found) >= motion.LEAST_CELLS


def test_same_pictures_same_motions(still):
    pictures = torch.cat((seen(still, STAND), seen(still, TILTED)))
    state = torch.random.get_rng_state()
    first, second = (motions(match(pictures)) for _ in range(2))
    assert [one.matrix.tolist() for one in first] == [one.matrix.tolist() for one in second]
    assert torch.equal(torch.random.get_rng_state(), state), "nobody else's random numbers are drawn"


def test_matches_that_agree_on_nothing_are_no_motion():
    g = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 60, 2, generator=g) * torch.tensor((WIDTH, HEIGHT))
    found = motions(Matches(a, b, torch.rand(60, generator=g) * 6 - 3, torch.ones(60)))
    assert all(len(one.a) < 10 for one in found)
