"""Take pictures of the extension in a real window: the panel before, during and after, an error, a missing server.

    VENV/bin/python BLENDER_WINDOW.py tests/addon/window/show.py

BLENDER_WINDOW.py is a tool that opens the bpy wheel with its window and runs this script in it. `INBETWEEN_SHOTS` names
the folder for the pictures, `INBETWEEN_COMMAND` the server's command; the times of ticks are printed at the end.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import window as w
from window import b, bpy  # by way of the page that sets the folders which Blender reads when it is imported

ticks_ms: list[float] = []


def open_closed_panels() -> None:
    """Panels that are closed until a user opens them are to be looked at too."""
    for panel in b.module("panel").CLASSES:
        if "DEFAULT_CLOSED" in vars(panel).get("bl_options", ()):
            bpy.utils.unregister_class(panel)
            panel.bl_options = set()
            bpy.utils.register_class(panel)


def watch_ticks() -> None:
    """Measure every turn of the pump that Blender's own timer makes."""
    runtime = b.module("runtime")
    turn = runtime.turn

    def measured(now: float) -> float | None:
        began = time.perf_counter()
        try:
            return turn(now)
        finally:
            ticks_ms.append((time.perf_counter() - began) * 1000)

    runtime.turn = measured


def scenario() -> Iterator[float]:
    """Each yield waits so many seconds in Blender's event loop."""
    scene = bpy.context.scene
    watch_ticks()
    open_closed_panels()
    preferences = bpy.context.preferences.addons[b.PACKAGE].preferences
    preferences.command = "no-such-server serve"
    yield from w.put_timeline(scene)
    w.shot("1-missing-server")
    script = w.HOME / "failing.py"
    script.write_text("raise SystemExit('sfserver: port 5000 is taken: choose another by --port')")
    preferences.command = f"{sys.executable} {script}"
    bpy.ops.inbetween.start_server()
    yield 2.0
    w.shot("2-server-failed")
    preferences.command = w.COMMAND
    bpy.ops.inbetween.start_server()
    pump, runtime = b.module("runtime").pump(), b.module("runtime")
    while pump.state != "ready":
        yield 0.2
    scene.inbetween.prompt = "The ball rolls to the right and warms up"
    yield 1.0
    w.shot("3-ready")
    with bpy.context.temp_override(scene=scene):
        bpy.ops.inbetween.fill_gap()
    scene.frame_current = 20
    fill = pump.fills[-1]
    while len(fill.names) < 16 and pump.fills:
        yield 0.05
    w.shot("4-growing")
    while pump.fills:
        yield 0.1
    b.select(scene, fill.place.strip)
    yield 1.0
    w.shot("5-finished")
    strip = b.ours(scene)[0]
    assert (b.left(strip), b.right(strip), len(strip.elements)) == (13, 60, 47), pump.message
    bpy.ops.inbetween.new_take()
    fill = pump.fills[-1]
    while len(fill.names) < 8 and pump.fills:
        yield 0.05
    runtime.server._process.kill()
    yield 6.0
    w.shot("6-reconnecting")
    bpy.ops.inbetween.start_server()
    while pump.fills:
        yield 0.2
    yield 1.0
    w.shot("7-after-redo")
    ordered = sorted(ticks_ms)
    sys.stdout.write(
        f" {bpy.app.version_string}: {len(ordered)} ticks, mean {statistics.fmean(ordered):.2f} ms, "
        f"p99 {ordered[int(len(ordered) * 0.99)]:.2f} ms, max {ordered[-1]:.2f} ms, strips "
        f"{[(b.left(s), b.right(s), s.mute) for s in b.ours(scene)]}\n"
    )


w.run(scenario())
