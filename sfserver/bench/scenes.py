"""Pairs of keyframes whose in-betweens are known exactly: cameras over stills, and cut-outs that travel.

A camera is a view: where its middle is, how wide it sees, how it is turned. On its way the width changes geometrically,
the turn evenly, and the middle follows a straight line at the speed of the width, so that things pass through the
picture evenly. A cut-out's middle follows a straight line in the picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from attrs import field, frozen
from numpy.typing import NDArray
from torch import Tensor

from . import stills

Picture = NDArray[np.uint8]
WIDTH, HEIGHT = 512, 288
SAMPLES = 3
"""On each side of a pixel: what it shows is their mean."""


@frozen
class View:
    """Middle and width in pixels of the still."""

    x: float
    y: float
    width: float
    degrees: float = 0.0


@frozen
class Pose:
    """Middle in pixels of the picture; `size` 1 is the cut-out as it was drawn."""

    x: float
    y: float
    degrees: float = 0.0
    size: float = 1.0


@frozen(eq=False)
class Camera:
    """The ground of a scene."""

    still: Tensor
    """[3, H, W]"""
    start: View
    end: View

    def at(self, t: float) -> View:
        size = self.end.width / self.start.width
        share = t if abs(size - 1) < 1e-6 else (size**t - 1) / (size - 1)
        mixed = partial(_mixed, self.start, self.end)
        return View(mixed("x", share), mixed("y", share), self.start.width * size**t, mixed("degrees", t))

    def picture(self, t: float) -> Tensor:
        """[3, HEIGHT, WIDTH]"""
        view = self.at(t)
        return _seen(self.still, view.x, view.y, view.width / WIDTH, view.degrees)


@frozen(eq=False)
class CutOut:
    """A shape, [4, h, w], in front of the ground."""

    shape: Tensor
    start: Pose
    end: Pose

    def over(self, ground: Tensor, t: float) -> Tensor:
        mixed = partial(_mixed, self.start, self.end, t=t)
        size = self.start.size * (self.end.size / self.start.size) ** t
        a, height, width = math.radians(mixed("degrees")), *self.shape.shape[-2:]
        dx, dy = WIDTH / 2 - mixed("x"), HEIGHT / 2 - mixed("y")
        x = width / 2 + (math.cos(a) * dx + math.sin(a) * dy) / size  # where the picture's middle is on the shape
        y = height / 2 + (math.cos(a) * dy - math.sin(a) * dx) / size
        premultiplied = torch.cat((self.shape[:3] * self.shape[3:], self.shape[3:]))
        drawn = _seen(premultiplied, x, y, 1 / size, -mixed("degrees"), "zeros")
        return ground * (1 - drawn[3:]) + drawn[:3]


def _mixed(start: View | Pose, end: View | Pose, name: str, t: float) -> float:
    a, b = getattr(start, name), getattr(end, name)
    return a + (b - a) * t


def _seen(still: Tensor, x: float, y: float, pixel: float, degrees: float, outside: str = "border") -> Tensor:
    """[_, H, W] -> [_, HEIGHT, WIDTH]: around (x, y), one pixel being `pixel` wide on the still."""
    a = math.radians(degrees)
    u = ((torch.arange(WIDTH * SAMPLES) + 0.5) / SAMPLES - WIDTH / 2) * pixel
    v = ((torch.arange(HEIGHT * SAMPLES) + 0.5) / SAMPLES - HEIGHT / 2) * pixel
    v, u = torch.meshgrid(v, u, indexing="ij")
    across, down = x + math.cos(a) * u - math.sin(a) * v, y + math.sin(a) * u + math.cos(a) * v
    grid = torch.stack((2 * across / still.shape[2] - 1, 2 * down / still.shape[1] - 1), -1)[None]
    sampled = F.grid_sample(still[None], grid, mode="bilinear", padding_mode=outside, align_corners=False)
    return F.avg_pool2d(sampled, SAMPLES)[0]


@frozen(eq=False)
class Scene:
    name: str
    ground: Callable[[float], Tensor]
    cut_outs: tuple[CutOut, ...] = ()
    after: Callable[[Tensor, float], Tensor] = field(default=lambda picture, t: picture)
    """What becomes of the finished picture: a fade, a blur."""

    def at(self, t: float) -> Picture:
        """[HEIGHT, WIDTH, 3], exact."""
        picture = self.ground(t)
        for cut_out in self.cut_outs:
            picture = cut_out.over(picture, t)
        picture = self.after(picture, t)
        return (picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy()


def cameras(examples: Path) -> list[Scene]:
    """Nine. `examples` is the folder of the project's own pictures."""
    toy, fox = stills.loaded(examples / "toy_start.png"), stills.loaded(examples / "drawn_start.png")
    rocks, street = stills.rocks(), stills.street()
    moves = (
        ("toy, push 1.6", toy, View(416, 240, 824), View(380, 200, 515)),
        ("toy, pan", toy, View(270, 240, 512), View(470, 235, 512)),
        ("toy, roll", toy, View(400, 240, 560), View(420, 240, 560, 14)),
        ("fox, push 1.8", fox, View(416, 240, 820), View(430, 240, 455)),
        ("fox, pan and roll", fox, View(300, 230, 540), View(480, 250, 500, -6)),
        ("rocks, push 1.8", rocks, View(640, 360, 900), View(700, 330, 500)),
        ("rocks, pull and roll", rocks, View(600, 360, 520, 8), View(660, 360, 780, -4)),
        ("street, pan 180", street, View(420, 380, 640), View(645, 380, 640)),
        ("street, push and pan", street, View(560, 360, 860), View(760, 420, 560)),
    )
    return [Scene(name, Camera(still, start, end).picture) for name, still, start, end in moves]


