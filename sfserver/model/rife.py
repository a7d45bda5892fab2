"""RIFE 4.25: the picture at any time between two others, by flow estimated directly for that time.

Source: Practical-RIFE 4.25 (IFNet), which continues Huang et al., "Real-Time Intermediate Flow Estimation for Video
Frame Interpolation", ECCV 2022. Five blocks look at the pair from coarse to fine. Each is shown both pictures warped by
the flow so far and adds to that flow; the last flow and mask make the picture. float32 only: with the 8 bits of
bfloat16 a place in the picture is off by pixels.

The arithmetic is the published one, without what cannot reach the result (equal to 1e-10 in float64, half the time):

- A block at scale s sees its inputs shrunk by s. Bilinear shrinking by an even s reads the 2x2 pixels at the middle of
  each s x s cell and no others, so only those are warped.
- Mask and context go from one block to the next one, at twice the resolution. Enlarging them to full size and shrinking
  them again, as published, is exactly bilinear doubling.
- A convolution of things put side by side is the sum of their convolutions, so they need not be copied side by side.
- The last block's context has no reader, so it is not computed.

Letters: H W the padded picture, h w the grid of a block.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from attrs import evolve, frozen
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

SCALES = (16, 8, 4, 2, 1)
WIDTHS = (192, 128, 96, 64, 32)
"""Channels inside each block, coarse to fine."""
BLOCK_STRIDE = 4
"""Two convolutions of stride 2 at the head of every block."""
PAD_MULTIPLE_PX = SCALES[0] * BLOCK_STRIDE
"""Both sides are padded to this, so that the coarsest block's grid is whole."""

COLOURS = 3
FEATURES = 4
PER_PICTURE = COLOURS + FEATURES
FLOW = 4
"""x and y towards picture A, x and y towards picture B, in pixels."""
MASK = 1
CONTEXT = 8
"""Channels that a block tells the next one."""
SIDE_BY_SIDE = (0, 1, 2, 6, 7, 8, 9, 3, 4, 5, 10, 11, 12, 13)
"""The published blocks take colours of A, of B, features of A, of B; ours take all of A, then all of B."""
PUBLISHED_NAMES = {"conv0.0.0": "first", "conv0.1.0": "second", "convblock": "body", "lastconv.0": "last"}
LEAK = 0.2


@frozen(eq=False)
class Pair:
    """What two pictures give before any time is named: shared by all frames between them."""

    looks: Tensor
    """[2, 7, H, W]: each picture, RGB 0 to 1, and its features; padded."""
    pictures: Tensor
    """[2, 3 + n, H, W]: RGB, and n channels that move along and that the network is not shown; padded."""
    grid: Tensor
    """[1, 2, H, W]: x and y of every pixel as `grid_sample` counts them, -1 to 1."""
    height: int
    width: int
    """Of the pictures as given, in pixels."""


@frozen(eq=False)
class Start:
    """What is known before the network looks. Where only one picture shows what is to be seen, both blocks and result
    are given that one's pixels for the other's."""

    flow: Tensor
    """[1, 4, H, W], padded as the pair is."""
    seen: Tensor
    """[2, 1, H, W]: 1 where A, where B shows what is there, else 0. Nowhere 0 in both."""


@frozen(eq=False)
class Estimate:
    """What the network says of one time."""

    flow: Tensor
    """[1, 4, H, W], padded."""
    mask: Tensor
    """[1, 1, H, W]: the share of A is its sigmoid."""


