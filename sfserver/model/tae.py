"""TAEHV, the tiny autoencoder for Wan 2.1's latents: about 25 times less work than the VAE, a little less picture.

Two-dimensional convolutions frame by frame; time enters through `MemBlock`, which sees the frame before, and through
layers that turn frames into channels and back. All memory between calls is in a `StreamState`.

Parameter names are those of the published `taew2_1`. Source: the madebyollin/taehv repository's checkpoints.

Letters in shape comments: B batch, F latents, T frames at whatever rate the layer runs, C channels, H W height, width.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from attrs import frozen
from torch import Tensor, nn

from .vae import LATENT_MEAN, LATENT_STD, StreamState, as_clip, as_frames, per_channel, to_channels_last


@frozen
class TaeConfig:
    """Sizes of a TAEHV for Wan 2.1; the published one is the default."""

    z_channels: int = 16
    decoder_widths: tuple[int, int, int, int] = (256, 128, 64, 64)
    encoder_width: int = 64
    vae_scale: bool = False
    """Made for latents in the VAE's own scale, as LightX2V's lighttaew2_1 is; taew2_1 takes them normalised."""


class Tae(nn.Module):
    """Drop-in for `WanVae`: the same two verbs, shapes and counts."""

    spatial_stride = 8
    temporal_stride = 4

    def __init__(self, config: TaeConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = _encoder(config)
        self.decoder = _decoder(config)
        self.use_channels_last()

    @property
    def z_channels(self) -> int:
        return self.config.z_channels

    def use_channels_last(self) -> None:
        """To be called again after weights were replaced."""
        to_channels_last(self)

    def new_decoder_state(self) -> StreamState:
        return StreamState()

    def new_encoder_state(self) -> StreamState:
        return StreamState()

    @torch.no_grad()
    def decode(self, latents: Tensor, state: StreamState) -> Tensor:
        """The next latents of a stream [B, F, C, H, W] -> pixels [B, T, 3, 8H, 8W] in [-1, 1], the weights' dtype.

        The first latent of a stream gives 1 frame, every later one 4. `state` is updated.
        """
        lead = 0 if state.started else self.temporal_stride - 1
        return self.decode_unclamped(latents, state)[:, lead:].clamp(0, 1).mul_(2).sub_(1)

    @torch.no_grad()
    def decode_unclamped(self, latents: Tensor, state: StreamState) -> Tensor:
        """What the network says: RGB around [0, 1], and 4 frames for the first latent too, of which the last counts."""
        clips = [run_layers(self.decoder, one, state) for one in self._to_own_scale(latents).split(1, dim=1)]
        state.started = True
        return torch.cat(clips, dim=1)

    @torch.no_grad()
    def encode(self, pixels: Tensor, state: StreamState | None = None) -> Tensor:
        """Pixels [B, T, 3, H, W] in [-1, 1] -> normalised latents [B, F, C, H/8, W/8], F = T/4 rounded up.

        A count that is no multiple of 4 is filled up by repeating the last frame, so 1 + 4k frames give 1 + k latents;
        in a stream (`state`) only the last call may have such a count. Raises ValueError for no frames at all, or where
        a side is no multiple of 8.
        """
        frames, height, width = pixels.shape[1], *pixels.shape[-2:]
        if frames == 0:
            raise ValueError("0 frames to encode: give at least 1")
        if height % self.spatial_stride or width % self.spatial_stride:
            raise ValueError(f"{width}x{height} pixels: both sides must be multiples of {self.spatial_stride}")
        state = StreamState() if state is None else state
        missing = -frames % self.temporal_stride
        x = torch.cat([pixels, *[pixels[:, -1:]] * missing], dim=1)
        x = x.to(self._dtype).add_(1).div_(2)
        return self._from_own_scale(
            torch.cat([run_layers(self.encoder, four, state) for four in x.split(self.temporal_stride, dim=1)], dim=1)
        )

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def _to_own_scale(self, latents: Tensor) -> Tensor:
        if not self.config.vae_scale:
            return latents.to(self._dtype)
        mean, std = (per_channel(values, latents.device)[:, 0] for values in (LATENT_MEAN, LATENT_STD))
        return (latents.float() * std + mean).to(self._dtype)

    def _from_own_scale(self, latents: Tensor) -> Tensor:
        if not self.config.vae_scale:
            return latents
        mean, std = (per_channel(values, latents.device)[:, 0] for values in (LATENT_MEAN, LATENT_STD))
        return ((latents.float() - mean) / std).to(self._dtype)


def run_layers(layers: nn.Sequential, clip: Tensor, state: StreamState) -> Tensor:
    """[B, T, C, H, W] through layers that see [B*T, C, H, W], and memory blocks that are told B and the state."""
    batch = clip.shape[0]
    x = clip.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    for layer in layers:
        x = layer(x, batch, state) if isinstance(layer, MemBlock) else layer(x)
    return x.unflatten(0, (batch, -1))


def _decoder(config: TaeConfig) -> nn.Sequential:
    """Latents -> RGB in [0, 1], unclamped: three stages that double the sides; time by 1, 2 and 2."""
    widths = config.decoder_widths
    layers: list[nn.Module] = [SoftClamp(), _conv(config.z_channels, widths[0]), nn.ReLU(inplace=True)]
    for (c_in, c_out), time_growth in zip(pairwise(widths), (1, 2, 2), strict=True):
        layers += [MemBlock(c_in), MemBlock(c_in), MemBlock(c_in), nn.Upsample(scale_factor=2)]
        layers += [TimeGrow(c_in, time_growth), _conv(c_in, c_out, bias=False)]
    return nn.Sequential(*layers, nn.ReLU(inplace=True), _conv(widths[-1], 3))


def _encoder(config: TaeConfig) -> nn.Sequential:
    """RGB in [0, 1] -> latents: three stages that halve the sides; time by 2, 2 and 1."""
    width = config.encoder_width
    layers: list[nn.Module] = [_conv(3, width), nn.ReLU(inplace=True)]
    for time_shrinkage in (2, 2, 1):
        layers += [TimePool(width, time_shrinkage), _conv(width, width, stride=2, bias=False)]
        layers += [MemBlock(width), MemBlock(width), MemBlock(width)]
    return nn.Sequential(*layers, _conv(width, config.z_channels))


def _conv(c_in: int, c_out: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, 3, padding=1, stride=stride, bias=bias)


class SoftClamp(nn.Module):
    """Keeps latents within (-3, 3), nearly untouched around 0."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


