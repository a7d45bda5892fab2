"""What cameras are moved over and what is cut out: drawn and photograph-like pictures, made from nothing but a seed."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

OVERSAMPLING = 3
INK = (38, 33, 44)


def loaded(path: Path) -> Tensor:
    """[3, H, W], 0 to 1."""
    return _tensor(Image.open(path).convert("RGB"))


def rocks(seed: int = 1, width: int = 1280, height: int = 720) -> Tensor:
    """[3, height, width]: a slope lit from the left, detail at every scale, with the grain of a sensor."""
    rng = np.random.default_rng(seed)
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    distance = np.hypot(fy, fx)
    distance[0, 0] = 1
    spectrum = np.fft.rfft2(rng.normal(size=(height, width))) / distance**2.1
    spectrum[0, 0] = 0
    relief = np.fft.irfft2(spectrum, (height, width))
    relief /= relief.std()
    slope = np.diff(relief, axis=1, prepend=relief[:, -1:])
    light = np.tanh(slope / slope.std() * 0.7)
    stone = np.array((0.55, 0.5, 0.44)) + 0.16 * np.tanh(relief)[..., None] * np.array((0.6, -0.2, -0.9))
    grain = rng.normal(size=(height, width, 1)) * 0.008
    lit = stone * (0.8 + 0.42 * light[..., None]) + grain
    return torch.from_numpy(lit.clip(0, 1)).float().permute(2, 0, 1)


def street(seed: int = 2, width: int = 1280, height: int = 720) -> Tensor:
    """[3, height, width]: a storyboard panel, flat colours and ink: houses that differ, a road, clouds."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (width, height), (196, 218, 224))
    pen = ImageDraw.Draw(image)
    for _ in range(7):
        x, y, r = (int(rng.integers(*limits)) for limits in ((0, width), (30, height // 4), (20, 60)))
        for dx in (-r, 0, r):
            pen.ellipse((x + dx - r, y - r // 2, x + dx + r, y + r // 2), fill=(246, 244, 236))
    pen.rectangle((0, height * 0.78, width, height), fill=(138, 134, 128))
    left = -20
    while left < width:
        wide, high = int(rng.integers(90, 190)), int(rng.integers(height // 4, int(height * 0.62)))
        _house(pen, rng, left, int(height * 0.78), wide, high)
        left += wide + int(rng.integers(0, 24))
    for x in range(-40, width, 110):
        pen.line((x, height * 0.9, x + 56, height * 0.89), fill=(226, 218, 190), width=6)
    return _tensor(image)


def tiles(width: int = 900, height: int = 600) -> Tensor:
    """[3, height, width]: a wall of 64 pixels' pattern, every tile a little soiled in its own way."""
    image = Image.new("RGB", (width, height), (222, 216, 202))
    pen = ImageDraw.Draw(image)
    rng = np.random.default_rng(3)
    for x in range(0, width, 64):
        for y in range(0, height, 64):
            pen.rectangle((x + 2, y + 2, x + 61, y + 61), fill=(206, 198, 180), outline=INK)
            pen.ellipse((x + 14, y + 14, x + 50, y + 50), fill=(88, 120, 148), outline=INK, width=3)
            speck_x, speck_y = (int(v) for v in rng.integers(6, 56, 2))
            pen.ellipse((x + speck_x, y + speck_y, x + speck_x + 3, y + speck_y + 3), fill=(150, 130, 110))
    return _tensor(image)


def _house(pen: ImageDraw.ImageDraw, rng: np.random.Generator, left: int, base: int, wide: int, high: int) -> None:
    wall = tuple(int(v) for v in rng.integers(110, 235, 3))
    pen.rectangle((left, base - high, left + wide, base), fill=wall, outline=INK, width=4)
    roof = tuple(int(v) for v in rng.integers(60, 150, 3))
    peak = left + wide * float(rng.uniform(0.3, 0.7))
    points = ((left - 8, base - high), (peak, base - high - 50), (left + wide + 8, base - high))
    pen.polygon(points, fill=roof, outline=INK, width=4)
    step_x, step_y = int(rng.integers(30, 44)), int(rng.integers(40, 60))
    for x in range(left + 14, left + wide - 24, step_x):
        for y in range(base - high + 16, base - 50, step_y):
            if rng.random() < 0.8:
                pane = (250, 226, 150) if rng.random() < 0.3 else (92, 116, 138)
                pen.rectangle((x, y, x + 16, y + int(rng.integers(18, 30))), fill=pane, outline=INK, width=3)


def figure() -> Tensor:
    """[4, 150, 90]: a drawn walker in a striped coat; RGB and alpha."""
    w, h = 90, 150
    image, pen, k = _cut_out(w, h)
    ink = {"fill": INK, "width": 3 * k}
    for x in (32, 52):
        pen.line((x * k, 104 * k, (x - 6) * k, 144 * k), **ink)
        pen.ellipse(((x - 18) * k, 138 * k, (x + 2) * k, 148 * k), fill=INK)
    coat = [(28, 46), (62, 46), (74, 112), (16, 112)]
    pen.polygon([(x * k, y * k) for x, y in coat], fill=(52, 92, 140), outline=INK, width=3 * k)
    for y in (62, 78, 94):
        pen.line(((26 - y / 12) * k, y * k, (64 + y / 12) * k, y * k), fill=(240, 226, 190), width=5 * k)
    pen.line((64 * k, 56 * k, 84 * k, 84 * k), fill=(52, 92, 140), width=9 * k)
    pen.ellipse((24 * k, 8 * k, 66 * k, 50 * k), fill=(244, 206, 170), outline=INK, width=3 * k)
    pen.chord((22 * k, 2 * k, 68 * k, 44 * k), 180, 360, fill=(176, 58, 48), outline=INK, width=3 * k)
    pen.ellipse((34 * k, 26 * k, 39 * k, 32 * k), fill=INK)
    pen.ellipse((50 * k, 26 * k, 55 * k, 32 * k), fill=INK)
    return _shrunk(image)


def ball(side: int = 90) -> Tensor:
    """[4, side, side]: stripes and patches around a middle, shaded."""
    image, pen, k = _cut_out(side, side)
    colours = ((214, 84, 62), (246, 240, 226), (236, 176, 64), (70, 132, 140), (246, 240, 226), (140, 84, 130))
    for n, colour in enumerate(colours):
        pen.pieslice((k, k, (side - 1) * k, (side - 1) * k), n * 60, n * 60 + 60, fill=colour)
    for x, y, r in ((0.3, 0.4, 0.07), (0.62, 0.3, 0.05), (0.55, 0.7, 0.09), (0.78, 0.55, 0.04)):
        box = ((x - r) * side * k, (y - r) * side * k, (x + r) * side * k, (y + r) * side * k)
        pen.ellipse(box, fill=INK)
    return _shrunk(image)


def disc(side: int = 70, colour: tuple[int, int, int] = (206, 62, 52)) -> Tensor:
    """[4, side, side]: one flat colour."""
    image, pen, k = _cut_out(side, side)
    pen.ellipse((k, k, (side - 1) * k, (side - 1) * k), fill=colour)
    return _shrunk(image)


def polygon(corners: int, side: int = 80, colour: tuple[int, int, int] = (240, 190, 60), inner: float = 1.0) -> Tensor:
    """[4, side, side]: flat, its corners on a circle; with `inner` below 1 a star."""
    image, pen, k = _cut_out(side, side)
    turns = np.arange(2 * corners) * math.pi / corners - math.pi / 2
    if inner == 1.0:
        inner = math.cos(math.pi / corners)  # half way along a straight side
    reach = 0.96 * side * k / 2
    points = [
        (side * k / 2 + reach * r * math.cos(a), side * k / 2 + reach * r * math.sin(a))
        for a, r in zip(turns, np.resize((1.0, inner), 2 * corners), strict=True)
    ]
    pen.polygon(points, fill=colour)
    return _shrunk(image)


def card(still: Tensor, left: int, top: int, width: int, height: int) -> Tensor:
    """[4, height, width]: a rectangle out of a still [3, H, W]."""
    cut = still[:, top : top + height, left : left + width]
    return torch.cat((cut, torch.ones_like(cut[:1])))


def _cut_out(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw, int]:
    image = Image.new("RGBA", (width * OVERSAMPLING, height * OVERSAMPLING))
    return image, ImageDraw.Draw(image), OVERSAMPLING


def _shrunk(image: Image.Image) -> Tensor:
    """Colours go on outside of the shape, so that its edge is not dark."""
    raw = torch.from_numpy(np.array(image)).float().permute(2, 0, 1).div(255)
    seen = F.avg_pool2d(torch.cat((raw[:3] * raw[3:], raw[3:])), OVERSAMPLING)
    return torch.cat((seen[:3] / seen[3:].clamp(min=1e-3), seen[3:]))


def _tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).float().permute(2, 0, 1).div(255)
