"""Frames given before and after a gap: the motion goes on at their speed, and without them all is as it was."""

import math
from pathlib import Path as FilePath

import numpy as np
import pytest
import torch
from attrs import evolve
from safetensors.torch import load_file

from sfserver.bench import runs
from sfserver.config import ServerConfig
from sfserver.engine import draft, flow
from sfserver.engine.base import Chunk, Job, Keyframe, checked
from sfserver.engine.ends import MOST_AFTER, MOST_BEFORE, slope
from sfserver.engine.fit import fitted, followed
from sfserver.engine.flow import FlowEngine
from sfserver.engine.path import Path, field, sampled
from sfserver.engine.picture import MOST_PACE, Pace
from sfserver.model.motion import moved

CONFIG = ServerConfig(device="cpu")
A, B = load_file(FilePath(__file__).parent.parent / "model" / "data" / "rife_golden.safetensors")["pictures"].numpy()
"""A disc that crosses a pattern by 21 pixels."""


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def engine() -> FlowEngine:
    loaded = draft.load(CONFIG)
    assert isinstance(loaded, FlowEngine)
    return loaded


def made(engine: FlowEngine, keyframes: dict[int, np.ndarray], frames: int, start: int = 0, **params) -> dict:
    held = tuple(Keyframe(at, image) for at, image in keyframes.items())
    job = checked(Job(128, 64, frames, held, params=params, resume_from=start), engine.info)
    return {f.index: f.image.tobytes() for e in engine.open(job) if isinstance(e, Chunk) for f in e.frames}


@pytest.mark.parametrize("number", [0, 1], ids=["a pan", "a thrown disc"])
def test_the_speed_does_not_jump_where_the_frames_around_are_given(engine, number):
    clip = runs.filmed()[number]
    with_runs, without = (runs.joined(engine, clip, given) for given in (True, False))
    assert with_runs.jump_px < 0.4
    assert without.jump_px > 2, "the clip must be one that needs it"
    assert with_runs.ssim > without.ssim + 0.01


def test_what_only_rife_moves_keeps_its_speed_too(engine):
    """The disc stood still before the gap: so it starts slowly."""
    rest = made(engine, {0: A, 1: A, 2: A, 6: B}, 7)
    plain = made(engine, {0: A, 4: B}, 5)

    def away(picture: bytes) -> float:
        return float(np.abs(np.frombuffer(picture, np.uint8).reshape(A.shape).astype(float) - A).mean())

    assert away(rest[3]) < 0.7 * away(plain[1])


def test_frames_that_do_not_join_on_are_no_run(engine):
    """A third keyframe with a hole before it changes nothing; nor do runs where the artist chose a spacing."""
    plain = made(engine, {0: A, 4: B}, 5)
    with_hole = made(engine, {0: B, 2: A, 6: B}, 7)
    assert {at: with_hole[at + 2] for at in plain} == plain
    eased = made(engine, {0: A, 4: B}, 5, easing="in")
    eased_with_run = made(engine, {0: B, 1: A, 5: B}, 6, easing="in")
    assert {at: eased_with_run[at + 1] for at in eased} == eased


def test_with_runs_any_position_can_be_made_directly(engine):
    given = {0: A[:, ::-1].copy(), 1: A, 5: B, 6: B[:, ::-1].copy()}
    whole = made(engine, given, 7)
    for start in (3, 4):
        assert made(engine, given, 7, start) == {at: image for at, image in whole.items() if at >= start}


