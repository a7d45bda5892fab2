"""The fault harness sees what it is there to see: a figure of nought means something only if it could be another."""

from __future__ import annotations

import json
import random
import signal
import socket as sockets
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from attrs import evolve
from fake_engines import picture
from servers import request
from sfwire import messages as m
from sfwire.errors import ServerSilent
from sfwire.request import Ended, Picture, Request

from sfserver.serve.broker import Broker
from sfserver.serve.jobs import Jobs

sys.path.append(str(Path(__file__).parents[1]))
from torture import house as houses
from torture import phase_soak
from torture.figures import BAD, Figures, Plan, Store
from torture.frames import Followed, follow
from torture.house import MARK, House
from torture.mutate import mutated
from torture.proxy import Fault, Kind, Proxy
from torture.target import Target


def bad(figures: Figures) -> dict[str, int]:
    return {name: figures.counts[name] for name in BAD if figures.counts[name]}


def frame(wanted: Request, index: int, seed: int | None = None) -> Picture:
    data = picture(wanted.seed if seed is None else seed, index, wanted.width, wanted.height).tobytes()
    return Picture(index, wanted.width, wanted.height, "raw", data, None)


FINISHED = Ended(done=m.Done("r1", "finished", 7, 5, "fake", "1"))


@pytest.mark.parametrize(
    ("indices", "end", "found"),
    [
        (range(1, 8), FINISHED, {}),
        ([1, 2, 3, 5, 6, 7], FINISHED, {"lost": 1}),
        ([1, 2, 3, 3, 4, 5, 6, 7], FINISHED, {"doubled": 1}),
        ([1, 3, 2, 4, 5, 6, 7], FINISHED, {"wrong": 1}),
        (range(1, 4), Ended(error=ServerSilent("silent")), {"failed": 1}),
        (range(1, 4), None, {"stuck": 1}),
    ],
    ids=["whole", "lost", "doubled", "out of order", "failed", "stuck"],
)
def test_a_stream_that_is_not_whole_is_counted(indices, end, found) -> None:
    wanted, figures = request(9), Figures("test", 1, 1)
    followed = Followed(wanted, ended=end)
    for index in indices:
        followed.take(frame(wanted, index))
    followed.count(figures, "case")
    assert bad(figures) == found


def test_a_frame_of_another_request_is_wrong() -> None:
    wanted, figures = request(9), Figures("test", 1, 1)
    followed = Followed(wanted, ended=FINISHED)
    for index in range(1, 8):
        followed.take(frame(wanted, index, seed=6 if index == 4 else None))
    followed.count(figures, "case")
    assert bad(figures) == {"wrong": 1}


def test_a_cancelled_stream_may_end_early_and_may_have_no_hole() -> None:
    for indices, found in (([1, 2, 3], {}), ([1, 3], {"lost": 1})):
        wanted, figures = request(9), Figures("test", 1, 1)
        followed = Followed(wanted, ended=Ended(done=evolve(FINISHED.done, outcome="cancelled")), cancelled=True)
        for index in indices:
            followed.take(frame(wanted, index))
        followed.count(figures, "case")
        assert bad(figures) == found


def test_a_process_that_is_left_is_counted_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(houses, "GONE_WITHIN_S", 0.2)
    house, figures = House(tmp_path), Figures("test", 1, 1)
    orphan = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env={MARK: house.mark})
    try:
        house.wait_gone(figures, "case")
        assert bad(figures) == {"left": 1}
        assert orphan.wait(60) < 0
    finally:
        orphan.stdin.close()


def test_a_traceback_in_a_log_is_counted(tmp_path: Path) -> None:
    house, figures = House(tmp_path), Figures("test", 1, 1)
    house.log_dir.mkdir()
    (house.log_dir / "front.log").write_text("fine\n")
    house.count_tracebacks(figures, "case")
    assert bad(figures) == {}
    with (house.log_dir / "front.log").open("a") as log:
        log.write("Traceback (most recent call last):\n  ...\nKeyError: 'x'\n")
    for _ in range(2):  # it counts once
        house.count_tracebacks(figures, "case")
    assert bad(figures) == {"exceptions": 1}
    assert "KeyError" in next(iter(figures.findings))


def messages_until_it_is_found(target: Target, seed: int = 1, most: int = 20_000) -> Exception | None:
    rng = random.Random(seed)
    for _ in range(most):
        try:
            target.hear(True, mutated(rng))
        except Exception as error:
            return error
    return None


def test_the_mutations_find_an_answer_that_cannot_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert messages_until_it_is_found(Target(), most=3000) is None, "the control"
    monkeypatch.setattr("sfwire.messages.fit", lambda text, most=2000: text[:most])
    assert isinstance(messages_until_it_is_found(Target()), m.Refused)


def test_the_mutations_find_a_worker_that_is_busy_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    start = Broker._dispatch

    def forgetful(self, now):
        return [action for action in start(self, now) if not (self._jobs.served > 3 and hasattr(action, "worker"))]

    monkeypatch.setattr(Broker, "_dispatch", forgetful)
    assert "nothing to do" in str(messages_until_it_is_found(Target()))


def test_the_mutations_find_a_request_that_is_done_again_after_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Jobs, "how_ended", lambda self, owner, request_id: None)
    assert "after its end" in str(messages_until_it_is_found(Target()))


