"""Undo, load, save as, delete, move, scene switch, render, disable: at any moment, without a hole or a crash."""

from __future__ import annotations

import threading

import bpy
import in_blender as b
import pytest

MOMENTS = ["queued", "accepted", "first frame", "middle", "last frame"]
GAP = 10


@pytest.fixture
def pump(scene, fake, tmp_path):
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "edit.blend"))
    return b.connect()


def stream_until(moment, pump, fake, scene, tmp_path):
    """Begin a fill and stop it at a moment; returns how many frames the strip holds then."""
    hold = {"queued": 1, "accepted": 1, "first frame": 2, "middle": 6, "last frame": GAP}[moment]
    fake.behave(hold_at=hold)
    b.two_pictures(scene, tmp_path, gap=GAP)
    bpy.ops.ed.undo_push(message="before")
    fill = b.fill()
    bpy.ops.ed.undo_push(message="Fill Gap")
    if moment != "queued":
        b.turn_until(lambda: fill.final.stream and fill.final.stream.progress and len(fill.names) == hold - 1)
        b.turn()
    return hold - 1


def the_strip():
    (strip,) = b.ours(bpy.context.scene)
    return strip


def whole(strip):
    names = [f"frame_{i:05d}.png" for i in range(1, GAP + 1)]
    return b.names_of(strip) == names and b.right(strip) - b.left(strip) == GAP and not strip.lock


@pytest.mark.parametrize("moment", MOMENTS)
def test_undoing_something_else_leaves_no_hole(scene, pump, fake, tmp_path, moment):
    stream_until(moment, pump, fake, scene, tmp_path)
    scene.frame_current = 42
    bpy.ops.ed.undo_push(message="an edit")
    bpy.ops.ed.undo()
    bpy.ops.ed.redo()
    bpy.ops.ed.undo()
    fake.behave(hold_at=None)
    b.turn_until(lambda: not pump.fills)
    assert whole(the_strip())


@pytest.mark.parametrize("moment", MOMENTS)
def test_undoing_the_fill_cancels_it_and_redo_brings_back_what_came(scene, pump, fake, tmp_path, moment):
    came = stream_until(moment, pump, fake, scene, tmp_path)
    bpy.ops.ed.undo()
    assert b.ours(bpy.context.scene) == []
    b.turn_until(lambda: not pump.fills)
    assert b.ours(bpy.context.scene) == []
    bpy.ops.ed.redo()
    b.turn()
    assert len(b.ours(bpy.context.scene)) == (1 if came else 0)
    if came:
        strip = the_strip()
        assert not strip.lock
        assert b.names_of(strip) == [f"frame_{i:05d}.png" for i in range(1, came + 1)]
        assert b.right(strip) - b.left(strip) == came


def test_undo_after_the_end_leaves_the_strip_whole(scene, pump, fake, tmp_path):
    stream_until("middle", pump, fake, scene, tmp_path)
    fake.behave(hold_at=None)
    b.turn_until(lambda: not pump.fills)
    scene.frame_current = 42
    bpy.ops.ed.undo_push(message="an edit")
    bpy.ops.ed.undo()
    bpy.ops.ed.undo()
    b.turn()
    assert b.ours(bpy.context.scene) == [] or whole(the_strip())
    bpy.ops.ed.redo()
    b.turn()
    assert whole(the_strip())


@pytest.mark.parametrize("moment", MOMENTS)
def test_deleting_the_strip_cancels_the_job_and_keeps_its_frames(scene, pump, fake, tmp_path, moment):
    came = stream_until(moment, pump, fake, scene, tmp_path)
    folder = pump.fills[0].folder
    b.strips(scene).remove(the_strip())
    b.turn_until(lambda: not pump.fills)
    assert len(list(folder.glob("frame_*.png"))) >= came
    assert b.ours(scene) == []
    b.turn_until(lambda: pump.client.pong and pump.client.pong.running == 0)


@pytest.mark.parametrize("moment", MOMENTS)
def test_loading_a_file_cancels_and_touches_nothing_of_it(scene, pump, fake, tmp_path, moment):
    stream_until(moment, pump, fake, scene, tmp_path)
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    assert pump.fills == []
    b.turn_for(0.1)
    assert all(not other.sequence_editor or not b.ours(other) for other in bpy.data.scenes)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_file_saved_in_mid_stream_opens_with_an_unlocked_strip(scene, pump, fake, tmp_path, moment):
    came = stream_until(moment, pump, fake, scene, tmp_path)
    bpy.ops.wm.save_mainfile()
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "edit.blend"))
    strip = the_strip()
    assert not strip.lock
    assert strip["inbetween"]["state"] == "stopped"
    assert len(strip.elements) == max(1, came)


