"""Clients that vanish at every step of the protocol, that never read, that read slowly, that break its rules.

What they did must cost the others nothing: afterwards every worker is idle, no job is left, and a clip comes whole.
"""

from __future__ import annotations

import random
import socket as sockets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import zmq
from attrs import frozen
from servers import BLACK, SIDE, request
from sfwire import connection as connections
from sfwire import limits as L
from sfwire import messages as m
from sfwire.channel import Context, Socket, connect
from sfwire.codec import decode_to_client, encode

from .figures import Plan
from .frames import follow
from .house import House

WORKERS = 2
FREE_WITHIN_S = 150.0
"""The server forgets a client after ten silent seconds."""
MAX_GROWTH_BYTES = 400 * 1024 * 1024
"""Of the front, whatever one peer does: `limits.MAX_UNREAD_BYTES`, which is the largest message and a reserve, and what
comes in the tenth of a second before somebody looks."""
LARGE = 640, 512


@frozen
class Guest:
    """Somebody with the right keys and no manners, at one live server."""

    house: House
    context: Context
    rng: random.Random
    name: str

    @property
    def address(self) -> tuple[str, int]:
        host, port = connections.read(self.house.connection_file).endpoint.removeprefix("tcp://").rsplit(":", 1)
        return host, int(port)

    def connected(self, greet: bool = True) -> Socket:
        socket = connect(self.context, connections.read(self.house.connection_file))
        if greet:
            self.say(socket, m.Hello(L.PROTOCOL, self.name, self.name))
            self.hear(socket, m.Welcome)
        return socket

    def say(self, socket: Socket, message: m.ToServer, *buffers: bytes) -> None:
        socket.send_multipart(encode(message, buffers))

    def hear(self, socket: Socket, kind: type, timeout_s: float = 60.0) -> m.ToClient | None:
        """The next message of this kind, or None."""
        deadline = time.monotonic() + timeout_s
        while socket.poll(max(0, int(1000 * (deadline - time.monotonic())))):
            said, _ = decode_to_client(socket.recv_multipart())
            if isinstance(said, kind):
                return said
        return None

    def ask(self, socket: Socket, id: str = "r1", frames: int = 200, size: tuple[int, int] = (SIDE, SIDE)) -> None:
        width, height = size
        keyframes = (m.Keyframe(0, 0, width, height),)
        asked = m.Generate(id, "fake", width, height, frames, keyframes, 1, params={"delay_ms": 2.0})
        self.say(socket, asked, BLACK if size == (SIDE, SIDE) else bytes(width * height * 3))


def knocks(guest: Guest) -> None:
    """Connects and says nothing, or a few bytes of a greeting."""
    with sockets.create_connection(guest.address, timeout=60) as stranger:
        stranger.sendall((b"\xff" + bytes(8) + b"\x7f\x03\x01CURVE" + bytes(60))[: guest.rng.randrange(75)])


def shakes_hands_only(guest: Guest) -> None:
    socket = guest.connected(greet=False)
    time.sleep(guest.rng.uniform(0, 0.1))
    socket.close(linger=0)


def vanishes_with_hello(guest: Guest) -> None:
    socket = guest.connected(greet=False)
    guest.say(socket, m.Hello(L.PROTOCOL, guest.name, guest.name))
    socket.close(linger=50)


def vanishes_welcome(guest: Guest) -> None:
    guest.connected().close(linger=0)


def vanishes_with_generate(guest: Guest) -> None:
    socket = guest.connected()
    guest.ask(socket)
    socket.close(linger=guest.rng.choice([0, 1, 5, 20, 100]))


def vanishes_accepted(guest: Guest) -> None:
    socket = guest.connected()
    guest.ask(socket)
    guest.hear(socket, m.Accepted)
    socket.close(linger=0)


def vanishes_in_mid_stream(guest: Guest) -> None:
    socket = guest.connected()
    guest.ask(socket)
    for total in range(guest.rng.randrange(1, 12)):
        guest.hear(socket, m.Frame)
        guest.say(socket, m.Credit("r1", 8 + total))
    socket.close(linger=0)


