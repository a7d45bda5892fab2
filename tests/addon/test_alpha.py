"""Panels with something transparent: their alpha is captured, sent to an engine that keeps it, and comes back."""

from __future__ import annotations

import bpy
import in_blender as b
import numpy as np
import pytest
from test_panel import draw

GAP = 4
INK, UNSEEN = (200, 60, 40), (0, 255, 0)


def panel(path, left, width=64, height=36):
    """A square of ink on nothing; of what is transparent the colour is another."""
    pixels = np.empty((height, width, 4), np.float32)
    pixels[...] = (*(c / 255 for c in UNSEEN), 0)
    pixels[10:26, left : left + 16] = (*(c / 255 for c in INK), 1)
    image = bpy.data.images.new("drawn", width, height, alpha=True)
    image.pixels.foreach_set(pixels.ravel())
    image.filepath_raw, image.file_format = str(path), "PNG"
    image.save()
    bpy.data.images.remove(image)
    return path


def panels(scene, folder):
    for name, left, start in (("A", 16, 1), ("B", 24, 6 + GAP)):
        strip = b.put_image(scene, panel(folder / f"{name}.png", left), start, 5, channel=2, name=name)
        strip.blend_type = "ALPHA_OVER"
    b.select(scene, "A", "B")


def sent(fill):
    """The first keyframe as it goes to the server: [36, 64, channels]."""
    b.turn_until(lambda: fill.final.stream)
    request = fill.final.request
    return np.frombuffer(request.keyframes[0][1], np.uint8).reshape(36, 64, request.channels)


@pytest.fixture
def saved(scene, tmp_path):
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "edit.blend"))
    return scene


def test_what_is_transparent_is_sent_so_to_an_engine_that_keeps_it(saved, fake, tmp_path):
    fake.behave(engine={"max_channels": 4}, hold_at=1)
    b.connect()
    panels(saved, tmp_path)
    picture = sent(b.fill())
    assert picture.shape[2] == 4
    assert picture[18, 24].tolist() == [*INK, 255]
    assert picture[2, 2, 3] == 0
    assert b.ours(saved)[0].blend_type == "ALPHA_OVER"


def test_an_engine_that_keeps_no_alpha_gets_it_over_black_as_the_timeline_shows_it(saved, fake, tmp_path):
    fake.behave(hold_at=1)
    b.connect()
    panels(saved, tmp_path)
    picture = sent(b.fill())
    assert picture.shape[2] == 3
    assert picture[18, 24].tolist() == [*INK]
    assert picture[2, 2].tolist() == [0, 0, 0]


@pytest.mark.parametrize(("max_channels", "opaque", "said"), [(3, False, True), (4, False, False), (3, True, False)])
def test_that_it_becomes_black_is_said_before_the_press(saved, fake, tmp_path, max_channels, opaque, said):
    fake.behave(engine={"max_channels": max_channels})
    b.connect()
    if opaque:
        b.two_pictures(saved, tmp_path, gap=GAP)
    else:
        panels(saved, tmp_path)
    sentence = "What is transparent becomes black: this engine keeps no alpha"
    assert (sentence in draw("fill").said()) == said
    b.put_image(saved, b.picture(tmp_path / "sky.png", (0, 0, 250)), 1, 60, channel=1, name="sky")
    assert opaque or sentence not in draw("fill").said()


def test_a_background_makes_it_opaque_and_nothing_is_sent_of_alpha(saved, fake, tmp_path):
    fake.behave(engine={"max_channels": 4}, hold_at=1)
    b.connect()
    b.put_image(saved, b.picture(tmp_path / "sky.png", (0, 0, 250)), 1, 60, channel=1, name="sky")
    panels(saved, tmp_path)
    picture = sent(b.fill())
    assert picture.shape[2] == 3
    assert abs(int(picture[2, 2, 2]) - 250) <= 1


def test_scaling_mixes_nothing_in_that_nobody_sees(scene, tmp_path):
    capture, path = b.module("capture"), tmp_path / "large.tga"
    pixels = np.zeros((40, 60, 4), np.uint8)
    pixels[..., :3] = UNSEEN
    pixels[11:29, 13:47] = (*INK, 255)
    capture._write_targa(path, pixels)
    capture.fit(path, 21, 14)
    made = np.frombuffer(capture.read(path, 21, 14), np.uint8).reshape(14, 21, 4)
    soft = made[(made[..., 3] > 16) & (made[..., 3] < 240)]
    assert len(soft), "the control: its edge lies between pixels"
    assert np.abs(made[made[..., 3] > 40][:, :3].astype(int) - INK).max() <= 8
    assert soft[:, 1].max() < 80, "no green"


def test_frames_of_the_draft_engine_have_alpha_and_lie_over_what_is_below(saved, served, tmp_path):
    """The real server."""
    panels(saved, tmp_path)
    fill = b.fill()
    b.turn_until(lambda: not served.fills, timeout_s=b.SERVER_S)
    assert served.message == ""
    frame = bpy.data.images.load(str(fill.folder / "frame_00002.png"))
    assert frame.channels == 4
    made = np.array(frame.pixels).reshape(36, 64, 4)
    assert made[18, 28, 3] > 0.9
    assert made[2, 2, 3] < 0.1
    b.put_image(saved, b.picture(tmp_path / "sky.png", (0, 0, 250)), 1, 60, channel=1, name="sky")
    width, height = saved.render.resolution_x, saved.render.resolution_y
    shown = np.frombuffer(b.captured(saved, 7, width, height, tmp_path / "s.tga"), np.uint8)
    shown = shown.reshape(height, width, 3)
    assert abs(int(shown[2, 2, 2]) - 250) <= 2
    assert np.abs(shown[18, 28].astype(int) - INK).max() <= 12