@pytest.mark.parametrize("moment", MOMENTS)
def test_save_as_elsewhere_goes_on(scene, pump, fake, tmp_path, moment):
    stream_until(moment, pump, fake, scene, tmp_path)
    (tmp_path / "elsewhere").mkdir()
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "elsewhere" / "copy.blend"))
    fake.behave(hold_at=None)
    b.turn_until(lambda: not pump.fills)
    assert whole(the_strip())
    assert b.shown_at(scene, 5 + GAP, tmp_path)[0] == GAP


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_strip_that_is_moved_and_renamed_grows_where_it_is(scene, pump, fake, tmp_path, moment):
    stream_until(moment, pump, fake, scene, tmp_path)
    strip = the_strip()
    strip.name = "mine now"
    move(strip, 100)
    fake.behave(hold_at=None)
    b.turn_until(lambda: not pump.fills)
    assert whole(the_strip())
    assert b.left(the_strip()) == 106


def move(strip, frames):
    if hasattr(strip, "content_start"):
        strip.content_start += frames
    else:
        strip.frame_start += frames


@pytest.mark.parametrize("moment", MOMENTS)
def test_switching_and_renaming_the_scene_goes_on(scene, pump, fake, tmp_path, moment):
    stream_until(moment, pump, fake, scene, tmp_path)
    scene.name = "Renamed"
    other = bpy.data.scenes.new("Scene")
    bpy.context.window.scene = other
    fake.behave(hold_at=None)
    b.turn_until(lambda: not pump.fills)
    assert whole(b.ours(bpy.data.scenes["Renamed"])[0])


@pytest.mark.parametrize("moment", MOMENTS)
def test_disabling_the_extension_keeps_what_came(scene, pump, fake, tmp_path, moment):
    came = stream_until(moment, pump, fake, scene, tmp_path)
    bpy.ops.preferences.addon_disable(module=b.PACKAGE)
    assert pump.client is None
    found = b.ours(scene)
    assert len(found) == (1 if came else 0)
    assert all(not strip.lock and len(strip.elements) == came for strip in found)
    bpy.ops.preferences.addon_enable(module=b.PACKAGE)


def test_a_copy_of_the_growing_strip_does_not_grow(scene, pump, fake, tmp_path):
    stream_until("middle", pump, fake, scene, tmp_path)
    copy = b.put_image(scene, tmp_path / "A.png", 200, name="copy")
    copy["inbetween_job"] = the_strip_named(scene, "In-Between")["inbetween_job"]
    fake.behave(hold_at=None)
    b.turn_until(lambda: not pump.fills)
    assert len(the_strip_named(scene, "copy").elements) == 1
    assert whole(the_strip_named(scene, "In-Between"))


def the_strip_named(scene, name):
    return b.all_strips(scene)[name]


@pytest.mark.parametrize("moment", MOMENTS)
def test_cancel_keeps_what_came(scene, pump, fake, tmp_path, moment):
    came = stream_until(moment, pump, fake, scene, tmp_path)
    assert bpy.ops.inbetween.cancel() == {"FINISHED"}
    b.turn_until(lambda: not pump.fills)
    found = b.ours(scene)
    assert [len(strip.elements) for strip in found] == ([came] if came else [])
    assert all(not strip.lock and strip["inbetween"]["state"] == "stopped" for strip in found)
    assert pump.message == ""


@pytest.mark.parametrize("moment", MOMENTS)
def test_discard_in_mid_stream_leaves_nothing(scene, pump, fake, tmp_path, moment):
    stream_until(moment, pump, fake, scene, tmp_path)
    b.select(scene, the_strip().name)
    bpy.ops.inbetween.discard()
    fake.behave(hold_at=None)
    b.turn_for(0.1)
    assert b.ours(scene) == []
    assert not list((tmp_path / "inbetween").rglob("*.png"))


def test_nothing_changes_while_blender_renders_or_saves(scene, pump, fake, tmp_path, monkeypatch):
    stream_until("middle", pump, fake, scene, tmp_path)
    fake.behave(hold_at=None)
    runtime, seen = b.module("runtime"), []

    def look(*_):
        runtime._on_timer()
        seen.append(len(the_strip().elements))

    for event in ("render_pre", "save_pre"):
        getattr(bpy.app.handlers, event).append(look)
    try:
        bpy.context.scene.render.filepath = str(tmp_path / "frame.png")
        for _ in range(3):
            b.captured(scene, 1, 64, 36, keep_as=tmp_path / "frame.tga")
            bpy.ops.wm.save_mainfile()
    finally:
        for event in ("render_pre", "save_pre"):
            getattr(bpy.app.handlers, event).remove(look)
    assert set(seen) == {5}
    assert runtime._on_timer() != runtime.WAIT_S
    b.turn_until(lambda: not pump.fills)
    assert whole(the_strip())


def test_no_thread_of_python_runs_beside_blender(scene, pump, fake, tmp_path):
    """Blender on Python 3.11 crashes under one, sooner or later: see frames.Writer."""
    stream_until("middle", pump, fake, scene, tmp_path)
    assert threading.enumerate() == [threading.main_thread()]
