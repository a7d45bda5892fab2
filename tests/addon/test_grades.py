"""What lies above the gap is seen once: not in the keyframes, but over the new strip as over its neighbours."""

from __future__ import annotations

import bpy
import in_blender as b
import pytest


@pytest.fixture
def pump(scene, fake, tmp_path):
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "edit.blend"))
    return b.connect()


def darkened(scene, channel=2):
    """An adjustment layer over everything that halves what is seen."""
    layer = b.put_effect(scene, "ADJUSTMENT", channel, 1, 60, "grade")
    layer.color_multiply = 0.5
    return layer


def keyframes_of(fill):
    b.turn_until(lambda: fill.final.request)
    middle = (fill.record.height // 2 * fill.record.width + fill.record.width // 2) * 3
    return [tuple(data[middle : middle + 3]) for _, data in fill.final.request.keyframes]


def near(one, other):
    return all(abs(a - c) <= 1 for a, c in zip(one, other, strict=True))


def test_a_grade_above_the_gap_is_not_in_the_keyframes_and_lies_over_the_frames(scene, pump, tmp_path):
    b.two_pictures(scene, tmp_path, gap=4)
    darkened(scene)
    b.select(scene, "A", "B")
    assert near(b.shown_at(scene, 5, tmp_path), (100, 30, 20))
    fill = b.fill()
    assert keyframes_of(fill) == [(200, 60, 40), (30, 180, 90)]
    b.turn_until(lambda: not pump.fills)
    assert b.ours(scene)[0].channel == 1
    assert near(b.shown_at(scene, 6, tmp_path), (1 // 2, fill.record.seed % 256 // 2, 77 // 2))


def test_a_veil_above_the_gap_is_not_in_the_keyframes(scene, pump, tmp_path):
    b.two_pictures(scene, tmp_path, gap=4)
    veil = b.put_effect(scene, "COLOR", 3, 1, 60, "veil")
    veil.color, veil.blend_alpha = (1, 1, 1), 0.5
    b.select(scene, "A", "B")
    assert keyframes_of(b.fill()) == [(200, 60, 40), (30, 180, 90)]
    assert not any(channel.mute for channel in scene.sequence_editor.channels)


def test_a_background_below_the_gap_is_in_the_keyframes(scene, pump, tmp_path):
    b.put_image(scene, b.picture(tmp_path / "sky.png", (0, 0, 250)), 1, 60, channel=1, name="sky")
    for name, colour, start in (("A", (200, 60, 40), 1), ("B", (30, 180, 90), 10)):
        strip = b.put_image(scene, b.picture(tmp_path / f"{name}.png", colour), start, 5, channel=2, name=name)
        strip.blend_alpha = 0.5
    b.select(scene, "A", "B")
    (red, green, blue), _ = keyframes_of(b.fill())
    assert near((red, green, blue), (100, 30, 145))


def test_a_new_take_below_a_grade_stays_below_it(scene, pump, tmp_path):
    b.two_pictures(scene, tmp_path, gap=4)
    darkened(scene)
    for _ in range(2):
        b.select(scene, "A", "B")
        fill = b.fill()
        b.turn_until(lambda: not pump.fills)
    seen = next(strip for strip in b.ours(scene) if not strip.mute)
    assert (seen["inbetween_job"], seen.channel) == (fill.job, 1)
    assert near(b.shown_at(scene, 7, tmp_path), (2 // 2, fill.record.seed % 256 // 2, 77 // 2))


def test_a_strip_that_is_in_the_way_sends_the_frames_above_it_but_below_the_grade(scene, pump, tmp_path):
    b.two_pictures(scene, tmp_path, gap=10)
    b.put_image(scene, b.picture(tmp_path / "sky.png", (0, 0, 250)), 8, 3, channel=1, name="in the way")
    darkened(scene, channel=5)
    b.select(scene, "A", "B")
    b.fill()
    b.turn_until(lambda: not pump.fills)
    assert b.ours(scene)[0].channel == 2


def test_an_effect_made_of_the_neighbour_is_in_the_keyframes(scene, pump, tmp_path):
    first, _ = b.two_pictures(scene, tmp_path, gap=4)
    blur = b.put_effect(scene, "GAUSSIAN_BLUR", 2, 1, 6, "blur", of=first)
    blur.color_multiply = 0.5
    b.select(scene, "A", "B")
    first_seen, _ = keyframes_of(b.fill())
    assert near(first_seen, b.shown_at(scene, 5, tmp_path))
    assert first_seen[0] < 110
