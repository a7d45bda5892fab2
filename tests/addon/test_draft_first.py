"""Draft now, final in place: a gap is playable within seconds, and each frame of the engine that takes its time takes
the place of a draft's."""

from __future__ import annotations

import bpy
import in_blender as b
import pytest

GAP = 9
DRAFT, FINAL = 7, 77
"""The blue of their pictures."""


@pytest.fixture
def pump(scene, fake, tmp_path):
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "edit.blend"))
    scene.inbetween.new_seed, scene.inbetween.seed = False, 5
    fake.behave(drafts=True, hold_at=1)
    b.two_pictures(scene, tmp_path, gap=GAP)
    return b.connect()


def the_strip():
    (strip,) = b.ours(bpy.context.scene)
    return strip


def named(final):
    """The files of a strip whose first pictures are final."""
    return [f"frame_{i:05d}.png" if i <= final else f"draft_{i:05d}.png" for i in range(1, GAP + 1)]


def shown(folder):
    """(index, blue) of what the timeline shows at every frame of the gap."""
    scene = bpy.context.scene
    return [b.shown_at(scene, 6 + frame, folder)[::2] for frame in range(GAP)]


def mixture(final):
    return [(i, FINAL if i <= final else DRAFT) for i in range(1, GAP + 1)]


def fill_until(pump, fake, final):
    """A fill whose draft is whole and of which some frames are final; the strip shows it."""
    fill = b.fill()
    b.turn_until(lambda: len(fill.names) == GAP)
    fake.behave(hold_at=final + 1)
    b.turn_until(lambda: fill.final_frames == final)
    b.turn()
    return fill


def finish(pump, fake):
    fake.behave(hold_at=None)
    b.turn_until(lambda: not pump.fills)


def test_the_draft_fills_the_gap_and_every_final_frame_takes_its_place(scene, pump, fake, tmp_path):
    fill = fill_until(pump, fake, 0)
    strip = the_strip()
    assert (b.left(strip), b.right(strip), strip.lock) == (6, 6 + GAP, True)
    assert shown(tmp_path) == mixture(0)
    for final in (1, 2, 5):
        fake.behave(hold_at=final + 1)
        b.turn_until(lambda final=final: fill.final_frames == final)
        b.turn()
        assert b.names_of(the_strip()) == named(final)
        assert shown(tmp_path) == mixture(final)
    finish(pump, fake)
    strip = the_strip()
    assert (b.names_of(strip), strip.lock, pump.message) == (named(GAP), False, "")
    assert (strip["inbetween"]["engine"], strip["inbetween"]["draft_frames"]) == ("fake", 0)
    assert shown(tmp_path) == mixture(GAP)
    assert [path.name for path in sorted(fill.folder.glob("*.png"))] == [*named(GAP), "waiting.png"]


def test_the_final_frames_are_those_without_a_draft(scene, pump, fake):
    with_draft = fill_until(pump, fake, 3)
    finish(pump, fake)
    scene.inbetween.draft_first = False
    without = b.fill()
    b.turn_until(lambda: not pump.fills)
    assert without.draft is None
    assert [path.read_bytes() for path in sorted(with_draft.folder.glob("frame_*.png"))] == [
        path.read_bytes() for path in sorted(without.folder.glob("frame_*.png"))
    ]


def test_off_with_one_checkbox(scene, pump, fake):
    scene.inbetween.draft_first = False
    fill = b.fill()
    b.turn_until(lambda: fill.final.stream and fill.final.stream.progress)
    assert fill.names == []
    finish(pump, fake)
    assert list(fill.folder.glob("draft_*")) == []


def test_the_draft_engine_makes_no_draft_of_itself(scene, pump, fake):
    scene.inbetween.engine_id = "draft"
    assert b.fill().draft is None


def test_a_server_without_a_draft_engine_is_asked_for_none(scene, fake, tmp_path):
    b.connect()
    b.two_pictures(scene, tmp_path, gap=GAP)
    assert b.fill().draft is None