class MemBlock(nn.Module):
    """Residual block that also sees its own input of one frame before; zeros before the first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _conv(2 * channels, channels),
            nn.ReLU(inplace=True),
            _conv(channels, channels),
            nn.ReLU(inplace=True),
            _conv(channels, channels),
        )

    def forward(self, x: Tensor, batch: int, state: StreamState) -> Tensor:  # [B*T, C, H, W], in and out
        clip = as_clip(x, batch)  # [B, C, T, H, W]
        last = state.past.get(self)
        if last is None:
            last = torch.zeros_like(clip[:, :, :1])
        state.past[self] = clip[:, :, -1:].clone(memory_format=torch.channels_last_3d)
        before = as_frames(torch.cat([last, clip[:, :, :-1]], dim=2))
        return F.relu_(self.conv(torch.cat([x, before], dim=1)).add_(x))


class TimeGrow(nn.Module):
    """Each frame becomes `growth` frames: a 1x1 convolution to that many times the channels, which are then split."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.growth = growth
        self.conv = nn.Conv2d(channels, channels * growth, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # [B*T, C, H, W] -> [B*T*growth, C, H, W]
        return self.conv(x).unflatten(1, (self.growth, -1)).flatten(0, 1)


class TimePool(nn.Module):
    """Each `shrinkage` frames become one: their channels side by side, then a 1x1 convolution."""

    def __init__(self, channels: int, shrinkage: int) -> None:
        super().__init__()
        self.shrinkage = shrinkage
        self.conv = nn.Conv2d(channels * shrinkage, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # [B*T, C, H, W] -> [B*T/shrinkage, C, H, W]
        return self.conv(x.unflatten(0, (-1, self.shrinkage)).flatten(1, 2))
