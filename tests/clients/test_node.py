"""The client in JavaScript, which was written from PROTOCOL.md alone, against the real server."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "serve"))

from fake_engines import picture
from servers import SIDE, Server, eventually, running

NODE = Path(__file__).parents[2] / "examples" / "clients" / "node"
LIBRARIES = NODE / "node_modules" / "zeromq"
pytestmark = [
    pytest.mark.skipif(shutil.which("node") is None, reason="there is no node on this machine"),
    pytest.mark.skipif(not LIBRARIES.is_dir(), reason="its libraries are not there; run: make node-client"),
    pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent as SIGINT"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("server")) as server:
        yield server


@contextmanager
def client(server: Server, folder: Path, frames: int, *more: str) -> Iterator[subprocess.Popen[str]]:
    """The program, with two black pictures; it ends with the block."""
    for name in ("first", "last"):
        (folder / f"{name}.ppm").write_bytes(b"P6 %d %d 255\n" % (SIDE, SIDE) + bytes(SIDE * SIDE * 3))
    command = ["node", str(NODE / "main.js"), str(folder / "first.ppm"), str(folder / "last.ppm")]
    process = subprocess.Popen(
        [*command, "--out", str(folder / "out"), "--frames", str(frames), "--seed", "5", *more],
        env={"PATH": "/usr/bin:/bin:" + str(Path(shutil.which("node") or "").parent), "HOME": str(folder)}
        | {"SFSERVER_CONNECTION_FILE": str(server.connection_file)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def there(path: Path, process: subprocess.Popen[str]) -> None:
    """Wait for a frame, as long as the program runs."""
    eventually(lambda: path.exists() or process.poll() is not None)
    assert path.exists(), process.communicate()[1]


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, said = process.communicate(timeout=240)
    return process.returncode, said


def assert_all_there(out: Path, frames: int) -> None:
    """Every frame once, the right bytes."""
    assert sorted(path.name for path in out.iterdir()) == [f"{i:04}.png" for i in range(1, frames - 1)]
    for i in range(1, frames - 1):
        with Image.open(out / f"{i:04}.png") as made:
            assert np.array_equal(np.asarray(made), picture(5, i, SIDE, SIDE)), i


def test_it_finds_the_server_and_takes_every_frame(server: Server, tmp_path: Path) -> None:
    """More frames than there is credit for at the start."""
    with client(server, tmp_path, 40) as process:
        assert ended(process) == (0, "")
    assert_all_there(tmp_path / "out", 40)


def test_it_goes_on_after_a_kill_of_worker_and_front(server: Server, tmp_path: Path) -> None:
    with client(server, tmp_path, 60, "--set", "delay_ms=50") as process:
        there(tmp_path / "out" / "0008.png", process)
        server.worker().kill()
        there(tmp_path / "out" / "0020.png", process)
        server.front().kill()
        assert ended(process) == (0, "")
    assert_all_there(tmp_path / "out", 60)


def test_ctrl_c_cancels_at_the_server_too(server: Server, tmp_path: Path) -> None:
    with client(server, tmp_path, 900, "--set", "delay_ms=20") as process:
        there(tmp_path / "out" / "0003.png", process)
        process.send_signal(signal.SIGINT)
        assert ended(process) == (130, "")
    assert len(list((tmp_path / "out").iterdir())) < 898
    with server.client(name="looks") as looks:
        eventually(lambda: not looks.status().jobs)


def test_a_refusal_is_one_sentence(server: Server, tmp_path: Path) -> None:
    with client(server, tmp_path, 9, "--engine", "nope") as process:
        code, said = ended(process)
    assert code == 2
    assert said.startswith("unknown_engine: ")
    assert len(said.splitlines()) == 1


def test_a_whole_client_has_two_hundred_lines() -> None:
    """PROTOCOL.md promises that one page is enough. The program around it reads arguments and writes files."""
    assert len((NODE / "client.js").read_text().splitlines()) <= 200