def test_a_run_that_was_broken_off_goes_on_with_its_seed_and_its_figures(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "torture.json")
    figures = store.begin("kills", 7, 10, afresh=False)
    cases = Plan(figures, 10, tmp_path, False, 0).cases()
    drawn = [rng.random() for _, rng in (next(cases) for _ in range(4))]
    figures.find("lost", "case 3")
    store.save()
    again = Store.open(tmp_path / "torture.json").begin("kills", 7, 10, afresh=False)
    assert (again.done, again.counts["lost"]) == (3, 1)  # the fourth was not over
    number, rng = next(Plan(again, 10, tmp_path, False, 0).cases())
    assert (number, rng.random()) == (3, drawn[3])
    for other in ({"seed": 8}, {"planned": 11}, {"afresh": True}):
        given = {"phase": "kills", "seed": 7, "planned": 10, "afresh": False} | other
        assert Store.open(tmp_path / "torture.json").begin(**given).done == 0


@pytest.fixture
def echo() -> Iterator[int]:
    """A server on loopback that says again what it hears; its port."""
    with sockets.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(peer,), daemon=True).start()

        def answer(peer: sockets.socket) -> None:
            with peer:
                while True:
                    try:
                        data = peer.recv(65536)
                        peer.sendall(data)
                    except OSError:
                        return
                    if not data:
                        return

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]


def said_through(proxy: Proxy, fault: Fault | None, data: bytes) -> bytes | type[Exception]:
    """What comes back of `data` once the fault is over, or how the connection ended."""
    with sockets.create_connection(("127.0.0.1", proxy.port), timeout=60) as socket:
        socket.sendall(b"begin")
        assert socket.recv(5, sockets.MSG_WAITALL) == b"begin"
        if fault is not None:
            proxy.arm(fault)
        try:
            socket.sendall(data)
            if fault is not None and fault.kind in ("drop", "blackhole"):
                while not proxy.struck:
                    pass
                socket.sendall(b"more")
                socket.settimeout(0.5 if fault.kind == "blackhole" else 60)
                return socket.recv(4)
            return socket.recv(len(data), sockets.MSG_WAITALL)
        except (ConnectionError, TimeoutError) as error:
            return type(error)


@pytest.mark.parametrize(
    ("kind", "comes_back"),
    [
        (None, b"a message"),
        ("drop", b"more"),
        ("flip", b"a mersage"),
        ("stall", b"a message"),
        ("throttle", b"a message"),
        ("reset", ConnectionResetError),
        ("refuse", ConnectionResetError),
        ("reorder", ConnectionResetError),
        ("close", b""),
        ("half-close", b"a message"),
        ("blackhole", TimeoutError),
    ],
)
def test_the_proxy_does_to_bytes_what_it_says(echo: int, kind: Kind | None, comes_back: object) -> None:
    proxy = Proxy(lambda: ("127.0.0.1", echo))
    try:
        fault = None if kind is None else Fault(kind, to_server=True, seconds=0.05)
        assert said_through(proxy, fault, b"a message") == comes_back
        assert proxy.struck == (kind is not None)
    finally:
        proxy.close()


def test_what_was_sent_over_an_old_connection_arrives_after_the_new_one_has_spoken() -> None:
    with sockets.create_server(("127.0.0.1", 0)) as listener:
        proxy = Proxy(lambda: ("127.0.0.1", listener.getsockname()[1]))
        old = sockets.create_connection(("127.0.0.1", proxy.port), timeout=60)
        old_there, _ = listener.accept()
        proxy.arm(Fault("reorder", to_server=True, seconds=1.0))
        old.sendall(b"old")
        with pytest.raises(ConnectionResetError):
            old.recv(1)
        new = sockets.create_connection(("127.0.0.1", proxy.port), timeout=60)
        new_there, _ = listener.accept()
        new.sendall(b"new")
        new_there.settimeout(60)
        assert new_there.recv(3) == b"new"
        old_there.settimeout(60)
        assert old_there.recv(3) == b"old"
        proxy.close()
        for socket in (old, new, old_there, new_there):
            socket.close()


def test_a_stream_is_followed_with_every_frame_checked(tmp_path: Path) -> None:
    """Through a real house, which is empty afterwards."""
    house, figures = House(tmp_path / "house"), Figures("test", 1, 1)
    house.start()
    try:
        house.wait_ready()
        wanted = request(9)
        with house.client(name="test") as client, client.submit(wanted) as stream:
            follow(stream, wanted).count(figures, "case")
        assert {houses.role_of(process) for process in house.members()} == {"owner", "supervisor", "front", "worker"}
    finally:
        house.stop(figures, "case")
    assert figures.counts["frames"] == 7
    assert bad(figures) == {}
    assert house.members() == []


@pytest.mark.parametrize(
    ("code", "said", "found"),
    [
        (-signal.SIGABRT, "Resource temporarily unavailable (src/session_base.cpp:233)", {}),
        (-signal.SIGABRT, "Fatal Python error", {"exceptions": 1}),
        (-signal.SIGSEGV, "", {"exceptions": 1}),
    ],
)
def test_a_user_of_the_soak_that_dies_is_counted_by_its_reason(
    code: int, said: str, found: dict[str, int], tmp_path: Path
) -> None:
    figures = Figures("soak", 1, 1)
    phase_soak.User(Plan(figures, 1, tmp_path, True, 0), House(tmp_path), 0)._died(code, said)
    assert bad(figures) == found
    assert sum(figures.counts.values()) == 1


def test_what_a_user_says_is_added_to_the_figures() -> None:
    said, figures = Figures("soak", 0, 0), Figures("soak", 1, 1)
    said.counts["frames"] += 3
    said.find("lost", "clip of 9", 2)
    for _ in range(2):
        figures.add(json.dumps(attrs.asdict(said)))
    assert figures.counts["frames"] == 6
    assert bad(figures) == {"lost": 4}
    assert list(figures.findings.values()) == [4]
