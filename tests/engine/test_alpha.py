"""Alpha and deep samples through the draft engine: what nobody sees shows nowhere, what is deep stays deep."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from sfwire.messages import EngineInfo

from sfserver import samples
from sfserver.config import load_config
from sfserver.engine import draft, looks
from sfserver.engine.base import Chunk, Engine, Job, Keyframe, checked
from sfserver.samples import Form, Picture, conformed, form_of

WIDTH, HEIGHT, RADIUS = 160, 96, 22
INK, UNSEEN = (200, 60, 40), (0, 255, 0)
ENDS, MIDDLE = (48, 67), 57.5
FORMS = [Form(channels, depth) for channels in (3, 4) for depth in (8, 16, 32)]


@pytest.fixture(scope="module")
def engine() -> Engine:
    return draft.load(load_config({"device": "cpu"}))


def disc(x: float, scale: int = 1) -> Picture:
    """RGBA8: a disc with a soft edge on nothing; of what is transparent the colour is another."""
    across = np.hypot(*np.meshgrid(np.arange(WIDTH) - x, np.arange(HEIGHT) - HEIGHT / 2))
    alpha = np.clip((RADIUS - across) / 3 + 0.5, 0, 1)
    picture = np.empty((HEIGHT, WIDTH, 4), np.uint8)
    picture[..., :3] = np.where(alpha[..., None] > 0, INK, UNSEEN)
    picture[..., 3] = np.rint(255 * alpha)
    return picture


def texture(shift: int) -> Picture:
    """RGB8 that says where it is."""
    noise = np.random.default_rng(4).random((HEIGHT // 8, WIDTH // 8, 3)).repeat(8, 0).repeat(8, 1)
    return np.ascontiguousarray(np.roll(np.rint(60 + 150 * noise).astype(np.uint8), shift, 1))


def middle(engine: Engine, a: Picture, b: Picture, **params: Any) -> Picture:
    """The picture between two."""
    keyframes = Keyframe(0, a), Keyframe(2, b)
    job = checked(Job(a.shape[1], a.shape[0], 3, keyframes, params=params), engine.info)
    (image,) = (f.image for event in engine.open(job) if isinstance(event, Chunk) for f in event.frames)
    return image


def over(picture: Picture, grey: float) -> np.ndarray:
    alpha = picture[..., 3:] / 255
    return picture[..., :3] * alpha + 255 * grey * (1 - alpha)


def fringe(picture: Picture) -> float:
    """How much of the colour that nobody sees is to be seen over black and over white: there is no green in the ink
    but INK's, and no more of it over white than the white that shines through."""
    alpha = picture[..., 3:] / 255
    wanted = [np.asarray(INK) * alpha + 255 * grey * (1 - alpha) for grey in (0, 1)]
    return max(float(np.abs(over(picture, grey) - want).max()) for grey, want in zip((0, 1), wanted, strict=True))


def test_a_shape_on_nothing_moves_with_clean_edges_over_black_and_white(engine: Engine) -> None:
    made = middle(engine, *(disc(x) for x in ENDS))
    assert form_of(made) == Form(4, 8)
    assert fringe(made) <= 2
    off = np.abs(made[..., 3].astype(int) - disc(MIDDLE)[..., 3]).mean()
    assert off < 2, "the shape is where it should be"
    assert np.abs(disc(ENDS[0])[..., 3].astype(int) - disc(MIDDLE)[..., 3]).mean() > 10, "the control"


def test_the_control_colours_that_are_not_multiplied_show_a_fringe(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "premultiplied", lambda straight: straight)
    monkeypatch.setattr(looks, "_divided", lambda along, form: along)
    assert fringe(middle(engine, *(disc(x) for x in ENDS))) > 8


