"""Keyframes: the timeline's own picture, of every kind of strip, and nothing left changed."""

from __future__ import annotations

import subprocess

import bpy
import in_blender as b
import pytest


def keyframes_of(fill):
    """The colours in the middle of the two pictures that were sent."""
    b.turn_until(lambda: fill.final.request)
    middle = (fill.record.height // 2 * fill.record.width + fill.record.width // 2) * 3
    return [tuple(data[middle : middle + 3]) for _, data in fill.final.request.keyframes]


@pytest.fixture
def pump(scene, fake, tmp_path):
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "edit.blend"))
    fake.behave(hold_at=1)
    scene.inbetween.motion = False  # what else goes along is test_motion.py's
    return b.connect()


def finish(pump, fake, scene, gap):
    fake.behave(hold_at=None)
    b.turn_until(lambda: not pump.fills)
    strip = b.ours(scene)[0]
    assert b.right(strip) - b.left(strip) == gap


def test_agx_is_not_applied_to_what_the_server_gets(scene, pump, fake, tmp_path):
    scene.view_settings.view_transform = "AgX"
    scene.view_settings.exposure = 1.0
    b.two_pictures(scene, tmp_path)
    assert keyframes_of(b.fill()) == [(200, 60, 40), (30, 180, 90)]
    assert (scene.view_settings.view_transform, scene.view_settings.exposure) == ("AgX", 1.0)


def test_capturing_changes_no_setting(scene, pump, fake, tmp_path):
    render, output = scene.render, scene.render.image_settings
    if hasattr(output, "media_type"):
        output.media_type = "VIDEO"
    else:
        output.file_format = "FFMPEG"
    render.filepath, render.resolution_percentage, render.use_sequencer = "//out/", 37, False
    scene.frame_current = 3
    before = settings_of(scene)
    b.two_pictures(scene, tmp_path)
    b.fill()
    assert settings_of(scene) == before


def apart():
    if not b.module("sequencer").RENDERS_APART:
        pytest.skip("Blender 5 renders and writes in one step")
    return b.module("capture")


@pytest.mark.parametrize("told", [True, False])
def test_a_render_that_comes_between_two_steps_is_not_taken_for_a_keyframe(scene, pump, tmp_path, monkeypatch, told):
    """The control: where nobody tells of it, it is."""
    capture = apart()
    if not told:
        monkeypatch.setattr(capture, "forget_rendered", lambda: None)
    first, _ = b.two_pictures(scene, tmp_path)
    fill = b.fill()
    while capture._rendered_for is None:
        b.turn()
    scene.frame_set(b.right(first) + 12)
    bpy.ops.render.render()
    assert keyframes_of(fill)[0] == ((200, 60, 40) if told else (30, 180, 90))


def test_rendered_and_written_in_two_steps_it_is_the_same_file(scene, tmp_path, monkeypatch):
    apart()
    scene.view_settings.view_transform = "AgX"
    image = bpy.data.images.new("drawn", 64, 36, alpha=True)
    image.pixels.foreach_set([i % 97 / 96 for i in range(64 * 36 * 4)])
    image.filepath_raw, image.file_format = str(tmp_path / "veil.png"), "PNG"
    image.save()
    b.put_image(scene, tmp_path / "veil.png", 1, 5)
    of_two, of_one = tmp_path / "two.tga", tmp_path / "one.tga"
    b.captured(scene, 2, 64, 36, of_two)
    monkeypatch.setattr(b.module("sequencer"), "RENDERS_APART", False)
    b.captured(scene, 2, 64, 36, of_one)
    assert of_two.read_bytes() == of_one.read_bytes()
    assert len(set(of_one.read_bytes()[18 + 3 :: 4])) > 50, "its alpha is there"


def settings_of(scene):
    owners = (scene.render, scene.render.image_settings, scene.view_settings, scene.display_settings)
    found = {}
    for owner in owners:
        for prop in owner.bl_rna.properties:
            if prop.type in {"BOOLEAN", "INT", "FLOAT", "STRING", "ENUM"} and not prop.is_readonly:
                value = owner.path_resolve(prop.identifier)
                found[owner.bl_rna.identifier, prop.identifier] = value if prop.type != "FLOAT" else repr(value)
    return found | {"frame": scene.frame_current}


def test_colour_strips_are_keyframes(scene, pump, fake):
    for name, colour, start in (("one", (1, 0, 0), 1), ("two", (0, 0, 1), 30)):
        strip = b.put_effect(scene, "COLOR", 1, start, start + 10, name)
        strip.color = colour
    b.select(scene, "one", "two")
    fill = b.fill()
    assert keyframes_of(fill) == [(255, 0, 0), (0, 0, 255)]
    finish(pump, fake, scene, 19)


