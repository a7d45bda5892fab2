"""A job as a folder: made in parts, by whoever comes, it holds the very frames that one run makes."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import attrs
import numpy as np
import pytest
from dissolving_engine import INFO, DissolvingEngine, ctrl_c, out_of_memory
from PIL import Image

from sfserver.cli import CANCELLED, USER_ERROR, main
from sfserver.engine import table
from sfserver.media.files import claim, let_go

COMMAND = [sys.executable, "-m", "sfserver"]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def pixels(folder: Path) -> list[bytes]:
    return [np.asarray(Image.open(path)).tobytes() for path in sorted((folder / "frames").iterdir())]


@pytest.fixture
def job(engine: DissolvingEngine, pair, tmp_path: Path) -> Path:
    words = ["--frames", "9", "--at", f"4:{pair[1]}", "--seed", "7", "--set", "gain=1.5", "--prompt", "a fox"]
    assert main(["generate", *pair, *words, "--save-job", str(tmp_path / "job")]) == 0
    assert main(["generate", *pair, *words, "--out", str(tmp_path / "whole")]) == 0
    engine.jobs.clear()
    return tmp_path / "job"


def test_saving_makes_nothing_and_running_makes_what_one_run_makes(job: Path, engine, tmp_path: Path) -> None:
    assert sorted(files(job)) == ["job.json", *(f"keyframes/{at:04d}.png" for at in (0, 4, 8))]
    assert main(["run", str(job)]) == 0
    assert pixels(job) == pixels(tmp_path / "whole")
    before, runs = files(job), len(engine.jobs)
    assert main(["run", str(job)]) == 0
    assert files(job) == before
    assert len(engine.jobs) == runs, "nothing is made twice"


def test_broken_off_anywhere_it_goes_on_from_what_is_missing(job: Path, engine, tmp_path: Path) -> None:
    shutil.copytree(job, tmp_path / "at_once")
    engine.at = ctrl_c(3)
    assert main(["run", str(job)]) == CANCELLED
    engine.at = out_of_memory(6)
    assert main(["run", str(job)]) == USER_ERROR
    engine.at = lambda index: None
    (job / "frames" / "0002.png").unlink()
    assert main(["run", str(job)]) == 0
    assert [one.resume_from for one in engine.jobs] == [1, 3, 2]
    assert main(["run", str(tmp_path / "at_once")]) == 0
    assert files(job) == files(tmp_path / "at_once")


def test_the_folder_may_lie_anywhere(job: Path, engine, tmp_path: Path, monkeypatch) -> None:
    """What frames carry does not tell where they were made."""
    shutil.copytree(job, tmp_path / "elsewhere" / "copy")
    assert main(["run", str(job)]) == 0
    monkeypatch.chdir(tmp_path / "elsewhere" / "copy")
    assert main(["run", "."]) == 0
    assert files(job) == files(Path())


def refused(folder: Path, capsys) -> str:
    capsys.readouterr()
    assert main(["run", str(folder)]) == USER_ERROR
    return capsys.readouterr().err


def test_who_goes_on_has_the_engine_that_began(job: Path, engine, capsys, monkeypatch) -> None:
    engine.at = ctrl_c(3)
    main(["run", str(job)])
    engine.at = lambda index: None
    monkeypatch.setattr(table, "describe_all", lambda config: (attrs.evolve(INFO, version="2"),))
    sentence = refused(job, capsys)
    assert "made otherwise: engine fake was 1, here it is 2" in sentence
    assert "remove" in sentence
    monkeypatch.setattr(table, "describe_all", lambda config: (INFO,))
    assert main(["run", str(job)]) == 0


def test_another_picture_is_named_and_no_name_leads_out_of_the_folder(job: Path, capsys) -> None:
    Image.new("RGB", (64, 48), (1, 2, 3)).save(job / "keyframes" / "0004.png")
    assert "the picture at frame 4 (keyframes/0004.png) had pixels" in refused(job, capsys)
    for name in ("../secret.png", "/etc/passwd", "c:x.png"):
        table = json.loads((job / "job.json").read_text())
        table["keyframes"][1]["file"] = name
        (job / "job.json").write_text(json.dumps(table))
        assert "which is not in the folder" in refused(job, capsys)
    assert not (job / "frames").exists()


@pytest.mark.parametrize("inner", ["keyframes", "frames"])
def test_a_job_whose_folders_are_links_is_refused(job: Path, inner: str, capsys, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.rmtree(job / inner, ignore_errors=True)
    (job / inner).symlink_to(outside)
    assert "is a link" in refused(job, capsys)
    assert not list(outside.iterdir())


def test_the_recipe_of_a_job_is_not_written_through_a_link(job: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("mine")
    for name in ("recipe.json", "recipe.json.part"):
        (job / name).symlink_to(mine)
    (job / "recipe.json").unlink()
    assert main(["run", str(job)]) == 0
    assert mine.read_text() == "mine"


def test_what_is_no_job_is_one_line(job: Path, engine, pair, capsys, tmp_path: Path) -> None:
    assert "--save-job" in refused(tmp_path, capsys)
    assert main(["generate", *pair, "--save-job", str(job)]) == USER_ERROR
    assert "holds a job already" in capsys.readouterr().err
    assert main(["generate", *pair, "--codec", "ffv1", "--save-job", str(tmp_path / "new")]) == USER_ERROR
    assert main(["generate", *pair]) == USER_ERROR
    assert main(["generate", *pair, "--out", str(tmp_path / "a"), "--save-job", str(tmp_path / "b")]) == USER_ERROR
    assert not (tmp_path / "new").exists()
    assert not engine.jobs


def test_two_runs_of_one_job_do_not_meet(job: Path, capsys) -> None:
    lock = claim(job)
    try:
        assert "another run is writing there" in refused(job, capsys)
    finally:
        let_go(lock)
    assert main(["run", str(job)]) == 0


def test_a_job_is_saved_where_its_engine_is_not_complete(engine, pair, tmp_path: Path, monkeypatch, capsys) -> None:
    absent = attrs.evolve(INFO, available=False, missing=("weights",))
    monkeypatch.setattr(table, "describe_all", lambda config: (absent,))
    assert main(["generate", *pair, "--engine", "fake", "--save-job", str(tmp_path / "job")]) == 0
    assert "cannot run here" in refused(tmp_path / "job", capsys)
    monkeypatch.setattr(table, "describe_all", lambda config: (INFO,))
    assert main(["run", str(tmp_path / "job")]) == 0


@pytest.fixture
def server(machine: Path) -> Generator[None, None, None]:
    process = subprocess.Popen([*COMMAND, "serve"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert "is ready" in process.stdout.readline()
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)


@pytest.mark.skipif(sys.platform == "win32", reason="a killed process lets go of its lock later there")
def test_killed_here_it_goes_on_through_a_server_with_the_same_bytes(server, pair, tmp_path: Path) -> None:
    for name in ("parts", "whole"):
        words = ["--frames", "40", "--engine", "draft", "--save-job", str(tmp_path / name)]
        assert main(["generate", *pair, *words]) == 0
    process = subprocess.Popen([*COMMAND, "run", str(tmp_path / "parts")], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not (tmp_path / "parts" / "frames" / "0003.png").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait(120)
    for name in ("parts", "whole"):
        assert main(["run", str(tmp_path / name), "--connect"]) == 0
    parts, whole = files(tmp_path / "parts"), files(tmp_path / "whole")
    assert {name for name in parts if not name.endswith((".lock", ".part"))} == set(whole)
    assert all(parts[name] == whole[name] for name in whole)
