"""Processes are killed in mid-stream, and every frame still comes once, in order, with the right bytes."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from servers import Server, assert_all_there, eventually, request, running
from sfwire.errors import ErrorCode, RequestError, ServerUnavailable
from sfwire.request import Interrupted, Picture

KILLS = 20


def stream_through_kills(server: Server, victim: Callable[[], psutil.Process]) -> list[str]:
    """One clip after the other, a kill at a random frame of each; why each stream was interrupted."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201
    rng = random.Random(seed)
    reasons: list[str] = []
    with server.client() as client:
        client.wait_ready()
        for number in range(KILLS):
            wanted = request(25, seed=number, delay_ms=2.0)
            kill_at = rng.randrange(1, 15)  # the window is 8, so the last of 25 frames are still to be made
            pictures: list[Picture] = []
            with client.submit(wanted) as stream:
                for event in stream.events():
                    if isinstance(event, Interrupted):
                        reasons.append(event.reason)
                    if isinstance(event, Picture):
                        pictures.append(event)
                        if len(pictures) == kill_at:
                            victim().kill()
            assert_all_there(pictures, wanted)
    return reasons


def test_20_killed_workers_cost_no_frame(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        reasons = stream_through_kills(server, server.worker)
    assert len([r for r in reasons if "worker died" in r]) >= KILLS // 2, reasons  # the kills did hit streams


def test_20_killed_fronts_cost_no_frame(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        reasons = stream_through_kills(server, server.front)
    assert len(reasons) >= KILLS // 2, reasons


def test_a_worker_that_hangs_is_replaced_and_its_stream_goes_on(tmp_path: Path) -> None:
    with running(tmp_path, beat_timeout_s=1.0) as server, server.client() as client:
        before = server.worker().pid
        wanted = request(17, fault="hang")
        with client.submit(wanted) as stream:
            assert_all_there(list(stream), wanted)
        assert server.worker().pid != before


def test_a_front_answers_pings_while_its_worker_hangs(tmp_path: Path) -> None:
    with running(tmp_path, beat_timeout_s=3600) as server, server.client() as client:
        stream = client.submit(request(17, fault="hang", fault_at=2))
        next(iter(stream))
        reports = [client.status(timeout_s=60) for _ in range(50)]
        assert [(job.frames, job.state) for r in reports for job in r.jobs] == [(1, "running")] * 50
        assert client.state == "ready"
        assert stream.interrupted is None
        stream.close()


def test_a_request_that_kills_every_worker_is_given_up_with_a_sentence(tmp_path: Path) -> None:
    with running(tmp_path) as server, server.client() as client:
        with pytest.raises(RequestError) as failed:
            list(client.submit(request(17, fault="die_always")))
        assert failed.value.code is ErrorCode.WORKER_DIED
        wanted = request(5)
        assert_all_there(list(client.submit(wanted)), wanted)


def test_two_workers_work_at_once_and_one_death_does_not_touch_the_other(tmp_path: Path) -> None:
    with running(tmp_path, workers=2) as server, server.client() as client:
        healthy = request(60, seed=1, delay_ms=10.0)
        first = client.submit(healthy)
        next(iter(first))
        second = client.submit(request(17, seed=2, fault="die"))
        assert_all_there(list(second), request(17, seed=2))
        pictures = list(first)
        assert [p.index for p in pictures] == healthy.wanted()[1:]
        assert first.interrupted is None


def test_a_worker_that_cannot_start_is_told_with_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, str(Path(__file__).parents[1] / "serve" / "run_server.py")]
    connection = tmp_path / "c.json"
    faulty = Path(__file__).with_name("faulty_worker.py")
    server = subprocess.Popen(
        [*command, str(connection), str(tmp_path / "log"), f"worker={faulty}"], stdout=subprocess.DEVNULL
    )
    try:
        eventually(connection.exists)
        client = Server(server, connection, tmp_path / "log").client()
        with client, pytest.raises(ServerUnavailable, match=r"libcuda.so.1 is missing"):
            client.wait_ready(120)
    finally:
        server.terminate()
        server.wait(120)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda s: s.name)
def test_no_process_is_left_when_the_server_is_ended(tmp_path: Path, how: signal.Signals) -> None:
    with running(tmp_path) as server:
        family = [server.front(), server.worker()]
        server.process.send_signal(how)
        server.process.wait(120)
        _, alive = psutil.wait_procs(family, timeout=60)
        assert not alive
        assert server.connection_file.exists() == (how is signal.SIGKILL)


def owned_server(tmp_path: Path, keep: bool) -> tuple[int, Path]:
    """A server whose owner, another process, has ended; the server's pid."""
    connection = tmp_path / "c.json"
    run = str(Path(__file__).parents[1] / "serve" / "run_server.py")
    owner = (
        "import subprocess, sys, time\n"
        f"p = subprocess.Popen([sys.executable, {run!r}, {str(connection)!r}, {str(tmp_path / 'log')!r}, "
        f"'keep={keep}'], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)\n"
        "p.stdout.readline(); print(p.pid, flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", owner], capture_output=True, text=True, timeout=200, check=True)
    return int(done.stdout), connection


def test_a_server_ends_with_its_owner(tmp_path: Path) -> None:
    pid, connection = owned_server(tmp_path, keep=False)
    eventually(lambda: not psutil.pid_exists(pid))
    assert not connection.exists()


def test_a_server_that_is_told_to_stay_outlives_its_owner(tmp_path: Path) -> None:
    pid, connection = owned_server(tmp_path, keep=True)
    server = psutil.Process(pid)
    try:
        time.sleep(2.0)
        assert server.is_running()
        assert connection.exists()
    finally:
        family = server.children(recursive=True)
        server.terminate()
        psutil.wait_procs([server, *family], timeout=60)


def test_a_killed_client_gives_its_worker_back_within_a_few_pings(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\n"
        "from sfwire.client import Client\nfrom sfwire.request import Request\n"
        "black = bytes(32 * 32 * 3)\n"
        "client = Client(Path(sys.argv[1]), name='victim')\n"
        "stream = client.submit(Request(((0, black), (499, black)), 32, 32, 500, params={'delay_ms': 20.0}))\n"
        "next(iter(stream)); print('streaming', flush=True); time.sleep(60)\n"
    )
    with running(tmp_path) as server, server.client() as client:
        victim = subprocess.Popen(
            [sys.executable, "-c", code, str(server.connection_file)], stdout=subprocess.PIPE, text=True
        )
        assert victim.stdout is not None
        assert "streaming" in victim.stdout.readline()
        assert client.status().jobs
        victim.kill()
        victim.wait(60)
        victim.stdout.close()
        eventually(lambda: not client.status().jobs)


def test_a_second_server_does_not_take_the_first_ones_place(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        run = Path(__file__).parents[1] / "serve" / "run_server.py"
        second = subprocess.run(
            [sys.executable, str(run), str(server.connection_file), str(tmp_path / "log2")],
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert second.returncode != 0
        assert "is running already" in second.stderr
        with server.client() as client:
            client.wait_ready()