def test_every_gap_has_its_draft_before_anything_takes_its_time(scene, pump, fake, tmp_path):
    for i in range(4):
        b.put_image(scene, tmp_path / "A.png", 30 + 10 * i, 3, name=f"panel {i}")
    b.select(scene, "A", "B", *(f"panel {i}" for i in range(4)))
    fake.behave(draft_hold_at=3)
    bpy.ops.inbetween.fill_all_gaps()
    b.turn_until(lambda: all(fill.draft.request for fill in pump.fills))
    for _ in range(20):
        b.turn()
    assert [fill.final.stream for fill in pump.fills] == [None] * 5
    assert [fill.draft.stream is not None for fill in pump.fills] == [True, True, False, False, False]
    fake.behave(draft_hold_at=None)
    b.turn_until(lambda: all(len(fill.names) == fill.record.frames_wanted for fill in pump.fills))
    assert [fill.final_frames for fill in pump.fills] == [0] * 5
    for _ in range(20):
        b.turn()
    assert [fill.final.stream is not None for fill in pump.fills] == [True, True, False, False, False]
    finish(pump, fake)
    assert all(strip["inbetween"]["state"] == "finished" for strip in b.ours(scene))


def test_cancel_keeps_the_mixture_and_continue_goes_on_with_the_final_where_it_stopped(scene, pump, fake, tmp_path):
    fill_until(pump, fake, 4)
    bpy.ops.inbetween.cancel()
    b.turn_until(lambda: not pump.fills)
    strip = the_strip()
    assert (b.names_of(strip), strip.lock, b.right(strip) - b.left(strip)) == (named(4), False, GAP)
    about = strip["inbetween"]
    assert (about["state"], about["frames"], about["draft_frames"]) == ("stopped", GAP, GAP - 4)
    b.select(scene, strip.name)
    assert bpy.ops.inbetween.go_on() == {"FINISHED"}
    fill = pump.fills[-1]
    b.turn_until(lambda: fill.final.request)
    assert fill.final.request.wanted() == [5, 6, 7, 8, 9]
    assert fill.draft.request is None
    finish(pump, fake)
    assert (b.names_of(the_strip()), shown(tmp_path)) == (named(GAP), mixture(GAP))


def reopened(folder):
    bpy.ops.wm.open_mainfile(filepath=str(folder / "edit.blend"))
    b.turn_for(0.05)


def test_a_file_closed_in_mid_fill_shows_what_has_come_since_and_goes_on(scene, pump, fake, tmp_path):
    fill_until(pump, fake, 2)
    bpy.ops.wm.save_mainfile()
    fake.behave(hold_at=6)
    b.turn_until(lambda: pump.fills[0].final_frames == 5)
    fake.behave(hold_at=1)
    reopened(tmp_path)
    assert (b.names_of(the_strip()), shown(tmp_path)) == (named(5), mixture(5))
    assert (the_strip()["inbetween"]["draft_frames"], b.module("runtime").broken_off) == (GAP - 5, 1)
    assert bpy.ops.inbetween.go_on(everywhere=True) == {"FINISHED"}
    fill = pump.fills[-1]
    b.turn_until(lambda: fill.final.request)
    assert fill.final.request.wanted() == [6, 7, 8, 9]
    finish(pump, fake)
    assert (b.names_of(the_strip()), shown(tmp_path)) == (named(GAP), mixture(GAP))


def test_a_file_closed_while_the_draft_was_made_goes_on_with_both(scene, pump, fake, tmp_path):
    fake.behave(draft_hold_at=4)
    fill = b.fill()
    b.turn_until(lambda: len(fill.names) == 3)
    b.turn()
    bpy.ops.wm.save_mainfile()
    reopened(tmp_path)
    bpy.ops.inbetween.go_on(everywhere=True)
    fill = pump.fills[-1]
    b.turn_until(lambda: fill.final.request)
    assert (fill.draft.request.wanted(), fill.final.request.wanted()) == (list(range(4, 10)), list(range(1, 10)))
    fake.behave(draft_hold_at=None)
    b.turn_until(lambda: len(fill.names) == GAP)
    finish(pump, fake)
    assert b.names_of(the_strip()) == named(GAP)


