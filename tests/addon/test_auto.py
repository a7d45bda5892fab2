"""`Automatic` is the server's choice for each gap: it is asked for `auto`, what it chose and why is shown and kept."""

from __future__ import annotations

import bpy
import in_blender as b
import pytest
from test_panel import draw


@pytest.fixture
def pump(scene, fake, tmp_path):
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "edit.blend"))
    b.two_pictures(scene, tmp_path)
    return b.connect()


def record_of(scene):
    return b.module("record").from_properties(b.ours(scene)[0]["inbetween"].to_dict())


def test_the_server_is_asked_to_choose_and_what_it_chose_is_kept_and_shown(scene, pump):
    assert "Automatic: Fake: the only one" in draw("fill").said()
    fill = b.fill()
    b.turn_until(lambda: fill.final.request is not None)
    assert (fill.final.request.engine, fill.final.request.params) == ("auto", {})
    b.turn_until(lambda: not pump.fills)
    record = record_of(scene)
    assert (record.engine, record.version, record.chosen) == ("fake", "1", "Fake: it has room")
    b.select(scene, b.ours(scene)[0].name)
    assert "Automatic: Fake: it has room" in draw("strip").said()


def test_the_control_an_engine_that_was_chosen_is_asked_for_by_name_with_all_its_settings(scene, pump):
    scene.inbetween.engine_id = "fake"
    b.turn()
    assert "Automatic" not in draw("fill").said()
    fill = b.fill()
    b.turn_until(lambda: fill.final.request is not None)
    assert (fill.final.request.engine, len(fill.final.request.params)) == ("fake", 4)
    b.turn_until(lambda: not pump.fills)
    assert (record_of(scene).engine, record_of(scene).chosen) == ("fake", "")


def test_while_it_grows_the_queue_says_what_was_chosen(scene, pump, fake):
    fake.behave(hold_at=5)
    fill = b.fill()
    b.turn_until(lambda: len(fill.names) == 4)
    b.turn()
    assert "Automatic: Fake: it has room" in draw("queue").said()


def test_a_setting_that_the_user_has_changed_is_sent(scene, pump):
    scene.inbetween.parameters["fake.passes"] = 7
    fill = b.fill()
    b.turn_until(lambda: fill.final.request is not None)
    assert fill.final.request.params == {"passes": 7}


def test_a_new_take_and_the_settings_of_a_strip_leave_the_choice_to_the_server_again(scene, pump):
    b.fill()
    b.turn_until(lambda: not pump.fills)
    b.select(scene, b.ours(scene)[0].name)
    assert bpy.ops.inbetween.new_take() == {"FINISHED"}
    take = pump.fills[-1]
    b.turn_until(lambda: take.final.request is not None)
    assert take.final.request.engine == "auto"
    b.turn_until(lambda: not pump.fills)
    scene.inbetween.engine_id = "fake"
    assert bpy.ops.inbetween.use_settings() == {"FINISHED"}
    assert scene.inbetween.engine_id == "auto"


@pytest.mark.parametrize("changed", [False, True])
def test_what_was_broken_off_goes_on_only_while_the_server_chooses_from_the_same(scene, pump, fake, tmp_path, changed):
    fake.behave(hold_at=5)
    fill = b.fill()
    b.turn_until(lambda: len(fill.names) == 4)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "edit.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "edit.blend"))
    fake.behave(hold_at=None, engine={"version": "2"} if changed else {})
    pump = b.connect()
    scene = bpy.context.scene
    b.select(scene, b.ours(scene)[0].name)
    if changed:
        with pytest.raises(RuntimeError, match="What the server chooses from has changed"):
            bpy.ops.inbetween.go_on()
        return
    assert bpy.ops.inbetween.go_on() == {"FINISHED"}
    b.turn_until(lambda: not pump.fills)
    assert (record_of(scene).state, record_of(scene).frames, record_of(scene).engine) == ("finished", 12, "fake")


def test_a_gap_that_the_usual_engine_cannot_make_is_left_to_another(scene, fake, tmp_path):
    fake.behave(drafts=True, engine={"max_frames": 10})
    b.two_pictures(scene, tmp_path)
    pump = b.connect()
    assert "Automatic: Draft: Fake makes no clip of this length" in draw("fill").said()
    fill = b.fill()
    assert (fill.draft, fill.record.asked) == (None, "auto")
    pump.cancel()
    b.turn_until(lambda: not pump.fills)
