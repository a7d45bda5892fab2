"""What a stranger does with an animatic, in a real window with the zip alone: the server installed by its button, five
panels, text strips as prompts, all gaps, another take, closed and opened again, its folder moved, and the film
rendered. With pictures.

    VENV/bin/python BLENDER_WINDOW.py tests/addon/window/animatic.py

As install.py, whose INBETWEEN_SOURCE it takes too; with INBETWEEN_COMMAND, as show.py, nothing is installed. What the
film holds is printed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import install
import window as w
from window import b, bpy  # by way of the page that sets the folders which Blender reads when it is imported

PANEL, GAP, PANELS = 6, 10, 5
PROMPTS = "the ball rolls right", "it rolls on, slower", "it turns back", "it comes to rest"
LENGTH = PANELS * PANEL + (PANELS - 1) * GAP


def put_animatic(scene: bpy.types.Scene, folder: Path) -> None:
    for i, x in enumerate((0.25, 0.45, 0.65, 0.55, 0.35)):
        start = 1 + i * (PANEL + GAP)
        colour = (0.85, 0.30 + 0.1 * i, 0.22)
        panel = w.draw_panel(folder / f"panel{i + 1}.png", x, colour)
        strip = b.put_image(scene, panel, start, PANEL, name=f"Panel {i + 1}")
        strip.directory = "//"  # as Blender's own file browser writes it
        if i < PANELS - 1:
            text = b.put_effect(scene, "TEXT", 2, start + PANEL, start + PANEL + GAP, f"Text {i + 1}")
            text.text, text.blend_alpha = PROMPTS[i], 0.0
    scene.frame_end = LENGTH


def scenario() -> Iterator[float]:
    project, moved = w.HOME / "project", w.HOME / "elsewhere" / "project"
    for folder in (project, moved.parent):
        shutil.rmtree(folder, ignore_errors=True)
    project.mkdir()
    scene, runtime = bpy.context.scene, b.module("runtime")
    if "INBETWEEN_COMMAND" in os.environ:
        bpy.context.preferences.addons[b.PACKAGE].preferences.command = w.COMMAND
    scene.view_settings.view_transform = "Standard"
    yield from w.open_file(scene, project / "animatic.blend")
    put_animatic(scene, project)
    w.show_tab()
    b.select(scene, *(f"Panel {i + 1}" for i in range(PANELS)))
    yield 1.0
    w.frame_all()
    yield 1.0
    w.shot("animatic-1-panels")
    if "INBETWEEN_COMMAND" not in os.environ:
        yield from install.walk(bpy.ops.inbetween.fill_all_gaps)
    assert bpy.ops.inbetween.fill_all_gaps() == {"FINISHED"}  # no server runs: it comes
    while runtime.wishes:
        yield 0.2
    yield from until_filled()
    assert len(b.ours(scene)) == PANELS - 1, runtime.pump().message
    scene.frame_current = 12
    yield 1.0
    w.shot("animatic-2-filled")
    b.select(scene, b.ours(scene)[1].name)
    assert bpy.ops.inbetween.new_take() == {"FINISHED"}
    yield from until_filled()
    yield 1.0
    w.shot("animatic-3-another-take")
    bpy.ops.wm.save_mainfile()
    moved.parent.mkdir()
    project.rename(moved)
    bpy.ops.wm.open_mainfile(filepath=str(moved / "animatic.blend"))
    yield 3.0
    scene = bpy.context.scene
    shown = [strip for strip in b.ours(scene) if not strip.mute]
    missing = [
        element.filename
        for strip in shown
        for element in strip.elements
        if not (Path(bpy.path.abspath(strip.directory)) / element.filename).is_file()
    ]
    assert (len(shown), missing) == (PANELS - 1, [])
    assert all(Path(bpy.path.abspath(strip.directory)).is_relative_to(moved) for strip in shown)
    w.shot("animatic-4-moved")
    render(scene, moved / "film.mp4")
    sys.stdout.write(f" {bpy.app.version_string}: {what_it_holds(moved / 'film.mp4')}\n")


def until_filled() -> Iterator[float]:
    pump = b.module("runtime").pump()
    while pump.fills:
        yield 0.2
    assert pump.message == "", pump.message


def render(scene: bpy.types.Scene, film: Path) -> None:
    settings = scene.render.image_settings
    if hasattr(settings, "media_type"):
        settings.media_type = "VIDEO"
    settings.file_format = "FFMPEG"
    scene.render.ffmpeg.format, scene.render.ffmpeg.codec = "MPEG4", "H264"
    scene.render.filepath, scene.render.use_file_extension = str(film), False
    bpy.ops.render.render(animation=True)


def what_it_holds(film: Path) -> str:
    """By the Python of the server, which has PyAV: frames, and how much the picture changes at most from one to the
    next."""
    program = (
        "import sys, av, numpy as np\n"
        "frames = [f.to_ndarray(format='rgb24').astype(float) for f in av.open(sys.argv[1]).decode(video=0)]\n"
        "steps = [abs(a - b).mean() for a, b in zip(frames, frames[1:])]\n"
        "print(f'{len(frames)} frames of {frames[0].shape[1]} x {frames[0].shape[0]}, "
        "from frame to frame at most {max(steps):.2f} of 255 on average')\n"
    )
    ended = subprocess.run([b.SERVER_PYTHON, "-c", program, film], capture_output=True, text=True, check=True)
    return ended.stdout.strip()


w.run(scenario())
