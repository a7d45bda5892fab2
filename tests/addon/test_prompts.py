"""Text strips over a gap are its prompts, each for its time."""

from __future__ import annotations

import bpy
import in_blender as b
import pytest

GAP = 12


@pytest.fixture
def pump(scene, fake, tmp_path):
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "edit.blend"))
    b.two_pictures(scene, tmp_path, gap=GAP)
    return b.connect()


def write(scene, text, start, end, channel=3):
    """A text strip over the frames of the gap from `start` to `end`, counted from its start."""
    strip = b.put_effect(scene, "TEXT", channel, 6 + start, 6 + end, f"text {start}")
    strip.text = text
    b.select(scene, "A", "B")
    return strip


def asked(fill):
    b.turn_until(lambda: fill.final.request)
    return fill.final.request.prompt, fill.final.request.prompts


def test_without_a_text_strip_it_is_the_panels_prompt(scene, pump):
    scene.inbetween.prompt = "rain"
    assert asked(b.fill()) == ("rain", ())


def test_a_text_strip_over_the_whole_gap_is_its_prompt(scene, pump):
    scene.inbetween.prompt = "rain"
    write(scene, "a fox turns its head", -3, GAP + 3)
    fill = b.fill()
    assert asked(fill) == ("a fox turns its head", ())
    assert fill.place.strip == "a fox turns its head"


def test_text_strips_in_a_row_are_prompts_one_after_the_other(scene, pump):
    write(scene, "it crouches", 0, 5)
    write(scene, "it leaps", 5, 9)
    write(scene, "it lands", 9, GAP)
    fill = b.fill()
    assert asked(fill) == ("it crouches", ((6, "it leaps"), (10, "it lands")))
    b.turn_until(lambda: not pump.fills)
    assert b.module("record").from_properties(b.ours(scene)[0]["inbetween"].to_dict()).words() == [
        (0, "it crouches"),
        (5, "it leaps"),
        (9, "it lands"),
    ]


def test_where_no_text_stands_the_panels_prompt_counts(scene, pump):
    scene.inbetween.prompt = "rain"
    write(scene, "thunder", 4, 6)
    assert asked(b.fill()) == ("rain", ((5, "thunder"), (7, "rain")))


def test_without_a_panels_prompt_one_text_is_enough(scene, pump):
    write(scene, "thunder", 4, 6)
    assert asked(b.fill()) == ("thunder", ())


def test_muted_texts_and_those_on_muted_channels_say_nothing(scene, pump):
    write(scene, "one", 0, GAP).mute = True
    write(scene, "two", 0, GAP, channel=5)
    scene.sequence_editor.channels[5].mute = True
    assert asked(b.fill()) == ("", ())


def test_on_twos_a_prompt_begins_with_the_picture_that_stands_there(scene, pump):
    scene.inbetween.step = 2
    write(scene, "it crouches", 0, 6)
    write(scene, "it leaps", 6, GAP)
    assert asked(b.fill()) == ("it crouches", ((4, "it leaps"),))


def test_all_gaps_have_their_own_words(scene, pump, tmp_path):
    b.put_image(scene, tmp_path / "A.png", 40, 5, name="C")
    write(scene, "first", 0, GAP)
    write(scene, "second", GAP + 5, 34)
    b.select(scene, "A", "B", "C")
    assert bpy.ops.inbetween.fill_all_gaps() == {"FINISHED"}
    assert [fill.record.prompt for fill in pump.fills] == ["first", "second"]


def test_a_text_is_neither_in_the_keyframes_nor_a_picture(scene, pump):
    write(scene, "WORDS IN THE MIDDLE", -5, GAP + 5).font_size = 30
    fill = b.fill()
    b.turn_until(lambda: fill.final.request)
    assert set(fill.final.request.keyframes[0][1]) == {200, 60, 40}


def test_a_new_take_says_what_the_timeline_says_by_then(scene, pump):
    strip = write(scene, "slowly", 0, GAP)
    b.fill()
    b.turn_until(lambda: not pump.fills)
    strip.text = "fast"
    b.select(scene, b.ours(scene)[0].name)
    assert bpy.ops.inbetween.new_take() == {"FINISHED"}
    assert asked(pump.fills[-1]) == ("fast", ())
    assert scene.sequence_editor.active_strip.name == pump.fills[-1].place.strip


def test_more_prompts_than_the_wire_has_room_for_are_refused_before_anything_changes(scene, pump, tmp_path):
    b.strips(scene)["B"].channel = 1
    for strip in list(b.strips(scene)):
        if strip.name == "B":
            b.strips(scene).remove(strip)
    b.put_image(scene, tmp_path / "B.png", 60, 5, name="B")
    for i in range(20):
        write(scene, f"word {i}", 2 * i, 2 * i + 2)
    with pytest.raises(RuntimeError, match="19 of them, allowed are 0 to 16"):
        bpy.ops.inbetween.fill_gap()
    assert (b.ours(scene), pump.fills) == ([], [])
    assert not list(tmp_path.glob("inbetween/*"))


HOSTILE = ["[", "{}", "[1]", '[["a", "b"]]', "[[0, 1]]", '[[5, "a"], [5, "b"]]', '[[99, "a"]]', "[" * 5000]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_prompts_that_we_did_not_write_are_not_read(text):
    assert b.module("words").from_text(text, 12) is None
