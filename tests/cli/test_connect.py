"""`sfserver generate` as processes: through a real server and in one of its own, with the draft engine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import av
import pytest
from sfwire import connection as connections

COMMAND = [sys.executable, "-m", "sfserver"]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent as SIGINT")


@pytest.fixture
def server(machine: Path) -> Generator[subprocess.Popen[str], None, None]:
    process = subprocess.Popen([*COMMAND, "serve"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert "is ready" in process.stdout.readline()
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)


def generate(pair: tuple[str, str], out: Path, *more: str, timeout_s: float = 200) -> subprocess.CompletedProcess[str]:
    arguments = [*COMMAND, "generate", *pair, "--out", str(out), *more]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=timeout_s, check=False)


def test_a_server_gives_the_very_bytes_that_this_process_gives(server, pair, tmp_path: Path) -> None:
    for out, more in (("there", ["--connect"]), ("here", [])):
        done = generate(pair, tmp_path / out, "--frames", "5", "--set", "easing=in-out", *more)
        assert done.returncode == 0, done.stderr
    files = sorted(p.relative_to(tmp_path / "here") for p in (tmp_path / "here").rglob("*") if p.is_file())
    assert len(files) == 8
    for name in files:
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()


def test_where_no_server_runs_it_says_so_at_once_and_how_to_start_one(machine: Path, pair, tmp_path: Path) -> None:
    """Also where a server that was killed has left its file: its port answers nobody, and it has let go of the lock."""
    path = machine / "run" / "connection.json"
    for left_behind in (False, True):
        if left_behind:
            key = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            connections.write(connections.Connection(f"tcp://127.0.0.1:{port}", key, key, key, os.getpid()), path)
        done = generate(pair, tmp_path / "out", "--connect")
        assert done.returncode == 2
        assert done.stderr.startswith("sfserver: no server is running")
        assert done.stderr.rstrip().endswith("start one with: sfserver serve")


def test_refusals_through_a_server_are_one_line_too(server, pair, tmp_path: Path) -> None:
    for more, sentence in (
        (["--engine", "nope"], "there is no engine 'nope'"),
        (["--set", "easing=x"], "choose one of"),
    ):
        done = generate(pair, tmp_path / "out", "--connect", *more)
        assert done.returncode == 2
        assert sentence in done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("through_server", [True, False], ids=["server", "in_process"])
def test_ctrl_c_ends_the_process_with_what_it_has(request, pair, tmp_path: Path, through_server: bool) -> None:
    if through_server:
        request.getfixturevalue("server")
    out = tmp_path / "out"
    more = ["--connect"] if through_server else []
    arguments = [*COMMAND, "generate", *pair, "--frames", "1000", "--out", str(out), *more]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 200
    while not (out / "frames" / "0002.png").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    made = len(os.listdir(out / "frames")) - 1
    assert err.splitlines()[-1] == f"sfserver: cancelled; {made} of 998 frames are in {out}"
    with av.open(str(out / "clip.mp4")) as container:
        assert container.streams.video[0].frames == made + 1
