"""The VAE's laws: streamed equals whole, counts and bounds, and agreement with diffusers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfserver.model.vae import RmsNorm, StreamState, VaeConfig, WanVae
from sfserver.weights.dialects import vae_name

TINY = VaeConfig(dim=4)
CLOSE = {"atol": 2e-5, "rtol": 0.0}


@pytest.fixture(scope="module")
def vae() -> WanVae:
    torch.manual_seed(1)
    vae = WanVae(TINY).eval().requires_grad_(False)
    for name, parameter in vae.named_parameters():
        if name.endswith("gamma"):
            parameter.uniform_(0.5, 1.5)
    return vae


def random_latents(count: int, batch: int = 1, height: int = 2, width: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, count, 16, height, width, generator=torch.Generator().manual_seed(seed))


def random_pixels(count: int, batch: int = 1, height: int = 16, width: int = 24, seed: int = 0) -> torch.Tensor:
    return torch.rand(batch, count, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def whole_decode(vae: WanVae, latents: torch.Tensor) -> torch.Tensor:
    """All latents in one pass of the decoder: the formulation without any stream."""
    z = vae.conv2(vae._denormalised(latents))
    return vae.decoder(z, StreamState()).clamp(-1, 1).transpose(1, 2)


def whole_encode(vae: WanVae, pixels: torch.Tensor) -> torch.Tensor:
    moments = vae.conv1(vae.encoder(pixels.transpose(1, 2), StreamState()))
    return vae._normalised(moments.chunk(2, dim=1)[0])


@settings(max_examples=12, deadline=None)
@given(
    pieces=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    batch=st.integers(1, 2),
    height=st.integers(1, 3),
    width=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_streamed_decode_equals_whole_decode(
    vae: WanVae, pieces: list[int], batch: int, height: int, width: int, seed: int
) -> None:
    latents = random_latents(sum(pieces), batch, height, width, seed)
    state = vae.new_decoder_state()
    streamed = torch.cat([vae.decode(piece, state) for piece in latents.split(pieces, dim=1)], dim=1)
    assert streamed.shape == (batch, 1 + 4 * (sum(pieces) - 1), 3, 8 * height, 8 * width)
    torch.testing.assert_close(streamed, whole_decode(vae, latents), **CLOSE)


def test_decode_without_the_stream_state_differs_from_whole_decode(vae: WanVae) -> None:
    latents = random_latents(3)
    forgetful = torch.cat([vae.decode(one, StreamState()) for one in latents.split(1, dim=1)], dim=1)
    expected = whole_decode(vae, latents)
    torch.testing.assert_close(forgetful[:, 0], expected[:, 0], **CLOSE)
    assert (forgetful[:, 1] - expected[:, 1]).abs().max() > 1e-3


@settings(max_examples=12, deadline=None)
@given(
    groups=st.lists(st.integers(0, 2), min_size=1, max_size=3),
    batch=st.integers(1, 2),
    height=st.integers(1, 3),
    width=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_streamed_encode_equals_whole_encode(
    vae: WanVae, groups: list[int], batch: int, height: int, width: int, seed: int
) -> None:
    counts = [1 + 4 * groups[0], *[4 * n for n in groups[1:] if n]]
    pixels = random_pixels(sum(counts), batch, 8 * height, 8 * width, seed)
    state = vae.new_encoder_state()
    streamed = torch.cat([vae.encode(piece, state) for piece in pixels.split(counts, dim=1)], dim=1)
    assert streamed.shape == (batch, 1 + sum(groups), 16, height, width)
    torch.testing.assert_close(streamed, whole_encode(vae, pixels), **CLOSE)


def test_encode_without_the_stream_state_differs_from_whole_encode(vae: WanVae) -> None:
    pixels = random_pixels(9)
    forgetful = vae.encode(pixels[:, 4:])  # five frames of their own
    assert (forgetful[:, 1] - whole_encode(vae, pixels)[:, 2]).abs().max() > 1e-4


def test_stream_remembers_as_much_after_many_latents_as_after_two(vae: WanVae) -> None:
    state = vae.new_decoder_state()
    vae.decode(random_latents(2), state)
    after_two = state.nbytes
    vae.decode(random_latents(5), state)
    assert state.nbytes == after_two > 0
    for past in state.past.values():
        assert past.untyped_storage().nbytes() == past.nbytes, "a view would hold the whole tensor in memory"


def test_copied_state_is_untouched_by_what_the_stream_does_next(vae: WanVae) -> None:
    latents = random_latents(4)
    state = vae.new_decoder_state()
    vae.decode(latents[:, :2], state)
    snapshot = state.copy()
    first = vae.decode(latents[:, 2:], state)
    torch.testing.assert_close(vae.decode(latents[:, 2:], snapshot), first, atol=0, rtol=0)


def test_decoded_pixels_lie_within_black_and_white(vae: WanVae) -> None:
    loud = 40 * random_latents(2)
    assert vae.decode_unclamped(loud, StreamState()).abs().max() > 1
    assert vae.decode(loud, StreamState()).abs().max() == 1


def test_pixel_of_zeros_stays_zero_through_the_norm() -> None:
    norm = RmsNorm(8)
    x = torch.randn(1, 8, 1, 2, 2)
    x[..., 0, 0] = 0
    for dtype in (torch.float32, torch.bfloat16):
        normed = norm.to(dtype)(x.to(dtype))
        assert not normed[..., 0, 0].any()
        torch.testing.assert_close(normed[..., 1, 1].square().mean(), torch.ones((), dtype=dtype), atol=0.02, rtol=0)


def test_bfloat16_decodes_nearly_what_float32_does(vae: WanVae) -> None:
    half = WanVae(TINY).requires_grad_(False)
    half.load_state_dict(vae.state_dict())
    half = half.to(torch.bfloat16)
    decoded = half.decode(random_latents(2), StreamState())
    assert decoded.dtype == torch.bfloat16
    assert (decoded.float() - vae.decode(random_latents(2), StreamState())).abs().mean() < 0.02


def test_activations_stay_in_the_layout_that_the_norm_needs(vae: WanVae) -> None:
    state = vae.new_decoder_state()
    vae.decode(random_latents(2, height=4, width=4), state)
    assert all(past.is_contiguous(memory_format=torch.channels_last_3d) for past in state.past.values())


@pytest.mark.parametrize(("frames", "sentence"), [(4, "1 \\+ 4k"), (0, "1 \\+ 4k")])
def test_stream_that_begins_with_a_wrong_count_is_refused(vae: WanVae, frames: int, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{frames} frames.*{sentence}"):
        vae.encode(random_pixels(frames))


def test_stream_that_goes_on_with_a_wrong_count_is_refused(vae: WanVae) -> None:
    state = vae.new_encoder_state()
    vae.encode(random_pixels(5), state)
    with pytest.raises(ValueError, match=r"^5 frames in mid-stream: give a multiple of 4"):
        vae.encode(random_pixels(5), state)


def test_size_that_is_no_multiple_of_the_stride_is_refused(vae: WanVae) -> None:
    with pytest.raises(ValueError, match=r"^20x16 pixels: both sides must be multiples of 8"):
        vae.encode(random_pixels(1, width=20))


def test_agrees_with_diffusers_through_our_key_map() -> None:
    diffusers = pytest.importorskip("diffusers", reason="the test extra is not installed")
    torch.manual_seed(2)
    theirs = diffusers.AutoencoderKLWan(base_dim=8, z_dim=16).eval().requires_grad_(False)
    for parameter in theirs.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.02)
    ours = WanVae(VaeConfig(dim=8)).requires_grad_(False)
    ours.load_state_dict({vae_name(name): value for name, value in theirs.state_dict().items()})

    pixels, latents = random_pixels(9), random_latents(3)
    mean, std = (torch.tensor(values).view(-1, 1, 1, 1) for values in (TINY.latent_mean, TINY.latent_std))
    mode = theirs.encode(pixels.transpose(1, 2)).latent_dist.mode()
    torch.testing.assert_close(ours.encode(pixels).transpose(1, 2), (mode - mean) / std, **CLOSE)
    decoded = theirs.decode(latents.transpose(1, 2) * std + mean).sample
    torch.testing.assert_close(ours.decode(latents, StreamState()).transpose(1, 2), decoded, **CLOSE)
