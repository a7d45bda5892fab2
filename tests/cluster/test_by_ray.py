"""Workers that Ray places: on a real cluster on loopback of two nodes, with the fake engines."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from houses import TOKENS, House, Served, lives, served, standing
from servers import assert_all_there, eventually, request

from sfserver.cli import main
from sfserver.errors import USER_ERROR, UserError
from sfserver.serve.by_ray import CANNOT, Scale, Wish, require_ray
from sfserver.serve.join import beside

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


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["--workers", "auto"], "N or MIN:MAX"),
        (["--workers", "3:2"], "N or MIN:MAX"),
        (["--workers", "1:65"], "from 1 to 64"),
        (["--ray-gpus", "nan"], "'--ray-gpus'"),
        (["--ray-gpus", "2"], "'--ray-gpus'"),
        (["--devices", "0"], "SFSERVER_DEVICES"),
        (["--precision", "fp8"], "SFSERVER_PRECISION"),
    ],
)
@pytest.mark.usefixtures("machine", "installed")
def test_what_makes_no_sense_with_ray_is_refused_before_anything_starts(
    typed: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--ray", "127.0.0.1:6379", *typed]) == USER_ERROR
    assert said in " ".join(capsys.readouterr().err.split())


@pytest.mark.usefixtures("machine", "installed")
def test_serve_says_in_one_sentence_that_tokens_are_wanted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    assert main(["serve", "--ray", "127.0.0.1:6379"]) == USER_ERROR
    assert "RAY_AUTH_MODE is not token" in capsys.readouterr().err


# On a cluster


@pytest.fixture
def two_nodes(house: House) -> House:
    house.become(2)
    return house


@pytest.fixture
def two(two_nodes: House, tmp_path: Path) -> Iterator[Served]:
    """A server, and two workers: one a node."""
    with served(two_nodes, tmp_path, workers=2) as two:
        two.become(2)
        two.idle(2)
        yield two


def assert_streams_outlive(two: Served, blow: Callable[[], None]) -> None:
    """Both workers are at work as the blow falls; every frame comes once, in order, with the right bytes."""
    with two.server.client(name="t") as client:
        wanted = [request(65, seed=seed, delay_ms=100.0) for seed in (1, 2)]
        streams = [iter(client.submit(one)) for one in wanted]
        begun = [[next(stream) for _ in range(2)] for stream in streams]
        blow()
        with ThreadPoolExecutor() as readers:  # one worker may be left, and waits for whoever does not read
            rest = list(readers.map(list, streams))
    for first, last, one in zip(begun, rest, wanted, strict=True):
        assert_all_there([*first, *last], one)


@pytest.mark.ray
def test_a_worker_is_placed_on_each_node_and_given_the_secret_which_no_command_line_shows(
    two_nodes: House, two: Served
) -> None:
    placed = two.become(2)
    assert {facts["raylet"] for facts in placed.values()} == set(two_nodes.raylets)
    join = beside(two.server.connection_file).read_text()
    assert [(facts["join"], facts["mode"]) for facts in placed.values()] == [(join, 0o600)] * 2
    shown = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    assert any("placed.py" in line for line in shown)
    assert not [line for line in shown if json.loads(join)["worker_secret_key"] in line]
    assert_streams_outlive(two, lambda: None)


@pytest.mark.ray
@pytest.mark.parametrize("who", ["the worker", "who keeps it", "the task that Ray runs"])
def test_a_killed_worker_costs_no_frame_and_has_a_successor(two: Served, who: str) -> None:
    keeper, facts = next(iter(two.workers().items()))
    task = facts["task"]
    assert isinstance(task, int)
    pid = {"the worker": psutil.Process(keeper).children()[0].pid, "who keeps it": keeper}.get(who, task)
    assert_streams_outlive(two, lambda: os.kill(pid, signal.SIGKILL))
    eventually(lambda: not lives(pid))
    two.become(2)
    two.idle(2)


@pytest.mark.ray
def test_a_killed_raylet_costs_no_frame_and_its_worker_waits_for_another_machine(two_nodes: House, two: Served) -> None:
    assert_streams_outlive(two, lambda: os.kill(two_nodes.raylets[0], signal.SIGKILL))
    eventually(lambda: [facts["raylet"] for facts in two.workers().values()] == [two_nodes.raylets[1]])
    two_nodes.become(2)
    eventually(lambda: {facts["raylet"] for facts in two.workers().values()} == set(two_nodes.raylets))
    two.idle(2)


@pytest.mark.ray
def test_a_node_that_falls_costs_no_frame_and_its_worker_waits_for_another_machine(
    two_nodes: House, two: Served
) -> None:
    assert_streams_outlive(two, lambda: two_nodes.tell("fall 0"))
    eventually(lambda: [facts["raylet"] for facts in two.workers().values()] == two_nodes.raylets)
    two_nodes.become(2)
    eventually(lambda: {facts["raylet"] for facts in two.workers().values()} == set(two_nodes.raylets))
    two.idle(2)


@pytest.mark.ray
def test_workers_come_with_requests_and_machines_and_go_after_them(two_nodes: House, tmp_path: Path) -> None:
    with (
        served(two_nodes, tmp_path, workers="1:3", idle_s=1.0) as some,
        some.server.client(name="t") as client,
    ):
        some.become(1)
        client.wait_ready(120)
        streams = [client.submit(request(delay_ms=60_000.0)) for _ in range(4)]
        some.become(2)  # and a third has no machine
        two_nodes.become(3)
        some.become(3)
        for stream in streams:
            stream.cancel()
        some.become(1)


@pytest.mark.ray
def test_a_killed_launcher_takes_its_workers_along_and_is_started_again(two: Served) -> None:
    launcher, before = two.launcher(), two.workers()
    assert_streams_outlive(two, launcher.kill)
    eventually(lambda: not before.keys() & two.workers().keys())
    two.become(2)


@pytest.mark.ray
def test_a_wrong_token_is_one_sentence(house: House) -> None:
    wrong = house.environment | {"RAY_AUTH_TOKEN": "another-one-that-is-as-long-as-a-token-should-be"}
    assert "does not let us in" in said_by_a_launcher(house, wrong)


@pytest.mark.ray
def test_no_token_is_one_sentence(house: House, tmp_path: Path) -> None:
    without = {name: value for name, value in house.environment.items() if name != "RAY_AUTH_TOKEN"}
    assert "does not let us in" in said_by_a_launcher(house, without | {"HOME": str(tmp_path)})


def said_by_a_launcher(house: House, environment: dict[str, str]) -> str:
    """The last line of one that cannot begin."""
    wish = Wish(house.address, "nowhere", SECRET.encode(), gpus=0.0)
    done = subprocess.run(
        [sys.executable, "-m", "sfserver.serve.by_ray"],
        input=wish.pack(),
        stderr=subprocess.PIPE,
        env=environment,
        timeout=240,
    )
    lines = done.stderr.decode().splitlines()
    assert done.returncode == CANNOT, lines
    return lines[-1]


@pytest.mark.ray
def test_a_cluster_that_asks_for_no_token_is_refused() -> None:
    with standing(RAY_AUTH_MODE="disabled") as open_house, pytest.raises(UserError, match="answers without a token"):
        require_ray(open_house.address, open_house.environment | TOKENS)
