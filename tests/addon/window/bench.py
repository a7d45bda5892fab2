"""What the extension takes of a window's time: how long its ticks are, how soon a press shows something, how long the
window stands still, what 22 fills leave in memory. Printed as a table beside what was promised; judged by nobody.

    VENV/bin/python BLENDER_WINDOW.py tests/addon/window/bench.py

As in show.py; the server is the draft engine's, warm. Each turn of the event loop is noted: between two of them the
window could not be used. Beside what the clock says stands how much of it this thread had the processor, which is what
is left on a machine that does nothing else.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import window as w
from window import b, bpy  # by way of the page that sets the folders which Blender reads when it is imported

LOOP_S = 0.001
"""Between two looks at the clock."""
FPS = 24
GAP, PANEL, FILLS = 12, 6, 22
STILL_MS = 100
SETTLED_AFTER = 4
"""Fills until what is loaded and kept once is there."""


@dataclass(frozen=True)
class Span:
    """Of the clock, and of the processor that this thread had meanwhile."""

    wall_ms: float
    busy_ms: float


@dataclass(frozen=True)
class Row:
    what: str
    unit: str
    value: float
    limit: float
    busy: float | None = None


turns: list[Span] = []
looking: list[Span] = []
"""Turns that took a step to a keyframe: the rest of a standstill is Blender's own drawing."""
still: list[Span] = []
"""Between two turns of the event loop."""


def stopwatch() -> Callable[[], Span]:
    wall, busy = time.perf_counter(), time.thread_time()
    return lambda: Span((time.perf_counter() - wall) * 1e3, (time.thread_time() - busy) * 1e3)


def longest(what: str, spans: list[Span]) -> Row:
    return Row(what, "ms", max(s.wall_ms for s in spans), STILL_MS, max(s.busy_ms for s in spans))


def watch_turns() -> None:
    """Measure every turn of the pump that Blender's own timer makes, those that look at a keyframe apart."""
    runtime = b.module("runtime")
    turn = runtime.turn

    def measured(now: float) -> float | None:
        pump = runtime.running_pump()
        looks = pump is not None and any(fill.to_look_at for fill in pump.fills)
        took = stopwatch()
        try:
            return turn(now)
        finally:
            (looking if looks else turns).append(took())

    runtime.turn = measured


class Beat:
    """Looks at the clock in every turn of the event loop, and notes how long the window stood still in between."""

    def __init__(self) -> None:
        self._since = stopwatch()
        bpy.app.timers.register(self._look, persistent=True)

    def _look(self) -> float:
        still.append(self._since())
        self._since = stopwatch()
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


def stepped(scene: bpy.types.Scene, frames: int) -> Iterator[float]:
    """Have Blender show one frame after the other, of which nothing is ours."""
    for frame in range(1, 1 + frames):
        scene.frame_current = frame
        yield LOOP_S


def pressed(scene: bpy.types.Scene, press: Callable[[], object]) -> Iterator[float]:
    """Press, and wait for the end; returns how long it took to the strip, and to its first frame."""
    pump = b.module("runtime").pump()
    still.clear()
    took = stopwatch()
    with bpy.context.temp_override(scene=scene):
        assert press() == {"FINISHED"}
    shown, first = took(), pump.fills[0]
    yield from until(lambda: first.names)
    framed = took()
    yield from until(lambda: not pump.fills)
    assert pump.message == "", pump.message
    return shown, framed


def scenario() -> Iterator[float]:
    scene, fill_gap = bpy.context.scene, bpy.ops.inbetween.fill_gap
    watch_turns()
    yield from w.open_file(scene, w.HOME / "animatic.blend")
    w.show_tab()
    bpy.context.preferences.addons[b.PACKAGE].preferences.command = w.COMMAND
    scene.inbetween.engine_id = "draft"
    bpy.ops.inbetween.start_server()
    pump = b.module("runtime").pump()
    yield from until(lambda: pump.state == "ready")
    Beat()
    put(scene, 2, (320, 180))
    yield 1.0
    w.frame_all()
    yield from pressed(scene, fill_gap)  # warms the server
    put(scene, 2, (w.WIDTH, w.HEIGHT))
    yield 1.0
    shown, framed = yield from pressed(scene, fill_gap)
    say(Row("press to the strip", "ms", shown.wall_ms, STILL_MS, shown.busy_ms))
    say(Row("press to its first frame", "ms", framed.wall_ms, 2e3 / FPS + 500))
    say(longest("window stands still, 540p", still))
    put(scene, 2, (3840, 2160))
    yield 3.0
    still.clear()
    yield from stepped(scene, PANEL)
    say(longest("Blender alone, a frame of 4K further", still))
    yield 1.0
    still.clear()
    looking.clear()
    took = stopwatch()
    with bpy.context.temp_override(scene=scene):
        assert fill_gap() == {"FINISHED"}
    shown = took()
    yield from until(lambda: not pump.fills[0].to_look_at)
    say(Row("press to the strip, 4K", "ms", shown.wall_ms, STILL_MS, shown.busy_ms))
    say(longest("window stands still, keyframes of 4K", still))
    say(longest("of it a step to a keyframe", looking))
    pump.cancel()
    yield from until(lambda: not pump.fills)
    put(scene, FILLS + 1, (320, 180))
    yield 1.0
    memory = []
    with bpy.context.temp_override(scene=scene):
        assert bpy.ops.inbetween.fill_all_gaps() == {"FINISHED"}
    for left in range(FILLS - 1, -1, -1):
        yield from until(lambda left=left: len(pump.fills) <= left)
        memory.append(resident_mb())
    assert pump.message == "", pump.message
    p99 = int(len(turns) * 0.99)
    wall, busy = sorted(s.wall_ms for s in turns)[p99], sorted(s.busy_ms for s in turns)[p99]
    say(Row(f"tick, p99 of {len(turns)}", "ms", wall, 4, busy))
    say(Row(f"memory from fill {SETTLED_AFTER} to {FILLS}", "MB", memory[-1] - memory[SETTLED_AFTER - 1], 0))


def say(row: Row) -> None:
    """A row of the table, with the machine's load by then."""
    busy = f"{row.busy:8.1f}" if row.busy is not None else f"{'':8}"
    load = os.getloadavg()[0]
    sys.stdout.write(
        f" Blender {bpy.app.version_string:11} {row.what:38} {row.value:8.1f} {row.unit}, busy {busy}, at most "
        f"{row.limit:4.0f} (load {load:.1f} on {os.cpu_count()} cores)\n"
    )
    sys.stdout.flush()


w.run(scenario())
