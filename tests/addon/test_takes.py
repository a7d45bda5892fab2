"""Takes know their gap, whatever was done to them since; of the takes of one gap one is seen."""

from __future__ import annotations

import bpy
import in_blender as b
import pytest

GAP = 8


@pytest.fixture
def pump(scene, fake, tmp_path):
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "edit.blend"))
    pump = b.connect()
    b.two_pictures(scene, tmp_path, gap=GAP)
    fill_again(pump)
    return pump


def fill_again(pump):
    b.fill()
    b.turn_until(lambda: not pump.fills)


def new_take(scene, pump, strip):
    """Press New Take on a strip; returns the strip that came of it."""
    b.select(scene, strip.name)
    before = {take["inbetween_job"] for take in b.ours(scene)}
    assert bpy.ops.inbetween.new_take() == {"FINISHED"}
    b.turn_until(lambda: not pump.fills)
    return next(take for take in b.ours(scene) if take["inbetween_job"] not in before)


def fits(scene, strip, folder):
    """It fills the gap between A and B, and its keyframes were their pictures."""
    first, last = b.strips(scene)["A"], b.strips(scene)["B"]
    return (b.left(strip), b.right(strip)) == (b.right(first), b.left(last)) and len(strip.elements) == GAP


def split(scene, strip, frame):
    """Cut a strip in two; returns the right half."""
    b.select(scene, strip.name)
    names = {other.name for other in b.strips(scene)}
    window = bpy.context.temp_override(scene=scene)
    with window:
        bpy.ops.sequencer.split(frame=frame, side="RIGHT")
    return next(other for other in b.strips(scene) if other.name not in names)


def trim_left(strip, frame):
    if hasattr(strip, "left_handle"):
        strip.left_handle = frame
    else:
        strip.frame_final_start = frame


def shift(strip, frames):
    name = "content_start" if hasattr(strip, "content_start") else "frame_start"
    setattr(strip, name, strip.path_resolve(name) + frames)


def test_a_take_that_was_trimmed_is_made_again_in_its_whole_gap(scene, pump, tmp_path):
    old = b.ours(scene)[0]
    trim_left(old, 9)
    b.module("sequencer").set_frames(old, 2)
    assert fits(scene, new_take(scene, pump, old), tmp_path)


def test_a_take_that_was_split_is_made_again_in_its_whole_gap_and_both_halves_are_muted(scene, pump, tmp_path):
    half = split(scene, b.ours(scene)[0], 10)
    new = new_take(scene, pump, half)
    assert fits(scene, new, tmp_path)
    assert [strip.mute for strip in b.ours(scene) if strip.name != new.name] == [True, True]


def test_a_take_that_was_moved_away_is_made_again_in_its_gap(scene, pump, tmp_path):
    old = b.ours(scene)[0]
    shift(old, 40)
    assert fits(scene, new_take(scene, pump, old), tmp_path)
    assert old.mute


def test_a_take_that_was_moved_with_its_neighbours_is_made_again_there(scene, pump, tmp_path):
    for strip in sorted(b.strips(scene), key=b.left, reverse=True):
        shift(strip, 30)
    new = new_take(scene, pump, b.ours(scene)[0])
    assert fits(scene, new, tmp_path)
    assert b.left(new) == 36


def test_a_take_whose_neighbours_moved_apart_is_made_again_for_the_longer_gap(scene, pump, tmp_path):
    shift(b.strips(scene)["B"], 5)
    new = new_take(scene, pump, b.ours(scene)[0])
    assert (b.left(new), b.right(new)) == (6, 6 + GAP + 5)


def test_a_take_without_its_gap_says_so(scene, pump):
    b.strips(scene).remove(b.strips(scene)["A"])
    b.select(scene, b.ours(scene)[0].name)
    with pytest.raises(RuntimeError, match="gap of this take is not there any more: 'A' and 'B' are gone"):
        bpy.ops.inbetween.new_take()


