"""One zip, one button, in a real window: a fresh user folder, Fill Gap, Install Server, a filled gap. With pictures.

    VENV/bin/python BLENDER_WINDOW.py tests/addon/window/install.py

As in show.py. `INBETWEEN_SOURCE` is the Package Source, `INBETWEEN_BACKEND` auto, cpu or nvidia; without a source it
downloads what a user would, from where pip is set up to. With the INBETWEEN_HOME, BLENDER_USER_RESOURCES and
SFSERVER_CONNECTION_FILE of an earlier walk it updates. What it took is printed.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import window as w
from window import b, bpy  # by way of the page that sets the folders which Blender reads when it is imported


def walk(press: Callable[[], object]) -> Iterator[float]:
    """From a press that needs a server which is not there, by way of the page and its button, to one that is there."""
    installing = b.module("installing")
    preferences = bpy.context.preferences.addons[b.PACKAGE].preferences
    preferences.source = os.environ.get("INBETWEEN_SOURCE", "")
    preferences.backend = os.environ.get("INBETWEEN_BACKEND", "auto")
    if installing.state() == "absent":
        press()
    else:  # a home that was walked before: its server is updated
        bpy.ops.inbetween.show_install()
    yield 2.0
    w.shot("install-2-page")
    bpy.context.preferences.system.use_online_access = True
    yield 1.0
    w.shot("install-3-may-go-online")
    began, longest, installer = time.monotonic(), 0.0, installing.installer()
    assert bpy.ops.inbetween.install_server() == {"FINISHED"}
    last, pictured = time.monotonic(), set()
    while installer.busy:
        title = installer._steps[installer._at].title
        if (title, installer._reader.installing) not in pictured and installer.fraction > 0.05:
            pictured.add((title, installer._reader.installing))
            w.shot(f"install-4-{len(pictured)}")
            last = time.monotonic()
        yield 0.02
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
    took = time.monotonic() - began
    yield 1.0
    w.shot("install-5-installed")
    assert (installer.problem, installing.state()) == ("", "ready"), installer.problem
    sys.stdout.write(
        f" {bpy.app.version_string}: installed in {took:.0f} s, main thread away for at most {1e3 * longest:.0f} ms\n"
    )
    windows = bpy.context.window_manager.windows
    while len(windows) > 1:
        with bpy.context.temp_override(window=windows[-1]):
            bpy.ops.wm.window_close()
        yield 1.0


def scenario() -> Iterator[float]:
    scene = bpy.context.scene
    runtime = b.module("runtime")
    yield from w.put_timeline(scene)
    scene.frame_current = 20
    w.shot("install-1-panel")
    yield from walk(bpy.ops.inbetween.fill_gap)
    began = time.monotonic()
    bpy.ops.inbetween.fill_gap()
    yield 0.5
    w.shot("install-6-starting")
    while runtime.wishes:
        yield 0.1
    started = time.monotonic() - began
    while not runtime.pump().message and runtime.pump().fills:
        yield 0.1
    yield 1.0
    w.shot("install-7-filled")
    strip = b.ours(scene)[0]
    assert (b.left(strip), b.right(strip), len(strip.elements)) == (13, 60, 47), runtime.pump().message
    bpy.ops.inbetween.show_install()
    yield 2.0
    w.shot("install-8-models")
    sys.stdout.write(
        f" {bpy.app.version_string}: from Fill Gap to the server {started:.1f} s, {runtime.server._process.args[0]}\n"
    )


if __name__ == "__main__":
    w.run(scenario())