def test_where_a_cut_dissolves_nothing_unseen_shows_either(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = disc(ENDS[0]), disc(120)
    assert fringe(samples.mixed(a, b, 0.3)) <= 2
    monkeypatch.setattr(samples, "premultiplied", lambda straight: straight)
    monkeypatch.setattr(samples, "straight", lambda straight: straight)
    assert fringe(samples.mixed(a, b, 0.3)) > 20


def test_opaque_keyframes_give_the_same_bytes_with_and_without_alpha(engine: Engine) -> None:
    a, b = texture(0), texture(6)
    plain, with_alpha = middle(engine, a, b), middle(engine, *(conformed(k, Form(4, 8)) for k in (a, b)))
    assert form_of(plain) == Form(3, 8)
    assert with_alpha[..., :3].tobytes() == plain.tobytes()
    assert (with_alpha[..., 3] == 255).all()


def test_what_moves_along_moves_as_the_colours_do(engine: Engine) -> None:
    """Nearly opaque: everything goes through the channels that move along, and comes out as it would without."""
    a, b = (conformed(texture(shift), Form(4, 8)) for shift in (0, 6))
    for picture in (a, b):
        picture[..., 3] = 254
    made = middle(engine, a, b)
    assert set(np.unique(made[..., 3])) == {254}
    off = np.abs(made[..., :3].astype(int) - middle(engine, texture(0), texture(6)))
    assert off.mean() < 0.5


def test_a_camera_and_a_cut_out_carry_alpha_along(engine: Engine) -> None:
    """The two roads beside RIFE: the keyframes' own pixels along a camera, and cut-outs drawn over them."""
    big = np.random.default_rng(5).random((24, 40, 3)).repeat(8, 0).repeat(8, 1)
    scene = np.rint(40 + 180 * big).astype(np.uint8)
    a, b = (conformed(np.ascontiguousarray(scene[20:164, x : x + 256]), Form(4, 8)) for x in (8, 24))
    for picture in (a, b):
        picture[:, :, 3] = 200
    made = middle(engine, a, b)
    assert set(np.unique(made[..., 3])) == {200}
    true = scene[20:164, 16 : 16 + 256]
    assert np.abs(made[:, 24:-24, :3].astype(int) - true[:, 24:-24]).mean() < 3


def test_16_bits_stay_16_bits(engine: Engine) -> None:
    fine = np.linspace(0, 1, WIDTH, dtype=np.float32)[None, :, None] * np.linspace(0.9, 1, HEIGHT)[:, None, None]
    a, b = (samples.from_unit((fine * k * np.ones(3)).astype(np.float32), Form(3, 16)) for k in (1, 0.96))
    made = middle(engine, a, b)
    assert form_of(made) == Form(3, 16)
    assert len(np.unique(made)) > 2000
    eight = middle(engine, *(conformed(k, Form()) for k in (a, b)))
    assert len(np.unique(eight)) <= 256
    assert np.abs(conformed(made, Form()).astype(int) - eight).max() <= 2


def test_light_brighter_than_white_stays_so(engine: Engine) -> None:
    a, b = (samples.unit(texture(shift)) for shift in (0, 6))
    made = middle(engine, a * 4, b * 4)
    assert form_of(made) == Form(3, 32)
    assert made.max() > 2.5
    assert np.abs(made / 4 - samples.unit(texture(3)))[:, 16:-16].mean() < 0.05


def test_floats_that_are_no_numbers_count_as_nothing(engine: Engine) -> None:
    a, b = (samples.unit(texture(shift)) for shift in (0, 6))
    a[10, 10], b[20, 20] = np.nan, -np.inf
    made = middle(engine, a, b)
    assert np.isfinite(made).all()


def test_an_engine_that_keeps_neither_is_given_what_it_takes(engine: Engine) -> None:
    info = EngineInfo("plain", "", "", "1", "", uses_prompt=True, uses_negative_prompt=True, available=True)
    deep = conformed(disc(48), Form(4, 16))
    (keyframe,) = checked(Job(WIDTH, HEIGHT, 3, (Keyframe(0, deep),)), info).keyframes
    assert form_of(keyframe.image) == Form(3, 8)
    assert keyframe.image[0, 0].tolist() == [128, 128, 128]
    (kept,) = checked(Job(WIDTH, HEIGHT, 3, (Keyframe(0, deep),)), engine.info).keyframes
    assert kept.image is deep


@given(st.sampled_from(FORMS), st.sampled_from(FORMS), st.integers(0, 2**31))
def test_a_deeper_form_and_back_is_the_same_picture(here: Form, there: Form, seed: int) -> None:
    random = np.random.default_rng(seed).random((5, 4, here.channels), np.float32)
    picture = samples.from_unit(random, here)
    made = conformed(picture, there)
    assert form_of(made) == there
    if there.channels >= here.channels and there.depth >= here.depth:
        assert conformed(made, here).tobytes() == picture.tobytes()


def test_what_the_network_is_shown_of_a_plain_pair_is_what_it_always_was() -> None:
    pair = np.stack((texture(0), texture(6)))
    shown = looks.shown(pair, torch.device("cpu"))
    assert shown.shape == (2, 3, HEIGHT, WIDTH)
    assert torch.equal(shown, torch.from_numpy(pair).permute(0, 3, 1, 2).float().div(255))