@pytest.mark.parametrize("by", ["selection", "all selected", "playhead", "the take itself"])
def test_a_second_fill_of_a_filled_gap_is_a_new_take(scene, pump, tmp_path, by):
    old = b.ours(scene)[0]["inbetween_job"]
    names = {"selection": ("A", "B"), "all selected": ("A", "B", b.ours(scene)[0].name), "playhead": ()}
    b.select(scene, *names.get(by, (b.ours(scene)[0].name,)))
    scene.frame_current = 9 if by == "playhead" else 1
    fill_again(pump)
    assert [(take["inbetween_job"] == old, take.mute) for take in b.ours(scene)] == [(False, False), (True, True)]
    assert all(fits(scene, take, tmp_path) for take in b.ours(scene))


def test_one_press_goes_to_the_next_take_and_one_back(scene, pump, tmp_path):
    for _ in range(2):
        b.select(scene, "A", "B")
        fill_again(pump)
    jobs = [take["inbetween_job"] for take in sorted(b.ours(scene), key=lambda take: take["inbetween"]["started"])]
    b.select(scene, seen(scene).name)
    shown = []
    for by in (1, 1, 1, -1):
        assert bpy.ops.inbetween.show_take(by=by) == {"FINISHED"}
        assert seen(scene).channel == 1
        assert scene.sequence_editor.active_strip.name == seen(scene).name
        shown.append(seen(scene)["inbetween_job"])
    assert len(set(shown[:3])) == len(jobs) == 3
    assert shown[3] == shown[1]


def seen(scene):
    (strip,) = (take for take in b.ours(scene) if not take.mute)
    return strip


def test_takes_of_another_layers_gap_are_left_alone(scene, pump, tmp_path):
    for name, start in (("C", 1), ("D", 6 + GAP)):
        b.put_image(scene, tmp_path / "A.png", start, 5, channel=4, name=name)
    b.select(scene, "C", "D")
    fill_again(pump)
    assert [(take.channel, take.mute) for take in b.ours(scene)] == [(1, False), (4, False)]


def test_a_take_takes_the_prompt_that_was_written_on_the_strip(scene, pump):
    strip = b.ours(scene)[0]
    strip["inbetween_prompt"] = "slower, and then a jump"
    new = new_take(scene, pump, strip)
    assert new["inbetween"]["prompt"] == new["inbetween_prompt"] == "slower, and then a jump"


def test_use_these_settings_brings_back_all_that_made_a_strip(scene, pump):
    chosen = scene.inbetween
    b.strips(scene).remove(b.ours(scene)[0])
    chosen.prompt, chosen.negative_prompt, chosen.new_seed, chosen.seed, chosen.step = "rain", "snow", False, 4711, 2
    chosen.parameters["fake.strength"], chosen.parameters["fake.style"] = 0.25, 2
    b.select(scene, "A", "B")
    fill_again(pump)
    chosen.prompt, chosen.negative_prompt, chosen.new_seed, chosen.seed, chosen.step = "", "", True, 1, 1
    chosen.parameters["fake.strength"], chosen.parameters["fake.style"] = 0.5, 0
    b.select(scene, b.ours(scene)[0].name)
    assert bpy.ops.inbetween.use_settings() == {"FINISHED"}
    assert (chosen.prompt, chosen.negative_prompt, chosen.new_seed, chosen.seed) == ("rain", "snow", False, 4711)
    assert (chosen.step, chosen.parameters["fake.strength"], chosen.parameters["fake.style"]) == (2, 0.25, 2)


def test_a_hole_cut_into_a_take_is_filled_with_its_settings_and_another_seed(scene, pump, tmp_path):
    first = b.ours(scene)[0]
    seed, job = first["inbetween"]["seed"], first["inbetween_job"]
    middle = split(scene, first, 8)
    split(scene, middle, 11)
    b.strips(scene).remove(middle)
    scene.inbetween.prompt = "something else by now"
    b.select(scene)
    scene.frame_current = 9
    fill_again(pump)
    patch = next(take for take in b.ours(scene) if take["inbetween_job"] != job)
    assert (b.left(patch), b.right(patch), patch.channel) == (8, 11, 1)
    assert patch["inbetween"]["prompt"] == ""
    assert patch["inbetween"]["seed"] != seed
    assert not any(take.mute for take in b.ours(scene))