def test_no_draft_is_asked_for_where_the_final_has_come_already(scene, pump, fake, tmp_path):
    fake.behave(draft_fail_at=4, hold_at=6)
    fill = b.fill()
    b.turn_until(lambda: fill.final_frames == 5)
    bpy.ops.inbetween.cancel()
    b.turn_until(lambda: not pump.fills)
    fake.behave(draft_fail_at=None)
    b.select(scene, the_strip().name)
    bpy.ops.inbetween.go_on()
    fill = pump.fills[-1]
    b.turn_until(lambda: fill.final.request)
    assert fill.draft.request.wanted() == fill.final.request.wanted() == [6, 7, 8, 9]
    b.turn_until(lambda: len(fill.names) == GAP)
    b.turn()
    assert b.names_of(the_strip()) == named(5)


def test_a_file_saved_in_between_shows_no_hole_whatever_became_of_the_fill(scene, pump, fake, tmp_path):
    """Neither as it was saved, for who has no extension, nor in Blender with it."""
    fill = fill_until(pump, fake, 3)
    bpy.ops.wm.save_mainfile()
    finish(pump, fake)
    assert {path.name for path in fill.folder.glob("*.png")} >= set(named(3))
    reopened(tmp_path)
    assert (b.names_of(the_strip()), shown(tmp_path)) == (named(GAP), mixture(GAP))


def test_the_control_saved_before_and_after_the_draft_it_is_not_kept(scene, pump, fake, tmp_path):
    fake.behave(draft_hold_at=1)
    fill = b.fill()
    b.turn_until(lambda: fill.final.stream)
    bpy.ops.wm.save_mainfile()
    fake.behave(draft_hold_at=None)
    b.turn_until(lambda: len(fill.names) == GAP)
    finish(pump, fake)
    bpy.ops.wm.save_mainfile()
    assert list(fill.folder.glob("draft_*")) == []


def test_a_copy_that_shows_the_draft_keeps_it(scene, pump, fake, tmp_path):
    fill = fill_until(pump, fake, 3)
    copy = b.put_image(scene, fill.folder / "draft_00008.png", 200, name="copy")
    finish(pump, fake)
    assert (fill.folder / copy.elements[0].filename).is_file()


def test_the_control_without_a_copy_it_is_deleted(scene, pump, fake, tmp_path):
    fill = fill_until(pump, fake, 3)
    finish(pump, fake)
    assert not (fill.folder / "draft_00008.png").exists()


def test_undoing_something_else_brings_no_draft_back(scene, pump, fake, tmp_path):
    bpy.ops.ed.undo_push(message="before")
    fill = b.fill()
    bpy.ops.ed.undo_push(message="Fill Gap")
    b.turn_until(lambda: len(fill.names) == GAP)
    b.turn()
    scene.frame_current = 42
    bpy.ops.ed.undo_push(message="an edit")
    fake.behave(hold_at=6)
    b.turn_until(lambda: fill.final_frames == 5)
    b.turn()
    bpy.ops.ed.undo()
    bpy.ops.ed.redo()
    b.turn()
    assert b.names_of(the_strip()) == named(5)
    finish(pump, fake)
    bpy.ops.ed.undo()
    b.turn()
    assert (b.names_of(the_strip()), the_strip().lock) == (named(GAP), False)
    assert shown(tmp_path) == mixture(GAP)


def test_undoing_the_fill_and_redoing_it_brings_the_mixture_back(scene, pump, fake, tmp_path):
    bpy.ops.ed.undo_push(message="before")
    fill = b.fill()
    bpy.ops.ed.undo_push(message="Fill Gap")
    b.turn_until(lambda: len(fill.names) == GAP)
    fake.behave(hold_at=4)
    b.turn_until(lambda: fill.final_frames == 3)
    bpy.ops.ed.undo()
    b.turn_until(lambda: not pump.fills)
    assert b.ours(bpy.context.scene) == []
    bpy.ops.ed.redo()
    b.turn()
    assert (b.names_of(the_strip()), the_strip().lock) == (named(3), False)


def test_a_new_take_begins_with_a_draft_of_its_own(scene, pump, fake, tmp_path):
    fill_until(pump, fake, 0)
    finish(pump, fake)
    fake.behave(hold_at=1)
    b.select(scene, the_strip().name)
    assert bpy.ops.inbetween.new_take() == {"FINISHED"}
    fill = pump.fills[-1]
    b.turn_until(lambda: len(fill.names) == GAP)
    finish(pump, fake)
    assert [b.names_of(strip) for strip in b.ours(scene)] == [named(GAP)] * 2
    assert sorted(strip.mute for strip in b.ours(scene)) == [False, True]