def cut_outs(examples: Path) -> list[Scene]:
    """Thirteen: textured, drawn and flat ones, on eight grounds that stand and five that move."""
    toy, fox = stills.loaded(examples / "toy_start.png"), stills.loaded(examples / "drawn_start.png")
    rocks, street = stills.rocks(), stills.street()
    figure, ball, disc = stills.figure(), stills.ball(), stills.disc()
    square, triangle = stills.polygon(4, 80, (64, 84, 150)), stills.polygon(3, 90)
    photo = stills.card(toy, 260, 80, 170, 120)
    view = View(640, 380, 640)
    on_street, on_rocks = still(street, view), still(rocks, view)
    on_fox, on_toy = still(fox, View(416, 240, 800)), still(toy, View(416, 240, 800))
    return [
        Scene("figure 140 px, street", on_street, (CutOut(figure, Pose(150, 180), Pose(290, 176)),)),
        Scene("ball 90 px and 40 degrees, rocks", on_rocks, (CutOut(ball, Pose(160, 150), Pose(246, 176, 40)),)),
        Scene("disc 90 px, rocks", on_rocks, (CutOut(disc, Pose(180, 140), Pose(270, 150)),)),
        Scene("disc 120 px, fox", on_fox, (CutOut(disc, Pose(80, 190), Pose(80, 70)),)),
        Scene("square 80 px and 15 degrees, street", on_street, (CutOut(square, Pose(300, 90), Pose(376, 110, 15)),)),
        Scene("figure grows, toy", on_toy, (CutOut(figure, Pose(80, 170, 0, 0.75), Pose(140, 178)),)),
        Scene(
            "figure and disc, street",
            on_street,
            (CutOut(figure, Pose(120, 180), Pose(215, 180)), CutOut(disc, Pose(430, 60), Pose(340, 80))),
        ),
        Scene("card 150 px, rocks", on_rocks, (CutOut(photo, Pose(150, 100), Pose(300, 130)),)),
        Scene(
            "figure against a pan",
            moving(rocks, View(560, 360, 640), View(700, 360, 640)),
            (CutOut(figure, Pose(200, 170), Pose(290, 170)),),
        ),
        Scene(
            "ball in a push",
            moving(street, View(640, 380, 760), View(660, 390, 580)),
            (CutOut(ball, Pose(180, 150), Pose(280, 130, 20)),),
        ),
        Scene(
            "disc in a pan",
            moving(fox, View(330, 240, 560), View(450, 240, 560)),
            (CutOut(disc, Pose(120, 70), Pose(230, 90)),),
        ),
        Scene(
            "card in a roll",
            moving(rocks, View(640, 380, 640), View(640, 380, 640, 9)),
            (CutOut(photo, Pose(200, 120), Pose(310, 150)),),
        ),
        Scene(
            "triangle in a push",
            moving(toy, View(416, 240, 800), View(416, 240, 620)),
            (CutOut(triangle, Pose(420, 60), Pose(400, 170)),),
        ),
    ]


