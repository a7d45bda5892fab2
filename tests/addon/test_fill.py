"""Filling: what is asked for, and what stands on the timeline afterwards."""

from __future__ import annotations

import bpy
import in_blender as b
import pytest


@pytest.fixture
def saved(scene, tmp_path):
    """The scene, in a saved file."""
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "edit.blend"))
    return scene


@pytest.fixture
def pump(saved, fake):
    return b.connect()


def test_the_gap_between_two_selected_strips_fills(saved, pump, tmp_path):
    b.two_pictures(saved, tmp_path, gap=12)
    saved.inbetween.prompt = "A ball bounces"
    b.fill()
    strip = b.ours(saved)[0]
    assert strip.lock
    assert (b.left(strip), b.right(strip), strip.name) == (6, 7, "A ball bounces")
    b.turn_until(lambda: not pump.fills)
    strip = b.ours(saved)[0]
    assert (b.left(strip), b.right(strip), strip.channel) == (6, 18, 1)
    assert b.names_of(strip) == [f"frame_{i:05d}.png" for i in range(1, 13)]
    assert not strip.lock
    assert (tmp_path / "inbetween" / strip["inbetween_job"]).is_dir()
    seed = strip["inbetween"]["seed"] % 256
    assert [b.shown_at(saved, 5 + i, tmp_path) for i in (1, 7, 12)] == [(i, seed, 77) for i in (1, 7, 12)]
    assert b.shown_at(saved, 5, tmp_path) == (200, 60, 40)


def test_what_blender_looked_ahead_at_is_composed_anew_whenever_frames_come(saved, pump, tmp_path, monkeypatch):
    """Blender has no preview without a window: that it is told is looked at instead."""
    composed = set()
    monkeypatch.setattr(b.module("strips"), "compose_anew", lambda strip: composed.add(len(strip.elements)))
    b.two_pictures(saved, tmp_path)
    fill, seen = b.fill(), set()
    b.turn_until(lambda: seen.add(len(fill.names)) or not pump.fills)
    assert composed == seen - {0, 1}  # the first takes the place of a picture that was there


def test_the_strip_remembers_everything_that_made_it(saved, pump, tmp_path):
    b.two_pictures(saved, tmp_path, gap=3)
    chosen = saved.inbetween
    chosen.prompt, chosen.negative_prompt, chosen.new_seed, chosen.seed = "rain", "snow", False, 4711
    chosen.parameters["fake.strength"] = 0.25
    b.fill()
    b.turn_until(lambda: not pump.fills)
    record = b.module("record").from_properties(b.ours(saved)[0]["inbetween"].to_dict())
    assert (record.prompt, record.negative_prompt, record.seed) == ("rain", "snow", 4711)
    assert (record.engine, record.version, record.state, record.frames) == ("fake", "1", "finished", 3)
    assert (record.params, record.asked) == ({"strength": 0.25}, "auto")  # what stands at its default is the server's
    assert (record.before, record.after) == ("A", "B")
    assert record.started <= record.ended


def test_the_gap_under_the_playhead_fills_without_a_selection(saved, pump, tmp_path):
    b.two_pictures(saved, tmp_path, gap=9)
    b.select(saved)
    saved.frame_current = 10
    b.fill()
    b.turn_until(lambda: not pump.fills)
    assert (b.left(b.ours(saved)[0]), b.right(b.ours(saved)[0])) == (6, 15)
    assert saved.frame_current == 10


@pytest.mark.parametrize("gap", [1, 400])
def test_the_shortest_and_a_long_gap_fill_exactly(saved, pump, tmp_path, gap):
    b.two_pictures(saved, tmp_path, gap=gap)
    b.fill()
    b.turn_until(lambda: not pump.fills)
    strip = b.ours(saved)[0]
    assert (b.right(strip) - b.left(strip), len(strip.elements)) == (gap, gap)


@pytest.mark.parametrize(("fps", "base"), [(24, 1.0), (25, 1.0), (30, 1.001), (60, 1.0)])
def test_the_number_of_frames_is_the_gaps_at_every_scene_rate(saved, pump, tmp_path, fps, base):
    saved.render.fps, saved.render.fps_base = fps, base
    b.two_pictures(saved, tmp_path, gap=7)
    b.fill()
    b.turn_until(lambda: not pump.fills)
    assert len(b.ours(saved)[0].elements) == 7


@pytest.mark.parametrize(
    ("size", "step"), [((64, 36), 1), ((63, 37), 1), ((64, 64), 16), ((101, 45), 8), ((36, 64), 1)]
)
def test_frames_of_any_size_cover_the_whole_picture(saved, fake, tmp_path, size, step):
    fake.behave(engine={"size_multiple": step})
    saved.render.resolution_x, saved.render.resolution_y = size
    pump = b.connect()
    b.two_pictures(saved, tmp_path, gap=2)
    fill = b.fill()
    assert fill.record.width % step == fill.record.height % step == 0
    b.turn_until(lambda: not pump.fills)
    strip = b.ours(saved)[0]
    assert strip.transform.scale_x == pytest.approx(size[0] / fill.record.width)
    assert strip.transform.scale_y == pytest.approx(size[1] / fill.record.height)
    width, height = size
    data = b.captured(saved, 6, width, height, keep_as=tmp_path / "shown.tga")
    border = width % 2 or height % 2  # Blender blends one pixel at the border of a picture that it puts between pixels
    inside = [
        data[3 * (y * width + x) :][:3] for y in range(border, height - border) for x in range(border, width - border)
    ]
    assert set(inside) == {bytes((1, fill.record.seed % 256, 77))}


