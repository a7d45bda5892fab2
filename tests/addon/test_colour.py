"""Colour configurations that are not Blender's own, and what is said of them before the press."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import bpy
import in_blender as b
import pytest

CONFIG = Path(__file__).with_name("colour") / "no_standard_view.ocio"
PROGRAM = """
import sys
sys.path.insert(0, {here!r})
import in_blender as b, bpy, pathlib
folder = pathlib.Path({folder!r})
b.install()
scene = b.fresh_scene()
bpy.ops.wm.save_as_mainfile(filepath=str(folder / "edit.blend"))
first, last = b.two_pictures(scene, folder, gap=3)
for strip in (first, last):
    strip.colorspace_settings.name = "video"
before = scene.display_settings.display_device, scene.view_settings.view_transform
scene.view_settings.view_transform = "Plain"
pump = b.connect()
print("SAID", b.module("capture").what_differs(scene, b.module("gaps").find(scene)))
fill = b.fill()
b.turn_until(lambda: fill.final.request)
middle = (36 // 2 * 64 + 32) * 3
print("KEYFRAMES", [tuple(data[middle:middle + 3]) for _, data in fill.final.request.keyframes])
b.turn_until(lambda: not pump.fills)
print("FILLED", len(b.ours(scene)[0].elements), repr(pump.message))
print("VIEW", scene.view_settings.view_transform, len(bpy.data.scenes))
"""


def test_a_configuration_without_srgb_and_standard_is_seen_through_its_own_default_view(fake, tmp_path):
    program = PROGRAM.format(here=str(Path(__file__).parent), folder=str(tmp_path))
    private = {"OCIO": str(CONFIG), "BLENDER_USER_RESOURCES": str(tmp_path / "blender")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | private, capture_output=True, text=True, timeout=120
    )
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines() if line.split(" ")[0].isupper())
    assert "has no Standard view on sRGB: its own default view is used" in said["SAID"], done.stderr
    assert said["KEYFRAMES"] == "[(200, 60, 40), (30, 180, 90)]"
    assert said["FILLED"] == "3 ''"
    assert said["VIEW"] == "Plain 1"


@pytest.fixture
def gap(scene, tmp_path):
    b.two_pictures(scene, tmp_path)
    return b.module("gaps").find(scene)


def said(scene, gap):
    return b.module("capture").what_differs(scene, gap)


def test_pictures_of_eight_bits_need_no_word(scene, gap):
    scene.view_settings.view_transform = "AgX"
    assert said(scene, gap) == []


def test_a_render_above_white_is_said_to_be_cut_off_under_a_look(scene, tmp_path):
    other = bpy.data.scenes.new("Other")
    strip = b.strips(scene).new_scene(name="render", scene=other, channel=1, frame_start=1)
    b.module("sequencer").set_frames(strip, 5)
    b.put_image(scene, b.picture(tmp_path / "B.png", (30, 180, 90)), 18, 5, name="B")
    b.select(scene, "render", "B")
    gap = b.module("gaps").find(scene)
    scene.view_settings.view_transform = "AgX"
    assert said(scene, gap) == ["What is brighter than white is cut off: the frames are made before AgX"]
    scene.view_settings.view_transform = "Standard"
    assert said(scene, gap) == []


def test_a_sequencer_that_does_not_work_in_srgb_is_named(scene, gap):
    scene.sequencer_colorspace_settings.name = "Linear Rec.709"
    assert said(scene, gap) == ["The sequencer works in Linear Rec.709, the frames are sRGB"]