def hard(examples: Path) -> list[Scene]:
    """What the method is known to get wrong, or to leave to RIFE: it must be no worse than that."""
    toy, fox = stills.loaded(examples / "toy_start.png"), stills.loaded(examples / "drawn_start.png")
    rocks, street = stills.rocks(), stills.street()
    figure, ball, star = stills.figure(), stills.ball(), stills.polygon(5, 110, (240, 190, 60), inner=0.45)
    view = View(640, 380, 640)
    pan = moving(rocks, View(590, 360, 640), View(690, 360, 640))
    tiles = stills.tiles()
    plain = torch.full((3, HEIGHT, WIDTH), 0.62)
    poster = stills.card(toy, 200, 40, 330, 280)
    return [
        Scene("a star turns by more than half a corner", still(street, view), (turning(star, 44),)),
        Scene("a square turns by more than half a corner", still(rocks, view), (turning(stills.polygon(4, 90), 62),)),
        Scene("a head moves a little under a pan", pan, (CutOut(ball, Pose(240, 140), Pose(178, 134, 12)),)),
        Scene("a large thing and a pan", pan, (CutOut(poster, Pose(230, 140), Pose(290, 150)),)),
        Scene("a large thing on a plain ground", lambda t: plain, (CutOut(poster, Pose(220, 140), Pose(300, 150)),)),
        Scene("what bends", still(fox, View(416, 240, 800)), after=bent),
        Scene("borders that no keyframe shows", moving(rocks, View(560, 360, 520, 28), View(720, 360, 520, -28))),
        Scene("one tile like the next", moving(tiles, View(400, 300, 512), View(496, 300, 512))),
        Scene("motion blur", moving(rocks, View(560, 360, 640), View(700, 360, 640)), after=smeared),
        Scene("a fade during a pan", moving(toy, View(330, 240, 560), View(450, 240, 560)), after=faded),
        Scene(
            "two cut-outs cross",
            still(rocks, view),
            (CutOut(figure, Pose(180, 150), Pose(320, 150)), CutOut(ball, Pose(320, 140), Pose(190, 160))),
        ),
    ]


def turning(shape: Tensor, degrees: float) -> CutOut:
    return CutOut(shape, Pose(200, 140), Pose(280, 150, degrees))


def bent(picture: Tensor, t: float) -> Tensor:
    """Each part goes its own way, by up to 16 pixels."""
    y, x = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    across = x + 16 * t * torch.sin(y / 41) * torch.cos(x / 67)
    down = y + 12 * t * torch.sin(x / 53)
    grid = torch.stack((2 * across / WIDTH - 1, 2 * down / HEIGHT - 1), -1)[None]
    return F.grid_sample(picture[None], grid, padding_mode="border", align_corners=False)[0]


def smeared(picture: Tensor, t: float) -> Tensor:
    return F.avg_pool2d(F.pad(picture[None], (8, 8, 0, 0), mode="replicate"), (1, 17), 1)[0]


def faded(picture: Tensor, t: float) -> Tensor:
    return picture * (1 - 0.6 * t)


def still(picture: Tensor, view: View) -> Callable[[float], Tensor]:
    """A ground that stands, looked at once."""
    seen = Camera(picture, view, view).picture(0)
    return lambda t: seen


def moving(picture: Tensor, start: View, end: View) -> Callable[[float], Tensor]:
    return Camera(picture, start, end).picture
