"""Progress for people, on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from .terminal import safe, tell


class Bar:
    """Stage, frames so far and time left, on stderr; notes above it. A `making.Watcher`."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description:<14}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("frames, left"),
            TimeRemainingColumn(compact=True),
            console=self._console,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._task is not None:  # stopping one that never started prints an empty line
            self._progress.stop()

    def note(self, sentence: str) -> None:
        tell(self._console, f"note: {sentence}")

    def planned(self, wanted: int) -> None:
        self._progress.start()
        self._task = self._progress.add_task("starting", total=wanted)

    def at(self, stage: str, made: int) -> None:
        assert self._task is not None, "planned comes first"
        self._progress.update(self._task, description=safe(stage), completed=made)


@contextmanager
def bytes_bar(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """One bar for each thing that is told about: (what, bytes or tensors done, of). Where nobody watches, in a log or
    for another program, a line `what: done of all` at each hundredth."""
    if not console.is_terminal:
        yield _lines(console)
        return
    with Progress(console=console) as progress:
        tasks: dict[str, TaskID] = {}

        def show(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(safe(what), total=of)
            progress.update(tasks[what], completed=done, total=of)

        yield show


def _lines(console: Console) -> Callable[[str, int, int], None]:
    said: dict[str, int] = {}

    def show(what: str, done: int, of: int) -> None:
        hundredth = 100 * done // max(of, 1)
        if said.get(what) != hundredth:
            said[what] = hundredth
            tell(console, f"{what}: {done} of {of}")

    return show