def vanishes_cancelling(guest: Guest) -> None:
    socket = guest.connected()
    guest.ask(socket)
    guest.hear(socket, m.Frame)
    guest.say(socket, m.Cancel("r1"))
    socket.close(linger=guest.rng.choice([0, 5, 100]))


def vanishes_done(guest: Guest) -> None:
    socket = guest.connected()
    guest.ask(socket, frames=8)
    guest.hear(socket, m.Done)
    socket.close(linger=0)


def says_bye_with_requests(guest: Guest) -> None:
    socket = guest.connected()
    for number in range(5):
        guest.ask(socket, f"r{number}")
    guest.say(socket, m.Bye())
    socket.close(linger=100)


def vanishes_with_a_queue(guest: Guest) -> None:
    """Its first job ends, and the next is handed out, at about the moment in which it goes."""
    socket = guest.connected()
    for number in range(4):
        guest.ask(socket, f"r{number}", frames=8)
    guest.hear(socket, m.Done)
    time.sleep(guest.rng.uniform(0, 0.03))
    socket.close(linger=0)


def becomes_another(guest: Guest) -> None:
    """A second Hello with another session, on the same connection, with requests under the first."""
    socket = guest.connected()
    for number in range(3):
        guest.ask(socket, f"r{number}")
    guest.hear(socket, m.Accepted)
    guest.say(socket, m.Hello(L.PROTOCOL, guest.name, f"{guest.name}-b"))
    guest.hear(socket, m.Welcome, 5)
    socket.close(linger=guest.rng.choice([0, 50]))


def is_taken_over(guest: Guest) -> None:
    """The same session from another connection, while the first one still has requests."""
    first, second = guest.connected(), guest.connected(greet=False)
    guest.ask(first)
    guest.hear(first, m.Frame)
    guest.say(second, m.Hello(L.PROTOCOL, guest.name, guest.name))
    guest.hear(second, m.Welcome)
    guest.ask(second, "r2")
    guest.hear(second, m.Frame)
    for socket in (first, second):
        socket.close(linger=0)


def never_reads(guest: Guest) -> None:
    """Large frames, all the credit there is, repeated, and not one message taken."""
    socket = guest.connected()
    guest.ask(socket, frames=400, size=LARGE)
    for turn in range(100):
        guest.say(socket, m.Credit("r1", min(1000, 64 + 8 * turn)))
        guest.say(socket, m.Ping(turn))
        time.sleep(0.02)
    socket.close(linger=0)


def sends_without_end(guest: Guest) -> None:
    """One message of 101 parts, each as large as a part may be."""
    socket = guest.connected(greet=False)
    part = bytes(20 * 1024 * 1024)
    socket.send_multipart([b"\x80", *[part] * 100], copy=False)
    time.sleep(5.0)
    socket.close(linger=0)


def sends_shreds(guest: Guest) -> None:
    """One message of a million parts, each of no byte."""
    socket = guest.connected()
    socket.send_multipart([b""] * 1_000_000)
    time.sleep(3.0)
    socket.close(linger=0)


def greets_and_never_reads(guest: Guest) -> None:
    """Pictures of DCI 4K, credit without end, and a new Hello before each, as if nothing were on its way."""
    socket = guest.connected()
    guest.ask(socket, frames=400, size=(4096, 2160))
    for turn in range(40):
        guest.say(socket, m.Hello(L.PROTOCOL, guest.name, guest.name))
        guest.say(socket, m.Credit("r1", min(1000, 64 + 8 * turn)))
        time.sleep(0.05)
    socket.close(linger=0)


def nests(guest: Guest) -> None:
    """A flood of headers of nested arrays that claim to hold a hundred thousand elements each."""
    socket = guest.connected()
    header = b"\xdd\x00\x01\xf4\x00" * 1000 + b"\xc0" * 128_000
    for _ in range(200):
        socket.send(header)
    guest.hear(socket, m.Failed, 10)
    socket.close(linger=0)


