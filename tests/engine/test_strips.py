"""Decoding in strips: nearly the pictures of the whole, with no seam, in less memory, and the same block by block."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import toy
from hypothesis import given
from hypothesis import strategies as st
from networks import random_weights
from PIL import Image
from torch import Tensor

from sfserver.bench import counted
from sfserver.engine import capacity, small_world, strips
from sfserver.engine.base import Step
from sfserver.engine.capacity import Decoder, Need
from sfserver.engine.geometry import STRIP_OVERLAP
from sfserver.engine.strips import InStrips
from sfserver.model.config import WAN_1_3B
from sfserver.model.tae import Tae, TaeConfig
from sfserver.weights import loading

WORTH = 1.5
"""Of 255 levels, that a pixel may stray by. Measured: 1.2 at most, .001 in the mean."""
WIDTH, HEIGHT = 832, 64
PICTURES = Path(__file__).parents[2] / "examples"


@given(st.integers(1, 400))
def test_strips_cover_a_side_and_overlap_by_enough(length: int) -> None:
    parts = strips.strips(length)
    assert sorted({place for part in parts for place in part}) == list(range(length))
    for one, other in pairwise(parts):
        assert one.stop - other.start >= STRIP_OVERLAP
        assert len(one) == len(other)
    assert len(parts) == 1 or max(map(len, parts)) < length


@pytest.fixture(scope="module")
def tae() -> Tae:
    """One that has learnt something."""
    return loading.load_tae(small_world.FOLDER, toy.CPU, torch.float32)


@pytest.fixture(scope="module")
def latents(tae: Tae) -> Tensor:
    """Of a push along a street, five frames: [1, 2, 16, 8, 104]."""
    ends = [Image.open(PICTURES / f"push_{name}.png").convert("RGB") for name in ("start", "end")]
    first, last = (torch.tensor(np.array(end.resize((WIDTH, HEIGHT)))).movedim(-1, 0) / 127.5 - 1 for end in ends)
    return tae.encode(torch.stack([torch.lerp(first, last, i / 4) for i in range(5)])[None])


def strayed(tae: Tae, latents: Tensor) -> Tensor:
    """Levels of 255 by which each pixel differs from the whole picture's."""
    whole = tae.decode(latents, tae.new_decoder_state())
    return (InStrips(tae).decode(latents) - whole).abs() * 127.5


def test_pictures_are_nearly_those_of_the_whole(tae: Tae, latents: Tensor) -> None:
    assert len(strips.strips(latents.shape[-1])) == 3
    off = strayed(tae, latents)
    assert off.max() <= WORTH
    assert off.mean() <= 0.01


def test_the_control_strips_that_are_laid_side_by_side_have_seams(
    tae: Tae, latents: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strips, "strips", lambda length: [range(36), range(34, 70), range(68, length)])
    monkeypatch.setattr(strips, "SPOILED", 0)
    assert strayed(tae, latents).max() > 4 * WORTH


def test_an_upright_picture_is_cut_across(tae: Tae, latents: Tensor) -> None:
    upright = latents.transpose(-1, -2)[:, :1]
    off = (InStrips(tae).decode(upright) - tae.decode(upright, tae.new_decoder_state())).abs() * 127.5
    assert 0 < off.max() <= 2 * WORTH


def test_with_overlaps_as_wide_as_the_network_sees_nothing_strays(monkeypatch: pytest.MonkeyPatch) -> None:
    """18 latent pixels: ten at an eighth of the size, and of what later layers see a half, a quarter and an eighth."""
    narrow = random_weights(Tae(TaeConfig(decoder_widths=(8, 6, 4, 4), encoder_width=4)), 1)
    latents = torch.randn(1, 2, 16, 2, 80, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(strips, "strips", lambda length: [range(59), range(21, length)])
    monkeypatch.setattr(strips, "SPOILED", 18)
    assert strayed(narrow, latents).max() < 1e-2
    monkeypatch.setattr(strips, "SPOILED", 0)
    assert strayed(narrow, latents).max() > 1e-2, "the control: what is near a cut edge counts"


def test_block_by_block_is_the_same_as_at_once(tae: Tae, latents: Tensor) -> None:
    stream = InStrips(tae)
    streamed = torch.cat([stream.decode(one) for one in latents.split(1, dim=1)], dim=1)
    torch.testing.assert_close(streamed, InStrips(tae).decode(latents), atol=1e-5, rtol=0)
    forgetful = InStrips(tae).decode(latents[:, 1:])[:, -1]
    assert (forgetful - streamed[:, -1]).abs().max() > 1e-3, "the control"


@pytest.mark.parametrize("decoder", ["wan", "tae"])
def test_its_memory_is_planned_within_a_tenth_of_what_is_counted(decoder: Decoder) -> None:
    stream = InStrips(counted.codec(decoder))
    with torch.device("meta"):
        block = torch.zeros(1, 3, 16, *(side // 8 for side in reversed(capacity.USUAL_SIZE)))
        stream.decode(block)
    with counted.counting() as peak:
        stream.decode(block)
    need = Need(WAN_1_3B, 3, 12, 0, element_bytes=2, decoder=decoder, tiled=True)
    kept, worked_in = need.decoder_bytes(*capacity.USUAL_SIZE)
    assert sum(state.nbytes for state in stream.states) == pytest.approx(kept, rel=0.02)
    assert kept + worked_in == pytest.approx(peak.most, rel=0.1)


def test_a_clip_is_decoded_so_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    plain = InStrips.decode
    monkeypatch.setattr(InStrips, "decode", lambda self, z: seen.append(z.shape[1]) or plain(self, z))
    whole, tiled = (
        toy.run(toy.job(9, (0, 8), params={"strategy": "anchor", "seam": False, "tiled": is_tiled}))
        for is_tiled in (False, True)
    )
    assert seen == [1, 2], "the given latent, then a block"
    assert np.array_equal(toy.pixels(whole), toy.pixels(tiled)), "so small a picture is one strip"
    assert sum(isinstance(event, Step) for event in whole) == sum(isinstance(event, Step) for event in tiled)
