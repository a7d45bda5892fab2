"""The small world's codec, a TAEHV of few channels: how it is trained, and how clips and stills go through it.

Latent 0 is the first frame and latent i the frames 4i-3 to 4i, as everywhere. The network itself knows groups of four
frames alone, so a clip is led in by three copies of its first frame, and its last frame is held to the end of a latent.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from attrs import field, frozen
from torch import Generator, Tensor, nn

from ..model.tae import MemBlock, Tae, TaeConfig, run_layers
from ..model.vae import StreamState
from .world import CLIP_FRAMES, Clips, clips, covering, grounds, track

SMALL_TAE = TaeConfig(decoder_widths=(96, 64, 40, 20), encoder_width=40)
"""Keyframes alone are encoded in use, so the encoder may be the wider one."""
WINDOW_FRAMES = 9
"""Frames of a clip that one training step sees: three latents."""
_LEAD_IN = 3


def encode(tae: Tae, pixels: Tensor) -> Tensor:
    """[B, 1 + 4k, 3, H, W] in 0 to 1 -> [B, 1 + k, C, H/8, W/8], with a graph where there is one."""
    return run_layers(tae.encoder, torch.cat([*[pixels[:, :1]] * _LEAD_IN, pixels], 1), StreamState())


def decode(tae: Tae, latents: Tensor) -> Tensor:
    """[B, 1 + k, C, H, W] -> [B, 1 + 4k, 3, 8H, 8W] around 0 to 1, with a graph where there is one."""
    return run_layers(tae.decoder, latents, StreamState())[:, _LEAD_IN:]


def held(pixels: Tensor) -> Tensor:
    """[B, T, ...] with the last frame repeated to the end of its latent."""
    missing = -(pixels.shape[1] - 1) % 4
    return torch.cat([pixels, *[pixels[:, -1:]] * missing], 1)


def new_tae(config: TaeConfig, random: Generator) -> Tae:
    """A codec that can learn: the residual branches begin small, and so do the pictures."""
    tae = Tae(config)
    for layer in tae.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=random)
            layer.weight.data *= 0.8
            if layer.bias is not None:
                layer.bias.data.zero_()
    ends = [(block.conv[-1], 0.2) for block in tae.modules() if isinstance(block, MemBlock)]
    for end, factor in (*ends, (tae.decoder[-1], 0.2), (tae.encoder[-1], 1.5)):
        assert isinstance(end, nn.Conv2d)
        end.weight.data *= factor
    tae.use_channels_last()
    return tae.train().requires_grad_(True)


@frozen(eq=False)
class CodecStage:
    """Encoder and decoder together; with `freeze_encoder`, the decoder alone, on latents that no longer move."""

    network: Tae
    freeze_encoder: bool = False
    batch: int = 4
    latent_noise: float = 0.2
    """The most that a latent is off, in its standard deviation: the transformer's will be, too."""
    dtype: torch.dtype = field(default=torch.bfloat16)

    def __attrs_post_init__(self) -> None:
        self.network.encoder.requires_grad_(not self.freeze_encoder)

    def loss(self, random: Generator) -> Tensor:
        """Of pictures, weighted towards the shape, and of latents that are not normal."""
        frames = CLIP_FRAMES[int(torch.randint(len(CLIP_FRAMES), (1,), generator=random))]
        batch = clips(self.batch, frames, random)
        pixels, weight = _window(batch, frames, random)
        with torch.autocast("cpu", self.dtype, enabled=self.dtype != torch.float32):
            latents = encode(self.network, pixels).float()
            amount = self.latent_noise * torch.rand(len(pixels), 1, 1, 1, 1, generator=random)
            noisy = latents + amount * torch.randn(latents.shape, generator=random)
            error = decode(self.network, noisy).float() - pixels
        picture = (weight * (0.5 * error.abs() + 4 * error * error)).mean()
        return picture if self.freeze_encoder else picture + 0.01 * _off_normal(latents)


def _window(batch: Clips, frames: int, random: Generator) -> tuple[Tensor, Tensor]:
    """WINDOW_FRAMES of each clip, and what each pixel counts, both [B, T, ., H, W]."""
    pixels = held(batch.pixels)
    cover = held(covering(batch.scenes, track(batch.scenes, batch.verbs, frames)))
    start = 4 * int(torch.randint((pixels.shape[1] - WINDOW_FRAMES) // 4 + 1, (1,), generator=random))
    there = slice(start, start + WINDOW_FRAMES)
    seen = (cover[:, there] > 0.02).float()
    near = F.max_pool2d(seen.flatten(0, 1), 5, 1, 2).unflatten(0, seen.shape[:2])
    return pixels[:, there], 0.35 + 3 * near + (1 - near) * _outlines(grounds(batch.scenes)[:, 0])[:, None]


def _outlines(still: Tensor) -> Tensor:
    """Where in a picture [B, 3, H, W] one colour meets another, [B, 1, H, W] of 0 and 1: bystanders, post, horizon."""
    padded = F.pad(still, (1, 1, 1, 1), mode="replicate")
    span = F.max_pool2d(padded, 3, 1) + F.max_pool2d(-padded, 3, 1)
    return (span.amax(1, keepdim=True) > 0.08).float()


def _off_normal(latents: Tensor) -> Tensor:
    """How far the channels are from mean 0 and deviation 1, and from what the decoder's soft clamp lets through."""
    dims = (0, 1, 3, 4)
    mean, std = latents.mean(dims), latents.std(dims)
    return (mean**2).mean() + ((std - 1) ** 2).mean() + 0.2 * F.relu(latents.abs() - 2.7).pow(2).mean()


def psnr_db(pixels: Tensor, exact: Tensor) -> float:
    """Mean over pictures [..., 3, H, W]."""
    return float((-10 * ((pixels - exact) ** 2).mean((-1, -2, -3)).clamp(min=1e-9).log10()).mean())
