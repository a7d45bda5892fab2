"""Which gap a press means: what is muted, lies on another channel or in another scene neither hides nor makes one."""

from __future__ import annotations

import bpy
import in_blender as b
import pytest


@pytest.fixture
def pump(scene, fake, tmp_path):
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "edit.blend"))
    fake.behave(hold_at=1)
    return b.connect()


def gap(scene):
    found = b.module("gaps").find(scene)
    return found.start, found.end, found.before, found.after


def test_a_muted_strip_is_no_picture(scene, pump, tmp_path):
    b.two_pictures(scene, tmp_path, gap=12)
    b.put_image(scene, tmp_path / "A.png", 8, 4, name="off").mute = True
    b.select(scene)
    scene.frame_current = 9
    assert gap(scene) == (6, 18, "A", "B")


def test_what_lies_on_a_muted_channel_is_no_picture(scene, pump, tmp_path):
    b.two_pictures(scene, tmp_path, gap=12)
    b.put_image(scene, tmp_path / "A.png", 4, 20, channel=3, name="off")
    scene.sequence_editor.channels[3].mute = True
    b.select(scene, "A", "off")
    scene.frame_current = 9
    assert gap(scene) == (6, 18, "A", "B")


@pytest.mark.parametrize("selected", [(), ("A",)])
def test_a_background_on_another_channel_hides_no_gap(scene, pump, tmp_path, selected):
    b.two_pictures(scene, tmp_path, gap=12)
    for strip in b.strips(scene):
        strip.channel = 2
    b.put_image(scene, tmp_path / "A.png", 1, 100, channel=1, name="sky")
    b.select(scene, *selected)
    scene.frame_current = 9
    assert gap(scene) == (6, 18, "A", "B")


def test_a_title_over_the_gap_hides_it_not(scene, pump, tmp_path):
    b.two_pictures(scene, tmp_path, gap=12)
    b.put_effect(scene, "TEXT", 4, 2, 32, "title")
    b.select(scene)
    scene.frame_current = 9
    assert gap(scene) == (6, 18, "A", "B")


def test_the_channel_of_the_selected_strip_comes_before_the_playhead(scene, pump, tmp_path):
    b.two_pictures(scene, tmp_path, gap=12)
    for name, start in (("C", 1), ("D", 30)):
        b.put_image(scene, tmp_path / "A.png", start, 3, channel=3, name=name)
    scene.frame_current = 9
    b.select(scene, "C")
    assert gap(scene) == (4, 30, "C", "D")
    b.select(scene, "A")
    assert gap(scene) == (6, 18, "A", "B")


def test_the_gap_after_the_selected_strip_is_meant_where_the_playhead_is_in_none(scene, pump, tmp_path):
    b.two_pictures(scene, tmp_path, gap=12)
    scene.frame_current = 3
    b.select(scene, "A")
    assert gap(scene) == (6, 18, "A", "B")


def test_neighbours_on_two_channels_have_a_gap_under_the_playhead(scene, pump, tmp_path):
    b.two_pictures(scene, tmp_path, gap=12)
    b.strips(scene)["B"].channel = 2
    b.select(scene)
    scene.frame_current = 9
    assert gap(scene) == (6, 18, "A", "B")


def test_another_scenes_fill_does_not_block_the_same_frames_here(scene, pump, fake, tmp_path):
    b.two_pictures(scene, tmp_path)
    b.fill()
    other = bpy.data.scenes.new("Other")
    other.sequence_editor_create()
    other.render.resolution_x, other.render.resolution_y = 64, 36
    for name, start in (("A", 1), ("B", 18)):
        b.put_image(other, tmp_path / "A.png", start, 5, name=name)
    b.select(other, "A", "B")
    assert gap(other) == (6, 18, "A", "B")
    with pytest.raises(b.module("plan").CannotFill, match="is being filled"):
        gap(scene)
