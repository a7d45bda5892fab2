"""A real window for scripts that look at the extension: its folders, its sequencer, its pictures, its end.

A script in it is a generator: each yield waits so many seconds in Blender's event loop.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
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
"""Of drawn panels."""


def shot(name: str) -> None:
    subprocess.run(
        ["import", "-window", "root", "-quality", "11", SHOTS / f"{name}-{bpy.app.version[0]}{bpy.app.version[1]}.png"],
        check=True,
    )


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


def frame_all() -> None:
    window = bpy.context.window_manager.windows[0]
    region = next(r for r in area().regions if r.type == "WINDOW")
    with bpy.context.temp_override(window=window, area=area(), region=region):
        bpy.ops.sequencer.view_all()


def open_file(scene: bpy.types.Scene, file: Path, width: int = WIDTH, height: int = HEIGHT) -> Iterator[float]:
    """An empty timeline of the size, saved, in one large sequencer."""
    if hasattr(bpy.context.workspace, "sequencer_scene"):
        bpy.context.workspace.sequencer_scene = scene
    scene.sequence_editor_create()
    scene.render.resolution_x, scene.render.resolution_y = width, height
    scene.render.fps = 24
    bpy.ops.wm.save_as_mainfile(filepath=str(file))
    open_sequencer()
    yield 1.0
    enlarge()
    yield 1.0


def put_timeline(scene: bpy.types.Scene) -> Iterator[float]:
    """Two drawn panels with 47 frames between them, both selected, and the tab open."""
    yield from open_file(scene, HOME / "animatic.blend")
    scene.frame_end = 80
    b.put_image(scene, draw_panel(HOME / "left.png", 0.35, (0.85, 0.30, 0.22)), 1, 12, name="Panel 1")
    b.put_image(scene, draw_panel(HOME / "right.png", 0.62, (0.90, 0.62, 0.20)), 60, 12, name="Panel 2")
    b.select(scene, "Panel 1", "Panel 2")
    scene.frame_current = 12
    show_tab()
    yield 1.0
    frame_all()
    yield 1.0


def draw_panel(
    path: Path, x: float, colour: tuple[float, float, float], width: int = WIDTH, height: int = HEIGHT
) -> Path:
    """A drawn panel: paper, a horizon, a ball at x (0 to 1)."""
    rows, columns = np.mgrid[0:height, 0:width]
    pixels = np.ones((height, width, 4), dtype=np.float32)
    pixels[..., :3] = (0.96, 0.93, 0.86)
    pixels[rows < height * 0.3, :3] = (0.80, 0.74, 0.62)
    distance = np.hypot(columns - x * width, rows - height * 0.48)
    pixels[distance < 0.204 * height, :3] = (0.12, 0.11, 0.10)
    pixels[distance < 0.189 * height, :3] = colour
    image = bpy.data.images.new("panel", width, height)
    image.pixels.foreach_set(pixels.ravel())
    image.filepath_raw, image.file_format = str(path), "PNG"
    image.save()
    bpy.data.images.remove(image)
    return path


def zoom_in(steps: int) -> None:
    """Have the channels of the timeline taller, from the lowest on."""
    window = bpy.context.window_manager.windows[0]
    region = next(r for r in area().regions if r.type == "WINDOW")
    with bpy.context.temp_override(window=window, area=area(), region=region):
        for _ in range(steps):
            bpy.ops.view2d.zoom(deltax=0.0, deltay=0.3)
        bpy.ops.view2d.pan(deltax=0, deltay=-10000)


def run(scenario: Iterator[float]) -> None:
    """Install the extension and go through a scenario in Blender's event loop, then end the process."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    b.install()
    bpy.app.timers.register(lambda: step(scenario), first_interval=1.0, persistent=True)


def step(scenario: Iterator[float]) -> float | None:
    try:
        return next(scenario)
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
