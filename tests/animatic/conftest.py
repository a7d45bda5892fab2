"""A machine of its own for each test, and one engine that needs no weights."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from counting_engine import INFO, CountingEngine

from sfserver.engine import table


@pytest.fixture(autouse=True)
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
def engine(monkeypatch: pytest.MonkeyPatch) -> CountingEngine:
    """The one engine of this machine."""
    counting = CountingEngine()
    monkeypatch.setattr(table, "describe_all", lambda config: (INFO,))
    monkeypatch.setattr(table, "load", lambda engine_id, config: counting)
    return counting
