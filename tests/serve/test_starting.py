"""`sfserver serve` where it cannot start: one line with the remedy, exit code 2, nothing left behind."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest


def serve(folder: Path, *arguments: str, **environment: str | None) -> subprocess.CompletedProcess[str]:
    private = {
        "SFSERVER_CONNECTION_FILE": str(folder / "run" / "connection.json"),
        "SFSERVER_LOG_DIR": str(folder / "log"),
        "HOME": str(folder),
    }
    merged = {k: v for k, v in {**os.environ, **private, **environment}.items() if v is not None}
    command = [sys.executable, "-m", "sfserver", "serve", *arguments]
    return subprocess.run(command, env=merged, capture_output=True, text=True, timeout=200, check=False)


def assert_one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    said = (done.stdout + done.stderr).strip()
    assert done.returncode == 2, said
    assert len(said.splitlines()) == 1, said
    assert "Traceback" not in said
    for word in words:
        assert word in said


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = serve(tmp_path, "--port", str(port))
    assert_one_line(done, str(port), "--port")
    assert not (tmp_path / "run" / "connection.json").exists()


def test_a_log_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert_one_line(serve(tmp_path, SFSERVER_LOG_DIR=str(tmp_path / "file" / "log")), "log")


def test_no_home_and_no_runtime_folder(tmp_path: Path) -> None:
    done = serve(tmp_path, HOME=None, XDG_RUNTIME_DIR=None, SFSERVER_CONNECTION_FILE=None)
    assert_one_line(done, "SFSERVER_CONNECTION_FILE")


@pytest.mark.parametrize(
    ("setting", "value"),
    [("SFSERVER_WORKERS", "many"), ("SFSERVER_PORT", "99999"), ("SFSERVER_DEVICE", "toaster"), ("SFSERVER_KEEP", "x")],
)
def test_a_setting_that_makes_no_sense(tmp_path: Path, setting: str, value: str) -> None:
    assert_one_line(serve(tmp_path, **{setting: value}), setting, value)


def test_a_config_file_with_an_unknown_setting(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("workerz = 2\n")
    assert_one_line(serve(tmp_path, "--config", str(tmp_path / "c.toml")), "workerz", "workers")


@pytest.mark.skipif(sys.platform == "win32", reason="access lists")
def test_logs_and_keys_are_their_users_alone_whatever_the_umask_and_what_was_there(tmp_path: Path) -> None:
    """Without a runtime folder, where logs and connection file share one; and files of before are closed too."""
    folder = tmp_path / ".local" / "state" / "sfserver"
    folder.mkdir(parents=True)
    (folder / "server.log").write_text("old\n")
    for path in (folder, folder / "server.log"):
        path.chmod(0o777)
    run = Path(__file__).with_name("run_server.py")
    code = f"import os, runpy; os.umask(0); runpy.run_path({str(run)!r}, run_name='__main__')"
    command = [sys.executable, "-c", code, str(folder / "connection.json"), str(folder)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        assert "is ready" in server.stdout.readline()
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.iterdir())}
    finally:
        server.terminate()
        server.communicate(timeout=120)
    assert modes.pop("sfserver") == 0o700
    assert {"connection.json", "server.log", "front.log", "worker-0.log"} <= modes.keys()
    assert set(modes.values()) == {0o600}


unix = pytest.mark.skipif(sys.platform == "win32", reason="limits of a process")
WITH_A_LIMIT = (
    "import os, resource, sys\n"
    "resource.setrlimit(getattr(resource, sys.argv[1]), (int(sys.argv[2]),) * 2)\n"
    "os.execv(sys.argv[3], sys.argv[3:])"
)


def serve_within(folder: Path, limit: str, value: int, **environment: str) -> subprocess.CompletedProcess[str]:
    private = {
        "SFSERVER_CONNECTION_FILE": str(folder / "run" / "connection.json"),
        "SFSERVER_LOG_DIR": str(folder / "log"),
        "HOME": str(folder),
    }
    command = [sys.executable, "-c", WITH_A_LIMIT, limit, str(value), sys.executable, "-m", "sfserver", "serve"]
    merged = {**os.environ, **private, **environment}
    return subprocess.run(command, env=merged, capture_output=True, text=True, timeout=200, check=False)


@unix
@pytest.mark.parametrize("count", [8, 12, 20, 48])
def test_too_few_descriptors_are_noticed_before_anything_starts(tmp_path: Path, count: int) -> None:
    """Once there was silence for 90 s, or a traceback."""
    assert_one_line(serve_within(tmp_path, "RLIMIT_NOFILE", count), f"allows {count} open files", "ulimit -n")
    assert not (tmp_path / "run").exists()


@unix
def test_too_little_memory_is_noticed_before_anything_starts(tmp_path: Path) -> None:
    assert_one_line(serve_within(tmp_path, "RLIMIT_AS", 400 * 2**20), "400 MiB", "ulimit -v")


@unix
def test_a_low_limit_that_we_may_raise_is_raised() -> None:
    code = (
        "import resource\nfrom sfserver.serve.enough import require_enough\n"
        "_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (32, hard))\n"
        "require_enough()\nprint(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=True)
    assert int(done.stdout) >= 64


@unix
def test_a_connection_file_that_cannot_be_written_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    """A disk without room says so when the file is closed, and names no file."""
    done = serve_within(tmp_path, "RLIMIT_FSIZE", 0)
    assert_one_line(done, str(tmp_path / "run" / "connection.json"))
    left = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert left == [
        "connection.json.journal",
        "connection.json.lock",
    ]  # an empty journal and the lock are not in the way


@unix
def test_a_pipe_for_a_config_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert_one_line(serve(tmp_path, SFSERVER_CONFIG=str(tmp_path / "pipe")), "not a plain file")
