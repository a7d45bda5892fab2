"""`make walk-kdenlive`: what somebody does who has Kdenlive, in its own window, at every rate; each frame is counted.

    a project with gaps   -> opened and saved by Kdenlive -> filled by one command -> rendered by melt
                                                                                   -> opened and saved again -> rendered

Pictures carry their numbers (`barcodes.py`), so each frame of what melt renders says whether it is the right one. The
window is that of an Xvfb, its menu is pressed over D-Bus. Not a test: it waits for a program of others.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

import test_other_formats as formats
from counting_engine import INFO, CountingEngine
from timelines import RATES, marker

from sfserver.cli import main
from sfserver.engine import table

T = TypeVar("T")
NEEDS = "kdenlive", "melt", "Xvfb", "dbus-daemon", "gdbus", "xdotool"
WINDOW = "/kdenlive/MainWindow_1"
MOST_S = 120.0
"""To open a project, or to save it."""
GUIDE = "it rains"
WANTED = [*range(52), *[52] * 4]


def walk(rates: list[str], folder: Path, shots: Path | None) -> int:
    """Prints a line for each rate. Returns how many went wrong."""
    engine = CountingEngine()
    table.describe_all, table.load = lambda config: (INFO,), lambda engine_id, config: engine
    wrong = 0
    for name in rates:
        place = folder / name
        place.mkdir()
        made, rate = formats.board(place, name), RATES[name][0]
        made.tracks.markers.append(marker(22, GUIDE, rate))
        board = formats.written(made, place / "board.kdenlive", rate)
        saved(board, place / "board.png")
        filled, again = place / "filled.kdenlive", place / "again.kdenlive"
        assert main(["animatic", str(board), "--out", str(filled), "--overwrite"]) == 0
        shutil.copy(filled, again)
        saved(again, shots / f"kdenlive_{name}.png" if shots else place / "again.png")
        found = [right(path, name, place) for path in (filled, again)]
        heard = [job.prompt for job in engine.jobs[-2:]] == [GUIDE, ""] and GUIDE in again.read_text("utf-8")
        wrong += found != [len(WANTED)] * 2 or not heard
        sentence = f"{name}: {found[0]} of {len(WANTED)} right in melt, opened and saved by Kdenlive again: {found[1]}"
        print(f"{sentence}; its guide {'was the prompt, and stays' if heard else 'IS LOST'}", flush=True)  # noqa: T201
    return wrong


def right(project: Path, rate_name: str, folder: Path) -> int:
    """How many of the frames are those that belong there, as melt renders them."""
    return sum(a == b for a, b in zip(formats.rendered(project, rate_name, folder), WANTED, strict=True))


def saved(project: Path, shot: Path) -> None:
    """Kdenlive opens the project and saves it in its own words."""
    before = project.read_bytes()
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kdenlive-")))
        display = stack.enter_context(screen())
        surroundings = {"HOME": str(home), "TMPDIR": str(home), "XDG_RUNTIME_DIR": str(home), "DISPLAY": display}
        surroundings |= {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "LIBGL_ALWAYS_SOFTWARE": "1"}
        surroundings["DBUS_SESSION_BUS_ADDRESS"] = stack.enter_context(bus(surroundings))
        stack.enter_context(running(["kdenlive", str(project)], surroundings, subprocess.DEVNULL))
        window = eventually(lambda: named(surroundings), "its window")
        eventually(lambda: f"'{project.stem} " in title(window, surroundings), f"{project.stem} in its title")
        press("file_save", window, surroundings)
        eventually(lambda: answered(surroundings) and project.read_bytes() not in (before, b""), "the file to be saved")
        eventually(lambda: project.read_bytes().rstrip().endswith(b"</mlt>"), "the whole of it")
        photographed(shot, display)


@contextmanager
def running(
    command: list[str], surroundings: dict[str, str] | None = None, out: int = subprocess.PIPE
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, env=surroundings, stdout=out, stderr=subprocess.DEVNULL, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def screen() -> Iterator[str]:
    with running(["Xvfb", "-displayfd", "1", "-screen", "0", "1600x900x24", "-nolisten", "tcp"]) as process:
        assert process.stdout
        yield f":{process.stdout.readline().strip()}"


@contextmanager
def bus(surroundings: dict[str, str]) -> Iterator[str]:
    with running(["dbus-daemon", "--session", "--nofork", "--print-address=1"], surroundings) as process:
        assert process.stdout
        yield process.stdout.readline().strip()


def call(surroundings: dict[str, str], to: str, path: str, method: str, *arguments: str) -> str:
    """What the answer is, or nothing where there was none."""
    command = ["gdbus", "call", "--session", "--timeout", "10", "--dest", to, "--object-path", path, "--method", method]
    done = subprocess.run([*command, *arguments], env=surroundings, capture_output=True, text=True, check=False)
    return done.stdout


def named(surroundings: dict[str, str]) -> str:
    names = call(surroundings, "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus.ListNames")
    return next((name.strip("' ()[]\n") for name in names.split(",") if "org.kde.kdenlive-" in name), "")


def title(window: str, surroundings: dict[str, str]) -> str:
    get = "org.freedesktop.DBus.Properties.Get"
    return call(surroundings, window, WINDOW, get, "org.qtproject.Qt.QWidget", "windowTitle")


def press(action: str, window: str, surroundings: dict[str, str]) -> None:
    call(surroundings, window, WINDOW, "org.kde.KMainWindow.activateAction", action)


def answered(surroundings: dict[str, str]) -> bool:
    """Return pressed in whatever window asks something: of a file that another version wrote it says so, and waits."""
    find = ["xdotool", "search", "--onlyvisible", "--name", "^Information"]
    windows = subprocess.run(find, env=surroundings, capture_output=True, text=True, check=False).stdout.split()
    for window in windows:
        command = ["xdotool", "windowfocus", window, "key", "Return"]
        subprocess.run(command, env=surroundings, capture_output=True, check=False)
    return True


def photographed(shot: Path, display: str) -> None:
    grab = ["-f", "x11grab", "-video_size", "1600x900", "-i", display, "-frames:v", "1", str(shot)]
    subprocess.run(["ffmpeg", "-loglevel", "error", "-y", *grab], check=False, timeout=60)


def eventually(look: Callable[[], T], what: str) -> T:
    until = time.monotonic() + MOST_S
    while time.monotonic() < until:
        if found := look():
            return found
        time.sleep(0.5)
    raise SystemExit(f"waited {MOST_S:g} s for {what}")


if __name__ == "__main__":
    missing = [name for name in NEEDS if shutil.which(name) is None]
    if missing:
        sys.exit(f"not on this machine: {', '.join(missing)}")
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("rates", nargs="*", metavar="RATE", help=f"of {', '.join(RATES)}; all without one")
    words.add_argument("--shots", type=Path, help="a folder for a picture of the window at each rate")
    given = words.parse_args()
    with tempfile.TemporaryDirectory(prefix="walk-kdenlive-") as scratch:
        sys.exit(walk(given.rates or list(RATES), Path(scratch), given.shots))
