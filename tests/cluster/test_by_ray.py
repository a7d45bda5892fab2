"""Workers that Ray places: on a real cluster on loopback, with a command that leaves word in place of a worker's."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from attrs import define
from houses import TOKENS, House, standing
from servers import Server, eventually, request, running

from sfserver.errors import UserError
from sfserver.serve import by_ray
from sfserver.serve.by_ray import CANNOT, Scale, Wish, require_ray

HERE = Path(__file__).parent
SECRET = json.dumps({"server": "tcp://127.0.0.1:1", "secret": "nobody may see this in a list of processes"})


# What needs no cluster


def test_where_ray_is_not_installed_one_sentence_says_how_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'sfserver\[ray\]'"):
        require_ray("127.0.0.1:6379", TOKENS)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("environment", [{}, {"RAY_AUTH_MODE": "disabled"}])
def test_without_tokens_nothing_is_connected(environment: dict[str, str]) -> None:
    with pytest.raises(UserError, match="RAY_AUTH_MODE is not token"):
        require_ray("127.0.0.1:6379", environment)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("address", ["", "auto", "127.0.0.1", "ray://127.0.0.1:10001", ":6379", "127.0.0.1:x"])
def test_an_address_that_is_none_is_named(address: str) -> None:
    with pytest.raises(UserError, match="HOST:PORT"):
        require_ray(address, TOKENS)


@pytest.mark.usefixtures("installed")
def test_a_head_that_does_not_answer_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UserError, match=f"no Ray head answers at {address}"):
            require_ray(address, TOKENS)


def test_workers_come_with_requests_and_go_only_once_there_was_none_for_a_while() -> None:
    scale = Scale(1, 4, idle_s=10.0)
    assert [scale.wanted(requests, 0.0) for requests in (0, 1, 3, 9, 2)] == [1, 1, 3, 4, 4]
    assert scale.wanted(1, 100.0) == 4, "which of the four has it is not known"
    assert [scale.wanted(0, now) for now in (105.0, 109.9, 110.0, 111.0)] == [4, 4, 1, 1]
    assert scale.wanted(2, 112.0) == 2


def test_the_control_without_a_pause_a_worker_goes_as_its_request_does() -> None:
    scale = Scale(1, 4, idle_s=0.0)
    assert [scale.wanted(requests, 0.0) for requests in (3, 0)] == [3, 1]


def test_the_secret_is_not_in_what_is_printed() -> None:
    assert "nobody may see" not in repr(Wish("h:1", "c", SECRET.encode()))


# On a cluster


@define
class Launched:
    process: subprocess.Popen[bytes]
    notes: Path

    def workers(self) -> dict[int, dict[str, object]]:
        """Those that live, and what each has left word of."""
        found = {int(note.stem): json.loads(note.read_text()) for note in self.notes.glob("*.json")}
        return {pid: facts for pid, facts in found.items() if psutil.pid_exists(pid)}

    def become(self, count: int) -> dict[int, dict[str, object]]:
        eventually(lambda: len(self.workers()) == count)
        return self.workers()


@contextmanager
def launched(house: House, server: Server, folder: Path, **wishes: object) -> Iterator[Launched]:
    """All workers are gone afterwards, whatever was done to the launcher."""
    notes = folder / "notes"
    notes.mkdir()
    command = (str(HERE / "joiner.py"), str(notes), "--join")
    wish = Wish(house.address, str(server.connection_file), SECRET.encode(), gpus=0.0, command=command, **wishes)  # type: ignore[arg-type]
    process = subprocess.Popen(
        [sys.executable, "-m", "sfserver.serve.by_ray"], stdin=subprocess.PIPE, env=house.environment
    )
    assert process.stdin is not None
    launched = Launched(process, notes)
    try:
        process.stdin.write(wish.pack())
        process.stdin.flush()
        yield launched
        process.stdin.close()
        process.wait(120)
    finally:
        process.kill()
        process.wait(60)
        launched.become(0)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("server"), workers=2) as server:
        yield server


@pytest.mark.ray
def test_workers_are_placed_and_given_the_secret_which_no_command_line_shows(
    house: House, server: Server, tmp_path: Path
) -> None:
    with launched(house, server, tmp_path, least=3, most=3) as launcher:
        for facts in launcher.become(3).values():
            assert facts["join"] == SECRET
            assert facts["mode"] == 0o600
        shown = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
        assert any("joiner.py" in line for line in shown)
        assert not [line for line in shown if "nobody may see" in line]


@pytest.mark.ray
def test_a_worker_that_is_killed_has_a_successor(house: House, server: Server, tmp_path: Path) -> None:
    with launched(house, server, tmp_path, least=2, most=2) as launcher:
        before = launcher.become(2)
        killed = min(before)
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: killed not in launcher.workers() and len(launcher.workers()) == 2)


@pytest.mark.ray
def test_workers_come_with_requests_and_go_after_them(house: House, server: Server, tmp_path: Path) -> None:
    with launched(house, server, tmp_path, least=1, most=3, idle_s=1.0) as launcher, server.client(name="t") as client:
        client.wait_ready()
        launcher.become(1)
        streams = [client.submit(request(delay_ms=60_000.0)) for _ in range(2)]
        launcher.become(2)
        streams += [client.submit(request(delay_ms=60_000.0)) for _ in range(3)]
        launcher.become(3)
        for stream in streams:
            stream.cancel()
        launcher.become(1)


@pytest.mark.ray
def test_of_a_launcher_that_is_killed_no_worker_is_left(house: House, server: Server, tmp_path: Path) -> None:
    with launched(house, server, tmp_path, least=2, most=2) as launcher:
        launcher.become(2)
        launcher.process.kill()
        launcher.become(0)


@pytest.mark.ray
def test_a_wrong_token_is_one_sentence(house: House, server: Server) -> None:
    wish = Wish(house.address, str(server.connection_file), SECRET.encode(), gpus=0.0)
    wrong = house.environment | {"RAY_AUTH_TOKEN": "another-one-that-is-as-long-as-a-token-should-be"}
    pipe, command = subprocess.PIPE, [sys.executable, "-m", "sfserver.serve.by_ray"]
    with subprocess.Popen(command, stdin=pipe, stderr=pipe, env=wrong) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(wish.pack())
        process.stdin.flush()
        *_, last = process.stderr
        assert process.wait(120) == CANNOT
    assert b"does not let us in" in last


@pytest.mark.ray
def test_workers_of_a_dead_raylet_and_of_a_dead_node_go_on_elsewhere(
    house: House, server: Server, tmp_path: Path
) -> None:
    with launched(house, server, tmp_path, least=2, most=2) as launcher:
        launcher.become(2)
        os.kill(house.raylets[0], signal.SIGKILL)
        eventually(lambda: {f["raylet"] for f in launcher.workers().values()} == {house.raylets[1]})
        launcher.become(2)
        house.tell("node 2")
        house.tell("fall 1")
        eventually(lambda: {f["raylet"] for f in launcher.workers().values()} == {house.raylets[-1]})
        launcher.become(2)


@pytest.mark.ray
def test_a_cluster_that_asks_for_no_token_is_refused() -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'sfserver[ray]'")
    with standing(RAY_AUTH_MODE="disabled") as open_house, pytest.raises(UserError, match="answers without a token"):
        by_ray.require_ray(open_house.address, open_house.environment | TOKENS)
