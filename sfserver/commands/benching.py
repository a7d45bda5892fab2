"""`sfserver bench`: figures of this installation on a terminal and in a file."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from .terminal import tell


def bench(
    out: Annotated[Path | None, typer.Option(help="Also write the figures here, as JSON")] = None,
    gpu: Annotated[bool, typer.Option("--gpu", help="The 1.3B model on the GPU instead, with random weights")] = False,
    world: Annotated[bool, typer.Option("--world", help="How well the small world's model obeys instead")] = False,
    profile: Annotated[
        Path | None, typer.Option(help="With --gpu: also write a chrome trace of two blocks here")
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(help="With --gpu: a checkout of Self-Forcing, whose code then runs in turns with ours"),
    ] = None,
) -> int:
    """Measure this installation, each figure as a ratio to a yardstick of the same run."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as for the server's workers, before torch is imported
    from ..bench.report import as_table, write_json

    for given, name in ((profile, "--profile"), (against, "--against")):
        if given and not gpu:
            raise typer.BadParameter("is of the GPU: give --gpu as well", param_hint=name)
    console = Console(stderr=True, highlight=False)

    def on_stage(stage: str) -> None:
        tell(console, f"measuring: {stage}")

    facts = {}
    if gpu:
        from ..bench import gpu as on_gpu

        measures = on_gpu.measure(on_stage, profile, against)
        facts = on_gpu.facts(["sfserver", *sys.argv[1:]])
    elif world:
        from ..bench import ends, exposure
        from ..bench import world as of_world

        measures = of_world.measure(on_stage) + exposure.measure(on_stage) + ends.measure(on_stage)
    else:
        from ..bench import counted, engine, pace, road

        measures = road.measure(on_stage)
        on_stage("a paced device")
        measures += pace.measure() + engine.measure(on_stage) + counted.measure(on_stage)
    Console(highlight=False).print(as_table(measures))
    if out:
        write_json(measures, out, facts)
    return 0 if all(m.met for m in measures) else 1
