"""What tests of the extension share: the installed extension, pictures on a timeline, turning the pump, the servers."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import bpy
import numpy as np

PROJECT = Path(__file__).resolve().parents[2]
PACKAGE = "bl_ext.user_default.inbetween"
SERVER_PYTHON = Path(os.environ.get("SFSERVER_PYTHON", PROJECT / ".venv" / "bin" / "python"))
CONNECTION_FILE = Path(os.environ["SFSERVER_CONNECTION_FILE"])
TURN_S = 0.005
SERVER_S = 900.0
"""What a real server may take to start or to fill a gap, on a machine that is busy."""
tick_seconds: list[float] = []
tick_cpu_seconds: list[float] = []
"""How long each turn of this process took, and how much of that this thread had the processor."""


def install() -> None:
    """Install the zip as a user does, and enable it."""
    zips = sorted((PROJECT / "dist").glob("inbetween-*.zip"), key=lambda path: path.stat().st_mtime)
    chosen = os.environ.get("INBETWEEN_ZIP") or (str(zips[-1]) if zips else "")
    assert chosen, "no zip: run python blender_addon/build.py"
    assert bpy.ops.extensions.package_install_files(
        filepath=chosen, repo="user_default", enable_on_install=True, overwrite=True
    ) == {"FINISHED"}


def module(name: str) -> ModuleType:
    """A module of the installed extension."""
    return importlib.import_module(f"{PACKAGE}.{name}")


def fresh_scene() -> bpy.types.Scene:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    if PACKAGE not in bpy.context.preferences.addons:
        bpy.ops.preferences.addon_enable(module=PACKAGE)
    scene = bpy.context.scene
    if hasattr(bpy.context.workspace, "sequencer_scene"):
        bpy.context.workspace.sequencer_scene = scene
    scene.sequence_editor_create()
    scene.render.resolution_x, scene.render.resolution_y = 64, 36
    scene.render.fps, scene.render.fps_base = 24, 1.0
    scene.frame_start, scene.frame_end = 1, 500
    return scene


def let_go() -> None:
    """End what a test left: the connection, the server, the fills."""
    runtime = module("runtime")
    if runtime.running_pump() is not None:
        runtime.running_pump().forget()
        runtime.running_pump().close()
    runtime.server.let_go()


# Timelines


def strips(scene: bpy.types.Scene) -> Any:
    editor = scene.sequence_editor
    return editor.strips if hasattr(editor, "strips") else editor.sequences


def all_strips(scene: bpy.types.Scene) -> Any:
    editor = scene.sequence_editor
    return editor.strips_all if hasattr(editor, "strips_all") else editor.sequences_all


def picture(path: Path, colour: tuple[int, int, int], width: int = 64, height: int = 36) -> Path:
    image = bpy.data.images.new("drawn", width, height)
    pixels = np.empty((height, width, 4), dtype=np.float32)
    pixels[...] = (*(channel / 255 for channel in colour), 1.0)
    image.pixels.foreach_set(pixels.ravel())
    image.filepath_raw, image.file_format = str(path), "PNG"
    image.save()
    bpy.data.images.remove(image)
    return path


def put_image(scene: bpy.types.Scene, path: Path, start: int, length: int = 1, channel: int = 1, name: str = "") -> Any:
    strip = strips(scene).new_image(
        name=name or path.stem, filepath=str(path), channel=channel, frame_start=start, fit_method="FIT"
    )
    module("sequencer").set_frames(strip, length)
    return strip


def put_effect(scene: bpy.types.Scene, kind: str, channel: int, start: int, end: int, name: str, of: Any = None) -> Any:
    known = strips(scene).bl_rna.functions["new_effect"].parameters
    arguments = {"length": end - start} if "length" in known else {"frame_end": end}
    if of is not None:
        arguments["seq1" if "seq1" in known else "input1"] = of
    return strips(scene).new_effect(name=name, type=kind, channel=channel, frame_start=start, **arguments)


def two_pictures(scene: bpy.types.Scene, folder: Path, gap: int = 12, start: int = 1) -> tuple[Any, Any]:
    """A red and a green strip of five frames each, `gap` frames apart, both selected."""
    first = put_image(scene, picture(folder / "A.png", (200, 60, 40)), start, 5, name="A")
    last = put_image(scene, picture(folder / "B.png", (30, 180, 90)), start + 5 + gap, 5, name="B")
    select(scene, "A", "B")
    return first, last


def select(scene: bpy.types.Scene, *names: str) -> None:
    for strip in all_strips(scene):
        strip.select = strip.name in names
    scene.sequence_editor.active_strip = strips(scene).get(names[-1]) if names else None


def ours(scene: bpy.types.Scene) -> list[Any]:
    """Strips that the extension made, in order of their start."""
    found = [strip for strip in all_strips(scene) if "inbetween_job" in strip]
    return sorted(found, key=lambda strip: (left(strip), strip.channel))


def left(strip: Any) -> int:
    return module("sequencer").left(strip)


def right(strip: Any) -> int:
    return module("sequencer").right(strip)


def captured(scene: bpy.types.Scene, frame: int, width: int, height: int, keep_as: Path) -> bytes:
    """RGB8 of the timeline's picture, by the steps that a fill takes; what is transparent lies over black."""
    capture = module("capture")
    capture.render(scene, frame, width, height, keep_as)
    capture.write(scene, keep_as)
    picture = capture.read(keep_as, width, height)
    if picture is None:
        capture.fit(keep_as, width, height)
        picture = capture.read(keep_as, width, height)
    assert picture is not None
    if len(picture) == width * height * 4:
        picture = module("alpha").over_black(np.frombuffer(picture, np.uint8).reshape(-1, 4)).tobytes()
    return bytes(picture)


