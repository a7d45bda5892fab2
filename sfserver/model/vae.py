"""Wan 2.1's video VAE: pixels <-> latents, causal in time, with the streaming state as an argument.

Time is compressed by 4 and space by 8. The first latent stands for one frame, each later one for four, so 1 + 4k frames
are 1 + k latents. Every convolution over time looks back only; what it must remember of earlier calls is kept in a
`StreamState`, so that feeding a clip latent by latent gives what feeding it whole gives, at the memory of one latent.

Parameter names are those of the published `Wan2.1_VAE.pth`. Sources: Wan technical report (arXiv 2503.20314), its
section on Wan-VAE, and the published checkpoint.

Letters in shape comments: B batch, F latents, T frames at whatever rate the layer runs, C channels, H W height, width.
Tensors are channels_last_3d throughout: per-frame layers then see [B*T, C, H, W] without a copy, and the norm runs over
contiguous memory.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import torch
import torch.nn.functional as F
from attrs import frozen
from einops import rearrange
from torch import Tensor, nn

LATENT_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)  # fmt: skip
LATENT_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)  # fmt: skip


@frozen
class VaeConfig:
    """Sizes of a Wan 2.1 VAE. The published one is the default; `dim=24` is its pruned sibling."""

    dim: int = 96
    z_channels: int = 16
    dim_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    """Residual blocks per level of the encoder; the decoder has one more."""
    temporal_downsample: tuple[bool, ...] = (False, True, True)
    """For each level but the last: does it halve time as well as space?"""
    latent_mean: tuple[float, ...] = LATENT_MEAN
    latent_std: tuple[float, ...] = LATENT_STD


class StreamState:
    """What one stream remembers between calls: for each causal layer, the frames it must see again.

    Tensors in it are replaced and never written to, so `copy()` is a snapshot that costs nothing.
    """

    def __init__(self) -> None:
        self.past: dict[nn.Module, Tensor] = {}
        self.started = False

    def copy(self) -> StreamState:
        """A state that goes its own way from here on."""
        twin = StreamState()
        twin.past, twin.started = dict(self.past), self.started
        return twin

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.past.values())


class WanVae(nn.Module):
    """Encoder and decoder. Latents are normalised, as the transformer sees them; pixels lie in [-1, 1]."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.conv1 = nn.Conv3d(2 * config.z_channels, 2 * config.z_channels, 1)
        self.conv2 = nn.Conv3d(config.z_channels, config.z_channels, 1)
        self.decoder = Decoder(config)
        self.use_channels_last()

    @property
    def z_channels(self) -> int:
        return self.config.z_channels

    @property
    def spatial_stride(self) -> int:
        return 2 ** (len(self.config.dim_mult) - 1)

    @property
    def temporal_stride(self) -> int:
        return 2 ** sum(self.config.temporal_downsample)

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
        return self.decode_unclamped(latents, state).clamp_(-1, 1)

    @torch.no_grad()
    def decode_unclamped(self, latents: Tensor, state: StreamState) -> Tensor:
        """As `decode`, with what the network says beyond black and white."""
        z = self._denormalised(latents)
        frames = [self.decoder(self.conv2(one), state) for one in z.split(1, dim=2)]
        state.started = True
        return rearrange(torch.cat(frames, dim=2), "b c t h w -> b t c h w")

    @torch.no_grad()
    def encode(self, pixels: Tensor, state: StreamState | None = None) -> Tensor:
        """Pixels [B, T, 3, H, W] in [-1, 1] -> normalised latents [B, F, C, H/8, W/8], the weights' dtype: the mode.

        A stream begins with 1 + 4k frames and goes on by 4k. Without `state` the clip is a stream of its own. Raises
        ValueError where the count does not fit or a side is no multiple of 8.
        """
        state = StreamState() if state is None else state
        self._check_pixels(pixels, state)
        x = rearrange(pixels, "b t c h w -> b c t h w").to(self.conv1.weight.dtype)
        x = x.contiguous(memory_format=torch.channels_last_3d)
        lead = 0 if state.started else 1
        pieces = ([x[:, :, :lead]] if lead else []) + [*x[:, :, lead:].split(self.temporal_stride, dim=2)]
        moments = [self.conv1(self.encoder(piece, state)) for piece in pieces if piece.shape[2]]
        state.started = True
        mode, _ = torch.cat(moments, dim=2).chunk(2, dim=1)
        return self._normalised(mode)

    def _denormalised(self, latents: Tensor) -> Tensor:
        """[B, F, C, H, W] -> [B, C, F, H, W] in the decoder's own scale; in float32, as the shift is large."""
        mean, std = (per_channel(v, latents.device) for v in (self.config.latent_mean, self.config.latent_std))
        z = rearrange(latents.float(), "b f c h w -> b c f h w") * std + mean
        return z.to(self.conv2.weight.dtype).contiguous(memory_format=torch.channels_last_3d)

    def _normalised(self, mode: Tensor) -> Tensor:
        mean, std = (per_channel(v, mode.device) for v in (self.config.latent_mean, self.config.latent_std))
        return rearrange(((mode.float() - mean) / std).to(mode.dtype), "b c f h w -> b f c h w").contiguous()

    def _check_pixels(self, pixels: Tensor, state: StreamState) -> None:
        frames, height, width = pixels.shape[1], *pixels.shape[-2:]
        stride = self.temporal_stride
        if state.started and (frames == 0 or frames % stride):
            raise ValueError(f"{frames} frames in mid-stream: give a multiple of {stride}")
        if not state.started and frames % stride != 1:
            raise ValueError(
                f"{frames} frames at a stream's start: give 1 + {stride}k, the first latent holds one frame"
            )
        if height % self.spatial_stride or width % self.spatial_stride:
            raise ValueError(f"{width}x{height} pixels: both sides must be multiples of {self.spatial_stride}")


