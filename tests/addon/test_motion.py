"""Motion goes on: what moves beside a gap is given along, the right pictures of it, and only the gap's frames land.

Every picture of the neighbours carries its number as a bar code, which is read off what is sent.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import bpy
import in_blender as b
import numpy as np
import pytest

WIDTH, HEIGHT, BITS = 64, 36, 8
FRAMES, GAP = 12, 8
BEFORE, AFTER = 0, 20
"""The number of the first picture of each neighbour."""
CUT = 2
"""Frames by which each neighbour is trimmed where it meets the gap."""
LEAD, TAIL = [5, 6, 7, 8, 9], [22, 23, 24, 25]
"""What is seen beside the gap then."""


def bar_code(number: int) -> np.ndarray:
    """[HEIGHT, WIDTH] of 0 and 1: the number's bits as upright bars, the lowest first."""
    bits = np.array([number >> bit & 1 for bit in range(BITS)])
    return np.broadcast_to(np.repeat(bits, WIDTH // BITS), (HEIGHT, WIDTH))


def number_in(rgb8: bytes) -> int:
    pixels = np.frombuffer(rgb8, np.uint8).reshape(HEIGHT, WIDTH, 3)
    middle = pixels[HEIGHT // 2, WIDTH // BITS // 2 :: WIDTH // BITS].mean(axis=1)
    assert ((middle < 60) | (middle > 195)).all(), f"no bar code: {middle}"
    return sum(1 << bit for bit, value in enumerate(middle) if value > 127)


def pictures(folder: Path, first: int, count: int = FRAMES) -> list[Path]:
    paths = []
    for number in range(first, first + count):
        pixels = np.ones((HEIGHT, WIDTH, 4), np.float32)
        pixels[..., :3] = bar_code(number)[..., None]
        image = bpy.data.images.new("bars", WIDTH, HEIGHT)
        image.pixels.foreach_set(pixels.ravel())
        image.filepath_raw, image.file_format = str(folder / f"bars_{number:03d}.png"), "PNG"
        image.save()
        bpy.data.images.remove(image)
        paths.append(folder / f"bars_{number:03d}.png")
    return paths


def put_sequence(scene, folder, start, first, name, count=FRAMES):
    paths = pictures(folder, first, count)
    strip = b.put_image(scene, paths[0], start, name=name)
    for path in paths[1:]:
        strip.elements.append(path.name)
    return strip


def put_movie(scene, folder, start, first, name):
    path = folder / f"{name}.mp4"
    program = (
        "import av, sys, numpy\n"
        "path, first, count, width, height, bits = sys.argv[1], *map(int, sys.argv[2:])\n"
        "with av.open(path, 'w') as out:\n"
        "    stream = out.add_stream('libx264', rate=24, options={'crf': '10'})\n"
        "    stream.width, stream.height, stream.pix_fmt = width, height, 'yuv420p'\n"
        "    for number in range(first, first + count):\n"
        "        row = numpy.repeat([number >> bit & 1 for bit in range(bits)], width // bits) * 255\n"
        "        pixels = numpy.broadcast_to(row[None, :, None], (height, width, 3)).astype('uint8')\n"
        "        out.mux(stream.encode(av.VideoFrame.from_ndarray(numpy.ascontiguousarray(pixels))))\n"
        "    out.mux(stream.encode())\n"
    )
    numbers = [str(n) for n in (first, FRAMES, WIDTH, HEIGHT, BITS)]
    subprocess.run([b.SERVER_PYTHON, "-c", program, path, *numbers], check=True, timeout=200)
    return b.strips(scene).new_movie(name=name, filepath=str(path), channel=1, frame_start=start, fit_method="FIT")


def put_scene(scene, folder, start, first, name):
    other = bpy.data.scenes.new(name)
    other.sequence_editor_create()
    other.render.resolution_x, other.render.resolution_y = WIDTH, HEIGHT
    other.frame_start, other.frame_end = 1, FRAMES
    put_sequence(other, folder, 1, first, name)
    strip = b.strips(scene).new_scene(name=name, scene=other, channel=1, frame_start=start)
    strip.scene_input = "SEQUENCER"
    b.module("sequencer").set_frames(strip, FRAMES)
    return strip


def put_meta(scene, folder, start, first, name):
    put_sequence(scene, folder, start, first, f"inside {name}")
    b.select(scene, f"inside {name}")
    with bpy.context.temp_override(scene=scene):
        bpy.ops.sequencer.meta_make()
    meta = next(strip for strip in b.strips(scene) if strip.type == "META" and b.left(strip) == start)
    meta.name = name
    return meta


KINDS = {"movie": put_movie, "sequence": put_sequence, "scene": put_scene, "meta": put_meta}


def trim_left(strip, frames):
    name = "left_handle" if hasattr(strip, "left_handle") else "frame_final_start"
    setattr(strip, name, b.left(strip) + frames)


def two_moving(scene, folder, kind="sequence"):
    """Two neighbours that move, trimmed where the gap of GAP frames at 11 begins and ends; both selected."""
    b.module("sequencer").set_frames(KINDS[kind](scene, folder, 1, BEFORE, "A"), FRAMES - CUT)
    KINDS[kind](scene, folder, 1 + FRAMES - CUT + GAP - CUT, AFTER, "B")
    trim_left(b.strips(scene)["B"], CUT)
    b.select(scene, "A", "B")
    gap = b.module("gaps").find(scene)
    assert (gap.start, gap.end) == (1 + FRAMES - CUT, 1 + FRAMES - CUT + GAP)


@pytest.fixture
def pump(scene, fake, tmp_path):
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "edit.blend"))
    return b.connect()


def given(fill):
    """(index in the clip, number) of the pictures that were sent."""
    b.turn_until(lambda: fill.final.request)
    return [(index, number_in(data)) for index, data in fill.final.request.keyframes]


def placed(lead, tail, made=GAP):
    """The numbers of a lead and a tail, at their places in the clip."""
    return [*enumerate(lead), *enumerate(tail, len(lead) + made)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_pictures_beside_the_gap_go_along_and_only_the_gaps_frames_land(scene, pump, tmp_path, kind):
    two_moving(scene, tmp_path, kind)
    fill = b.fill()
    assert given(fill) == placed(LEAD, TAIL)
    assert fill.final.request.num_frames == 5 + GAP + 4
    assert fill.final.request.wanted() == list(range(5, 5 + GAP))
    b.turn_until(lambda: not pump.fills)
    strip = b.ours(scene)[0]
    assert (b.left(strip), b.right(strip)) == (11, 11 + GAP)
    assert b.names_of(strip) == [f"frame_{i:05d}.png" for i in range(5, 5 + GAP)]
    assert [b.shown_at(scene, 11 + i, tmp_path)[0] for i in range(GAP)] == list(range(5, 5 + GAP))
    assert sorted(path.suffix for path in fill.folder.iterdir()) == [".png"] * (GAP + 1)


def test_a_tick_renders_one_of_them_or_writes_or_reads_one(scene, pump, tmp_path, monkeypatch):
    two_moving(scene, tmp_path)
    fill, capture, done = b.fill(), b.module("capture"), []
    for name in ("render", "_neutral", "_read_targa", "_scaled"):
        step = vars(capture)[name]
        monkeypatch.setattr(
            capture,
            name,
            lambda *given, step=step, **named: done.append((step.__name__, *given[1:2])) or step(*given, **named),
        )
    ticks = []
    while fill.to_look_at:
        before = sum(step[0] != "render" for step in done)  # it is within another
        interval_s = b.module("runtime").turn(time.monotonic())
        ticks.append(sum(step[0] != "render" for step in done) - before)
        assert (interval_s < b.module("pump").BUSY_S) == bool(fill.to_look_at)
    assert ticks == [1] * (27 if b.module("sequencer").RENDERS_APART else 18)
    assert [step[1] for step in done if step[0] == "render"] == [6, 7, 8, 9, 10, 19, 20, 21, 22]


def test_off_with_one_switch(scene, pump, tmp_path):
    scene.inbetween.motion = False
    two_moving(scene, tmp_path)
    assert given(b.fill()) == placed(LEAD[-1:], TAIL[:1])


def test_a_still_neighbour_gives_one_picture(scene, pump, tmp_path):
    two_moving(scene, tmp_path)
    b.strips(scene).remove(b.strips(scene)["A"])
    b.put_image(scene, tmp_path / "bars_007.png", 1, FRAMES - CUT, name="A")
    b.select(scene, "A", "B")
    assert given(b.fill()) == placed([7], TAIL)


def test_a_short_neighbour_gives_what_it_has(scene, pump, tmp_path):
    two_moving(scene, tmp_path)
    trim_left(b.strips(scene)["A"], FRAMES - CUT - 3)
    b.module("sequencer").set_frames(b.strips(scene)["B"], 2)
    assert given(b.fill()) == placed(LEAD[-3:], TAIL[:2])


def test_on_twos_they_are_as_far_apart_as_what_is_made(scene, pump, tmp_path):
    scene.inbetween.step = 2
    two_moving(scene, tmp_path)
    assert given(b.fill()) == placed([1, 3, 5, 7, 9], [22, 24, 26, 28], made=GAP // 2)


def test_pictures_inside_the_gap_and_motion_go_together(scene, pump, tmp_path):
    two_moving(scene, tmp_path)
    b.put_image(scene, pictures(tmp_path, 99, 1)[0], 14, 1, name="K")
    b.select(scene, "A", "B")
    fill = b.fill()
    assert given(fill) == [*enumerate(LEAD), (8, 99), *enumerate(TAIL, 13)]
    b.turn_until(lambda: not pump.fills)
    key, frames = ["keyframe_00008.tga"], [f"frame_{i:05d}.png" for i in range(5, 13)]
    assert b.names_of(b.ours(scene)[0]) == frames[:3] + key + frames[4:]


def test_a_loop_closes_with_the_motion_at_both_ends(scene, pump, tmp_path):
    put_sequence(scene, tmp_path, 10, BEFORE, "cycle")
    b.select(scene, "cycle")
    assert bpy.ops.inbetween.loop(frames=GAP) == {"FINISHED"}
    assert given(pump.fills[-1]) == placed([7, 8, 9, 10, 11], [0, 1, 2, 3])


@pytest.mark.parametrize(
    ("limits", "lead", "tail"),
    [
        ({"max_keyframes": 5}, 3, 2),
        ({"max_keyframes": 2}, 1, 1),
        ({"max_frames": GAP + 7}, 4, 3),
        ({"max_frames": GAP + 2}, 1, 1),
    ],
)
def test_the_gap_comes_first_where_an_engine_takes_less(scene, fake, tmp_path, limits, lead, tail):
    fake.behave(engine=limits)
    b.connect()
    two_moving(scene, tmp_path)
    assert given(b.fill()) == placed(LEAD[-lead:], TAIL[:tail])


def test_what_the_wire_carries_bounds_them_too():
    motion, plan = b.module("motion"), b.module("plan")
    engine = b.module("sfwire.messages").EngineInfo("e", "E", "", "1", "", True, True, True)
    gap = plan.Gap(1, 9, "A", "B", 1)
    assert motion.fitted(5, 4, gap, 1, 1920, 1080, engine) == (5, 4)
    assert motion.fitted(5, 4, gap, 1, 4096, 2160, engine) == (4, 4)


def test_a_draft_is_told_of_the_motion_too(scene, fake, tmp_path):
    fake.behave(drafts=True)
    b.connect()
    two_moving(scene, tmp_path)
    fill = b.fill()
    assert [index for index, _ in given(fill)] == [index for index, _ in fill.draft.request.keyframes]


def test_a_new_take_has_the_same_motion_and_a_hole_in_a_take_that_of_its_halves(scene, pump, tmp_path):
    two_moving(scene, tmp_path)
    b.fill()
    b.turn_until(lambda: not pump.fills)
    scene.inbetween.motion = False
    b.select(scene, b.ours(scene)[0].name)
    assert bpy.ops.inbetween.new_take() == {"FINISHED"}
    assert given(pump.fills[-1]) == placed(LEAD, TAIL)


def test_a_fill_that_was_broken_off_goes_on_with_the_motion_of_its_beginning(scene, pump, fake, tmp_path):
    fake.behave(hold_at=8)
    two_moving(scene, tmp_path)
    fill = b.fill()
    b.turn_until(lambda: len(fill.names) == 3)
    b.turn()
    bpy.ops.wm.save_mainfile()
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "edit.blend"))
    for element in b.strips(bpy.context.scene)["A"].elements:
        element.filename = "bars_020.png"
    fake.behave(hold_at=None)
    bpy.ops.inbetween.go_on(everywhere=True)
    fill = pump.fills[-1]
    assert given(fill) == placed(LEAD, TAIL)
    assert fill.final.request.wanted() == list(range(8, 5 + GAP))
    b.turn_until(lambda: not pump.fills)
    assert b.names_of(b.ours(bpy.context.scene)[0]) == [f"frame_{i:05d}.png" for i in range(5, 5 + GAP)]
