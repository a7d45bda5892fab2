"""Workers that dial in: every promise of the pipe, by a connection that may be lost in any state."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from dialled import House, listening
from servers import assert_all_there, request

from sfserver.serve.leash import interrupts_held


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A server, and two workers that have dialled in."""
    with listening(tmp_path_factory.mktemp("house")) as house:
        house.join("one")
        house.join("two")
        yield house


def test_two_that_dialled_in_work_at_once(house: House) -> None:
    with house.server.client() as client:
        client.wait_ready(120)
        wanted = [request(33, seed=seed, delay_ms=5.0) for seed in (1, 2)]
        streams = [client.submit(one) for one in wanted]
        for stream, one in zip(streams, wanted, strict=True):
            assert_all_there(list(stream), one)


def test_status_names_their_devices_and_machines(house: House) -> None:
    with house.server.client() as client:
        client.wait_ready(120)
        assert client.status().workers
        assert all(" of " in worker.device for worker in client.status().workers)


def test_the_join_file_is_the_owners_alone(house: House) -> None:
    assert stat.S_IMODE(house.join_file.stat().st_mode) == 0o600


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent as SIGINT")
def test_ctrl_c_is_for_the_keeper_alone_and_nobody_prints_a_traceback(tmp_path: Path) -> None:
    with listening(tmp_path) as house:
        joiner = house.join("one")
        worker = joiner.worker()
        worker.send_signal(signal.SIGINT)  # while it is still importing
        with house.server.client() as client:
            client.wait_ready(120)
        worker.send_signal(signal.SIGINT)
        with house.server.client() as client:
            wanted = request(9)
            assert_all_there(list(client.submit(wanted)), wanted)
        assert joiner.worker().pid == worker.pid
        joiner.process.send_signal(signal.SIGINT)
        assert joiner.process.wait(120) == 0
        assert "serving" in joiner.said()
        assert "Traceback" not in joiner.said()


@pytest.mark.skipif(sys.platform == "win32", reason="it has no signal masks")
def test_a_process_that_is_started_while_interrupts_are_held_does_not_hear_them() -> None:
    asks = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    with interrupts_held():
        held = subprocess.check_output([sys.executable, "-c", asks], text=True)
    assert held.strip() == "True"
    assert subprocess.check_output([sys.executable, "-c", asks], text=True).strip() == "False", "the control"


def test_a_server_that_ends_tells_its_workers_to_end(tmp_path: Path) -> None:
    with listening(tmp_path) as house:
        joiner = house.join("one")
        with house.server.client() as client:
            client.wait_ready(120)
        house.server.stop()
        assert joiner.process.wait(120) == 0
        assert not house.join_file.exists()