class Encoder(nn.Module):
    """Pixels [B, 3, T, H, W] -> mean and log-variance [B, 2C, F, H/8, W/8]."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        widths = [config.dim * m for m in (1, *config.dim_mult)]
        last = len(config.dim_mult) - 1
        layers: list[nn.Module] = []
        for level, (c_in, c_out) in enumerate(pairwise(widths)):
            layers += [ResidualBlock(c_in if i == 0 else c_out, c_out) for i in range(config.num_res_blocks)]
            if level < last:
                layers.append(Downsample(c_out, temporal=config.temporal_downsample[level]))
        self.conv1 = CausalConv3d(3, widths[0], 3)
        self.downsamples = nn.ModuleList(layers)
        self.middle = _middle(widths[-1])
        self.head = nn.ModuleDict({"0": RmsNorm(widths[-1]), "2": CausalConv3d(widths[-1], 2 * config.z_channels, 3)})

    def forward(self, x: Tensor, state: StreamState) -> Tensor:
        x = self.conv1(x, state)
        for layer in (*self.downsamples, *self.middle):
            x = layer(x, state)
        return _norm_silu_conv(x, self.head["0"], self.head["2"], state)


class Decoder(nn.Module):
    """Latents in the VAE's own scale [B, C, F, H, W] -> pixels [B, 3, T, 8H, 8W], not clamped."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        widths = [config.dim * m for m in (config.dim_mult[-1], *reversed(config.dim_mult))]
        last = len(config.dim_mult) - 1
        temporal = tuple(reversed(config.temporal_downsample))
        layers: list[nn.Module] = []
        for level, (c_in, c_out) in enumerate(pairwise(widths)):
            c_in = c_in if level == 0 else c_in // 2  # the level below has halved the channels on its way up
            layers += [ResidualBlock(c_in if i == 0 else c_out, c_out) for i in range(config.num_res_blocks + 1)]
            if level < last:
                layers.append(Upsample(c_out, temporal=temporal[level]))
        self.conv1 = CausalConv3d(config.z_channels, widths[0], 3)
        self.middle = _middle(widths[0])
        self.upsamples = nn.ModuleList(layers)
        self.head = nn.ModuleDict({"0": RmsNorm(widths[-1]), "2": CausalConv3d(widths[-1], 3, 3)})

    def forward(self, z: Tensor, state: StreamState) -> Tensor:
        x = self.conv1(z, state)
        for layer in (*self.middle, *self.upsamples):
            x = layer(x, state)
        return _norm_silu_conv(x, self.head["0"], self.head["2"], state)


