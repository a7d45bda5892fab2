"""What the extension takes of a window's time: how long its ticks are, how soon a press shows something, how long the
window stands still, what 22 fills leave in memory. Printed as a table beside what was promised; judged by nobody.

    VENV/bin/python BLENDER_WINDOW.py tests/addon/window/bench.py

As in show.py; the server is the draft engine's, warm. Each turn of the event loop is noted: between two of them the
window could not be used.
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

LOOP_S = 0.001
"""Between two looks at the clock."""
FPS = 24
GAP, PANEL, FILLS = 12, 6, 22
SETTLED_AFTER = 4
"""Fills until what is loaded and kept once is there."""

turns_ms: list[float] = []
gaps_ms: list[float] = []


def watch_turns() -> None:
    """Measure every turn of the pump that Blender's own timer makes, but those that look at a keyframe."""
    runtime = b.module("runtime")
    turn = runtime.turn

    def measured(now: float) -> float | None:
        pump = runtime.running_pump()
        looks = pump is not None and any(fill.to_look_at for fill in pump.fills)
        began = time.perf_counter()
        try:
            return turn(now)
        finally:
            if not looks:
                turns_ms.append((time.perf_counter() - began) * 1e3)

    runtime.turn = measured


class Beat:
    """Looks at the clock in every turn of the event loop, and notes how long the window stood still in between."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        bpy.app.timers.register(self._look, persistent=True)

    def _look(self) -> float:
        now = time.perf_counter()
        gaps_ms.append((now - self._last) * 1e3)
        self._last = now
        return LOOP_S


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def put(scene: bpy.types.Scene, count: int, size: tuple[int, int]) -> None:
    """So many panels in a row, each a picture of its own, all selected."""
    for strip in list(b.strips(scene)):
        b.strips(scene).remove(strip)
    scene.render.resolution_x, scene.render.resolution_y = size
    names = []
    for i in range(count):
        path = w.draw_panel(w.HOME / f"{size[0]}-{i}.png", 0.3 + 0.4 * (i % 2), (0.85, 0.3, 0.2), *size)
        names.append(b.put_image(scene, path, 1 + i * (PANEL + GAP), PANEL, name=f"Panel {i + 1}").name)
    b.select(scene, *names)


def until(condition: Callable[[], object]) -> Iterator[float]:
    while not condition():
        yield LOOP_S


def pressed(scene: bpy.types.Scene, press: Callable[[], object]) -> Iterator[float]:
    """Press, and wait for the end; returns (ms to the strip, ms to its first frame, ms that the window stood still at
    most)."""
    pump = b.module("runtime").pump()
    gaps_ms.clear()
    began = time.perf_counter()
    with bpy.context.temp_override(scene=scene):
        assert press() == {"FINISHED"}
    shown = (time.perf_counter() - began) * 1e3
    first = pump.fills[0]
    yield from until(lambda: first.names)
    framed = (time.perf_counter() - began) * 1e3
    yield from until(lambda: not pump.fills)
    assert pump.message == "", pump.message
    yield 0.5
    return shown, framed, max(gaps_ms)


def scenario() -> Iterator[float]:
    scene, rows = bpy.context.scene, []
    watch_turns()
    yield from w.open_file(scene, w.HOME / "animatic.blend")
    w.show_tab()
    bpy.context.preferences.addons[b.PACKAGE].preferences.command = w.COMMAND
    scene.inbetween.engine_id = "draft"
    bpy.ops.inbetween.start_server()
    pump = b.module("runtime").pump()
    yield from until(lambda: pump.state == "ready")
    Beat()
    put(scene, 2, (w.WIDTH, w.HEIGHT))
    yield 1.0
    w.frame_all()
    yield from pressed(scene, bpy.ops.inbetween.fill_gap)  # warms the server
    put(scene, 2, (w.WIDTH, w.HEIGHT))
    yield 1.0
    turns_ms.clear()
    shown, framed, still = yield from pressed(scene, bpy.ops.inbetween.fill_gap)
    rows.append(("press to the strip", "ms", shown, 100))
    rows.append(("press to its first frame", "ms", framed, 2e3 / FPS + 500))
    rows.append(("window stands still, 540p", "ms", still, 100))
    put(scene, 2, (3840, 2160))
    yield 3.0
    scene.inbetween.scale = 25  # what is looked at is the capture, not this machine's draft of 4K
    shown, _, still = yield from pressed(scene, bpy.ops.inbetween.fill_gap)
    rows.append(("press to the strip, 4K", "ms", shown, 100))
    rows.append(("window stands still, 4K made at 25 %", "ms", still, 100))
    scene.inbetween.scale = 100
    put(scene, 2, (3840, 2160))
    yield 3.0
    with bpy.context.temp_override(scene=scene):
        gaps_ms.clear()
        bpy.ops.inbetween.fill_gap()
    yield from until(lambda: not pump.fills[0].to_look_at)
    rows.append(("window stands still, keyframes of 4K", "ms", max(gaps_ms), 100))
    pump.cancel()
    yield from until(lambda: not pump.fills)
    put(scene, FILLS + 1, (320, 180))
    yield 1.0
    turns_ms.clear()
    memory = []
    with bpy.context.temp_override(scene=scene):
        assert bpy.ops.inbetween.fill_all_gaps() == {"FINISHED"}
    for left in range(FILLS - 1, -1, -1):
        yield from until(lambda left=left: len(pump.fills) <= left)
        memory.append(resident_mb())
    assert pump.message == "", pump.message
    ordered = sorted(turns_ms)
    rows.append((f"tick, p99 of {len(ordered)}", "ms", ordered[int(len(ordered) * 0.99)], 4))
    rows.append((f"memory from fill {SETTLED_AFTER} to {FILLS}", "MB", memory[-1] - memory[SETTLED_AFTER - 1], 0))
    sys.stdout.write(table(rows))


def table(rows: list[tuple[str, str, float, float]]) -> str:
    loads = " ".join(f"{load:.1f}" for load in os.getloadavg())
    head = f" Blender {bpy.app.version_string}, {os.cpu_count()} cores, load {loads}\n"
    lines = (f" {what:40} {value:8.1f} {unit}   at most {limit:.0f}\n" for what, unit, value, limit in rows)
    return head + "".join(lines)


w.run(scenario())
