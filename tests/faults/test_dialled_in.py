"""A little of what the torture does to workers that dialled in (`make torture ARGS="--only dialled"` does it all)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1]))

from torture import phase_dialled
from torture.figures import Figures, Plan

pytestmark = [
    pytest.mark.timeout(1800),  # workers come back four times, on machines that may be busy
    pytest.mark.skipif(sys.platform == "win32", reason="stops, and who belongs to a server, by POSIX"),
]


def test_killed_stopped_frozen_and_half_open_ones_cost_no_frame(tmp_path: Path) -> None:
    figures, count = Figures("dialled", 2026, 4), len(phase_dialled.DEEDS)
    for _ in phase_dialled.run(Plan(figures, count, tmp_path, True, 0)):
        pass
    assert not figures.findings
    assert figures.counts["streams"] >= count
    assert sum(figures.counts[name] for name in figures.counts if " at " in name) == count


def test_the_control_one_that_does_not_come_back_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phase_dialled, "BACK_WITHIN_S", 0.5)
    monkeypatch.setattr(phase_dialled, "SERVE", Path(__file__).parent)  # where no joiner is
    monkeypatch.setattr(phase_dialled.House, "wait_ready", lambda self: None)
    figures = Figures("dialled", 2026, 1)
    for _ in phase_dialled.run(Plan(figures, 1, tmp_path, True, 0)):
        pass
    assert figures.counts["broken"] == 1