def _middle(channels: int) -> nn.ModuleList:
    return nn.ModuleList(
        [ResidualBlock(channels, channels), FrameAttention(channels), ResidualBlock(channels, channels)]
    )


class CausalConv3d(nn.Conv3d):
    """Convolution that looks back in time only; the frames before the first are zeros."""

    def __init__(self, c_in: int, c_out: int, kernel: int | tuple[int, int, int]) -> None:
        kernel = (kernel, kernel, kernel) if isinstance(kernel, int) else kernel
        super().__init__(c_in, c_out, kernel, padding=(0, kernel[1] // 2, kernel[2] // 2))

    def forward(self, x: Tensor, state: StreamState) -> Tensor:  # [B, C, T, H, W] -> [B, C', T, H, W]
        reach = self.kernel_size[0] - 1
        past = state.past.get(self)
        x = F.pad(x, (0, 0, 0, 0, reach, 0)) if past is None else torch.cat([past, x], dim=2)
        state.past[self] = _kept(x[:, :, -reach:])
        return super().forward(x)


class RmsNorm(nn.Module):
    """x / |x| * sqrt(C) * gamma over channels, which is the usual RMS norm: one fused kernel."""

    def __init__(self, channels: int, trailing_dims: int = 3) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, *(1,) * trailing_dims))

    def forward(self, x: Tensor) -> Tensor:  # [B, C, ...]
        # The published code divides by max(|x|, 1e-12); an epsilon that small only matters for a pixel of zeros.
        normed = F.rms_norm(x.movedim(1, -1), (x.shape[1],), self.gamma.flatten(), eps=1e-24)
        return normed.movedim(-1, 1)


class ResidualBlock(nn.Module):
    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.residual = nn.ModuleDict(  # the gaps are activations in the published module
            {
                "0": RmsNorm(c_in),
                "2": CausalConv3d(c_in, c_out, 3),
                "3": RmsNorm(c_out),
                "6": CausalConv3d(c_out, c_out, 3),
            }
        )
        self.shortcut = nn.Identity() if c_in == c_out else nn.Conv3d(c_in, c_out, 1)

    def forward(self, x: Tensor, state: StreamState) -> Tensor:
        norm1, conv1, norm2, conv2 = self.residual.values()
        h = _norm_silu_conv(x, norm1, conv1, state)
        h = _norm_silu_conv(h, norm2, conv2, state)
        return h.add_(self.shortcut(x))


def _norm_silu_conv(x: Tensor, norm: nn.Module, conv: nn.Module, state: StreamState) -> Tensor:
    return conv(F.silu(norm(x), inplace=True), state)


