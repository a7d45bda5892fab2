"""Take pictures of the extension in a real window: the panel before, during and after, an error, a missing server.

    VENV/bin/python BLENDER_WINDOW.py tests/addon/window/show.py

BLENDER_WINDOW.py is a tool that opens the bpy wheel with its window and runs this script in it. `INBETWEEN_SHOTS` names
the folder for the pictures, `INBETWEEN_COMMAND` the server's command; the times of ticks are printed at the end.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

if "INBETWEEN_HOME" not in os.environ:  # Blender reads its folders when it is imported, which the tool has done
    home = tempfile.mkdtemp(prefix="inbetween-window-")
    private = {"INBETWEEN_HOME": home, "BLENDER_USER_RESOURCES": f"{home}/blender"}
    private |= {"SFSERVER_CONNECTION_FILE": f"{home}/run/connection.json"}
    os.execve(sys.executable, [sys.executable, "-W", "ignore", *sys.argv], os.environ | private)
HOME = Path(os.environ["INBETWEEN_HOME"])
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import bpy  # noqa: E402
import in_blender as b  # noqa: E402  the folders come first
import numpy as np  # noqa: E402

SHOTS = Path(os.environ.get("INBETWEEN_SHOTS", HOME / "shots"))
COMMAND = os.environ.get("INBETWEEN_COMMAND", f"{b.SERVER_PYTHON.with_name('sfserver')} serve")
WIDTH, HEIGHT = 960, 540
ticks_ms: list[float] = []


def shot(name: str) -> None:
    subprocess.run(
        ["import", "-window", "root", SHOTS / f"{name}-{bpy.app.version[0]}{bpy.app.version[1]}.png"], check=True
    )


def draw_panel(path: Path, x: float, colour: tuple[float, float, float]) -> Path:
    """A drawn panel: paper, a horizon, a ball at x (0 to 1)."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    pixels = np.ones((HEIGHT, WIDTH, 4), dtype=np.float32)
    pixels[..., :3] = (0.96, 0.93, 0.86)
    pixels[rows < HEIGHT * 0.3, :3] = (0.80, 0.74, 0.62)
    distance = np.hypot(columns - x * WIDTH, rows - HEIGHT * 0.48)
    pixels[distance < 110, :3] = (0.12, 0.11, 0.10)
    pixels[distance < 102, :3] = colour
    image = bpy.data.images.new("panel", WIDTH, HEIGHT)
    image.pixels.foreach_set(pixels.ravel())
    image.filepath_raw, image.file_format = str(path), "PNG"
    image.save()
    bpy.data.images.remove(image)
    return path


def area() -> bpy.types.Area:
    return next(a for a in bpy.context.window_manager.windows[0].screen.areas if a.type == "SEQUENCE_EDITOR")


def open_sequencer() -> None:
    """One large sequencer with preview and sidebar."""
    window = bpy.context.window_manager.windows[0]
    largest = max(window.screen.areas, key=lambda a: a.width * a.height)
    largest.type = "SEQUENCE_EDITOR"
    space = largest.spaces.active
    space.view_type = "SEQUENCER_PREVIEW"
    space.show_region_ui = True


def enlarge() -> None:
    window = bpy.context.window_manager.windows[0]
    region = next(r for r in area().regions if r.type == "WINDOW")
    with bpy.context.temp_override(window=window, area=area(), region=region):
        bpy.ops.screen.screen_full_area()


def show_tab() -> None:
    for region in area().regions:
        if region.type == "UI":
            region.active_panel_category = "In-Between"


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
    if hasattr(bpy.context.workspace, "sequencer_scene"):
        bpy.context.workspace.sequencer_scene = scene
    scene.sequence_editor_create()
    scene.render.resolution_x, scene.render.resolution_y = WIDTH, HEIGHT
    scene.render.fps = 24
    scene.frame_end = 80
    bpy.ops.wm.save_as_mainfile(filepath=str(HOME / "animatic.blend"))
    open_sequencer()
    yield 1.0
    enlarge()
    yield 1.0
    b.put_image(scene, draw_panel(HOME / "left.png", 0.35, (0.85, 0.30, 0.22)), 1, 12, name="Panel 1")
    b.put_image(scene, draw_panel(HOME / "right.png", 0.62, (0.90, 0.62, 0.20)), 60, 12, name="Panel 2")
    b.select(scene, "Panel 1", "Panel 2")
    scene.frame_current = 12
    show_tab()
    preferences = bpy.context.preferences.addons[b.PACKAGE].preferences
    preferences.command = "no-such-server serve"
    yield 1.0
    frame_all()
    yield 1.0
    shot("1-missing-server")
    script = HOME / "failing.py"
    script.write_text("raise SystemExit('sfserver: port 5000 is taken: choose another by --port')")
    preferences.command = f"{sys.executable} {script}"
    bpy.ops.inbetween.start_server()
    yield 2.0
    shot("2-server-failed")
    preferences.command = COMMAND
    bpy.ops.inbetween.start_server()
    pump, runtime = b.module("runtime").pump(), b.module("runtime")
    while pump.state != "ready":
        yield 0.2
    scene.inbetween.prompt = "The ball rolls to the right and warms up"
    yield 1.0
    shot("3-ready")
    with bpy.context.temp_override(scene=scene):
        bpy.ops.inbetween.fill_gap()
    scene.frame_current = 20
    fill = pump.fills[-1]
    while len(fill.names) < 16 and pump.fills:
        yield 0.05
    shot("4-growing")
    while pump.fills:
        yield 0.1
    b.select(scene, fill.place.strip)
    yield 1.0
    shot("5-finished")
    strip = b.ours(scene)[0]
    assert (b.left(strip), b.right(strip), len(strip.elements)) == (13, 60, 47), pump.message
    bpy.ops.inbetween.new_take()
    fill = pump.fills[-1]
    while len(fill.names) < 8 and pump.fills:
        yield 0.05
    runtime.server._process.kill()
    yield 6.0
    shot("6-reconnecting")
    bpy.ops.inbetween.start_server()
    while pump.fills:
        yield 0.2
    yield 1.0
    shot("7-after-redo")
    ordered = sorted(ticks_ms)
    sys.stdout.write(
        f" {bpy.app.version_string}: {len(ordered)} ticks, mean {statistics.fmean(ordered):.2f} ms, "
        f"p99 {ordered[int(len(ordered) * 0.99)]:.2f} ms, max {ordered[-1]:.2f} ms, strips "
        f"{[(b.left(s), b.right(s), s.mute) for s in b.ours(scene)]}\n"
    )


def frame_all() -> None:
    window = bpy.context.window_manager.windows[0]
    region = next(r for r in area().regions if r.type == "WINDOW")
    with bpy.context.temp_override(window=window, area=area(), region=region):
        bpy.ops.sequencer.view_all()


def play(steps: Iterator[float]) -> None:
    """Install the extension and go through a scenario, in Blender's event loop; then end."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    b.install()
    bpy.app.timers.register(lambda: _step(steps), first_interval=1.0, persistent=True)


def _step(steps: Iterator[float]) -> float | None:
    try:
        return next(steps)
    except StopIteration:
        end(0)
    except Exception:  # a script that stops must not leave a window that waits for ever
        traceback.print_exc()
        sys.stderr.flush()
        shot("error")
        end(1)
    return None


def end(code: int) -> None:
    with suppress(Exception):  # whatever state the script left: the process has to end
        b.let_go()
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    play(scenario())