def test_where_the_final_engine_fails_the_mixture_stays_and_it_is_said(scene, pump, fake, tmp_path):
    fill_until(pump, fake, 2)
    fake.behave(hold_at=None, fail_at=4)
    b.turn_until(lambda: not pump.fills)
    assert pump.message == "as the test asked. The draft stays where no frame came"
    assert (b.names_of(the_strip()), the_strip()["inbetween"]["state"]) == (named(3), "stopped")
    assert shown(tmp_path) == mixture(3)


def test_where_the_final_engine_fails_at_once_the_draft_is_made_to_its_end(scene, pump, fake, tmp_path):
    fake.behave(hold_at=None, fail_at=1, draft_hold_at=3)
    fill = b.fill()
    b.turn_until(lambda: fill.final.problem)
    fake.behave(draft_hold_at=None)
    b.turn_until(lambda: not pump.fills)
    assert b.names_of(the_strip()) == named(0)


def test_where_the_draft_engine_fails_the_final_goes_on_and_it_is_said(scene, pump, fake, tmp_path):
    fake.behave(draft_fail_at=4)
    fill = b.fill()
    b.turn_until(lambda: len(fill.names) == 3)
    finish(pump, fake)
    assert (b.names_of(the_strip()), the_strip()["inbetween"]["state"]) == (named(GAP), "finished")
    assert pump.message == "There is no draft: as the test asked"


def test_on_twos_a_draft_stands_in_frame_by_frame(scene, pump, fake, tmp_path):
    scene.inbetween.step = 2
    fill = b.fill()
    b.turn_until(lambda: len(fill.names) == GAP)
    fake.behave(hold_at=3)
    b.turn_until(lambda: fill.final.made == 2)
    b.turn()
    assert [red for red, _ in shown(tmp_path)] == [1 + frame // 2 for frame in range(GAP)]
    assert [blue for _, blue in shown(tmp_path)] == [FINAL] * 4 + [DRAFT] * (GAP - 4)
    finish(pump, fake)


def test_a_bar_under_the_strip_shows_how_far_the_final_has_come(scene, pump, fake):
    overlay = b.module("overlay")

    def bars():
        return [(first, last, colour) for first, last, _, colour in overlay.bars(scene)]

    assert bars() == []
    fill_until(pump, fake, 0)
    assert bars() == [(6, 6 + GAP, overlay.DRAFT)]
    fake.behave(hold_at=5)
    b.turn_until(lambda: pump.fills[0].final_frames == 4)
    b.turn()
    assert bars() == [(6, 10, overlay.FINAL), (10, 6 + GAP, overlay.DRAFT)]
    bpy.ops.inbetween.cancel()
    b.turn_until(lambda: not pump.fills)
    assert bars() == []
    b.select(scene, the_strip().name)
    b.module("sequencer").set_frames(the_strip(), 6)
    assert bars() == [(6, 10, overlay.FINAL), (10, 12, overlay.DRAFT)]


def test_a_strip_without_a_draft_has_no_bar(scene, pump, fake):
    scene.inbetween.draft_first = False
    fill = b.fill()
    fake.behave(hold_at=3)
    b.turn_until(lambda: len(fill.names) == 2)
    b.turn()
    assert list(b.module("overlay").bars(scene)) == []


def test_what_the_engine_saw_stands_on_the_strip(scene, pump, fake, tmp_path):
    scene.inbetween.draft_first = False
    fake.behave(hold_at=2, found="camera: pan 20 % left; 0 % unexplained", found_times=2)
    fill = b.fill()
    b.turn_until(lambda: len(fill.names) == 1)
    b.turn()
    assert the_strip()["inbetween"]["found"] == "camera: pan 20 % left; 0 % unexplained"
    finish(pump, fake)
    assert the_strip()["inbetween"]["found"] == "camera: pan 20 % left; 0 % unexplained"
    assert fill.record.found == b.module("written").record_of(scene, the_strip().name).found
