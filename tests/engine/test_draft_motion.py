"""Cameras and cut-outs: close to the true in-betweens, and never worse than RIFE alone."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sfserver.bench import draft as bench
from sfserver.bench import scenes
from sfserver.config import ServerConfig
from sfserver.engine import draft, picture
from sfserver.engine import plan as planning
from sfserver.engine.base import FOUND, Chunk, Job, Keyframe, Step, checked
from sfserver.engine.picture import between, staged
from sfserver.engine.plan import plan
from sfserver.model import rife

EXAMPLES = Path(__file__).parents[2] / "examples"
CPU = torch.device("cpu")
CONFIG = ServerConfig(device="cpu")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def net() -> rife.IFNet:
    return rife.load(draft.WEIGHTS, CPU)


@pytest.fixture(scope="module")
def subjects() -> dict[str, scenes.Scene]:
    every = (scenes.cameras(EXAMPLES), scenes.cut_outs(EXAMPLES), scenes.hard(EXAMPLES))
    return {scene.name: scene for group in every for scene in group}


def scored(net, scene: scenes.Scene) -> bench.Score:
    return bench.score(net, bench.Subject(scene.name, scene.at), ("RIFE", "fast"))


@pytest.mark.parametrize("name", ["toy, push 1.6", "rocks, pull and roll", "street, push and pan"])
def test_a_camera_over_a_still_is_a_camera(net, subjects, name):
    found = scored(net, subjects[name])
    assert found.ssim["fast"] > 0.97
    assert found.ssim["RIFE"] < 0.85, "the scene must be one that needs it"
    assert found.plan.layers.moves


@pytest.mark.parametrize("name", ["figure and disc, street", "card in a roll", "disc 120 px, fox"])
def test_cut_outs_are_found_and_carried(net, subjects, name):
    found = scored(net, subjects[name])
    assert found.ssim["fast"] > 0.97
    assert found.gain > 0.01
    assert found.plan.layers.cut_outs


def test_thin_legs_go_along(net, subjects, monkeypatch):
    scene = subjects["figure against a pan"]
    assert scored(net, scene).ssim["fast"] > 0.99
    monkeypatch.setattr(planning, "with_limbs", lambda pictures, ground, cut_out: cut_out)
    assert scored(net, scene).ssim["fast"] < 0.985


def test_where_the_keyframes_agree_all_over_rife_is_not_asked(net, subjects, monkeypatch):
    scene = subjects["street, pan 180"]
    keyframes = bench.as_tensors(scene.at(0), scene.at(1))
    pair = net.pair(keyframes)
    stage = staged(net, pair, plan(net, pair).layers)
    asked = []
    monkeypatch.setattr(rife.IFNet, "estimate", lambda *_args: asked.append(1))
    between(net, stage, 0.4)
    assert asked == []
    monkeypatch.setattr(picture, "ENOUGH", 1.0)
    with pytest.raises(AttributeError):
        between(net, stage, 0.4)
    assert asked == [1]


def test_without_its_outline_a_plain_disc_is_lost(net, subjects, monkeypatch):
    monkeypatch.setattr(planning, "flat_shapes", lambda pictures, known: [])
    assert not scored(net, subjects["disc 120 px, fox"]).plan.layers.cut_outs


@pytest.mark.parametrize(
    "name",
    [
        "a star turns by more than half a corner",
        "a square turns by more than half a corner",
        "a head moves a little under a pan",
        "a large thing and a pan",
        "a large thing on a plain ground",
        "what bends",
        "borders that no keyframe shows",
        "one tile like the next",
        "motion blur",
        "a fade during a pan",
        "two cut-outs cross",
    ],
)
def test_what_is_hard_is_no_worse_than_with_rife_alone(net, subjects, name):
    assert scored(net, subjects[name]).gain > -0.005


def test_without_camera_and_cut_out_it_is_plain_rife_to_the_byte(net, subjects):
    scene = subjects["what bends"]
    pair = net.pair(bench.as_tensors(scene.at(0), scene.at(1)))
    layers = plan(net, pair).layers
    assert not layers.moves
    assert not layers.is_exact
    assert layers.cut_outs == ()
    for t in (0.2, 0.5):
        assert torch.equal(between(net, staged(net, pair, layers), t).picture, net.between(pair, t))


def test_a_plan_is_the_same_whatever_the_size(net, subjects):
    scene = subjects["toy, push 1.6"]
    keyframes = bench.as_tensors(scene.at(0), scene.at(1))
    large = torch.nn.functional.interpolate(keyframes, scale_factor=1.5, mode="bicubic").clamp(0, 1)
    one, other = (plan(net, net.pair(x)).layers for x in (keyframes, large))
    assert one.planned == other.planned == (288, 512)
    assert (one.ground.matrix - other.ground.matrix).abs()[:2, 2].max() < 1
    stage = staged(net, net.pair(large), other)
    true = bench.as_tensors(scene.at(0.5))
    made = torch.nn.functional.interpolate(between(net, stage, 0.5).picture[None], size=(288, 512), mode="area")
    assert bench.ssim(made[0], true[0]) > 0.95


@pytest.mark.parametrize("size", [(16, 16), (16, 300), (300, 16), (33, 65)])
def test_any_size_can_be_planned(net, size):
    pair = net.pair(torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)))
    assert between(net, staged(net, pair, plan(net, pair).layers), 0.5).picture.shape == (3, *size)


def test_a_camera_starts_and_ends_at_its_keyframes(net, subjects):
    scene = subjects["rocks, pull and roll"]
    keyframes = bench.as_tensors(scene.at(0), scene.at(1))
    pair = net.pair(keyframes)
    stage = staged(net, pair, plan(net, pair).layers)
    for t, keyframe in ((0.0, keyframes[0]), (1.0, keyframes[1])):
        assert bench.ssim(between(net, stage, t).picture, keyframe) > 0.99


def test_behind_a_cut_out_that_left_no_ghost_of_it_stays(net, subjects):
    """Even where the other keyframe does not show what was behind it."""
    scene = subjects["disc 120 px, fox"]
    keyframes = bench.as_tensors(scene.at(0), scene.at(1))
    pair = net.pair(keyframes)
    ground = staged(net, pair, plan(net, pair).layers).ground.looks[0, :3]
    red = keyframes[0, 0, 190, 80] - keyframes[0, 2, 190, 80]
    assert ground[0, 190, 80] - ground[2, 190, 80] < red / 2
    far = (slice(None), slice(0, 288), slice(200, 512))
    assert torch.equal(ground[far], keyframes[0][far])


# Through the engine


def frames(scene: scenes.Scene, positions: dict[int, float], length: int, start: int = 0, **params) -> dict:
    keyframes = tuple(Keyframe(at, scene.at(t)) for at, t in positions.items())
    wanted = Job(scenes.WIDTH, scenes.HEIGHT, length, keyframes, params=params, resume_from=start)
    events = list(draft.load(CONFIG).open(checked(wanted, draft.describe(CONFIG))))
    stages = [event.stage for event in events if isinstance(event, Step)]
    made = {f.index: f.image for event in events if isinstance(event, Chunk) for f in event.frames}
    return {"stages": stages, "made": made}


def test_a_camera_can_be_resumed_and_goes_on_past_a_keyframe(subjects):
    scene = subjects["toy, push 1.6"]
    positions = {0: 0.0, 2: 0.4, 4: 1.0}
    whole = frames(scene, positions, 5)
    rest = frames(scene, positions, 5, start=3)
    assert list(whole["made"]) == [1, 3]
    assert list(rest["made"]) == [3]
    assert np.array_equal(whole["made"][3], rest["made"][3])


def test_what_was_found_is_said_in_a_line_that_the_wire_carries(subjects):
    said = [s for s in frames(subjects["toy, push 1.6"], {0: 0.0, 2: 1.0}, 3)["stages"] if s.startswith(FOUND)]
    assert len(said) == 1
    assert said[0].startswith("found: camera: push 1.6x")
    assert len(said[0]) <= 80


def test_a_cut_is_held_where_that_is_asked_for(subjects):
    a, b = subjects["toy, pan"].at(0), subjects["street, pan 180"].at(0)
    keyframes = (Keyframe(0, a), Keyframe(4, b))
    wanted = Job(scenes.WIDTH, scenes.HEIGHT, 5, keyframes, params={"cut": "hold"})
    events = draft.load(CONFIG).open(checked(wanted, draft.describe(CONFIG)))
    made = [f.image for event in events if isinstance(event, Chunk) for f in event.frames]
    assert [np.array_equal(made[0], a), np.array_equal(made[1], b), np.array_equal(made[2], b)] == [True] * 3


def test_fine_asks_both_ways(subjects):
    scene = subjects["what bends"]
    fast, fine = (frames(scene, {0: 0.0, 2: 1.0}, 3, quality=q)["made"][1] for q in ("fast", "fine"))
    assert not np.array_equal(fast, fine)
