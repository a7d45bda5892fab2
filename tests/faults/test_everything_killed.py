"""All processes of a server, and a client, are killed at once: the next server and the next client go on."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1]))

from torture import phase_everything
from torture.figures import Figures, Plan

KILLS = 3
pytestmark = pytest.mark.timeout(1800)  # servers start anew six times, on machines that may be busy


@pytest.mark.skipif(sys.platform == "win32", reason="who belongs to a server is told by its environment")
def test_killed_together_at_random_instants_every_request_ends_once_with_its_bytes(tmp_path: Path) -> None:
    figures = Figures("everything", 2026, KILLS)
    for _ in phase_everything.run(Plan(figures, KILLS, tmp_path, True, 0)):
        pass
    assert not figures.findings
    assert figures.counts["streams"] == KILLS * (phase_everything.STREAMS + 1)


def test_the_control_a_client_that_does_not_come_back_is_counted(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(phase_everything, "COMES_BACK", Path(__file__).with_name("conftest.py"))
    figures = Figures("everything", 2027, 1)
    for _ in phase_everything.run(Plan(figures, 1, tmp_path, True, 0)):
        pass
    assert figures.counts["lost"] == phase_everything.FRAMES - 2
