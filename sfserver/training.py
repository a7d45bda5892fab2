"""`sfserver train`: a recipe, a folder, a bar for each stage. Ctrl-C keeps what was learnt; the next call goes on."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from .terminal import safe, say


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe that comes with sfserver, or a TOML file", metavar="RECIPE")],
    out: Annotated[Path, typer.Option(help="Where stages keep their state; what is there already goes on")],
    only: Annotated[str, typer.Option(help="One stage of the recipe", metavar="STAGE")] = "",
    threads: Annotated[int, typer.Option(help="Of the processor; small networks are fastest on one")] = 1,
) -> None:
    """Train a model. What comes out, in OUT/model, is a folder that `sfserver models` lists once it is moved there."""
    import torch

    from .train import recipe as recipes
    from .train import run

    wanted = recipes.read_recipe(recipes.recipe_path(recipe))
    if only and only not in {stage.name for stage in wanted.stage}:
        known = ", ".join(stage.name for stage in wanted.stage)
        raise typer.BadParameter(f"there is no stage {only!r}; there are: {known}", param_hint="--only")
    torch.set_num_threads(threads)
    with _bars() as progress, closing(run.train(wanted, out, only)) as events:
        tasks: dict[str, TaskID] = {}
        for event in events:
            if event.what not in tasks:
                tasks[event.what] = progress.add_task(safe(event.what), total=event.of, loss="")
            loss = "" if event.loss != event.loss else f"loss {event.loss:.4f}"  # NaN where there is none
            progress.update(tasks[event.what], completed=event.done, loss=loss)
    say(f"{out / run.MODEL_FOLDER} holds the model" if not only else f"stage {only} is done")


def _bars() -> Progress:
    return Progress(
        TextColumn("{task.description:<12}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TimeRemainingColumn(compact=True),
        console=Console(stderr=True, highlight=False),
    )
