"""`sfserver train`: a recipe, a folder, a bar for each stage. Ctrl-C keeps what was learnt; the next call goes on."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from typer.core import TyperGroup

from ..config import load_config
from .terminal import safe, say, tell

if TYPE_CHECKING:
    from ..train.place import Place
    from ..train.published import Models
    from ..train.recipe import Recipe
    from ..train.stages import Material

Device = Literal["auto", "cpu", "cuda"]
_HELP = "A recipe: train RECIPE --out FOLDER. Or clips for one: train prepare FOLDER --out SHARDS."


class _RecipeOrCommand(TyperGroup):
    """`train RECIPE` means `train run RECIPE`."""

    def parse_args(self, ctx, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["run", *args]
        return super().parse_args(ctx, args)


train = typer.Typer(cls=_RecipeOrCommand, no_args_is_help=True, help=_HELP)


@train.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A recipe that comes with sfserver, or a TOML file", metavar="RECIPE")],
    out: Annotated[Path, typer.Option(help="Where stages keep their state; what is there already goes on")],
    only: Annotated[str, typer.Option(help="One stage of the recipe", metavar="STAGE")] = "",
    threads: Annotated[int, typer.Option(help="Of the processor; small networks are fastest on one")] = 1,
    device: Annotated[Device, typer.Option(help="Where networks are")] = "cpu",
    data: Annotated[
        Path | None, typer.Option(help="Clips, as train prepare leaves them; the small world makes its own")
    ] = None,
    accept_license: Annotated[
        bool, typer.Option("--accept-license", help="The licences of the weights that it begins with suit your use")
    ] = False,
) -> None:
    """Train a model. What comes out, in OUT/model, is a folder that `sfserver models` lists once it is moved there."""
    import torch

    from ..train import recipe as recipes
    from ..train import run
    from ..train.place import choose_place
    from ..train.published import write_model

    wanted = recipes.read_recipe(recipes.recipe_path(recipe))
    if only and only not in {stage.name for stage in wanted.stage}:
        known = ", ".join(stage.name for stage in wanted.stage)
        raise typer.BadParameter(f"there is no stage {only!r}; there are: {known}", param_hint="--only")
    torch.set_num_threads(threads)
    place = choose_place(device)
    models = _models(wanted)
    material = None if wanted.pool else _material(wanted, models, data, accept_license, place)
    with _bars(hidden=place.rank > 0) as progress, closing(run.train(wanted, out, only, place, material)) as events:
        tasks: dict[str, TaskID] = {}
        for event in events:
            if event.what not in tasks:
                tasks[event.what] = progress.add_task(safe(event.what), total=event.of, loss="")
            loss = "" if event.loss != event.loss else f"loss {event.loss:.4f}"  # NaN where there is none
            progress.update(tasks[event.what], completed=event.done, loss=loss)
    if material and not only and not place.rank:
        write_model(wanted, models, out)
    say(f"{out / run.MODEL_FOLDER} holds the model" if not only else f"stage {only} is done")


def _models(wanted: Recipe) -> Models:
    from ..train.published import published

    models_dir = load_config().models_dir
    return lambda name: published(name or wanted.model, models_dir)


def _material(wanted: Recipe, models: Models, data: Path | None, accepted: bool, place: Place) -> Material:
    """Clips and weights of a recipe for a published model, once all is known to be right; says what memory it needs."""
    from ..train.memory import check_fits, told
    from ..train.place import free_bytes
    from ..train.published import check_licences, material_of, needs

    check_licences(wanted, models, accepted)
    if data is None:
        raise typer.BadParameter("this recipe needs clips; make them with: sfserver train prepare", param_hint="--data")
    material = material_of(wanted, models, data, place)
    for stage, parts in needs(wanted, models, material).items():
        say(f"{stage}: {told(parts)} of device memory, estimated", err=True)
        check_fits(stage, parts, free_bytes(place.device))
    return material


@train.command()
def prepare(
    folder: Annotated[Path, typer.Argument(help="A folder of films", metavar="FOLDER")],
    out: Annotated[Path, typer.Option(help="Where clips go as latents; what is there already stays")],
    captions: Annotated[
        Path | None, typer.Option(help="A table of FILE,CAPTION; without one, film.mp4 has its caption in film.txt")
    ] = None,
    model: Annotated[str, typer.Option(help="The model that is to be trained; its encoders are used")] = "self-forcing",
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT of all clips, multiples of 16")] = "480x272",
    frames: Annotated[int, typer.Option(help="Of each clip, 1 + 4k")] = 33,
    device: Annotated[Device, typer.Option(help="Where the VAE is")] = "auto",
) -> None:
    """Turn films and captions into latents and prompt embeddings, once. Broken off anywhere, the same call goes on."""
    from ..media.footage import SUFFIXES, read_frames
    from ..train import prepare as preparing
    from ..train.place import choose_place
    from ..train.published import NEGATIVE, published

    width, height = _clip_size(size)
    if frames < 9 or frames % 4 != 1:
        raise typer.BadParameter(f"{frames} frames are no clip; take 9, 13, 17, ... (1 + 4k)", param_hint="--frames")
    source = published(model, load_config().models_dir)
    films, bare = preparing.find_films(folder, captions, SUFFIXES)
    place = choose_place(device)
    wanted = preparing.Wanted(width, height, frames, source.encoders())
    read = partial(read_frames, width=width, height=height)
    skipped, console = len(bare), Console(stderr=True, highlight=False)
    for sentence in bare:
        tell(console, f"skipped: {sentence}")
    events = preparing.prepare(
        films, NEGATIVE, wanted, out, source.load_text, partial(source.load_vae, place.device), read, place.device
    )
    with _bars() as progress:
        task = progress.add_task("films", total=len(films), loss="")
        for event in events:
            progress.update(task, completed=event.done)
            if event.problem:
                skipped += 1
                tell(progress.console, f"skipped: {event.film}: {event.problem}")
    say(f"{out} holds {len(films) + len(bare) - skipped} films of {len(films) + len(bare)}")


def _clip_size(text: str) -> tuple[int, int]:
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isdigit() and int(side) > 0 and int(side) % 16 == 0 for side in sides):
        raise typer.BadParameter(f"{text!r} is no size; write two multiples of 16, as in 480x272", param_hint="--size")
    return int(sides[0]), int(sides[1])


def _bars(hidden: bool = False) -> Progress:
    return Progress(
        TextColumn("{task.description:<12}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TimeRemainingColumn(compact=True),
        console=Console(stderr=True, highlight=False),
        disable=hidden,
    )
