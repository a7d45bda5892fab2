"""Pictures brought to the clip's size, and the clip's size found for a picture."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sfwire import limits

from sfserver.media import FIT_RULES, clip_size, fit, fit_all


def marked(width: int, height: int) -> np.ndarray:
    """White with a red left edge, a green right edge, a blue top: what a rule cuts or keeps shows at the edges."""
    image = np.full((height, width, 3), 255, np.uint8)
    image[: height // 5] = (0, 0, 255)
    image[:, : width // 10] = (255, 0, 0)
    image[:, -(width // 10) :] = (0, 255, 0)
    return image


@pytest.mark.parametrize("rule", FIT_RULES)
def test_picture_of_the_right_size_is_the_very_same(rule) -> None:
    image = marked(64, 48)
    assert fit(image, 64, 48, rule) is image


@pytest.mark.parametrize("rule", FIT_RULES)
@pytest.mark.parametrize("size", [(64, 64), (33, 57), (200, 40)])
def test_every_rule_gives_the_asked_size(rule, size: tuple[int, int]) -> None:
    assert fit(marked(160, 90), *size, rule).shape == (size[1], size[0], 3)


def test_crop_cuts_both_sides_alike_and_keeps_the_middle() -> None:
    image = fit(marked(200, 100), 100, 100, "crop")
    assert (image[50] == 255).all(), "the red and the green edge are both outside the middle square"
    assert image[5, 50].tolist() == [0, 0, 255]


def test_pad_keeps_everything_between_black_bars() -> None:
    image = fit(marked(200, 100), 100, 100, "pad")
    assert not image[:24].any()
    assert not image[-24:].any()
    assert image[60, 3].tolist() == [255, 0, 0]
    assert image[60, -3].tolist() == [0, 255, 0]


def test_stretch_keeps_everything_without_bars() -> None:
    image = fit(marked(200, 100), 100, 100, "stretch")
    assert image[50, 3].tolist() == [255, 0, 0]
    assert image[3, 50].tolist() == [0, 0, 255]


def test_different_aspects_are_said_once_with_the_other_rules() -> None:
    images, notes = fit_all([marked(160, 90), marked(90, 160), marked(100, 100)], 160, 90, "crop")
    assert [image.shape for image in images] == [(90, 160, 3)] * 3
    assert len(notes) == 1
    assert all(word in notes[0] for word in ("160x90", "90x160", "'crop'", "pad, stretch"))


def test_same_aspect_at_another_size_is_not_worth_a_word() -> None:
    assert fit_all([marked(160, 90), marked(1280, 720), marked(1281, 720)], 160, 90, "crop")[1] == []


def test_size_of_a_fitting_picture_is_kept() -> None:
    assert clip_size(np.zeros((480, 832, 3), np.uint8), 16, 16, limits.MAX_PIXELS) == (832, 480)


def test_size_is_rounded_to_the_multiple_of_the_engine() -> None:
    assert clip_size(np.zeros((481, 835, 3), np.uint8), 16, 16, limits.MAX_PIXELS) == (832, 480)


@given(
    width=st.integers(16, 5000),
    height=st.integers(16, 5000),
    multiple=st.sampled_from([1, 2, 8, 16, 32]),
    min_side_px=st.sampled_from([16, 64, 256]),
    max_pixels=st.sampled_from([480 * 832, 1280 * 720, limits.MAX_PIXELS]),
)
def test_size_is_always_one_that_the_engine_takes(
    width: int, height: int, multiple: int, min_side_px: int, max_pixels: int
) -> None:
    """Up to an aspect of 5:1 at which the smallest side still leaves room within the pixels."""
    if max(width, height) > 5 * min(width, height):
        width, height = min(width, height), min(width, height)
    shape = np.broadcast_to(np.uint8(0), (height, width, 3))
    w, h = clip_size(shape, multiple, min_side_px, max_pixels)
    assert w % multiple == h % multiple == 0
    assert min(w, h) >= min_side_px
    assert w * h <= max_pixels
    assert max(w, h) <= limits.MAX_SIDE_PX
