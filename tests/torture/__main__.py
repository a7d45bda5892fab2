"""`python -m tests.torture`: run phases, show how far they are, keep the figures, print the table."""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from attrs import frozen
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from . import (
    phase_clients,
    phase_dialled,
    phase_everything,
    phase_kills,
    phase_limits,
    phase_messages,
    phase_network,
    phase_soak,
    phase_stops,
    phase_wire,
)
from .figures import BAD, Figures, Phase, Plan, Store, as_table

SAVE_EVERY_S = 5.0


@frozen
class Part:
    """A phase, and how many cases it has: in a full run, and in a quick one."""

    run: Phase
    full: int
    quick: int


PARTS = {
    "messages": Part(phase_messages.run, 500, 5),  # thousands, and as many again led by coverage
    "wire": Part(phase_wire.run, 100, 2),  # thousands
    "kills": Part(phase_kills.run, 300, 12),
    "everything": Part(phase_everything.run, 100, 2),
    "stops": Part(phase_stops.run, 60, 3),
    "dialled": Part(phase_dialled.run, 160, 4),
    "network": Part(phase_network.run, 300, 20),
    "clients": Part(phase_clients.run, 20, 1),  # rounds of every kind of guest
    "limits": Part(phase_limits.run, len(phase_limits.CASES), 4),
    "soak": Part(phase_soak.run, 0, 2),
}


def torture(
    only: Annotated[list[str] | None, typer.Option(help=f"Phases to run: {', '.join(PARTS)}.")] = None,
    quick: Annotated[bool, typer.Option(help="A little of everything, in less than three minutes.")] = False,
    seed: Annotated[int | None, typer.Option(help="As printed by the run that is to be repeated.")] = None,
    messages: Annotated[int, typer.Option(help="Mutated messages in process; half of them led by coverage.")] = 0,
    kills: Annotated[int, typer.Option(help="SIGKILLs.")] = 0,
    faults: Annotated[int, typer.Option(help="Network faults.")] = 0,
    minutes: Annotated[float, typer.Option(help="Of soak.")] = 60.0,
    case: Annotated[int | None, typer.Option(help="Only this case of the one phase.")] = None,
    afresh: Annotated[bool, typer.Option(help="Do not go on where a run with this seed was broken off.")] = False,
    out: Annotated[Path, typer.Option(help="Where the figures are kept.")] = Path("torture.json"),
) -> None:
    """Do to a server what should never happen to one, and count what it costs. Exit code 1 if it costs anything."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=170)  # a log, which wraps nothing
    unknown = [name for name in only or [] if name not in PARTS]
    if unknown:
        raise typer.BadParameter(f"{', '.join(unknown)}; there are {', '.join(PARTS)}", param_hint="--only")
    store = Store.open(out)
    sizes = {name: part.quick if quick else part.full for name, part in PARTS.items()}
    if not quick:
        sizes["soak"] = max(1, round(minutes * 60 / phase_soak.STEP_S))
    asked = {"messages": -(-messages // (2 * phase_messages.A_TURN)), "kills": kills, "network": faults}
    sizes |= {name: size for name, size in asked.items() if size}
    names = [name for name in PARTS if not only or name in only]
    unfinished = next((f.seed for n in names if (f := store.phases.get(n)) and f.done < f.planned), None)
    if seed is None:
        seed = unfinished if unfinished is not None and not afresh else random.randrange(10**6)
    console.print(f"seed {seed}")
    ran: list[Figures] = []
    for name in names:
        figures = store.begin(name, seed, sizes[name], afresh)
        if case is not None:
            figures.done = case
        _run(PARTS[name], figures, sizes[name] if case is None else case + 1, quick, minutes, store, console)
        ran.append(figures)
    console.print(as_table(store.phases.values()))
    for figures in store.phases.values():
        counted = (f"{name} {count:,}" for name, count in figures.counts.items() if count and name not in BAD)
        console.print(f"{figures.phase}: {', '.join(counted)}", highlight=False)
    for figures in ran:
        for finding, times in figures.findings.items():
            console.print(f"{figures.phase}, {times} x {finding}", highlight=False, markup=False, style="red")
    sys.exit(1 if any(figures.bad for figures in ran) else 0)


def _run(part: Part, figures: Figures, last: int, quick: bool, minutes: float, store: Store, console: Console) -> None:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[bad]}")
    began, before, saved_at = time.monotonic(), figures.took_s, time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="torture-", ignore_cleanup_errors=True) as folder,
        Progress(*columns, TimeElapsedColumn(), console=console) as progress,
    ):
        task = progress.add_task(f"{figures.phase:9}", total=last, completed=figures.done, bad="")
        plan = Plan(figures, last, Path(folder), quick, minutes)
        try:
            for _ in part.run(plan):
                figures.took_s = before + time.monotonic() - began
                bad = f"[red]{figures.bad} bad[/]" if figures.bad else ""
                progress.update(task, completed=figures.done, bad=bad)
                if time.monotonic() - saved_at > SAVE_EVERY_S:
                    saved_at = time.monotonic()
                    store.save()
        finally:
            figures.took_s = before + time.monotonic() - began
            progress.update(task, completed=figures.done)
            store.save()


if __name__ == "__main__":
    typer.run(torture)
