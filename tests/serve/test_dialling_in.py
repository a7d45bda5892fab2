"""Workers that dial in: every promise of the pipe, by a connection that may be lost in any state."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from dialled import House, listening
from servers import assert_all_there, request


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


def test_a_server_that_ends_tells_its_workers_to_end(tmp_path: Path) -> None:
    with listening(tmp_path) as house:
        joiner = house.join("one")
        with house.server.client() as client:
            client.wait_ready(120)
        house.server.stop()
        assert joiner.process.wait(120) == 0
        assert not house.join_file.exists()
