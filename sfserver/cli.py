"""The command line: what is typed becomes an Order or a ServerConfig, what goes wrong becomes one line.

Exit codes: 0 done, 1 a mistake of ours or a doctor's finding, 2 something the user can mend, 130 Ctrl-C.
The doing is elsewhere, and is imported by the command that needs it: `sfserver --help` must not wait for codecs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table
from sfwire.errors import WireError
from sfwire.messages import EngineInfo, Refused, fit
from typer.exceptions import Abort, TyperException

from .animatic.command import animatic
from .commands.bars import Bar, bytes_bar
from .commands.benching import bench
from .commands.joining import worker
from .commands.launching import by_ray_at
from .commands.queueing import queue
from .commands.running import run as run_folder
from .commands.running import saved
from .commands.terminal import safe, say, tell
from .commands.training import train
from .commands.typed import fps_of, keyframe_of, later_prompt_of, lora_of, setting_of, size_of, words_of
from .config import ConfigError, load_config
from .errors import CANCELLED, USER_ERROR, UserError

if TYPE_CHECKING:
    from .clip.making import Result
    from .engine.presets import Preset

_MAX_SENTENCE_CHARS = 1500
"""A path of a few hundred letters, and what is wrong with it."""

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="In-betweens: two keyframes and a prompt go in, the frames between them stream out.",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `sfserver`. What a user can cause is one line on stderr, with the remedy."""
    command = typer.main.get_command(app)
    try:
        return command.main(arguments, prog_name="sfserver", standalone_mode=False) or 0
    except TyperException as error:
        message = error.format_message()  # empty where the help was printed instead
        return _complain(f"{message} (see {_help_command(arguments)})") if message else USER_ERROR
    except (KeyboardInterrupt, Abort):
        return _complain("cancelled", CANCELLED)
    except (UserError, ConfigError, Refused, WireError) as error:
        return _complain(error)
    except MemoryError:
        return _complain("out of memory; close other programs, or raise the limit (ulimit -v) and try again")
    except OSError as error:
        if error.filename is None:  # not about a file that was named: a mistake of ours, which needs its traceback
            raise
        return _complain(f"{error.filename}: {(error.strerror or str(error)).lower()}; check it and try again")


def _complain(error: object, code: int = USER_ERROR) -> int:
    sentence = fit(" ".join(str(error).split()), _MAX_SENTENCE_CHARS)  # paths and prompts may hold anything
    say(f"sfserver: {sentence}", err=True)
    return code


def _help_command(arguments: Sequence[str] | None) -> str:
    words = sys.argv[1:] if arguments is None else arguments
    names = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    names |= {group.name for group in app.registered_groups if group.name}
    return " ".join(["sfserver", *[word for word in words[:1] if word in names], "--help"])


# generate


