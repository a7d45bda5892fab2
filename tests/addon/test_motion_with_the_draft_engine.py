"""The installed extension, the real server and the draft engine: a camera that pans beside a gap, ever faster, enters
it and leaves it at its own speed, because the frames beside the gap went along; without them it jumps."""

from __future__ import annotations

from pathlib import Path

import bpy
import in_blender as b
import numpy as np
import pytest

WIDTH, HEIGHT = 320, 180
BESIDE, GAP = 8, 8
"""Frames of the shot on either side, and between them."""
WAVES = 20
PARTS = 8
"""Of a pixel, that are told apart."""


def place_px(frame: float) -> float:
    """Of the camera at a frame of the shot, over the ground: it speeds up."""
    return 0.5 * frame + 0.25 * frame**2


def ground_at(columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """[rows, columns, 3] 0 to 1 of a ground without two places that look alike, at any part of a pixel."""
    random = np.random.default_rng(7)
    picture = np.zeros((len(rows), len(columns), 3))
    for _ in range(WAVES):
        across, down, phase = random.uniform(-0.25, 0.25), random.uniform(-0.25, 0.25), random.uniform(0, 6.28, 3)
        picture += np.sin(across * columns[None, :, None] + down * rows[:, None, None] + phase)
    return np.clip(0.5 + 0.1 * picture, 0, 1)


def seen(place: float) -> np.ndarray:
    return ground_at(np.arange(WIDTH) + place, np.arange(HEIGHT))


def shot(folder: Path, first: int, count: int) -> list[Path]:
    paths = []
    for frame in range(first, first + count):
        image = bpy.data.images.new("shot", WIDTH, HEIGHT)
        pixels = np.ones((HEIGHT, WIDTH, 4), np.float32)
        pixels[..., :3] = seen(place_px(frame))[::-1]  # Blender keeps the bottom row first
        image.pixels.foreach_set(pixels.ravel())
        image.filepath_raw, image.file_format = str(folder / f"shot_{frame:03d}.png"), "PNG"
        image.save()
        bpy.data.images.remove(image)
        paths.append(folder / f"shot_{frame:03d}.png")
    return paths


def put(scene, paths, start, name):
    strip = b.put_image(scene, paths[0], start, name=name)
    for path in paths[1:]:
        strip.elements.append(path.name)


def places(scene, folder):
    """Where the camera is at every frame of the timeline: the place over the ground from which it is seen so."""
    tried = np.arange(-2, place_px(2 * BESIDE + GAP), 1 / PARTS)
    band = slice(HEIGHT // 2 - 8, HEIGHT // 2 + 8)
    middle = slice(WIDTH // 2 - 40, WIDTH // 2 + 40)
    strip = ground_at(middle.start + tried[0] + np.arange(len(tried) + 80 * PARTS) / PARTS, np.arange(HEIGHT)[band])
    known = [strip[:, i::PARTS][:, :80] for i in range(len(tried))]
    found = []
    for frame in range(1, 1 + 2 * BESIDE + GAP):
        rgb8 = b.captured(scene, frame, WIDTH, HEIGHT, folder / "shown.tga")
        shown = np.frombuffer(rgb8, np.uint8).reshape(HEIGHT, WIDTH, 3)[band, middle] / 255
        found.append(tried[np.argmin([((shown - ground) ** 2).sum() for ground in known])])
    return np.array(found)


def jumps(where):
    """How much the camera's speed changes, in pixels a frame, where it enters the gap and where it leaves it."""
    change = np.abs(np.diff(where, 2))
    enters, leaves = BESIDE - 2, BESIDE + GAP - 2
    return change[enters : enters + 2].max(), change[leaves : leaves + 2].max()


@pytest.fixture
def pump(scene, served, tmp_path):
    """Of the real server, between two pieces of one shot."""
    scene.render.resolution_x, scene.render.resolution_y = WIDTH, HEIGHT
    put(scene, shot(tmp_path, 0, BESIDE), 1, "A")
    put(scene, shot(tmp_path, BESIDE + GAP, BESIDE), 1 + BESIDE + GAP, "B")
    return served


@pytest.mark.timeout(1800)
def test_a_pan_that_speeds_up_goes_through_the_gap_without_a_jump(scene, pump, tmp_path):
    found = {}
    for motion in (False, True):
        scene.inbetween.motion = motion
        b.select(scene, "A", "B")
        b.fill()
        b.turn_until(lambda: not pump.fills, timeout_s=b.SERVER_S)
        assert pump.message == ""
        found[motion] = jumps(places(scene, tmp_path))

    assert max(found[True]) < 0.5 * min(found[False]), f"jumps of speed in pixels a frame: {found}"