def shown_at(scene: bpy.types.Scene, frame: int, folder: Path) -> tuple[int, int, int]:
    """The colour in the middle of the timeline's picture, rendered through the view transform Standard."""
    width, height = scene.render.resolution_x, scene.render.resolution_y
    data = captured(scene, frame, width, height, keep_as=folder / "shown.tga")
    middle = (height // 2 * width + width // 2) * 3
    return tuple(data[middle : middle + 3])


# Turning


def turn() -> None:
    began, cpu_began = time.perf_counter(), time.thread_time()
    module("runtime").turn(time.monotonic())
    tick_cpu_seconds.append(time.thread_time() - cpu_began)
    tick_seconds.append(time.perf_counter() - began)


def turn_until(condition: Callable[[], object], timeout_s: float = 120.0) -> None:
    """Turn the pump as Blender's timer does, until the condition holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        turn()
        assert time.monotonic() < deadline, f"not within {timeout_s} s; {situation()}"
        time.sleep(TURN_S)


def turn_for(seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        turn()
        time.sleep(TURN_S)


def situation() -> str:
    pump = module("runtime").running_pump()
    if pump is None:
        return "no pump"
    fills = [(fill.stage, len(fill.names), fill.record.frames_wanted) for fill in pump.fills]
    problem = pump.client.problem if pump.client else None
    return f"state {pump.state}, problem {problem}, message {pump.message!r}, fills {fills}"


def connect() -> Any:
    """Connect to whatever listens, and wait until it has said what it offers."""
    assert bpy.ops.inbetween.connect() == {"FINISHED"}
    pump = module("runtime").pump()
    turn_until(lambda: pump.state == "ready")
    turn()
    return pump


def fill() -> Any:
    """Press Fill Gap; returns the fill."""
    assert bpy.ops.inbetween.fill_gap() == {"FINISHED"}
    return module("runtime").pump().fills[-1]


def names_of(strip: Any) -> list[str]:
    return [element.filename for element in strip.elements]


class FakeServer:
    """fake_server.py as a child process."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def fresh(self) -> None:
        """Running and behaving well; the same process for many tests, since starting one takes half a second."""
        if self.process is not None and self.process.poll() is None:
            self.behave(**GOOD)
            CONNECTION_FILE.write_bytes(self.connection)
            CONNECTION_FILE.chmod(0o600)
        else:
            self.start()

    def start(self, **behaviour: Any) -> None:
        CONNECTION_FILE.unlink(missing_ok=True)
        command = [SERVER_PYTHON, Path(__file__).with_name("fake_server.py"), CONNECTION_FILE]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
        self.behave(**behaviour)
        deadline = time.monotonic() + 120
        while not CONNECTION_FILE.exists():
            assert self.process.poll() is None, "the fake server ended"
            assert time.monotonic() < deadline, "the fake server did not start"
            time.sleep(0.01)
        self.connection = CONNECTION_FILE.read_bytes()

    def behave(self, **behaviour: Any) -> None:
        """Returns when it does."""
        assert self.process is not None
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(behaviour) + "\n")
        self.process.stdin.flush()
        self.process.stdout.readline()

    def hide(self) -> None:
        CONNECTION_FILE.unlink(missing_ok=True)

    def kill(self) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.kill()
        self.process.wait(timeout=60)
        self.process.stdin.close()
        self.process.stdout.close()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()


GOOD: dict[str, Any] = {
    "frame_s": 0.001,
    "hold_at": None,
    "accept": True,
    "fail_at": None,
    "fail_code": "internal",
    "retryable": False,
    "die_at": None,
    "not_a_png_at": None,
    "wrong_size_at": None,
    "deaf": False,
    "drafts": False,
    "draft_hold_at": None,
    "draft_fail_at": None,
    "found": "",
    "found_times": 1,
    "because": "Fake: it has room",
    "engine": {},
}
"""fake_server.Behaviour as it is by itself."""