@app.command()
def generate(
    context: typer.Context,
    out: Annotated[
        Path | None,
        typer.Option(help="A folder for frames, clip and contact sheet; a movie: .mp4, .mov, .mkv; or shot.%04d.exr"),
    ] = None,
    start: Annotated[
        Path | None, typer.Argument(help="The first picture: PNG, JPEG, WebP, TIFF or EXR", metavar="START")
    ] = None,
    end: Annotated[Path | None, typer.Argument(help="The last picture", metavar="END")] = None,
    prompt: Annotated[str, typer.Option(help="What happens in between")] = "",
    negative_prompt: Annotated[str, typer.Option(help="What shall not be seen")] = "",
    frames: Annotated[int, typer.Option(help="Length of the clip, START and END counted")] = 33,
    size: Annotated[
        str, typer.Option(help="WIDTHxHEIGHT; auto is the start picture's, as the engine needs it")
    ] = "auto",
    fit: Annotated[
        Literal["crop", "pad", "stretch"], typer.Option(help="How pictures of another shape come to that size")
    ] = "crop",
    engine: Annotated[str, typer.Option(help="Id of an engine, see: sfserver models; or a folder of weights")] = "auto",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A parameter of the engine", metavar="NAME=VALUE")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same frames")] = 0,
    fps: Annotated[str, typer.Option(help="Frames a second of the MP4, as in 24, 29.97 or 30000/1001")] = "24",
    between_only: Annotated[bool, typer.Option("--between-only", help="Leave the keyframes out")] = False,
    at: Annotated[
        list[str] | None, typer.Option(help="A further keyframe at frame I of the clip", metavar="I:IMAGE")
    ] = None,
    prompt_at: Annotated[
        list[str] | None, typer.Option(help="Another prompt from frame I of the clip on", metavar="I:TEXT")
    ] = None,
    connect: Annotated[bool, typer.Option("--connect", help="Let the running server do it")] = False,
    codec: Annotated[str, typer.Option(help="Of the movie: h264, prores (4444), ffv1 or png (lossless)")] = "",
    depth: Annotated[
        int | None,
        typer.Option(help="Bits a sample of PNG and TIFF, 8 or 16; by default as keyframes have"),
    ] = None,
    start_number: Annotated[int, typer.Option(help="Of the first frame's file, as in 1001", min=0, max=9999999)] = 0,
    timecode: Annotated[str, typer.Option(help="Of the movie's first frame, as in 01:00:00:00")] = "",
    recipe: Annotated[
        Path | None, typer.Option(help="Make again, byte for byte, what this recipe.json, picture or movie tells of")
    ] = None,
    no_recipe: Annotated[bool, typer.Option("--no-recipe", help="Leave prompts and settings out of the files")] = False,
    save_job: Annotated[
        Path | None, typer.Option(help="Make nothing: write a folder that `sfserver run` makes, here or elsewhere")
    ] = None,
) -> int:
    """Make the frames between two pictures."""
    from .clip.generate import generate as run
    from .clip.order import Order
    from .media.outputs import Keeping

    if (out is None) == (save_job is None):
        raise typer.BadParameter("Missing option '--out'; say where frames go, or name a folder with --save-job alone")
    out = out or save_job or Path()
    if recipe is not None:
        return _again(context, recipe, out, start, end, connect, not no_recipe)
    if start is None or end is None:
        missing = "START" if start is None else "END"
        raise typer.BadParameter(f"Missing argument '{missing}'; name two pictures, or a recipe with --recipe")
    order = Order(
        start=start,
        end=end,
        out=out,
        further=tuple(keyframe_of(text) for text in at or ()),
        prompt=prompt,
        negative_prompt=negative_prompt,
        prompts=tuple(sorted(later_prompt_of(text) for text in prompt_at or ())),
        num_frames=frames,
        size=size_of(size),
        fit=fit,
        engine=engine,
        settings=dict(setting_of(text) for text in settings or ()),
        seed=seed,
        fps=fps_of(fps),
        between_only=between_only,
        connect=connect,
        keeping=Keeping(codec, depth, start_number, timecode),
        keeps_recipe=not no_recipe,
    )
    with Bar() as bar:
        if save_job is not None:
            return saved(order, save_job, load_config(), bar)
        result = run(order, load_config(), bar)
    return _report(result, out, seed)


_WITH_A_RECIPE = {"recipe", "out", "start", "end", "connect", "no_recipe"}


def _again(
    context: typer.Context, recipe: Path, out: Path, start: Path | None, end: Path | None, connect: bool, keeps: bool
) -> int:
    from .clip.again import order_of
    from .clip.generate import generate as run

    for name in sorted(set(context.params) - _WITH_A_RECIPE):
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = f"--{name.replace('_', '-')}"
            raise typer.BadParameter("a recipe says all of that itself; leave it out", param_hint=option)
    order = order_of(recipe, out, start, end, connect, keeps)
    with Bar() as bar:
        result = run(order, load_config(), bar)
    return _report(result, out, order.seed)


@app.command()
def compare(
    start: Annotated[Path, typer.Argument(help="The first picture", metavar="START")],
    end: Annotated[Path, typer.Argument(help="The last picture", metavar="END")],
    out: Annotated[Path, typer.Option(help="A folder for the clips and the page index.html; goes on where it ended")],
    engines: Annotated[str, typer.Option(help="Ids, by commas; see: sfserver models")] = "draft",
    strategies: Annotated[str, typer.Option(help="Names, by commas; without any, all that an engine has")] = "",
    seeds: Annotated[str, typer.Option(help="Numbers, by commas")] = "0",
    prompt: Annotated[str, typer.Option(help="What happens in between")] = "",
    negative_prompt: Annotated[str, typer.Option(help="What shall not be seen")] = "",
    frames: Annotated[int, typer.Option(help="Length of the clips, START and END counted", min=3)] = 33,
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT; auto is the start picture's")] = "auto",
    fit: Annotated[
        Literal["crop", "pad", "stretch"], typer.Option(help="How pictures of another shape come to that size")
    ] = "crop",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A parameter, for engines that have it", metavar="NAME=VALUE")
    ] = None,
    vary: Annotated[
        list[str] | None, typer.Option(help="One clip for each value of a parameter", metavar="NAME=VALUE,VALUE")
    ] = None,
) -> int:
    """Two pictures through every combination of engines, strategies, settings and seeds, on one page to judge by."""
    from .compare import run as comparing

    numbers = words_of(seeds)
    if not numbers or not all(number.isdecimal() and len(number) < 20 for number in numbers):
        raise typer.BadParameter(f"{seeds!r} are not numbers, as in 1,2,3", param_hint="--seeds")
    wish = comparing.Wish(
        start=start,
        end=end,
        out=out,
        engines=words_of(engines),
        strategies=words_of(strategies),
        seeds=tuple(map(int, numbers)),
        prompt=prompt,
        negative_prompt=negative_prompt,
        num_frames=frames,
        size=size_of(size),
        fit=fit,
        settings=dict(setting_of(text) for text in settings or ()),
        varied={name: words_of(values) for name, values in map(setting_of, vary or ())},
    )
    rows = comparing.compare(wish, load_config(), partial(say, err=True))
    if not rows:
        return _complain("nothing could be made")
    say(f"{rows} clips on {out / comparing.PAGE}")
    return 0


