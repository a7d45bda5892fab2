"""Processes that are stopped, start together, are killed while they start, or whose owner is gone at once."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from servers import HERE, assert_all_there, eventually, request, running
from sfwire import connection as connections
from sfwire.client import Client
from sfwire.errors import NoConnectionFile
from sfwire.request import Picture

from sfserver.serve import leash
from sfserver.serve.ends import LONGEST_PAUSE_S, pause_s, was_ended
from sfserver.serve.supervise import Beats

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a stopped process of its parent's death")
RUN = [sys.executable, str(HERE / "run_server.py")]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Whatever is still running for this folder afterwards is ended, and fails the test."""
    yield tmp_path
    mine = [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or ())]
    for process in mine:
        process.kill()
    assert not mine, f"left behind: {mine}"


def start(folder: Path, log: str = "log") -> subprocess.Popen[str]:
    command = [*RUN, str(folder / "connection.json"), str(folder / log)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(process: subprocess.Popen[str], code: int | None = None) -> None:
    process.terminate()
    process.communicate(timeout=120)
    assert code is None or process.returncode == code


# One server for each connection file


def test_of_two_servers_started_together_one_stays(folder: Path) -> None:
    both = [start(folder, "log1"), start(folder, "log2")]
    loser = eventually(lambda: next((p for p in both if p.poll() is not None), None))
    (winner,) = [p for p in both if p is not loser]
    assert "is running already" in loser.communicate(timeout=120)[1]
    assert winner.stdout is not None
    assert "is ready" in winner.stdout.readline()
    end(winner, 0)


def test_a_server_that_was_killed_makes_room_at_once_even_unburied(folder: Path) -> None:
    first = start(folder)
    assert first.stdout is not None
    assert "is ready" in first.stdout.readline()
    family = psutil.Process(first.pid).children(recursive=True)
    os.kill(first.pid, signal.SIGKILL)
    eventually(lambda: psutil.Process(first.pid).status() == psutil.STATUS_ZOMBIE)
    second = start(folder)  # the first one's file is there, and its number is not free yet
    assert second.stdout is not None
    assert "is ready" in second.stdout.readline()
    first.communicate(timeout=120)
    psutil.wait_procs(family, timeout=120)
    end(second, 0)


def test_a_port_that_was_taken_while_the_front_was_down_is_waited_for(tmp_path: Path) -> None:
    with running(tmp_path) as server, server.client() as client:
        client.wait_ready()
        port = int(connections.read(server.connection_file).endpoint.rsplit(":", 1)[1])
        front = server.front()
        os.kill(server.process.pid, signal.SIGSTOP)  # so that it starts no other before the port is ours
        front.kill()
        with socket.socket() as thief:
            thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            eventually(lambda: _bound(thief, port))
            thief.listen()
            os.kill(server.process.pid, signal.SIGCONT)
            log = server.log_dir / "server.log"
            tries = eventually(lambda: server.front().pid != front.pid and server.front().pid)
            eventually(lambda: server.front().pid != tries)  # it has failed at least once
            assert log.exists()
        wanted = request(9)
        assert_all_there(list(client.submit(wanted)), wanted)


def _bound(thief: socket.socket, port: int) -> bool:
    try:
        thief.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True


# Kills while something starts


def test_a_signal_from_outside_is_not_a_failure_of_its_own() -> None:
    assert was_ended(-signal.SIGKILL)
    assert was_ended(-signal.SIGTERM)
    assert not was_ended(-signal.SIGSEGV)
    assert not was_ended(-signal.SIGABRT)
    assert not was_ended(1)
    assert not was_ended(0)
    pauses = [pause_s(n) for n in range(60)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE_S


def test_workers_killed_while_they_start_end_no_stream(tmp_path: Path) -> None:
    with running(tmp_path) as server, server.client() as client:
        wanted = request(9, delay_ms=5.0)
        with client.submit(wanted) as stream:
            pictures = iter(stream)
            got = [next(pictures)]
            seen: set[int] = set()
            while len(seen) < 6:
                worker = eventually(lambda: next((c for c in server.front().children() if c.pid not in seen), None))
                seen.add(worker.pid)
                worker.kill()
            assert_all_there([*got, *pictures], wanted)


def test_fronts_killed_while_they_start_end_no_server(tmp_path: Path) -> None:
    with running(tmp_path) as server, server.client() as client:
        client.wait_ready()
        seen: set[int] = set()
        while len(seen) < 8:
            children = psutil.Process(server.process.pid).children()
            for child in children:
                if child.pid not in seen:
                    seen.add(child.pid)
                    child.kill()
        wanted = request(9)
        assert_all_there(list(client.submit(wanted)), wanted)
        assert server.process.poll() is None


# Processes that are stopped


def test_a_front_that_is_stopped_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    beating = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        monkeypatch.setattr("sfserver.serve.supervise.MAX_STARTING_BEATS", 3)
        monkeypatch.setattr("sfserver.serve.supervise.MAX_SILENT_BEATS", 3)
        os.kill(silent.pid, signal.SIGSTOP)
        Beats(silent, beat_s=0.02)
        beats = Beats(beating, beat_s=3600.0)
        beats.heard()
        assert silent.wait(120) == -signal.SIGKILL
        assert beating.poll() is None
    finally:
        for process in (silent, beating):
            process.kill()
            process.wait()


def test_a_front_beats(tmp_path: Path) -> None:
    """What the supervisor counts does come."""
    code = (
        "import sys\nfrom sfserver.serve import supervise\nfrom sfserver.config import load_config\n"
        "class Told(supervise.Beats):\n"
        "    count = 0\n"
        "    def heard(self):\n"
        "        Told.count += 1\n"
        "        if Told.count == 6: print('beating', flush=True)\n"
        "supervise.Beats = Told\n"
        f"flags = {{'connection_file': {str(tmp_path / 'c.json')!r}, 'log_dir': {str(tmp_path / 'log')!r}}}\n"
        f"supervise.serve(load_config(flags, environment={{}}), (sys.executable, {str(HERE / 'fake_engines.py')!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = [process.stdout.readline(), process.stdout.readline()]
    assert any("beating" in line for line in lines)
    end(process)


def test_a_live_front_that_is_stopped_is_replaced_and_its_stream_goes_on(tmp_path: Path) -> None:
    """The same with a whole server, whose patience is cut to a few beats."""
    impatient = (
        "import sys, runpy\nfrom sfserver.serve import supervise\n"
        "supervise.MAX_SILENT_BEATS = 3\nsys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-c", impatient, *RUN[1:], str(tmp_path / "connection.json"), str(tmp_path / "log")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert "is ready" in process.stdout.readline()
        with Client(tmp_path / "connection.json", give_up_after_s=300.0) as client:
            wanted = request(9, delay_ms=20.0)
            with client.submit(wanted) as stream:
                pictures = iter(stream)
                got = [next(pictures)]
                (front,) = psutil.Process(process.pid).children()
                front.send_signal(signal.SIGSTOP)
                assert_all_there([*got, *pictures], wanted)
            assert not psutil.wait_procs([front], timeout=120)[1]
    finally:
        end(process)


@linux
@pytest.mark.parametrize(
    ("stopped", "killed"), [("worker", "front"), ("worker", "supervisor"), ("front", "supervisor")]
)
def test_a_process_that_was_stopped_does_not_outlive_its_parent(tmp_path: Path, stopped: str, killed: str) -> None:
    with running(tmp_path) as server:
        front, worker = server.front(), server.worker()
        {"worker": worker, "front": front}[stopped].send_signal(signal.SIGSTOP)
        family = [worker]
        if killed == "front":
            front.kill()
        else:
            family.append(front)
            server.process.kill()
            server.process.wait(120)
        assert not psutil.wait_procs(family, timeout=120)[1]


@linux
def test_the_control_without_a_leash_a_stopped_process_stays(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys\n"
        "child = subprocess.Popen(['sleep', '600'], stdout=subprocess.DEVNULL)\n"
        "print(child.pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    child.send_signal(signal.SIGSTOP)
    parent.kill()
    parent.communicate(timeout=120)
    assert child.is_running()
    child.kill()


# Owners


def test_a_server_whose_owner_is_gone_at_once_ends_too(folder: Path) -> None:
    """The owner does not live until the server's Python has started."""
    server = [*RUN, str(folder / "connection.json"), str(folder / "log")]
    owner = f"import os, subprocess\nsubprocess.Popen({server!r})\nos._exit(0)"
    subprocess.run([sys.executable, "-c", owner], start_new_session=True, timeout=60, check=True)
    eventually(lambda: not _running_for(folder))
    assert not (folder / "connection.json").exists()


def _running_for(folder: Path) -> list[psutil.Process]:
    return [p for p in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(p.info["cmdline"] or ())]


def test_the_control_an_owner_that_stays_is_not_taken_for_gone() -> None:
    code = "from sfserver.serve.leash import _was_orphaned; print(_was_orphaned())"
    for own_session in (False, True):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, start_new_session=own_session
        )
        assert done.stdout.strip() == "False"


def test_an_owner_that_died_while_python_started_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leash, "BORN_OF", os.getppid() + 1)
    assert leash._was_orphaned()


# No server


def test_a_stream_without_any_server_ends_with_the_remedy(tmp_path: Path) -> None:
    with Client(tmp_path / "none.json", give_up_after_s=0.5) as client:
        stream = client.submit(request())
        with pytest.raises(NoConnectionFile, match="start one with: sfserver serve"):
            list(stream)


def test_a_stream_ends_when_its_server_was_stopped_for_good(tmp_path: Path) -> None:
    with running(tmp_path) as server, server.client(give_up_after_s=3.0) as client:
        events = client.submit(request(500, delay_ms=10.0)).events()
        while not isinstance(next(events), Picture):
            pass
        assert server.stop() == 0
        with pytest.raises(NoConnectionFile, match="start one with: sfserver serve"):
            list(events)
