"""No test is judged by the clock: how long an example takes says more of the machine than of the code."""

from __future__ import annotations

import importlib.util
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

if importlib.util.find_spec("hypothesis"):  # the Pythons with bpy have none
    from hypothesis import HealthCheck, settings

    settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("any machine")


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell hands it to what it starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def machine(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing of the real user's settings, servers or folders is seen."""
    home = tmp_path_factory.mktemp("home")
    for name in [name for name in os.environ if name.startswith(("SFSERVER_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    monkeypatch.setenv("SFSERVER_CONNECTION_FILE", str(home / "run" / "connection.json"))
    for name in ("MODELS", "CACHE", "LOG"):
        monkeypatch.setenv(f"SFSERVER_{name}_DIR", str(home / name.lower()))
    return home


@pytest.fixture
def full_disk_for(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """The disk is full as soon as something is written to the file of this name."""
    from sfserver.media import clip, files

    if not os.path.exists("/dev/full"):
        pytest.skip("/dev/full is a device of Linux")
    begin = files.begin

    def fill(name: str) -> None:
        def begun(part: Path) -> None:
            part.symlink_to("/dev/full") if part.name == f"{name}{files.PART_SUFFIX}" else begin(part)

        for module in (clip, files):
            monkeypatch.setattr(module, "begin", begun)

    return fill


BUDGET = Path(__file__).parents[2] / "shared" / "tools" / "budget.py"


@pytest.fixture(scope="session")
def budget() -> ModuleType:
    """What a pass and a decoder should cost, worked out apart from the project."""
    if not BUDGET.is_file():
        pytest.skip(f"no budget: {BUDGET} does not exist")
    spec = importlib.util.spec_from_file_location("budget", BUDGET)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
