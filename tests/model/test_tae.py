"""The tiny autoencoder's laws: streamed equals whole, and the counts of the VAE that it stands in for."""

from __future__ import annotations

import pytest
import torch
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from sfserver.model.tae import Tae, TaeConfig, run_layers
from sfserver.model.vae import LATENT_MEAN, LATENT_STD, StreamState

TINY = TaeConfig(decoder_widths=(8, 8, 6, 6), encoder_width=6)
CLOSE = {"atol": 1e-5, "rtol": 0.0}


@pytest.fixture(scope="module")
def tae() -> Tae:
    torch.manual_seed(1)
    tae = Tae(TINY).eval().requires_grad_(False)
    for parameter in tae.parameters():
        parameter.mul_(1.5)  # torch's own initial weights would hardly let the past through
    tae.decoder[-1].bias.fill_(0.5)
    return tae


def random_latents(count: int, batch: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, count, 16, 3, 4, generator=torch.Generator().manual_seed(seed))


def random_pixels(count: int, batch: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.rand(batch, count, 3, 24, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@settings(max_examples=15, deadline=None)
@given(pieces=st.lists(st.integers(1, 3), min_size=1, max_size=4), batch=st.integers(1, 2), seed=st.integers(0, 1000))
def test_streamed_decode_equals_whole_decode(tae: Tae, pieces: list[int], batch: int, seed: int) -> None:
    latents = random_latents(sum(pieces), batch, seed)
    state = tae.new_decoder_state()
    streamed = torch.cat([tae.decode(piece, state) for piece in latents.split(pieces, dim=1)], dim=1)
    whole = run_layers(tae.decoder, latents, StreamState())[:, 3:].clamp(0, 1) * 2 - 1
    assert streamed.shape == (batch, 1 + 4 * (sum(pieces) - 1), 3, 24, 32)
    torch.testing.assert_close(streamed, whole, **CLOSE)


def test_decode_without_the_stream_state_differs(tae: Tae) -> None:
    latents = random_latents(2)
    whole = tae.decode(latents, StreamState())
    forgetful = tae.decode(latents[:, 1:], StreamState())
    assert (forgetful[:, -1] - whole[:, -1]).abs().max() > 1e-3


@settings(max_examples=15, deadline=None)
@given(
    groups=st.lists(st.integers(1, 2), min_size=1, max_size=3),
    tail=st.integers(0, 3),
    batch=st.integers(1, 2),
    seed=st.integers(0, 1000),
)
def test_streamed_encode_equals_whole_encode(tae: Tae, groups: list[int], tail: int, batch: int, seed: int) -> None:
    counts = [*[4 * n for n in groups], *([tail] if tail else [])]
    pixels = random_pixels(sum(counts), batch, seed)
    state = tae.new_encoder_state()
    streamed = torch.cat([tae.encode(piece, state) for piece in pixels.split(counts, dim=1)], dim=1)
    filled = torch.cat([pixels, pixels[:, -1:].expand(-1, -sum(counts) % 4, -1, -1, -1)], dim=1)
    assert streamed.shape == (batch, (sum(counts) + 3) // 4, 16, 3, 4)
    torch.testing.assert_close(streamed, run_layers(tae.encoder, filled.add(1).div(2), StreamState()), **CLOSE)


def test_encode_without_the_stream_state_differs(tae: Tae) -> None:
    pixels = random_pixels(8)
    assert (tae.encode(pixels[:, 4:])[:, 0] - tae.encode(pixels)[:, 1]).abs().max() > 1e-3


def test_encode_does_not_touch_the_callers_pixels(tae: Tae) -> None:
    pixels = random_pixels(4)
    before = pixels.clone()
    tae.encode(pixels)
    assert torch.equal(pixels, before)


def test_stream_remembers_as_much_after_many_latents_as_after_one(tae: Tae) -> None:
    state = tae.new_decoder_state()
    tae.decode(random_latents(1), state)
    after_one = state.nbytes
    tae.decode(random_latents(5), state)
    assert state.nbytes == after_one > 0
    assert all(past.untyped_storage().nbytes() == past.nbytes for past in state.past.values())


def test_sibling_made_for_the_vaes_own_scale_gets_latents_in_it(tae: Tae) -> None:
    sibling = Tae(evolve(TINY, vae_scale=True)).requires_grad_(False)
    sibling.load_state_dict(tae.state_dict())
    latents, pixels = random_latents(2), random_pixels(5)
    shift, scale = (torch.tensor(values).view(-1, 1, 1) for values in (LATENT_MEAN, LATENT_STD))
    expected = tae.decode(latents * scale + shift, StreamState())
    torch.testing.assert_close(sibling.decode(latents, StreamState()), expected, **CLOSE)
    torch.testing.assert_close(sibling.encode(pixels), (tae.encode(pixels) - shift) / scale, **CLOSE)


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [((1, 0, 3, 8, 8), "^0 frames"), ((1, 1, 3, 8, 12), "^12x8 pixels: both sides must be multiples of 8")],
)
def test_pixels_that_cannot_be_encoded_are_refused(tae: Tae, shape: tuple[int, ...], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        tae.encode(torch.zeros(shape))