def test_an_engines_limit_of_pixels_is_kept(saved, fake, tmp_path):
    fake.behave(engine={"max_pixels": 32 * 18, "size_multiple": 2})
    saved.render.resolution_x, saved.render.resolution_y = 128, 72
    pump = b.connect()
    b.two_pictures(saved, tmp_path, gap=2)
    fill = b.fill()
    assert (fill.record.width, fill.record.height) == (32, 18)
    b.turn_until(lambda: not pump.fills)
    assert b.ours(saved)[0].transform.scale_x == pytest.approx(4.0)


def test_a_gap_that_the_engine_cannot_make_is_refused_with_the_remedy(saved, fake, tmp_path):
    fake.behave(engine={"max_frames": 10})
    b.connect()
    b.two_pictures(saved, tmp_path, gap=9)
    with pytest.raises(RuntimeError, match="poll"):
        bpy.ops.inbetween.fill_gap()
    plan, begin = b.module("plan"), b.module("begin")
    with pytest.raises(plan.CannotFill, match="has 9 frames, Fake fills 8 at most: put a picture"):
        begin.new_record(saved, b.module("gaps").find(saved))


def test_strips_in_the_way_send_the_new_one_to_a_free_channel(saved, pump, tmp_path):
    b.two_pictures(saved, tmp_path, gap=10)
    for channel in (1, 2):  # late in the gap: free at its start
        b.put_image(saved, tmp_path / "A.png", 12, 2, channel=channel, name=f"guest {channel}")
    saved.sequence_editor.channels[3].lock = True
    b.select(saved, "A", "B")
    b.fill()
    b.turn_until(lambda: not pump.fills)
    strip = b.ours(saved)[0]
    assert (strip.channel, b.left(strip), b.right(strip)) == (4, 6, 16)


def test_a_strip_put_in_the_way_while_it_grows_is_evaded(saved, pump, fake, tmp_path):
    fake.behave(hold_at=5)
    b.two_pictures(saved, tmp_path, gap=10)
    b.fill()
    b.turn_until(lambda: len(b.ours(saved)[0].elements) == 4 and b.names_of(b.ours(saved)[0])[0][0] == "f")
    b.put_image(saved, tmp_path / "A.png", 13, 2, channel=1, name="guest")
    fake.behave(hold_at=None)
    b.turn_until(lambda: not pump.fills)
    strip, guest = b.ours(saved)[0], b.strips(saved)["guest"]
    assert (b.left(strip), b.right(strip)) == (6, 16)
    assert (b.left(guest), b.right(guest), guest.channel) == (13, 15, 1)
    assert strip.channel != 1


def test_every_gap_between_the_selected_strips_fills(saved, pump, tmp_path):
    b.two_pictures(saved, tmp_path, gap=4)
    for i, start in enumerate((20, 30, 40)):
        b.put_image(saved, tmp_path / "A.png", start, 3, name=f"panel {i}")
    b.select(saved, "A", "B", "panel 0", "panel 1", "panel 2")
    assert bpy.ops.inbetween.fill_all_gaps() == {"FINISHED"}
    assert len(pump.fills) == 4
    b.turn_until(lambda: not pump.fills)
    filled = [(b.left(strip), b.right(strip)) for strip in b.ours(saved)]
    assert filled == [(6, 10), (15, 20), (23, 30), (33, 40)]


def test_two_gaps_at_once_do_not_mix(saved, pump, fake, tmp_path):
    fake.behave(frame_s=0.005)
    b.two_pictures(saved, tmp_path, gap=20)
    first = b.fill()
    b.put_image(saved, tmp_path / "A.png", 60, 5, name="C")
    b.select(saved, "B", "C")
    second = b.fill()
    b.turn_until(lambda: not pump.fills)
    one, two = b.ours(saved)
    assert (b.right(one) - b.left(one), b.right(two) - b.left(two)) == (20, 29)
    assert b.shown_at(saved, 6, tmp_path)[1] == first.record.seed % 256
    assert b.shown_at(saved, 31, tmp_path)[1] == second.record.seed % 256


def test_the_same_gap_is_not_filled_twice_at_once(saved, pump, fake, tmp_path):
    fake.behave(hold_at=2)
    b.two_pictures(saved, tmp_path)
    b.fill()
    with pytest.raises(RuntimeError, match="poll"):
        bpy.ops.inbetween.fill_gap()