def _report(result: Result, out: Path, seed: int) -> int:
    if result.cancelled:
        kept = f"{result.made} of {result.wanted} frames are in {out}" if result.made else "nothing was made"
        return _complain(f"cancelled; {kept}", CANCELLED)
    how = f"{result.made} made by {result.engine} in {result.seconds:.1f} s, seed {seed}"
    say(f"{result.written} frames in {out}: {how}")
    return 0


# Everything else


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; encrypted wherever it is")] = None,
    port: Annotated[int | None, typer.Option(help="0 takes a free one; clients find it by themselves")] = None,
    workers: Annotated[
        str | None,
        typer.Option(help="Requests that are worked on at the same time; auto, or MIN:MAX with --ray"),
    ] = None,
    devices: Annotated[str | None, typer.Option(help="GPUs by number, as in 0,1; or all, or cpu")] = None,
    workers_from: Annotated[
        str | None, typer.Option(help="Let workers of other machines dial in here", metavar="tcp://ADDRESS:PORT")
    ] = None,
    ray: Annotated[str | None, typer.Option(help="Let Ray's cluster at HOST:PORT bring the workers")] = None,
    ray_gpus: Annotated[
        float, typer.Option(help="GPUs of each such worker; 0.5 lets two share one", min=0, max=1)
    ] = 1.0,
    keep: Annotated[bool, typer.Option("--keep", help="Go on when the program that started it has ended")] = False,
    no_journal: Annotated[bool, typer.Option("--no-journal", help="A restart forgets the queue")] = False,
    connection_file: Annotated[Path | None, typer.Option(help="Where clients look for this server")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, bf16, fp32; or fp8, int8 for large matrices")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info or warning; debug logs prompts")] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file with these and further settings")] = None,
) -> int:
    """Serve editors and other programs until Ctrl-C."""
    from .serve import supervise

    flags: dict[str, Any] = {
        "host": host,
        "port": port,
        "workers": workers,
        "devices": devices,
        "workers_from": workers_from,
        "keep": keep or None,
        "journal": False if no_journal else None,
        "connection_file": connection_file,
        "device": device,
        "precision": precision,
        "log_level": log_level,
    }
    flags, launcher = by_ray_at(ray, ray_gpus, flags) if ray else (flags, None)
    return supervise.serve(load_config(flags, file=config), launcher=launcher)


@app.command()
def models(
    engine: Annotated[str, typer.Argument(help="Tell everything about one", metavar="[ENGINE]")] = "",
) -> None:
    """List the engines: what is there, what is missing, licence, memory, whether the prompt counts."""
    from .engine import table

    infos = table.describe_all(load_config())
    console = Console(highlight=False)
    if engine:
        found = next((info for info in infos if info.id == engine), None)
        if not found:
            raise typer.BadParameter(f"there is no {engine!r}; there are: {', '.join(info.id for info in infos)}")
        _tell_all(found, console)
        return
    grid = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("Engine", "State", "Prompt", "Memory"):
        grid.add_column(heading, no_wrap=True)
    grid.add_column("Title")
    for info in infos:
        grid.add_row(*map(safe, _model_row(info)))
    console.print(grid)
    tell(console, "\nsfserver models ENGINE tells all about one, sfserver fetch ENGINE downloads what is missing")