def asks_for_everything(guest: Guest) -> None:
    """A hundred requests at once."""
    socket = guest.connected()
    for number in range(100):
        guest.ask(socket, f"r{number}")
    guest.hear(socket, m.Failed, 10)
    socket.close(linger=0)


def reads_slowly(guest: Guest) -> None:
    with guest.house.client(name=guest.name, window=2) as client:
        wanted = request(20, seed=guest.rng.randrange(10**6))
        with client.submit(wanted) as stream:
            followed = follow(stream, wanted, pause_s=0.05)
    assert followed.got == wanted.wanted(), f"a slow reader got {followed.got}"
    assert not followed.wrong


GUESTS: tuple[Callable[[Guest], None], ...] = (
    knocks,
    shakes_hands_only,
    vanishes_with_hello,
    vanishes_welcome,
    vanishes_with_generate,
    vanishes_accepted,
    vanishes_in_mid_stream,
    vanishes_cancelling,
    vanishes_done,
    says_bye_with_requests,
    vanishes_with_a_queue,
    becomes_another,
    is_taken_over,
    never_reads,
    sends_without_end,
    sends_shreds,
    greets_and_never_reads,
    nests,
    asks_for_everything,
    reads_slowly,
)
A_ROUND = len(GUESTS)


def run(plan: Plan) -> Iterator[None]:
    """Each case is a round: every kind of guest once, in an order drawn anew, then the server is looked at."""
    house = House(plan.folder / "clients", {"workers": WORKERS})
    house.start()
    house.wait_ready()
    context: Context = zmq.Context()
    try:
        for number, rng in plan.cases():
            front = house.find("front")
            assert front is not None
            rest = peak = _peak_bytes(front)
            for guest in rng.sample(GUESTS, A_ROUND):
                name = f"round {number}, {guest.__name__}"
                plan.figures.counts["guests"] += 1
                try:
                    guest(Guest(house, context, rng, f"{guest.__name__}-{number}"))
                except (OSError, AssertionError, zmq.ZMQError, connections.NoConnectionFile) as error:
                    plan.figures.find("broken", f"{name}: {error!r}")
                before, peak = peak, _peak_bytes(front)
                grown = peak - rest
                most = plan.figures.measured.get("front grew by MB", 0.0)
                plan.figures.measured["front grew by MB"] = max(most, grown / 2**20)
                if grown > MAX_GROWTH_BYTES and peak > before:
                    what = f"{guest.__name__}: the front grew by more than {MAX_GROWTH_BYTES >> 20} MB"
                    plan.figures.find("broken", what, example=f"round {number}, {grown >> 20} MB")
                yield
            _look(plan, house, front, f"after round {number}")
    finally:
        context.destroy(linger=0)
        house.stop(plan.figures, "at the end")
        house.remove()


def _peak_bytes(process: psutil.Process) -> int:
    """The most that it ever held: what a guest made it hold may be gone by the time one looks."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):  # not Linux, or it has ended
        return process.memory_info().rss if process.is_running() else 0


def _look(plan: Plan, house: House, front: psutil.Process, when: str) -> None:
    """The same front, workers idle, no job left, and a clip that comes whole."""
    now = house.find("front")
    if now is None or now.pid != front.pid:
        plan.figures.find("broken", f"{when}: the front had ended")
    with house.client(name="bystander") as client:
        deadline = time.monotonic() + FREE_WITHIN_S
        report = client.status(60)
        while time.monotonic() < deadline and (report.jobs or any(w.state != "idle" for w in report.workers)):
            time.sleep(0.2)
            report = client.status(60)
        if report.jobs or any(worker.state != "idle" for worker in report.workers):
            plan.figures.find(
                "broken", f"{when}: workers {report.workers} and jobs {report.jobs[:3]} after {FREE_WITHIN_S} s"
            )
        for seed in range(WORKERS):
            wanted = request(25, seed=seed)
            with client.submit(wanted) as stream:
                follow(stream, wanted, patience_s=60).count(plan.figures, when)
