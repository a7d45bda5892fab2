"""A checkpoint as it is published, of toy size, all the way: converted, listed, and run by a real server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from attrs import frozen
from PIL import Image
from published import write_official_repository

COMMAND = (sys.executable, "-m", "sfserver")
FRAMES = 9
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the server is ended with SIGINT")


@frozen
class Machine:
    """Folders of its own, in an environment of its own, and a folder of converted weights among them."""

    home: Path
    environment: Mapping[str, str]

    @property
    def folder(self) -> Path:
        return self.home / "models" / "toy-wan"

    def sfserver(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [*COMMAND, *map(str, arguments)]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=250, check=False)

    def generate(self, name: str, *more: str | Path, prompt: str = "a cat", seed: int = 0) -> dict[str, bytes]:
        """The files that two pictures become, by name."""
        out = self.home / name
        done = self.sfserver(*self.order(out), "--prompt", prompt, "--seed", str(seed), *more)
        assert done.returncode == 0, done.stderr
        return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}

    def order(self, out: Path) -> list[str | Path]:
        return ["generate", self.home / "start.png", self.home / "end.png", "--out", out, "--frames", str(FRAMES)]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    home = tmp_path_factory.mktemp("machine")
    settings = {f"SFSERVER_{name}_DIR": str(home / name.lower()) for name in ("MODELS", "CACHE", "LOG")}
    settings |= {"SFSERVER_CONNECTION_FILE": str(home / "run" / "connection.json"), "SFSERVER_DEVICE": "cpu"}
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("SFSERVER_", "XDG_"))}
    machine = Machine(home, ours | settings | {"HOME": str(home), "OMP_NUM_THREADS": "1"})
    for name, seed in (("start", 1), ("end", 2)):
        coarse = np.random.default_rng(seed).integers(0, 256, (2, 3, 3), np.uint8)
        Image.fromarray(coarse).resize((48, 32), Image.Resampling.BILINEAR).save(home / f"{name}.png")
    converted = machine.sfserver("convert", write_official_repository(home / "published"), machine.folder)
    assert converted.returncode == 0, converted.stderr
    return machine


@pytest.fixture(scope="module")
def server(machine: Machine) -> Iterator[None]:
    process = subprocess.Popen([*COMMAND, "serve"], env=machine.environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert "is ready" in process.stdout.readline()
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)


@pytest.fixture(scope="module")
def served(machine: Machine, server: None) -> dict[str, bytes]:
    return machine.generate("served", "--connect", "--engine", "toy-wan")


def test_converted_weights_are_listed_by_their_folder(machine: Machine) -> None:
    listed = machine.sfserver("models").stdout.splitlines()
    (line,) = (line for line in listed if line.startswith("toy-wan "))
    assert line.split()[1:3] == ["ready", "used"], "state, and what becomes of the prompt"


def test_the_server_makes_the_very_bytes_that_the_folder_makes_in_process(
    machine: Machine, served: dict[str, bytes]
) -> None:
    here = machine.generate("here", "--engine", machine.folder)
    assert len([name for name in served if name.startswith("frames")]) == FRAMES
    assert served == here
    assert served == machine.generate("by-path", "--connect", "--engine", machine.folder)


def test_prompt_and_seed_change_every_frame(machine: Machine, served: dict[str, bytes]) -> None:
    _, *between, _ = [name for name in served if name.startswith("frames")]
    assert len(between) == FRAMES - 2
    for name, prompt, seed in (("prompt", "the dog sleeps", 0), ("seed", "a cat", 1)):
        other = machine.generate(name, "--connect", "--engine", "toy-wan", prompt=prompt, seed=seed)
        assert all(served[frame] != other[frame] for frame in between)


@pytest.mark.usefixtures("server")
def test_keyframes_with_alpha_come_back_with_alpha(machine: Machine) -> None:
    """On the wire, in the worker, and in the files."""
    for name in ("start", "end"):
        with Image.open(machine.home / f"{name}.png") as picture:
            half = Image.fromarray(np.tile(np.linspace(0, 255, 48).astype(np.uint8), (32, 1)))
            picture.putalpha(half)
            picture.save(machine.home / f"{name}-alpha.png")
    ends = [machine.home / f"{name}-alpha.png" for name in ("start", "end")]
    out = machine.home / "alpha"
    done = machine.sfserver("generate", *ends, "--out", out, "--frames", "5", "--connect", "--engine", "toy-wan")
    assert done.returncode == 0, done.stderr
    assert "alpha is the draft engine's motion" in done.stderr
    for i in range(5):
        with Image.open(out / "frames" / f"{i:04}.png") as frame:
            assert frame.mode == "RGBA"
            alpha = np.asarray(frame)[..., 3].astype(int)
            assert np.abs(alpha - np.linspace(0, 255, 48)).max() <= 6, "both ends have this one, and so has the way"


@pytest.mark.usefixtures("server")
def test_a_folder_that_the_server_does_not_know_is_refused_with_what_to_do(machine: Machine) -> None:
    renamed = machine.home / "new-model"
    renamed.mkdir()
    for file in machine.folder.iterdir():
        (renamed / file.name).symlink_to(file)
    done = machine.sfserver(*machine.order(machine.home / "never"), "--connect", "--engine", renamed)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        f"sfserver: the server has no engine 'new-model'; move {renamed} into its models folder and restart it"
    )
    assert not (machine.home / "never").exists()