def _model_row(info: EngineInfo) -> tuple[str, ...]:
    memory = f"{info.memory_bytes / 1e9:.1f} GB" if info.memory_bytes else "small"
    state = "ready" if info.available else f"{len(info.missing)} missing"
    return info.id, state, "used" if info.uses_prompt else "ignored", memory, info.title


def _tell_all(info: EngineInfo, console: Console) -> None:
    lines = [f"{info.title}: {info.summary}", f"licence: {info.licence}"]
    lines.append(f"clips: {info.min_frames} to {info.max_frames} frames, sides in steps of {info.size_multiple}")
    lines += [f"missing: {what}" for what in info.missing]
    for p in info.parameters:
        limits = ", ".join(p.choices) if p.choices else f"{p.low:g} to {p.high:g}" if p.low is not None else "on or off"
        lines.append(f"--set {p.name}={p.default}  ({limits})  {p.help}")
    for line in lines:
        tell(console, line)


@app.command()
def fetch(
    model: Annotated[str, typer.Argument(help="Id of a model, see: sfserver models", metavar="MODEL")],
    accept_license: Annotated[
        bool, typer.Option("--accept-license", help="You have read the licences shown, and they suit your use")
    ] = False,
) -> None:
    """Download what a model still needs, and convert it."""
    from . import fetch as fetching
    from .engine.presets import PRESETS, find

    preset = find(model)
    if preset is None:
        known = ", ".join(one.id for one in PRESETS)
        raise typer.BadParameter(f"there is no model {model!r}; there are: {known}")
    console = Console(stderr=True, highlight=False)
    for licence in fetching.licences(preset):
        tell(console, f"licence of {licence}")
    with bytes_bar(console) as show:
        notes = fetching.fetch(preset, load_config().models_dir, accept_license, show, on_plan=partial(tell, console))
    for note in notes:
        tell(console, f"note: {note}")
    say(f"{model} is complete")


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="A published file of weights, or a folder of them", metavar="SOURCE")],
    folder: Annotated[Path, typer.Argument(help="Of the model; what else it holds stays", metavar="FOLDER")],
    preset: Annotated[str, typer.Option(help="Id of the model they are for, see: sfserver models")] = "",
    lora: Annotated[
        list[str] | None, typer.Option(help="To be merged into the transformer", metavar="FILE[=STRENGTH]")
    ] = None,
    precision: Annotated[Literal["bf16", "fp32", "fp8", "int8"], typer.Option(help="Of large matrices")] = "bf16",
) -> None:
    """Turn published weights into safetensors that the engines open: the only command that reads checkpoints."""
    import torch

    from .model.eightbit import kind_of
    from .weights import convert as conversion
    from .weights.sources import PREFER

    model = _preset(preset)
    transformer = model.part("dit") if model else None
    console = Console(stderr=True, highlight=False)
    with bytes_bar(console) as show:
        wish = conversion.Wish(
            preset=preset,
            prefer=transformer.source.prefer if transformer else PREFER,
            loras=tuple(lora_of(text) for text in lora or ()),
            dtype=torch.float32 if precision == "fp32" else torch.bfloat16,
            eight_bit=kind_of(precision),
            expect_dim=model.dit.dim if model else None,
            on_progress=show,
        )
        manifest = conversion.convert(source, folder, wish)
    missing = model.part("lora") if model else None
    made = manifest.components.get("dit")
    if missing and made and not made.loras:
        what = f"{preset} was trained with {missing.source.file} of {missing.source.repository} merged in"
        remedy = f"unless {made.source} has that in it already, convert it again with --lora FILE"
        tell(console, f"note: {what}; {remedy}")
    say(f"{folder} holds: {', '.join(sorted(manifest.components))}")


def _preset(preset: str) -> Preset | None:
    from .engine.presets import PRESETS, find

    found = find(preset)
    if preset and not found:
        known = ", ".join(one.id for one in PRESETS)
        raise typer.BadParameter(f"there is no model {preset!r}; there are: {known}", param_hint="--preset")
    return found


app.command()(animatic)
app.command()(worker)
app.command("run")(run_folder)
app.command()(queue)
app.add_typer(train, name="train")


app.command()(bench)


@app.command()
def doctor(as_json: Annotated[bool, typer.Option("--json", help="For programs")] = False) -> int:
    """Check this machine: each line is ok, or says what to do."""
    from . import doctor as doctors

    findings = doctors.examine(load_config())
    say(doctors.as_json(findings) if as_json else doctors.as_lines(findings))
    return 1 if any(finding.remedy for finding in findings) else 0
