"""What a measurement is, how it is shown and how it is kept."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import attrs
from attrs import frozen
from rich.table import Table


@frozen
class Measure:
    """One figure against its target. `how` says what was divided by what."""

    name: str
    value: float
    target: float
    better: Literal["high", "low"]
    unit: str
    how: str

    @property
    def met(self) -> bool:
        return self.value >= self.target if self.better == "high" else self.value <= self.target


def as_table(measures: Iterable[Measure]) -> Table:
    table = Table("Measure", "Value", "Target", "", "How", box=None, header_style="bold", pad_edge=False)
    for m in measures:
        sign = ">=" if m.better == "high" else "<="
        table.add_row(
            m.name, f"{m.value:.3g} {m.unit}", f"{sign} {m.target:g} {m.unit}", "met" if m.met else "MISSED", m.how
        )
    return table


def write_json(measures: Iterable[Measure], path: Path) -> None:
    """The figures with the machine that they were taken on. Raises OSError."""
    machine = {"platform": platform.platform(), "processor": platform.machine(), "python": platform.python_version()}
    body = {"machine": machine, "measures": [attrs.asdict(m) | {"met": m.met} for m in measures]}
    path.write_text(json.dumps(body, indent=1) + "\n", "utf-8")