def test_a_run_is_no_longer_than_is_looked_at():
    image = np.zeros((64, 128, 3), np.uint8)
    keyframes = tuple(Keyframe(at, image) for at in (*range(9), *range(12, 20)))
    job = Job(128, 64, 20, keyframes)
    found = flow._runs(job, keyframes[8], keyframes[9])
    assert found is not None
    assert [near.frames for near in found.before] == [MOST_BEFORE // 2, MOST_BEFORE]
    assert [near.frames for near in found.after] == [(MOST_AFTER + 1) // 2, MOST_AFTER]
    assert found.gap == 4


# The arithmetic


def similarity(size: float, degrees: float, x: float, y: float) -> torch.Tensor:
    a = math.radians(degrees)
    cos, sin = size * math.cos(a), size * math.sin(a)
    return torch.tensor(((cos, -sin, x), (sin, cos, y), (0, 0, 1)), dtype=torch.float64)


@pytest.mark.parametrize("is_camera", [True, False])
def test_a_bent_path_still_joins_both_keyframes_at_the_speeds_asked_for(is_camera):
    middle = torch.tensor((80.0, 45.0), dtype=torch.float64)
    even = Path(similarity(1.4, 20, 30, -9), middle, is_camera)
    bends = torch.tensor(((8.0, -3, 0.2, 0.1), (-5, 2, 0.1, -0.2)), dtype=torch.float64)
    bent = evolve(even, bends=bends)
    for t in (0.0, 1.0):
        assert torch.allclose(bent.state(t), even.state(t))
        assert torch.allclose(bent.slope(t), even.slope(t) + bends[round(t)], atol=1e-4)
    assert not torch.allclose(bent.state(0.5), even.state(0.5))
    assert torch.allclose(moved(bent.places(0)[1], middle), moved(even.matrix, middle))


def test_the_slope_of_a_parabola_is_exact():
    def fall(t: float) -> torch.Tensor:
        return torch.tensor((3 * t * t - 2 * t + 1, t))

    at = 0.2
    points = [(at - 0.1, fall(at - 0.1)), (at - 0.3, fall(at - 0.3))]
    assert slope(at, fall(at), points).tolist() == pytest.approx([6 * at - 2, 1], abs=1e-4)
    assert slope(at, fall(at), points[:1]).tolist() == pytest.approx([6 * at - 2 - 0.3, 1], abs=1e-4)


def test_time_never_turns_back():
    for leaving in (-5.0, 0.0, 1.0, 9.0):
        for reaching in (-5.0, 0.0, 1.0, 9.0):
            shares = [Pace.of(leaving, reaching).at(k / 50) for k in range(51)]
            assert shares == sorted(shares)
            assert (shares[0], shares[-1]) == (0, 1)
    unbound = [Pace(3 * MOST_PACE, 0).at(k / 50) for k in range(51)]
    assert max(unbound) > 1, "the bound must be what holds it"
    assert [Pace().at(k / 7) for k in range(8)] == [k / 7 for k in range(8)], "an even one is no change at all"


def blob() -> torch.Tensor:
    """[3, 96, 160]: one picture with colour everywhere."""
    noise = torch.rand(1, 3, 12, 20, generator=torch.Generator().manual_seed(3))
    return torch.nn.functional.interpolate(noise, size=(96, 160), mode="bicubic")[0].clamp(0, 1)


def pictures_of(matrix: torch.Tensor) -> torch.Tensor:
    a = blob()
    places = field(torch.linalg.inv(matrix), (96, 160), (96, 160), a.device)
    return torch.stack((a, sampled(a[None], places, (96, 160))[0]))


SHAPE = torch.zeros(1, 96, 160)
SHAPE[:, 30:62, 50:90] = 1
CORNERS = torch.tensor(((50.0, 30), (90, 30), (50, 62), (90, 62)), dtype=torch.float64)


def off_px(found: torch.Tensor, true: torch.Tensor) -> float:
    return (moved(found, CORNERS) - moved(true, CORNERS)).norm(dim=1).max().item()


def test_a_motion_is_fitted_to_a_part_of_a_pixel():
    true = similarity(1.02, 1.5, 4.3, -2.6)
    near = similarity(1.0, 0, 4.6, 0.2)
    assert off_px(near, true) > 1
    assert off_px(fitted(pictures_of(true), near, SHAPE), true) < 0.1


def test_a_thing_is_followed_from_nothing_and_lost_where_it_is_not():
    true = similarity(1.01, 1, 23.4, -8.7)
    found = followed(pictures_of(true), SHAPE)
    assert found is not None
    assert off_px(found, true) < 0.2
    assert followed(torch.stack((blob(), torch.full_like(blob(), 0.1))), SHAPE) is None
