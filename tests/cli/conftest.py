"""A machine of its own for each test: private folders, and one engine that needs no weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dissolving_engine import INFO, DissolvingEngine
from PIL import Image

from sfserver.engine import table


@pytest.fixture(autouse=True)
def on_it(machine: Path) -> None:
    """Every test here, whether it asks for the machine or not."""


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> DissolvingEngine:
    """The one engine of this machine."""
    fake = DissolvingEngine()
    monkeypatch.setattr(table, "describe_all", lambda config: (INFO,))
    monkeypatch.setattr(table, "load", lambda engine_id, config: fake)
    return fake


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    """Two pictures of 64x48 with a block that moves."""
    names = []
    for name, x in (("start", 4), ("end", 40)):
        image = np.full((48, 64, 3), (200, 180, 60), np.uint8)
        image[16:32, x : x + 16] = (20, 40, 160)
        Image.fromarray(image).save(tmp_path / f"{name}.png")
        names.append(str(tmp_path / f"{name}.png"))
    return names[0], names[1]
