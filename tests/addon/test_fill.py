"""Filling: from two strips to a strip that grows between them."""

from __future__ import annotations

import blender_under_test as b
import bpy


def test_the_gap_between_two_selected_strips_fills(scene, fake, tmp_path):
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "edit.blend"))
    b.two_pictures(scene, tmp_path, gap=12)
    scene.inbetween.prompt = "A ball bounces"
    pump = b.connect()
    b.fill()
    strip = b.ours(scene)[0]
    assert strip.lock
    assert (b.left(strip), b.right(strip), strip.name) == (6, 7, "A ball bounces")
    b.turn_until(lambda: not pump.fills)
    strip = b.ours(scene)[0]
    assert (b.left(strip), b.right(strip)) == (6, 18)
    assert b.names_of(strip) == [f"frame_{i:05d}.png" for i in range(1, 13)]
    assert not strip.lock
    assert strip["inbetween"]["state"] == "finished"
    assert strip["inbetween"]["frames"] == 12
    assert (tmp_path / "inbetween" / strip["inbetween_job"]).is_dir()
    seed = strip["inbetween"]["seed"] % 256
    assert [b.shown_at(scene, 5 + i, tmp_path) for i in (1, 7, 12)] == [(i, seed, 77) for i in (1, 7, 12)]
    assert b.shown_at(scene, 5, tmp_path) == (200, 60, 40)
