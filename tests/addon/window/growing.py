"""Film strips that grow, for the README: three gaps between the same two pictures, three text strips as prompts, a
draft in each at once, and the small world's own frames in its place while they come.

    VENV/bin/python BLENDER_WINDOW.py tests/addon/window/growing.py

As show.py. `growing-VERSION.webp` is made of the pictures, by the Python of the server, which has Pillow.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import window as w
from window import b, bpy  # by way of the page that sets the folders which Blender reads when it is imported

PANEL, GAP = 5, 16
"""Frames that each picture stands, and frames between two."""
PROMPTS = "a red ball jumps over", "a red ball dives under", "a red ball waits, then runs"
SHOT_S = 0.25
CHANNELS_TALLER = 3
"""Steps by which the timeline is zoomed in."""
WIDTH_PX = 900
"""Of the film."""


def put_animatic(scene: bpy.types.Scene) -> None:
    """Start and end in turns, a text strip over every gap."""
    examples, start = b.PROJECT / "examples", 1
    for i, prompt in enumerate(PROMPTS):
        b.put_image(scene, examples / "world_start.png", start, PANEL, 1, f"Start {i + 1}")
        text = b.put_effect(scene, "TEXT", 2, start + PANEL, start + PANEL + GAP, f"Prompt {i + 1}")
        text.text, text.blend_alpha = prompt, 0.0
        b.put_image(scene, examples / "world_end.png", start + PANEL + GAP, PANEL, 1, f"End {i + 1}")
        start += 2 * PANEL + GAP
    scene.frame_end = start - 1


def scenario() -> Iterator[float]:
    scene = bpy.context.scene
    scene.view_settings.view_transform = "Standard"
    bpy.context.preferences.view.ui_scale = 1.3
    yield from w.open_file(scene, w.HOME / "animatic.blend", 256, 256)
    w.area().spaces.active.show_region_toolbar = False
    put_animatic(scene)
    w.show_tab()
    preferences = bpy.context.preferences.addons[b.PACKAGE].preferences
    preferences.command = w.COMMAND
    bpy.ops.inbetween.start_server()
    pump = b.module("runtime").pump()
    while pump.state != "ready":
        yield 0.2
    scene.inbetween.engine_id = "small-world"
    scene.inbetween.new_seed, scene.inbetween.seed = False, 0  # as in the README's picture of it
    b.select(scene, *(strip.name for strip in b.strips(scene) if strip.type == "IMAGE"))
    yield 1.0
    w.frame_all()
    yield 2.0
    w.zoom_in(CHANNELS_TALLER)
    yield 1.0
    with bpy.context.temp_override(scene=scene):
        bpy.ops.inbetween.fill_all_gaps()
    taken = 0
    while pump.fills or taken % 5:
        scene.frame_current = 1 + taken % scene.frame_end
        yield SHOT_S
        w.shot(f"growing-{taken:04d}")
        taken += 1
    for _ in range(scene.frame_end):
        scene.frame_current = 1 + taken % scene.frame_end
        yield SHOT_S
        w.shot(f"growing-{taken:04d}")
        taken += 1
    assert [strip["inbetween"]["state"] for strip in b.ours(scene)] == ["finished"] * len(PROMPTS), pump.message
    join(taken)


def join(count: int) -> None:
    """One moving picture of all."""
    version = "".join(map(str, bpy.app.version[:2]))
    program = (
        "import sys\nfrom pathlib import Path\nfrom PIL import Image\n"
        "folder, version, count, width = Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:])\n"
        "shots = [Image.open(folder / f'growing-{i:04d}-{version}.png').convert('RGB') for i in range(count)]\n"
        "small = [shot.resize((width, shot.height * width // shot.width), Image.LANCZOS) for shot in shots]\n"
        "small[0].save(folder / f'growing-{version}.webp', save_all=True, append_images=small[1:],\n"
        "              duration=80, loop=0, quality=60, method=4)\n"
    )
    subprocess.run([b.SERVER_PYTHON, "-c", program, w.SHOTS, version, str(count), str(WIDTH_PX)], check=True)


w.run(scenario())
