"""What a measurement is, how it is shown and how it is kept."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import attrs
from attrs import frozen
from rich.table import Table

from ..errors import UserError


@frozen
class Measure:
    """One figure, and its target if it has one. `how` says what was divided by what."""

    name: str
    value: float
    target: float | None
    better: Literal["high", "low"]
    unit: str
    how: str
    goal: str = ""
    """Id of the goal that it answers, see `goals`."""

    @property
    def met(self) -> bool:
        if self.target is None:
            return True
        return self.value >= self.target if self.better == "high" else self.value <= self.target


def as_table(measures: Iterable[Measure]) -> Table:
    table = Table("Measure", "Value", "Target", "", "How", box=None, header_style="bold", pad_edge=False)
    for m in measures:
        sign = ">=" if m.better == "high" else "<="
        target = "" if m.target is None else f"{sign} {m.target:g} {m.unit}"
        verdict = "" if m.target is None else "met" if m.met else "MISSED"
        table.add_row(m.name, f"{m.value:.3g} {m.unit}", target, verdict, m.how)
    return table


def write_json(measures: Iterable[Measure], path: Path, facts: Mapping[str, str] | None = None) -> None:
    """The figures with the machine that they were taken on, and further facts about it. Raises OSError."""
    machine = {"platform": platform.platform(), "processor": platform.machine(), "python": platform.python_version()}
    body = {"machine": machine | dict(facts or {}), "measures": [attrs.asdict(m) | {"met": m.met} for m in measures]}
    path.write_text(json.dumps(body, indent=1) + "\n", "utf-8")


def read_json(path: Path) -> tuple[dict[str, str], list[Measure]]:
    """What `write_json` wrote. Raises UserError for a file that is none."""
    try:
        body = json.loads(path.read_text("utf-8"))
        known = attrs.fields_dict(Measure)
        measures = [Measure(**{name: value for name, value in m.items() if name in known}) for m in body["measures"]]
        return {str(name): str(value) for name, value in body["machine"].items()}, measures
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: is no file of figures from sfserver bench --out ({error})") from None