class FrameAttention(nn.Module):
    """Self-attention inside each frame, one head as wide as the features."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = RmsNorm(channels, trailing_dims=2)
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, state: StreamState) -> Tensor:
        batch, _, _, height, _ = x.shape
        qkv = self.to_qkv(as_frames(self.norm(x)))  # [B*T, 3C, H, W]
        q, k, v = rearrange(qkv, "n (three c) h w -> three n 1 (h w) c", three=3)
        attended = F.scaled_dot_product_attention(q, k, v)
        frames = rearrange(attended, "n 1 (h w) c -> n c h w", h=height)
        return as_clip(self.proj(frames), batch).add_(x)


class Downsample(nn.Module):
    """Halves height and width, and time where asked."""

    def __init__(self, channels: int, temporal: bool) -> None:
        super().__init__()
        self.resample = nn.ModuleDict({"1": nn.Conv2d(channels, channels, 3, stride=2)})
        self.time_conv = nn.Conv3d(channels, channels, (3, 1, 1), stride=(2, 1, 1)) if temporal else None

    def forward(self, x: Tensor, state: StreamState) -> Tensor:
        padded = F.pad(as_frames(x), (0, 1, 0, 1))  # right and bottom only: even sides stay even
        x = as_clip(self.resample["1"](padded), x.shape[0])
        return x if self.time_conv is None else self._halve_time(self.time_conv, x, state)

    def _halve_time(self, time_conv: nn.Conv3d, x: Tensor, state: StreamState) -> Tensor:
        """The stream's first frame passes as it is; each later pair is merged, seeing the frame before it."""
        past = state.past.get(self)
        state.past[self] = _kept(x[:, :, -1:])
        if past is not None:
            return time_conv(torch.cat([past, x], dim=2))
        return x if x.shape[2] == 1 else torch.cat([x[:, :, :1], time_conv(x)], dim=2)


class Upsample(nn.Module):
    """Doubles height and width while halving channels, and doubles time where asked."""

    def __init__(self, channels: int, temporal: bool) -> None:
        super().__init__()
        self.resample = nn.ModuleDict({"1": nn.Conv2d(channels, channels // 2, 3, padding=1)})
        self.time_conv = CausalConv3d(channels, 2 * channels, (3, 1, 1)) if temporal else None

    def forward(self, x: Tensor, state: StreamState) -> Tensor:
        if self.time_conv is not None:
            x = self._double_time(self.time_conv, x, state)
        doubled = F.interpolate(as_frames(x), scale_factor=2.0, mode="nearest")
        return as_clip(self.resample["1"](doubled), x.shape[0])

    def _double_time(self, time_conv: CausalConv3d, x: Tensor, state: StreamState) -> Tensor:
        """The stream's first frame passes as it is, unseen by the convolution: that begins with zeros at the second."""
        if time_conv in state.past:
            return _interleaved(time_conv(x, state))
        first, rest = x[:, :, :1], x[:, :, 1:]
        state.past[time_conv] = torch.zeros_like(first).repeat(1, 1, time_conv.kernel_size[0] - 1, 1, 1)
        return torch.cat([first, _interleaved(time_conv(rest, state))], dim=2) if rest.shape[2] else first


def _interleaved(x: Tensor) -> Tensor:
    """[B, 2C, T, H, W] -> [B, C, 2T, H, W]: the first half of the channels are the even frames."""
    pairs = rearrange(x, "b (two c) t h w -> b c (t two) h w", two=2)
    return pairs.contiguous(memory_format=torch.channels_last_3d)


def to_channels_last(network: nn.Module) -> None:
    """Lay the kernels of all convolutions out as the activations are, so that no call has to reorder them."""
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last_3d)
        elif isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)


def as_frames(x: Tensor) -> Tensor:
    """[B, C, T, H, W] -> [B*T, C, H, W], a view where memory is channels_last_3d."""
    return x.transpose(1, 2).flatten(0, 1)


def as_clip(x: Tensor, batch: int) -> Tensor:
    """[B*T, C, H, W] -> [B, C, T, H, W], channels_last_3d where `x` is channels_last."""
    return x.unflatten(0, (batch, -1)).transpose(1, 2)


def _kept(x: Tensor) -> Tensor:
    """A copy, so that a state holds two frames and not the whole tensor they are a view of."""
    return x.clone(memory_format=torch.channels_last_3d)


@cache
def per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """[C, 1, 1, 1] float32; kept per device, as a copy from the host would make each decode wait for it."""
    return torch.tensor(values, dtype=torch.float32, device=device).view(-1, 1, 1, 1)
