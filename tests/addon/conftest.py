"""Inside a bpy wheel: install the built zip into a private user folder, enable it, and drive it without a window.

    .venv-bpy52/bin/python -m pytest tests/addon

`INBETWEEN_ZIP` names the zip, else the newest in dist/ is taken; `SFSERVER_PYTHON` the Python that has sfserver, else
that of .venv. A Python without bpy collects nothing here.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
collect_ignore_glob = [] if importlib.util.find_spec("bpy") else ["test_*.py"]

if not collect_ignore_glob:
    HOME = Path(tempfile.mkdtemp(prefix="inbetween-test-"))
    os.environ["BLENDER_USER_RESOURCES"] = str(HOME / "blender")
    os.environ["SFSERVER_CONNECTION_FILE"] = str(HOME / "run" / "connection.json")
    for private in ("XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        os.environ[private] = str(HOME / private.lower())
    sys.path.insert(0, str(Path(__file__).parent))
    import in_blender

    in_blender.install()

    def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.write_line(f"Blender {in_blender.bpy.app.version_string}")
        measured = {"clock": in_blender.tick_seconds, "processor": in_blender.tick_cpu_seconds}
        for name, seconds in measured.items():
            ms = sorted(1e3 * s for s in seconds)
            if ms:
                mean, p99 = sum(ms) / len(ms), ms[int(len(ms) * 0.99)]
                line = f"{len(ms)} ticks by the {name}: mean {mean:.2f} ms, p99 {p99:.2f} ms, longest {ms[-1]:.2f} ms"
                terminalreporter.write_line(line)

    def pytest_unconfigure(config: pytest.Config) -> None:
        shutil.rmtree(HOME, ignore_errors=True)


@pytest.fixture
def scene() -> Iterator[object]:
    """An empty file, the extension enabled and idle."""
    yield in_blender.fresh_scene()
    in_blender.let_go()


@pytest.fixture
def served(scene: object, tmp_path: Path) -> Iterator[object]:
    """In a file that is saved, connected to a real server that Start Server started."""
    preferences = in_blender.bpy.context.preferences.addons[in_blender.PACKAGE].preferences
    preferences.command = f"{in_blender.SERVER_PYTHON.with_name('sfserver')} serve"
    in_blender.bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "edit.blend"))
    assert in_blender.bpy.ops.inbetween.start_server() == {"FINISHED"}
    pump, server = in_blender.module("runtime").pump(), in_blender.module("runtime").server
    in_blender.turn_until(lambda: pump.state == "ready" or not server.running, in_blender.SERVER_S)
    assert server.running, server.last_words()
    in_blender.turn()
    yield pump
    in_blender.let_go()
    preferences.property_unset("command")


@pytest.fixture(scope="session")
def fake_process() -> Iterator[object]:
    server = in_blender.FakeServer()
    yield server
    server.stop()


@pytest.fixture
def fake(fake_process: object) -> Iterator[object]:
    """A scriptable server that listens where the extension looks, behaving well."""
    fake_process.fresh()
    yield fake_process
    fake_process.hide()
