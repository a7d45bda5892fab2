"""What a farm is told to run, run here: Flamenco's job type is compiled in node, its manager's names are stubs.

The farm itself is not here: that its workers find the program and the storage is not tested.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import opentimelineio as otio
import pytest
from opentimelineio.opentime import RationalTime, TimeRange

from sfserver.media.clip import ClipWriter
from sfserver.media.codecs import CODECS
from sfserver.media.stills import write_still
from sfserver.samples import Form

ROOT = Path(__file__).parents[2]
FARM = ROOT / "examples" / "farm"
SCRIPT = FARM / "animatic_jobs.py"
RATE, HELD, GAP = 24, 4, 3
needs_node = pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")


@pytest.fixture
def board(machine: Path, tmp_path: Path) -> Path:
    """Three panels with two gaps, of 16 bits, with alpha; the last two panels are the same picture twice, moved. The
    middle one is a movie."""
    track = otio.schema.Track("Panels", kind=otio.schema.TrackKind.Video)
    for number in range(3):
        picture = np.full((64, 96, 4), (9001, 23457, 23456, 51234), np.uint16)
        picture[20:44, 10 + 20 * number : 34 + 20 * number] = 59001, 30001, 10001, 65535
        name = f"panel{number}.mov" if number == 1 else f"panel{number}.png"
        if number == 1:
            movie = ClipWriter(tmp_path / name, 96, 64, Fraction(RATE), codec=CODECS["png"], form=Form(4, 16))
            for _ in range(HELD):
                movie.write(picture)
            movie.close()
        else:
            write_still(tmp_path / name, picture, ".png")
        if number:
            track.append(otio.schema.Gap(source_range=span(GAP)))
        track.append(otio.schema.Clip(f"p{number}", otio.schema.ExternalReference(name), span(HELD)))
    timeline = otio.schema.Timeline("Board")
    timeline.tracks.append(track)
    otio.adapters.write_to_file(timeline, str(tmp_path / "board.otio"))
    return tmp_path / "board.otio"


def span(frames: int) -> TimeRange:
    return TimeRange(RationalTime(0, RATE), RationalTime(frames, RATE))


def ran(*command: str | Path, code: int = 0) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=250, env=dict(os.environ))
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def saved(board: Path) -> list[str]:
    return ran(sys.executable, SCRIPT, "save", board, board.parent / "jobs").split()


def compiled(**settings: object) -> dict[str, Any]:
    return json.loads(
        ran("node", Path(__file__).with_name("compile.js"), FARM / "sfserver_animatic.js", json.dumps(settings))
    )


def settings_of(board: Path, names: list[str]) -> dict[str, object]:
    folder = board.parent
    found = {"board": str(board), "jobs": str(folder / "jobs"), "names": ",".join(names), "options": "--engine draft"}
    programs = {"sfserver": shutil.which("sfserver", path=Path(sys.executable).parent), "python": sys.executable}
    return found | programs | {"filled": str(folder / "filled.otio"), "script": str(SCRIPT)}


@needs_node
def test_the_tasks_of_a_farm_fill_the_animatic_as_one_command_does(board: Path) -> None:
    tasks = compiled(**settings_of(board, saved(board)))["tasks"]
    *fills, put = tasks
    assert len(fills) == 2
    assert put["after"] == [task["name"] for task in fills]
    assert not any(task["after"] for task in fills), "gaps are filled in any order"
    for task in [*reversed(fills), put]:
        (command,) = task["commands"]
        assert command["name"] == "exec"
        ran(command["parameters"]["exe"], *command["parameters"]["args"])
    whole = board.with_name("whole.otio")
    ran(sys.executable, "-m", "sfserver", "animatic", board, "--out", whole, "--engine", "draft")
    by_farm, at_once = (movies(board, name) for name in ("filled", "whole"))
    assert len(by_farm) == 2
    assert by_farm == at_once, "the same movies, byte for byte"


def movies(board: Path, name: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in board.with_name(f"{name}_inbetween").glob("*.mp4")}


def test_where_a_gap_was_not_run_nothing_is_put_and_its_command_is_named(board: Path) -> None:
    first, second = saved(board)
    assert saved(board) == [first, second], "a second time is the same"
    jobs = board.parent / "jobs"
    ran(sys.executable, "-m", "sfserver", "run", jobs / first)
    said = ran(sys.executable, SCRIPT, "put", board, jobs, "--out", board.with_name("filled.otio"), code=2)
    assert f"sfserver run {jobs / second}" in said
    assert first not in said
    assert not board.with_name("filled.otio").exists()


@needs_node
@pytest.mark.parametrize("names", ["", " , ", "../away", "a b"])
def test_names_that_are_none_make_no_task(board: Path, names: str) -> None:
    assert "names: " in compiled(**settings_of(board, [names]))["error"]


@needs_node
def test_every_setting_that_is_used_is_declared(board: Path) -> None:
    declared = {setting["key"] for setting in compiled(**settings_of(board, ["a"]))["declared"]["settings"]}
    assert declared == settings_of(board, ["a"]).keys()
