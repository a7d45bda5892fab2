"""`sfserver animatic`: what is typed becomes a Wish, what happens becomes bars and sentences."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from ..commands.terminal import safe, say, tell
from ..errors import CANCELLED, USER_ERROR

if TYPE_CHECKING:
    from .run import Report


def animatic(
    board: Annotated[Path, typer.Argument(help="A timeline: .otio, .otioz, .kdenlive, .xml or .edl", metavar="BOARD")],
    out: Annotated[Path, typer.Option(help="The filled timeline; its movies lie beside it in NAME_inbetween/")],
    prompt: Annotated[str, typer.Option(help="What happens where neither a marker nor a note says it")] = "",
    negative_prompt: Annotated[str, typer.Option(help="What shall not be seen")] = "",
    hold: Annotated[
        int, typer.Option(help="Where stills follow each other without a gap: frames to take off each hold", min=0)
    ] = 0,
    track: Annotated[
        list[str] | None, typer.Option(help="Fill this track alone, by its name or as in V1; may be repeated")
    ] = None,
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT; auto is that of the picture before each gap")] = "auto",
    fit: Annotated[
        Literal["crop", "pad", "stretch"], typer.Option(help="How pictures of another shape come to that size")
    ] = "crop",
    engine: Annotated[str, typer.Option(help="Id of an engine, see: sfserver models; or a folder of weights")] = "auto",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A parameter of the engine", metavar="NAME=VALUE")
    ] = None,
    codec: Annotated[str, typer.Option(help="Of the new clips: h264, prores (4444), ffv1 or png (lossless)")] = "h264",
    seed: Annotated[int, typer.Option(help="The same seed gives the same frames")] = 0,
    connect: Annotated[
        bool, typer.Option("--connect", help="Let the running server do it, with all its workers")
    ] = False,
    relative: Annotated[
        bool | None,
        typer.Option("--relative/--absolute", help="How the timeline names the movies; as the clips beside them are"),
    ] = None,
    rate: Annotated[str, typer.Option(help="Frames a second of an EDL, which does not say it: 24, 29.97")] = "24",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write over a timeline that is another's")] = False,
    no_recipe: Annotated[bool, typer.Option("--no-recipe", help="Leave prompts out of movies and timeline")] = False,
) -> int:
    """Fill the gaps of a timeline, and write it with the new clips in place."""
    from ..commands.typed import fps_of, setting_of, size_of
    from ..config import load_config
    from ..media.codecs import codec_named
    from .jobs import Wish
    from .run import Job, run

    wish = Wish(
        prompt=prompt,
        negative_prompt=negative_prompt,
        size=size_of(size),
        fit=fit,
        settings=dict(setting_of(text) for text in settings or ()),
        seed=seed,
        codec=codec_named(codec),
        keeps_recipe=not no_recipe,
    )
    style = "" if relative is None else "relative" if relative else "absolute"
    job = Job(
        board, out, wish, hold, tuple(track or ()), engine, connect, style, overwrite, float(fps_of(rate, "--rate"))
    )
    with Bars() as bars:
        report = run(job, load_config(), bars)
    for one in report.unfilled:
        say(f"not filled: {one}", err=True)
    sentence, code = told(report, out, hold)
    say(sentence if code == 0 else f"sfserver: {sentence}", err=code != 0)
    return code


def told(report: Report, out: Path, hold: int) -> tuple[str, int]:
    """The last line, and the exit code."""
    if not report.holes:
        remedy = "" if hold else "; --hold N takes the last N frames of each still that another picture follows"
        return f"nothing is to be filled{remedy}", USER_ERROR
    gaps = f"{report.filled} of {report.holes} {'holds' if hold else 'gaps'}"
    if report.broken or report.cancelled:
        why = "cancelled" if report.cancelled else str(report.broken)
        kept = f"{gaps} are filled in {out}" if report.is_written else "nothing was made"
        return f"{why}; {kept}", CANCELLED if report.cancelled else USER_ERROR
    if not report.is_written:
        return f"none of {report.holes} could be filled; {out} was not written", USER_ERROR
    how = f"{report.made} made by {report.engine} in {report.seconds:.1f} s" if report.made else "nothing to make"
    before = report.filled - report.made
    return f"{gaps} filled in {out}: {how}" + (f", {before} made before" if before else ""), 0


class Bars:
    """All frames of the timeline, and below each job that is being made. A `fill.Watcher`."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            console=self._console,
        )
        self._all: TaskID | None = None
        self._each: dict[str, TaskID] = {}

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *_: object) -> None:
        if self._all is not None:  # stopping one that never started prints an empty line
            self._progress.stop()

    def note(self, sentence: str) -> None:
        tell(self._console, f"note: {sentence}")

    def planned(self, holes: int, frames: int) -> None:
        self._progress.start()
        self._all = self._progress.add_task(f"all frames of {holes} gaps", total=frames)

    def at(self, name: str, stage: str, made: int, wanted: int) -> None:
        if name not in self._each:
            self._each[name] = self._progress.add_task(safe(name), total=wanted)
        self._progress.update(self._each[name], description=safe(f"{name}: {stage}"), completed=made)

    def ended(self, name: str, frames: int) -> None:
        assert self._all is not None, "planned comes first"
        self._progress.advance(self._all, frames)
        if (task := self._each.pop(name, None)) is not None:
            self._progress.remove_task(task)
