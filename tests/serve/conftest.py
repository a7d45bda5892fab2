"""One server for all tests that leave it as they found it. Published weights are those of the model tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import Server, running
from sfwire.client import Client

sys.path.insert(0, str(Path(__file__).parents[1] / "model"))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with server.client(name="test") as client:
        client.wait_ready()
        yield client
