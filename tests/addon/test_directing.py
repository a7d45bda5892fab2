"""Directing what happens in a gap: pictures inside it, on twos and threes, loops."""

from __future__ import annotations

import bpy
import in_blender as b
import pytest


@pytest.fixture
def pump(scene, fake, tmp_path):
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "edit.blend"))
    return b.connect()


def request_of(fill):
    b.turn_until(lambda: fill.final.request)
    return fill.final.request


def given(fill):
    """(index, colour) of the keyframes that were sent."""
    middle = (fill.record.height // 2 * fill.record.width + fill.record.width // 2) * 3
    return [(index, tuple(data[middle : middle + 3])) for index, data in request_of(fill).keyframes]


def frames(*indices):
    return [f"frame_{index:05d}.png" for index in indices]


def three_pictures(scene, folder, hold=2):
    """A, a blue picture that stands `hold` frames, and B, with gaps of four and five frames."""
    b.two_pictures(scene, folder, gap=4 + hold + 5)
    b.put_image(scene, b.picture(folder / "K.png", (0, 0, 250)), 10, hold, name="K")


@pytest.mark.parametrize("selected", [("A", "K", "B"), ("A", "B")])
def test_a_picture_in_the_gap_is_a_keyframe_and_stays(scene, pump, tmp_path, selected):
    three_pictures(scene, tmp_path)
    b.select(scene, *selected)
    fill = b.fill()
    assert given(fill) == [(0, (200, 60, 40)), (5, (0, 0, 250)), (11, (30, 180, 90))]
    b.turn_until(lambda: not pump.fills)
    strip = b.ours(scene)[0]
    key = "keyframe_00005.tga"
    assert b.names_of(strip) == [*frames(1, 2, 3, 4), key, key, *frames(6, 7, 8, 9, 10)]
    assert (b.left(strip), b.right(strip)) == (6, 17)
    kept = b.strips(scene)["K"]
    assert (b.left(kept), b.right(kept), kept.channel, kept.mute) == (10, 12, 1, False)
    assert b.shown_at(scene, 10, tmp_path) == b.shown_at(scene, 11, tmp_path) == (0, 0, 250)
    assert b.shown_at(scene, 12, tmp_path)[0] == 6
    assert sorted(path.name for path in fill.folder.glob("*.tga")) == [key]


def test_what_moves_in_the_gap_parts_it(scene, pump, tmp_path):
    three_pictures(scene, tmp_path, hold=1)
    b.strips(scene)["K"].elements.append("A.png")
    b.select(scene, "A", "K", "B")
    with pytest.raises(b.module("plan").CannotFill, match="have 2 gaps between them, and what parts them moves"):
        b.module("gaps").find(scene)
    assert bpy.ops.inbetween.fill_all_gaps() == {"FINISHED"}
    b.turn_until(lambda: not pump.fills)
    assert [(b.left(strip), b.right(strip)) for strip in b.ours(scene)] == [(6, 10), (12, 16)]


def test_more_pictures_than_the_engine_takes_are_refused(scene, fake, tmp_path):
    fake.behave(engine={"max_keyframes": 2})
    b.connect()
    three_pictures(scene, tmp_path)
    b.select(scene, "A", "K", "B")
    begin, gaps = b.module("begin"), b.module("gaps")
    gap, engine = gaps.with_keyframes(scene, gaps.find(scene)), begin.engine_for(scene)
    with pytest.raises(b.module("plan").CannotFill, match="There are 3 keyframes, Fake takes 2"):
        begin.check(scene, gap, engine)


def test_a_new_take_goes_through_the_same_pictures(scene, pump, tmp_path):
    three_pictures(scene, tmp_path)
    b.select(scene, "A", "K", "B")
    b.fill()
    b.turn_until(lambda: not pump.fills)
    b.select(scene, b.ours(scene)[0].name)
    assert bpy.ops.inbetween.new_take() == {"FINISHED"}
    assert [index for index, _ in given(pump.fills[-1])] == [0, 5, 11]


@pytest.mark.parametrize(("step", "made"), [(1, 7), (2, 4), (3, 3), (4, 2)])
def test_on_twos_every_picture_stands_two_frames_and_half_as_many_are_made(scene, pump, tmp_path, step, made):
    scene.inbetween.step = step
    b.two_pictures(scene, tmp_path, gap=7)
    fill = b.fill()
    assert request_of(fill).num_frames == made + 2
    b.turn_until(lambda: not pump.fills)
    strip = b.ours(scene)[0]
    assert b.names_of(strip) == frames(*(1 + frame // step for frame in range(7)))
    assert b.right(strip) - b.left(strip) == 7
    assert len(list(fill.folder.glob("frame_*.png"))) == made
    assert [b.shown_at(scene, 6 + frame, tmp_path)[0] for frame in range(7)] == [1 + f // step for f in range(7)]


def test_on_twos_a_gap_may_be_twice_as_long(scene, fake, tmp_path):
    fake.behave(engine={"max_frames": 8})
    b.connect()
    b.two_pictures(scene, tmp_path, gap=12)
    begin, gap = b.module("begin"), b.module("gaps").find(scene)
    with pytest.raises(b.module("plan").CannotFill, match="fill on twos"):
        begin.check(scene, gap, begin.engine_for(scene))
    scene.inbetween.step = 2
    begin.check(scene, gap, begin.engine_for(scene))


def test_on_twos_a_strip_grows_by_pairs(scene, pump, fake, tmp_path):
    scene.inbetween.step = 2
    fake.behave(hold_at=3)
    b.two_pictures(scene, tmp_path, gap=7)
    fill = b.fill()
    b.turn_until(lambda: fill.final.made == 2)
    b.turn()
    assert b.names_of(b.ours(scene)[0]) == frames(1, 1, 2, 2)


def test_a_loop_leads_back_to_the_strips_own_first_picture(scene, pump, tmp_path):
    paths = [b.picture(tmp_path / f"{i}.png", (40 * i, 0, 0)) for i in range(1, 5)]
    strip = b.put_image(scene, paths[0], 10, name="cycle")
    for path in paths[1:]:
        strip.elements.append(path.name)
    b.select(scene, "cycle")
    scene.inbetween.motion = False
    assert bpy.ops.inbetween.loop(frames=5) == {"FINISHED"}
    assert given(pump.fills[-1]) == [(0, (160, 0, 0)), (6, (40, 0, 0))]
    b.turn_until(lambda: not pump.fills)
    made = b.ours(scene)[0]
    assert (b.left(made), b.right(made), made.channel) == (14, 19, 1)
    b.select(scene, made.name)
    assert bpy.ops.inbetween.new_take() == {"FINISHED"}
    assert given(pump.fills[-1]) == [(0, (160, 0, 0)), (6, (40, 0, 0))]


def test_the_exposure_sheet_holds_for_any_gap():
    """Every frame has a picture, none is skipped, a given one stands where it stands."""
    sheet = b.module("sheet")
    for frames_ in range(1, 14):
        for step in range(1, 5):
            for inside in ([], [(0, 1)], [(3, 5)], [(2, 3), (3, 6)], [(frames_ - 1, frames_)]):
                if any(right > frames_ for _, right in inside):
                    continue
                drawn = sheet.draw_up(frames_, inside, step)
                given_ = dict(drawn.keys)
                assert len(drawn.shown) == frames_
                assert set(drawn.shown) | {0, drawn.clip_frames - 1} == set(range(drawn.clip_frames))
                assert list(drawn.shown) == sorted(drawn.shown)
                assert (drawn.clip_frames, len(drawn.keys)) == sheet.clip_length(frames_, inside, step)
                for frame, index in enumerate(drawn.shown):
                    assert (index in given_) == any(left <= frame < right for left, right in inside)
                for missing in range(drawn.clip_frames + 1):
                    assert drawn.ready(missing) == tuple(i for i in drawn.shown if i < missing)