def test_a_fade_is_seen_as_it_stands_at_the_edge(scene, pump, fake, tmp_path):
    first, _ = b.two_pictures(scene, tmp_path)
    first.blend_alpha = 1.0
    first.keyframe_insert("blend_alpha", frame=1)
    first.blend_alpha = 0.5
    first.keyframe_insert("blend_alpha", frame=5)
    (red, green, _), last = keyframes_of(b.fill())
    assert abs(red - 100) <= 2
    assert abs(green - 30) <= 2
    assert last == (30, 180, 90)
    finish(pump, fake, scene, 12)


def test_movie_strips_give_their_last_and_first_picture(scene, pump, fake, tmp_path):
    for name, colour in (("first", "red"), ("second", "blue")):
        make_movie(tmp_path / f"{name}.mp4", colour)
    for name, start in (("first", 1), ("second", 31)):
        b.strips(scene).new_movie(
            name=name, filepath=str(tmp_path / f"{name}.mp4"), channel=1, frame_start=start, fit_method="FIT"
        )
    b.select(scene, "first", "second")
    first, last = keyframes_of(b.fill())
    assert first[0] > 200
    assert last[2] > 200
    finish(pump, fake, scene, 20)


def make_movie(path, colour):
    """Ten frames of H.264, by the server's environment, which has an encoder."""
    program = (
        "import av, sys, numpy\n"
        "path, colour = sys.argv[1:]\n"
        "pixels = numpy.zeros((36, 64, 3), 'uint8'); pixels[..., 0 if colour == 'red' else 2] = 255\n"
        "with av.open(path, 'w') as out:\n"
        "    stream = out.add_stream('libx264', rate=24); stream.width, stream.height = 64, 36\n"
        "    stream.pix_fmt = 'yuv420p'\n"
        "    for _ in range(10):\n"
        "        out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))\n"
        "    out.mux(stream.encode())\n"
    )
    subprocess.run([b.SERVER_PYTHON, "-c", program, path, colour], check=True, timeout=200)


def test_meta_strips_are_keyframes(scene, pump, fake, tmp_path):
    b.two_pictures(scene, tmp_path)
    make_meta(scene, "A")
    b.select(scene, *(strip.name for strip in b.strips(scene)))
    assert keyframes_of(b.fill()) == [(200, 60, 40), (30, 180, 90)]
    finish(pump, fake, scene, 12)


def make_meta(scene, *names):
    b.select(scene, *names)
    with bpy.context.temp_override(scene=scene):
        bpy.ops.sequencer.meta_make()
    return next(strip for strip in b.strips(scene) if strip.type == "META")


def test_a_gap_inside_an_open_meta_strip_fills_there(scene, pump, fake, tmp_path):
    b.two_pictures(scene, tmp_path)
    meta = make_meta(scene, "A", "B")
    scene.sequence_editor.display_stack(meta)
    b.select(scene, "A", "B")
    b.fill()
    finish(pump, fake, scene, 12)
    assert b.ours(scene)[0].parent_meta().name == meta.name


def test_scene_strips_are_keyframes(scene, pump, fake, tmp_path):
    other = bpy.data.scenes.new("Other")
    other.sequence_editor_create()
    other.render.resolution_x, other.render.resolution_y = 64, 36
    b.put_image(other, b.picture(tmp_path / "inner.png", (10, 20, 200)), 1, 10)
    strip = b.strips(scene).new_scene(name="scene", scene=other, channel=1, frame_start=1)
    strip.scene_input = "SEQUENCER"
    b.module("sequencer").set_frames(strip, 8)
    b.put_image(scene, b.picture(tmp_path / "B.png", (30, 180, 90)), 20, 5, name="B")
    b.select(scene, "scene", "B")
    assert keyframes_of(b.fill()) == [(10, 20, 200), (30, 180, 90)]
    finish(pump, fake, scene, 11)


def test_sound_strips_neither_count_nor_hide_a_gap(scene, pump, fake, tmp_path):
    b.two_pictures(scene, tmp_path)
    wave = tmp_path / "tone.wav"
    write_wave(wave)
    try:
        b.strips(scene).new_sound(name="sound", filepath=str(wave), channel=3, frame_start=1)
    except RuntimeError as error:  # the wheel of 4.2 is built without sound
        pytest.skip(str(error))
    b.select(scene, "A", "B", "sound")
    b.fill()
    finish(pump, fake, scene, 12)


def write_wave(path):
    import wave

    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes(bytes(16000))
