"""No test fails because the machine is slow or busy: none measures how long something took.

Time-outs end what hangs, and are long; what takes time is measured by `make bench`.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

TESTS = Path(__file__).parent
CLOCKS = (
    "monotonic",
    "perf_counter",
    "process_time",
    "thread_time",
    "time",
    "monotonic_ns",
    "perf_counter_ns",
    "time_ns",
)
SHOWN_ONLY = {"addon/in_blender.py": 2}
"""What is measured to be printed, and how often."""
SHORTEST_TIMEOUT_S = 60
"""Except where the time-out itself is what is tested; a name in capital letters says why."""


def pages() -> list[Path]:
    apart = TESTS / "torture", TESTS / "addon" / "window"
    return [p for p in sorted(TESTS.rglob("*.py")) if not any(p.is_relative_to(folder) for folder in apart)]


def reads_a_clock(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name) and name_of(node) in CLOCKS


def name_of(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def durations(code: str) -> list[int]:
    """Lines on which something is taken from a reading of the clock."""
    nodes = (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.BinOp))
    return [node.lineno for node in nodes if isinstance(node.op, ast.Sub) and reads_a_clock(node.left)]


def short_timeouts(code: str) -> list[int]:
    """Lines on which a wait that may fail is shorter than a busy machine needs."""
    found = []
    for call in (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)):
        given = [k.value for k in call.keywords if k.arg in ("timeout", "timeout_s")]
        if name_of(call) in ("eventually", "turn_until", "wait_ready", "wait"):
            given += call.args[-1:]
        values = (v.value for v in given if isinstance(v, ast.Constant) and isinstance(v.value, int | float))
        found += [call.lineno for value in values if value < SHORTEST_TIMEOUT_S]
    return found


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(TESTS)))
def test_a_page_measures_no_time_and_waits_long_enough(page: Path) -> None:
    code = page.read_text("utf-8")
    assert len(durations(code)) == SHOWN_ONLY.get(page.relative_to(TESTS).as_posix(), 0), durations(code)
    assert not short_timeouts(code)


def test_the_control_what_is_timed_is_found() -> None:
    assert durations("began = time.monotonic()\nassert time.monotonic() - began < 0.5") == [2]
    assert durations("deadline = time.monotonic() + 5\nassert time.monotonic() < deadline") == []
    assert short_timeouts("eventually(ready, 2.0)\nserver.wait(timeout=5)\nrun(x, timeout=60)") == [1, 2]


def test_hypothesis_sets_no_deadline_and_does_not_mind_slow_examples() -> None:
    assert settings.default is not None
    assert settings.default.deadline is None
    assert HealthCheck.too_slow in settings.default.suppress_health_check


def test_the_control_by_itself_hypothesis_sets_one() -> None:
    assert settings.get_profile("default").deadline is not None