def test_a_new_take_lies_where_the_old_one_lay_and_the_old_one_is_muted_above(saved, pump, tmp_path):
    b.two_pictures(saved, tmp_path, gap=6)
    b.fill()
    b.turn_until(lambda: not pump.fills)
    old = b.ours(saved)[0]
    seed, channel, job = old["inbetween"]["seed"], old.channel, old["inbetween_job"]
    b.select(saved, old.name)
    assert bpy.ops.inbetween.new_take(new_seed=False) == {"FINISHED"}
    b.turn_until(lambda: not pump.fills)
    takes = {strip["inbetween_job"]: strip for strip in b.ours(saved)}
    assert takes[job].mute
    new = next(strip for key, strip in takes.items() if key != job)
    assert (b.left(new), b.right(new), new["inbetween"]["seed"]) == (6, 12, seed)
    assert new.channel == channel < takes[job].channel
    b.select(saved, new.name)
    assert bpy.ops.inbetween.new_take() == {"FINISHED"}
    b.turn_until(lambda: not pump.fills)
    assert len({strip["inbetween"]["seed"] for strip in b.ours(saved)}) == 2


def test_a_redo_that_brings_nothing_shows_the_old_take_again(saved, pump, fake, tmp_path):
    b.two_pictures(saved, tmp_path, gap=6)
    b.fill()
    b.turn_until(lambda: not pump.fills)
    b.select(saved, b.ours(saved)[0].name)
    fake.behave(fail_at=1)
    bpy.ops.inbetween.new_take()
    assert [(strip.channel, strip.mute) for strip in b.ours(saved)] == [(1, False), (2, True)]
    b.turn_until(lambda: not pump.fills)
    assert [strip.mute for strip in b.ours(saved)] == [False]
    assert "as the test asked" in pump.message


def test_discard_takes_the_strip_and_its_frames(saved, pump, tmp_path):
    b.two_pictures(saved, tmp_path, gap=6)
    b.fill()
    b.turn_until(lambda: not pump.fills)
    b.select(saved, b.ours(saved)[0].name)
    assert bpy.ops.inbetween.discard() == {"FINISHED"}
    assert b.ours(saved) == []
    assert list((tmp_path / "inbetween").iterdir()) == []


def test_discard_leaves_frames_that_a_copy_still_shows(saved, pump, tmp_path):
    b.two_pictures(saved, tmp_path, gap=6)
    b.fill()
    b.turn_until(lambda: not pump.fills)
    strip = b.ours(saved)[0]
    folder = tmp_path / "inbetween" / strip["inbetween_job"]
    b.put_image(saved, folder / "frame_00003.png", 100, 2, name="still in use")
    b.select(saved, strip.name)
    bpy.ops.inbetween.discard()
    assert (folder / "frame_00003.png").exists()


def test_clean_unused_deletes_only_frames_that_no_strip_uses(saved, pump, tmp_path):
    b.two_pictures(saved, tmp_path, gap=4)
    for _ in range(2):
        b.select(saved, "A", "B")
        b.fill()
        b.turn_until(lambda: not pump.fills)
    gone, kept = b.ours(saved)
    gone_job, kept_job = gone["inbetween_job"], kept["inbetween_job"]
    b.strips(saved).remove(gone)
    note = tmp_path / "inbetween" / gone_job / "my notes.txt"
    note.write_text("mine")
    (tmp_path / "inbetween" / "reference").mkdir()
    assert bpy.ops.inbetween.clean_unused() == {"FINISHED"}
    assert [path.name for path in (tmp_path / "inbetween" / gone_job).iterdir()] == ["my notes.txt"]
    assert len(list((tmp_path / "inbetween" / kept_job).glob("frame_*.png"))) == 4
    assert (tmp_path / "inbetween" / "reference").is_dir()


def test_an_unsaved_file_keeps_frames_in_the_users_folder_and_says_so(scene, fake, tmp_path, capfd):
    pump = b.connect()
    b.two_pictures(scene, tmp_path, gap=3)
    b.fill()
    assert "The file is not saved" in capfd.readouterr().out
    b.turn_until(lambda: not pump.fills)
    directory = bpy.path.abspath(b.ours(scene)[0].directory)
    assert directory.startswith(bpy.utils.user_resource("DATAFILES"))


def test_the_pump_hands_the_server_few_requests_and_keeps_the_rest(saved, pump, fake, tmp_path):
    fake.behave(hold_at=1)
    b.two_pictures(saved, tmp_path, gap=4)
    for i in range(5):
        b.put_image(saved, tmp_path / "A.png", 30 + 10 * i, 3, name=f"panel {i}")
    b.select(saved, "A", "B", *(f"panel {i}" for i in range(5)))
    bpy.ops.inbetween.fill_all_gaps()
    b.turn_until(lambda: all(fill.final.request for fill in pump.fills))
    for _ in range(20):
        b.turn()
    assert [fill.final.stream is not None for fill in pump.fills] == [True, True, False, False, False, False]
    fake.behave(hold_at=None)
    b.turn_until(lambda: not pump.fills)
    assert len(b.ours(saved)) == 6
