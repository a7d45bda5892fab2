"""What a phase counts, kept in one file between runs, and shown as one table."""

from __future__ import annotations

import json
import os
import platform
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import attrs
from attrs import define, field, frozen
from rich.table import Table

BAD = ("lost", "doubled", "wrong", "failed", "stuck", "left", "exceptions", "broken")
"""Counts that have to be zero.

lost, doubled, wrong: frames. failed: streams that ended with an error; stuck: that did not end. left: processes that
outlived their server. exceptions: other than the one that is promised, tracebacks in logs included. broken: any other
promise, named among the findings.
"""
MAX_FINDINGS = 40


@define
class Figures:
    """One phase with one seed, as far as it has come."""

    phase: str
    seed: int
    planned: int
    done: int = 0
    """Cases that are over: where a run that was broken off goes on."""
    took_s: float = 0.0
    counts: Counter[str] = field(factory=Counter[str])
    measured: dict[str, float] = field(factory=dict[str, float])
    findings: dict[str, int] = field(factory=dict[str, int])
    """What was found, with the first example, and how often."""

    @property
    def bad(self) -> int:
        return sum(self.counts[name] for name in BAD)

    def find(self, kind: str, what: str, count: int = 1, example: str = "") -> None:
        """Something that should not be. The same `what` is listed once, with its first example."""
        assert kind in BAD
        self.counts[kind] += count
        known = next((line for line in self.findings if line.startswith(f"{kind}: {what}"[:400])), None)
        line = known or f"{kind}: {what}"[:400] + (f" -- {example[:400]}" if example else "")
        if known or len(self.findings) < MAX_FINDINGS:
            self.findings[line] = self.findings.get(line, 0) + count

    def add(self, line: str) -> None:
        """What another process counted, as it said it: JSON of figures of the same phase."""
        said: dict[str, Any] = json.loads(line)
        self.counts.update(said["counts"])
        for finding, times in said["findings"].items():
            if finding in self.findings or len(self.findings) < MAX_FINDINGS:
                self.findings[finding] = self.findings.get(finding, 0) + times


@frozen
class Plan:
    """What a phase is to do: cases `figures.done` to `last` of its seed, in a folder of its own."""

    figures: Figures
    last: int
    folder: Path
    quick: bool
    minutes: float

    def cases(self) -> Iterator[tuple[int, random.Random]]:
        """Each case with its own source of chance, so that one can be run again alone."""
        for number in range(self.figures.done, self.last):
            yield number, random.Random(f"{self.figures.seed} {self.figures.phase} {number}")
            self.figures.done = number + 1


Phase = Callable[[Plan], Iterator[None]]
"""Yields when a case is over."""


@define
class Store:
    """torture.json: one entry for each phase, the last that was run."""

    path: Path
    phases: dict[str, Figures] = field(factory=dict[str, Figures])

    @staticmethod
    def open(path: Path) -> Store:
        try:
            body: dict[str, Any] = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError):
            return Store(path)
        entries = (Figures(**entry | {"counts": Counter(entry["counts"])}) for entry in body["phases"])
        return Store(path, {figures.phase: figures for figures in entries})

    def begin(self, phase: str, seed: int, planned: int, afresh: bool) -> Figures:
        """The figures of a phase that was broken off with the same seed and size, or new ones."""
        old = self.phases.get(phase)
        if old is not None and not afresh and (old.seed, old.planned) == (seed, planned) and old.done < planned:
            return old
        self.phases[phase] = Figures(phase, seed, planned)
        return self.phases[phase]

    def save(self) -> None:
        machine = {"platform": platform.platform(), "cores": os.cpu_count(), "python": platform.python_version()}
        body = {"machine": machine, "phases": [attrs.asdict(figures) for figures in self.phases.values()]}
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(body, indent=1) + "\n", "utf-8")
        os.replace(part, self.path)


def as_table(phases: Iterable[Figures]) -> Table:
    columns = ("Phase", "Cases", "Frames", *(name.capitalize() for name in BAD), "Measured", "Took", "Seed")
    table = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for f in phases:
        cases = f"{f.done:,}" if f.done == f.planned else f"{f.done:,} of {f.planned:,}"
        bad = (f"[red]{f.counts[name]:,}[/]" if f.counts[name] else "0" for name in BAD)
        measured = ", ".join(f"{name} {value:.4g}" for name, value in f.measured.items())
        minutes, seconds = divmod(round(f.took_s), 60)
        table.add_row(f.phase, cases, f"{f.counts['frames']:,}", *bad, measured, f"{minutes}:{seconds:02}", str(f.seed))
    return table
