"""A machine of its own for each test, and one engine that needs no weights."""

from __future__ import annotations

from pathlib import Path

import pytest
from counting_engine import INFO, CountingEngine

from sfserver.engine import table


@pytest.fixture(autouse=True)
def on_it(machine: Path) -> None:
    """Every test here, whether it asks for the machine or not."""


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> CountingEngine:
    """The one engine of this machine."""
    counting = CountingEngine()
    monkeypatch.setattr(table, "describe_all", lambda config: (INFO,))
    monkeypatch.setattr(table, "load", lambda engine_id, config: counting)
    return counting