class Encoder(nn.Module):
    """[2, 3, H, W] -> [2, 4, H, W]: features that are warped along with the colours."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn0 = nn.Conv2d(COLOURS, 16, 3, stride=2, padding=1)
        self.cnn1 = nn.Conv2d(16, 16, 3, padding=1)
        self.cnn2 = nn.Conv2d(16, 16, 3, padding=1)
        self.cnn3 = nn.ConvTranspose2d(16, FEATURES, 4, stride=2, padding=1)

    def forward(self, pictures: Tensor) -> Tensor:
        x = F.leaky_relu_(self.cnn0(pictures), LEAK)
        x = F.leaky_relu_(self.cnn1(x), LEAK)
        x = F.leaky_relu_(self.cnn2(x), LEAK)
        return self.cnn3(x)


class Residual(nn.Module):
    """x + beta * conv(x), rectified."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.beta = nn.Parameter(torch.ones(1, width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu_(torch.addcmul(x, self.conv(x), self.beta), LEAK)


class Block(nn.Module):
    """Parts of [1, _, h, w], `channels` in all -> [1, outputs, h, w]: change of flow, mask, and context."""

    def __init__(self, channels: int, width: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width // 2, 3, stride=2, padding=1)
        self.second = nn.Conv2d(width // 2, width, 3, stride=2, padding=1)
        self.body = nn.Sequential(*(Residual(width) for _ in range(8)))
        self.last = nn.ConvTranspose2d(width, 4 * outputs, 4, stride=2, padding=1)

    def forward(self, *parts: Tensor) -> Tensor:
        x = F.leaky_relu_(_joined(self.first, parts), LEAK)
        x = F.leaky_relu_(self.second(x), LEAK)
        return F.pixel_shuffle(self.last(self.body(x)), 2)


def _joined(conv: nn.Conv2d, parts: tuple[Tensor, ...]) -> Tensor:
    """`conv` of the parts side by side. At full size on a CPU the copy would cost more than the convolution."""
    weights = conv.weight.split([part.shape[1] for part in parts], 1)
    total = F.conv2d(parts[0], weights[0], conv.bias, conv.stride, conv.padding)
    for part, weight in zip(parts[1:], weights[1:], strict=True):
        total += F.conv2d(part, weight, None, conv.stride, conv.padding)
    return total


@contextmanager
def _reproducible() -> Generator[None]:
    """Real float32 and the same bits each time, whatever the process has set for other models."""
    with (
        torch.inference_mode(),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
    ):
        yield


class IFNet(nn.Module):
    """The network: `pair` once for two pictures, then `between` for each time.

    `between` is `estimate` and `mixed`; `sides` are A and B before they are mixed.
    """

    def __init__(self) -> None:
        super().__init__()
        first = 2 * PER_PICTURE + 1
        later = first + MASK + CONTEXT + FLOW
        told = FLOW + MASK + CONTEXT
        self.encode = Encoder()
        self.block0 = Block(first, WIDTHS[0], told)
        self.block1 = Block(later, WIDTHS[1], told)
        self.block2 = Block(later, WIDTHS[2], told)
        self.block3 = Block(later, WIDTHS[3], told)
        self.block4 = Block(later, WIDTHS[4], FLOW + MASK)

    @_reproducible()
    def pair(self, pictures: Tensor) -> Pair:
        """`pictures` is [2, 3 + n, height, width], RGB 0 to 1 and what moves along: A, then B. Any size."""
        height, width = pictures.shape[-2:]
        padded = _mirrored(_mirrored(pictures, 2), 3)
        x, y = (
            torch.linspace(-1, 1, side, dtype=padded.dtype, device=padded.device)
            for side in (padded.shape[3], padded.shape[2])
        )
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"))[None]
        colours = padded[:, :COLOURS]
        looks = torch.cat((colours, self.encode(colours)), 1)
        alone = padded.shape[1] == COLOURS  # then the copy in `looks` is enough
        return Pair(looks, looks[:, :COLOURS] if alone else padded, grid, height, width)

    @_reproducible()
    def between(self, pair: Pair, t: float) -> Tensor:
        """[3 + n, height, width]: the picture at time `t`, where 0 is A and 1 is B."""
        return self.mixed(pair, self.estimate(pair, t))

    @_reproducible()
    def estimate(
        self, pair: Pair, t: float, start: Start | None = None, both_ways: bool = False, blocks: int = len(SCALES)
    ) -> Estimate:
        """Flow and mask at time `t`, by the first `blocks` blocks.

        `both_ways` asks for B to A as well and takes the mean: twice the time, and better (see the draft's bench).
        """
        flow, told = self._estimate(pair, t, blocks, start)
        estimate = Estimate(flow, told[:, FLOW : FLOW + MASK])
        if not both_ways:
            return estimate
        back = Start(_swapped(start.flow), start.seen.flip(0)) if start else None
        flow, told = self._estimate(evolve(pair, looks=pair.looks.flip(0)), 1 - t, blocks, back)
        mask = -told[:, FLOW : FLOW + MASK]
        return Estimate((estimate.flow + _swapped(flow)) / 2, (estimate.mask + mask) / 2)

    @_reproducible()
    def sides(self, pair: Pair, estimate: Estimate, start: Start | None = None) -> Tensor:
        """[2, 3 + n, height, width]: A and B, each brought to the time of the estimate."""
        seen = (..., slice(pair.height), slice(pair.width))
        sides = _sampled(pair.pictures, pair.grid[seen], estimate.flow[seen])
        return sides if start is None else _filled(sides, start.seen[seen])

    @_reproducible()
    def mixed(self, pair: Pair, estimate: Estimate, sides: Tensor | None = None) -> Tensor:
        """[3 + n, height, width]: the picture; of `sides` where they were asked for already."""
        a, b = self.sides(pair, estimate) if sides is None else sides
        return torch.lerp(b, a, torch.sigmoid(estimate.mask[0, :, : pair.height, : pair.width]))

    def _estimate(self, pair: Pair, t: float, blocks: int, start: Start | None) -> tuple[Tensor, Tensor]:
        """Flow [1, 4, H, W] after the first `blocks` blocks, and all that the last of them told."""
        looks = _shrunk(pair.looks, SCALES[0]) if start is None else _shown(pair, start.flow, SCALES[0], start)
        told = self.block0(_side_by_side(looks), _plane(t, looks))
        flow = _enlarged(told[:, :FLOW], SCALES[0])
        if start is not None:
            flow = start.flow + flow
        refining = (self.block1, self.block2, self.block3, self.block4)[: blocks - 1]
        for block, scale in zip(refining, SCALES[1:], strict=False):
            looks = _shown(pair, flow, scale, start)
            hints = F.interpolate(told[:, FLOW:], scale_factor=2, mode="bilinear")
            told = block(_side_by_side(looks), _plane(t, looks), hints, _shrunk(flow, scale) / scale)
            flow = flow + _enlarged(told[:, :FLOW], scale)
        return flow, told


def load(path: Path, device: torch.device) -> IFNet:
    """The network with the weights of `path`, named as published.

    Raises SafetensorError or OSError where it cannot be read, KeyError or RuntimeError where it holds something else.
    """
    tensors = {_renamed(name): tensor for name, tensor in load_file(path).items()}
    for block in range(len(SCALES)):
        published = tensors[f"block{block}.first.weight"]
        ordered = torch.cat((published[:, SIDE_BY_SIDE], published[:, len(SIDE_BY_SIDE) :]), 1)
        tensors[f"block{block}.first.weight"] = ordered
    read = 4 * (FLOW + MASK)  # pixel_shuffle(2) makes one channel out of four
    tensors["block4.last.weight"] = tensors["block4.last.weight"][:, :read].clone()
    tensors["block4.last.bias"] = tensors["block4.last.bias"][:read].clone()
    with torch.device("meta"):
        net = IFNet()
    net.load_state_dict(tensors, assign=True)
    return net.to(device).eval().requires_grad_(False)


def _renamed(published: str) -> str:
    for theirs, ours in PUBLISHED_NAMES.items():
        published = published.replace(theirs, ours)
    return published


def from_rgb8(pictures: NDArray[np.uint8], device: torch.device) -> Tensor:
    """[B, H, W, 3] bytes -> [B, 3, H, W] float32, 0 to 1. The array must be writable."""
    return torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2).float().div(255)


def to_rgb8(picture: Tensor) -> NDArray[np.uint8]:
    """[3, H, W], RGB 0 to 1 -> [H, W, 3] bytes. Raises FloatingPointError where a value is NaN or infinite."""
    if not torch.isfinite(picture).all():
        raise FloatingPointError("the picture holds values that are not finite")
    return picture.clamp(0, 1).mul(255).round().to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy()


def _mirrored(pictures: Tensor, axis: int) -> Tensor:
    """Padded at the far end of `axis` with its own mirror image.

    On textures that move by 24 to 50 pixels the in-betweens are 0.7 dB nearer to the truth than with zeros, as
    published, and 1.4 dB nearer than with the edge repeated.
    """
    length = pictures.shape[axis]
    places = torch.arange(length + -length % PAD_MULTIPLE_PX, device=pictures.device) % (2 * length)
    return pictures.index_select(axis, torch.minimum(places, 2 * length - 1 - places))


def _plane(t: float, like: Tensor) -> Tensor:
    """[1, 1, h, w] of t."""
    return like.new_full((1, 1, *like.shape[-2:]), t)


def _side_by_side(looks: Tensor) -> Tensor:
    """[2, 7, h, w] -> [1, 14, h, w], without a copy."""
    return looks.flatten(0, 1)[None]


def _middles(x: Tensor, scale: int) -> Tensor:
    """[_, _, H, W] -> [_, _, 2h, 2w]: the pixels that bilinear shrinking by `scale` reads."""
    if scale <= 2:
        return x
    middle = slice(scale // 2 - 1, scale // 2 + 1)
    cells = x.unflatten(-1, (-1, scale)).unflatten(-3, (-1, scale))  # [_, _, h, scale, w, scale]
    return cells[:, :, :, middle, :, middle].flatten(4).flatten(2, 3)


def _halved(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=0.5, mode="bilinear")


def _shrunk(x: Tensor, scale: int) -> Tensor:
    return x if scale == 1 else _halved(_middles(x, scale))


def _enlarged(flow: Tensor, scale: int) -> Tensor:
    """Flow in pixels of a block's grid -> flow in pixels of the picture."""
    return flow if scale == 1 else F.interpolate(flow, scale_factor=scale, mode="bilinear") * scale


def _shown(pair: Pair, flow: Tensor, scale: int, start: Start | None) -> Tensor:
    """What a block sees: [2, 7, h, w]."""
    looks = _warped(pair, flow, scale)
    return looks if start is None else _filled(looks, _shrunk(start.seen, scale))


def _filled(looks: Tensor, seen: Tensor) -> Tensor:
    """[2, _, h, w], each filled from the other where it is blind: `seen` [2, 1, h, w]."""
    return torch.lerp(looks.flip(0), looks, seen)


def _swapped(flow: Tensor) -> Tensor:
    """The flow of the pair the other way round."""
    return flow.roll(2, 1)


def _warped(pair: Pair, flow: Tensor, scale: int) -> Tensor:
    """Both looks moved by `flow`, shrunk by `scale`: [2, 7, h, w]."""
    moved = _sampled(pair.looks, _middles(pair.grid, scale), _middles(flow, scale))
    return moved if scale == 1 else _halved(moved)


def _sampled(looks: Tensor, grid: Tensor, flow: Tensor) -> Tensor:
    """[2, _, H, W] read at the places of `grid` [1, 2, ...] moved by `flow` [1, 4, ...]; the edges go on outside."""
    height, width = looks.shape[-2:]
    grid_per_px = flow.new_tensor((2 / (width - 1), 2 / (height - 1))).view(1, 2, 1, 1)
    places = grid + flow.unflatten(1, (2, 2))[0] * grid_per_px
    return F.grid_sample(looks, places.permute(0, 2, 3, 1), mode="bilinear", padding_mode="border", align_corners=True)
