"""A queue that survives: a file that was closed in mid-fill goes on from the frames on disk, with the same bytes."""

from __future__ import annotations

import bpy
import in_blender as b
import pytest

GAP = 9


@pytest.fixture
def pump(scene, fake, tmp_path):
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "edit.blend"))
    scene.inbetween.new_seed, scene.inbetween.seed = False, 5
    b.two_pictures(scene, tmp_path, gap=GAP)
    return b.connect()


def closed_in_mid_fill(fake, folder, at=5, saved_at=3):
    """Fill up to a frame, the file being saved some frames before, and open it again; returns the fill that was."""
    fake.behave(hold_at=saved_at)
    fill = b.fill()
    b.turn_until(lambda: len(fill.names) == saved_at - 1)
    b.turn()
    bpy.ops.wm.save_mainfile()
    fake.behave(hold_at=at)
    b.turn_until(lambda: len(fill.names) == at - 1)
    bpy.ops.wm.open_mainfile(filepath=str(folder / "edit.blend"))
    fake.behave(hold_at=None)
    return fill


def bytes_of(fill):
    return {path.name: path.read_bytes() for path in fill.folder.glob("frame_*.png")}


def test_a_file_closed_in_mid_fill_offers_to_go_on_and_ends_with_the_same_bytes(scene, pump, fake, tmp_path):
    whole = b.fill()
    b.turn_until(lambda: not pump.fills)
    b.strips(scene).remove(b.ours(scene)[0])
    broken = closed_in_mid_fill(fake, tmp_path)
    scene = bpy.context.scene
    b.turn_for(0.05)
    assert (b.module("runtime").broken_off, pump.fills) == (1, [])  # offered, not begun
    written = {path: path.stat().st_mtime_ns for path in broken.folder.glob("frame_*.png")}
    assert bpy.ops.inbetween.go_on(everywhere=True) == {"FINISHED"}
    fill = pump.fills[-1]
    b.turn_until(lambda: fill.final.request)
    assert fill.final.request.wanted() == [5, 6, 7, 8, 9]
    b.turn_until(lambda: not pump.fills)
    strip = b.ours(scene)[0]
    assert b.names_of(strip) == [f"frame_{i:05d}.png" for i in range(1, GAP + 1)]
    assert (strip.lock, strip["inbetween"]["state"], b.module("runtime").broken_off) == (False, "finished", 0)
    assert bytes_of(fill) == bytes_of(whole)
    assert all(path.stat().st_mtime_ns == when for path, when in written.items())


def test_the_keyframes_are_those_of_the_beginning_whatever_the_timeline_shows_since(scene, pump, fake, tmp_path):
    broken = closed_in_mid_fill(fake, tmp_path)
    asked = broken.keyframes or [(i, (broken.folder / f"keyframe_{i:05d}.tga").read_bytes()) for i in (0, GAP + 1)]
    b.picture(tmp_path / "other.png", (1, 2, 3))
    b.strips(bpy.context.scene)["A"].elements[0].filename = "other.png"
    bpy.ops.inbetween.go_on(everywhere=True)
    fill = pump.fills[-1]
    b.turn_until(lambda: fill.final.request)
    middle = (36 // 2 * 64 + 32) * 3
    assert tuple(fill.final.request.keyframes[0][1][middle : middle + 3]) == (200, 60, 40)
    assert len(asked) == 2


def test_a_keyframe_that_is_gone_or_cut_off_is_looked_at_again(scene, pump, fake, tmp_path):
    broken = closed_in_mid_fill(fake, tmp_path)
    (broken.folder / "keyframe_00000.tga").write_bytes(b"")
    (broken.folder / f"keyframe_{GAP + 1:05d}.tga").unlink()
    bpy.ops.inbetween.go_on(everywhere=True)
    b.turn_until(lambda: not pump.fills)
    assert (len(b.ours(bpy.context.scene)[0].elements), pump.message) == (GAP, "")


def test_a_fill_that_was_cancelled_goes_on_when_asked_and_not_with_all(scene, pump, fake):
    fake.behave(hold_at=4)
    fill = b.fill()
    b.turn_until(lambda: len(fill.names) == 3)
    bpy.ops.inbetween.cancel()
    b.turn_until(lambda: not pump.fills)
    fake.behave(hold_at=None)
    assert b.module("strips").broken_off(scene) == []
    b.select(scene, b.ours(scene)[0].name)
    assert bpy.ops.inbetween.go_on() == {"FINISHED"}
    b.turn_until(lambda: not pump.fills)
    assert len(b.ours(scene)[0].elements) == GAP


def test_on_twos_it_goes_on_too(scene, pump, fake, tmp_path):
    scene.inbetween.step = 2
    fake.behave(hold_at=3)
    fill = b.fill()
    b.turn_until(lambda: fill.final.made == 2)
    bpy.ops.inbetween.cancel()
    b.turn_until(lambda: not pump.fills)
    fake.behave(hold_at=None)
    b.select(scene, b.ours(scene)[0].name)
    bpy.ops.inbetween.go_on()
    b.turn_until(lambda: not pump.fills)
    assert b.names_of(b.ours(scene)[0]) == [f"frame_{1 + i // 2:05d}.png" for i in range(GAP)]


def test_an_engine_that_has_changed_since_is_not_asked_for_the_rest(scene, pump, fake, tmp_path):
    scene.inbetween.engine_id = "fake"
    closed_in_mid_fill(fake, tmp_path)
    fake.behave(engine={"version": "2"})
    b.connect()
    with pytest.raises(RuntimeError, match="Fake has changed since these frames were made: make a new take"):
        bpy.ops.inbetween.go_on(everywhere=True)
