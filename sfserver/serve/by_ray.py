"""Ray as the launcher: it places workers on a cluster's machines, starts them again, and asks for more machines.

A process of its own, `python -m sfserver.serve.by_ray`, that is told what to do by one line on its standard input and
ends with that. It knows of the server what every client may: by Status, how many requests there are. Ray starts, on a
machine that has room, the command that joins the server, and no frame goes by way of Ray. The only file that knows it.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from attrs import define, field, frozen
from sfwire.client import Client
from sfwire.errors import ServerUnavailable
from sfwire.messages import fit

from ..errors import UserError
from .ends import pause_s
from .leash import hold_to_parent, ignore_interrupts

JOIN_COMMAND = ("-m", "sfserver", "worker", "--join")
"""What Python on the machine that Ray has chosen is to run; the file's name follows."""
LOOK_S = 1.0
IDLE_S = 120.0
"""Without any request, before workers beyond the least number are let go."""
REACH_S = 10.0
STRANGER_S = 60.0
CANNOT = 2
"""Exit code where something has to be mended first, which was said."""
REFUSED = 3
_AS_A_STRANGER = f"""
import sys
from ray._raylet import GcsClient
from ray.exceptions import AuthenticationError
try:
    GcsClient(address=sys.argv[1]).get_all_node_info(timeout=10)
except AuthenticationError:
    sys.exit({REFUSED})
"""


@frozen
class Wish:
    """What the launcher is told."""

    address: str
    """HOST:PORT of Ray's head, as in its `--address`."""
    connection_file: str
    join: bytes = field(repr=False)
    """What the join file holds: a secret."""
    least: int = 1
    most: int = 1
    gpus: float = 1.0
    """Of each worker; a part of one where several shall share it."""
    cpus: float = 1.0
    idle_s: float = IDLE_S
    command: tuple[str, ...] = JOIN_COMMAND

    def pack(self) -> bytes:
        return json.dumps(attrs.asdict(self) | {"join": self.join.decode()}).encode() + b"\n"

    @staticmethod
    def unpack(line: bytes) -> Wish:
        body: dict[str, Any] = json.loads(line)
        body["join"], body["command"] = body["join"].encode(), tuple(body["command"])
        return Wish(**body)


@define
class Scale:
    """How many workers there should be: as many as requests, between two numbers, and never fewer in between.

    Which worker has which request is not known here, so none is let go while there is any.
    """

    least: int
    most: int
    idle_s: float
    _held: int = 0
    _needed_at: float = 0.0

    def wanted(self, requests: int, now: float) -> int:
        if requests or not self._held:
            self._held = min(max(requests, self._held, self.least), self.most)
            self._needed_at = now
        elif now - self._needed_at >= self.idle_s:
            self._held = self.least
        return self._held


class Places:
    """The tasks that Ray was asked for. One that has ended makes room for another, later if it came to nothing."""

    def __init__(self, ray: Any, wish: Wish) -> None:
        self._ray = ray
        options = {"num_gpus": wish.gpus, "num_cpus": wish.cpus, "max_retries": 0, "name": "sfserver worker"}
        self._task = ray.remote(join).options(**options)
        self._wish = wish
        self._asked: dict[Any, float] = {}
        """Tasks, and when they were asked for."""
        self._failures = 0
        self._due_at = 0.0

    def __len__(self) -> int:
        return len(self._asked)

    def look(self, now: float) -> list[str]:
        """Why those have ended that have since."""
        if not self._asked:
            return []
        ended, _ = self._ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0)
        return [self._end(task, now) for task in ended]

    def _end(self, task: Any, now: float) -> str:
        lived_s = now - self._asked.pop(task)
        self._failures = 0 if lived_s > IDLE_S else self._failures + 1
        self._due_at = now + pause_s(self._failures)
        try:
            return self._ray.get(task)
        except self._ray.exceptions.RayError as error:
            return str(error).strip().splitlines()[0]

    def become(self, wanted: int, now: float) -> None:
        """Ask for what is missing; let go, of what is too much, the newest, which may be waiting for a machine."""
        while len(self._asked) < wanted and now >= self._due_at:
            self._asked[self._task.remote(self._wish.command, self._wish.join)] = now
        while len(self._asked) > wanted:
            task, _ = self._asked.popitem()
            self._ray.cancel(task, force=True)


def join(command: Sequence[str], content: bytes) -> str:
    """On the machine that Ray has chosen: one worker until it ends; how it did.

    The secret stays in memory, under a name that ends with the last process that has it. The worker ends with this
    process, which Ray kills, and which does not notice by itself, while a task runs, that its raylet was killed.
    """
    hold_to_parent("SIGKILL")
    descriptor = os.memfd_create("join")
    os.fchmod(descriptor, 0o600)
    os.write(descriptor, content)
    whole = [sys.executable, "-m", __name__, "--held", sys.executable, *command, f"/proc/self/fd/{descriptor}"]
    pipe = subprocess.PIPE
    last = ""
    with subprocess.Popen(whole, stdin=subprocess.DEVNULL, stderr=pipe, pass_fds=[descriptor], text=True) as process:
        os.close(descriptor)
        for line in process.stderr or ():
            _say(line.rstrip())  # into Ray's log of this process
            last = line.strip() or last
    return f"a worker ended with exit code {process.returncode}{last and f': {last[:200]}'}"


def require_ray(address: str, environment: Mapping[str, str] = os.environ) -> None:
    """Raises UserError, one sentence, where workers cannot be placed. Nothing is loaded, nobody is let in."""
    if not importlib.util.find_spec("ray"):
        raise UserError("Ray is not installed; pip install 'sfserver[ray]', here and on the cluster's machines")
    if environment.get("RAY_AUTH_MODE") != "token":
        raise UserError(
            "RAY_AUTH_MODE is not token, and without tokens anybody who reaches a Ray cluster runs programs on it; "
            "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN for the cluster and for sfserver"
        )
    reach(address).close()
    _require_that_strangers_are_refused(address, environment)


def reach(address: str) -> socket.socket:
    """A connection to a cluster's head. Raises UserError."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise UserError(f"{address!r} is not the HOST:PORT of a Ray head; ray start --head says it as its address")
    try:
        return socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S)
    except (OSError, OverflowError, UnicodeError) as error:
        raise UserError(f"no Ray head answers at {address} ({error}); start one with: ray start --head") from None


def _require_that_strangers_are_refused(address: str, environment: Mapping[str, str]) -> None:
    """By being one. Whoever is not refused by name is taken for let in."""
    without = {name: value for name, value in environment.items() if not name.startswith("RAY_AUTH_")}
    command, stranger = [sys.executable, "-c", _AS_A_STRANGER, address], without | {"RAY_AUTH_MODE": "disabled"}
    try:
        asked = subprocess.run(command, env=stranger, capture_output=True, text=True, timeout=STRANGER_S)
    except subprocess.TimeoutExpired:
        raise UserError(f"the Ray head at {address} has not said in {STRANGER_S:.0f} s whom it lets in") from None
    if asked.returncode == 0:
        raise UserError(
            f"the Ray cluster at {address} answers without a token, so anybody who reaches it runs programs on it; "
            "start it anew with RAY_AUTH_MODE=token and RAY_AUTH_TOKEN set on every machine"
        )
    if asked.returncode != REFUSED:
        last = (asked.stderr.strip().splitlines() or ["no word"])[-1]
        raise UserError(f"whether the Ray cluster at {address} asks for tokens cannot be found out ({last[:200]})")


def connect(address: str) -> Any:
    """Ray, connected. Raises UserError."""
    require_ray(address)
    ray = importlib.import_module("ray")
    try:
        ray.init(address, log_to_driver=False, include_dashboard=False, namespace="sfserver")
    except Exception as error:  # Ray raises whatever it likes: RuntimeError, ConnectionError, errors of its own
        first = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise UserError(f"the Ray cluster at {address} does not let us in: {first[0]}") from None
    return ray


def launch(wish: Wish, stopping: threading.Event) -> None:
    """Keep as many workers placed as are wanted, until told to stop. Raises UserError."""
    ray = connect(wish.address)
    places, scale, said = Places(ray, wish), Scale(wish.least, wish.most, wish.idle_s), ""
    with Client(Path(wish.connection_file), name="sfserver launcher") as client:
        while not stopping.wait(LOOK_S):
            now = time.monotonic()
            for why in places.look(now):
                if why != said:  # a worker that cannot begin says so every two seconds
                    _say(why)
                said = why
            places.become(scale.wanted(_requests(client), now), now)
    places.become(0, time.monotonic())
    ray.shutdown()


def _requests(client: Client) -> int:
    """Of all clients; none where the server does not answer just now."""
    try:
        return len(client.status().jobs)
    except ServerUnavailable:
        return 0


def _say(sentence: str) -> None:
    sys.stderr.write(f"{fit(sentence)}\n")
    sys.stderr.flush()


def _follow_input(stopping: threading.Event) -> None:
    sys.stdin.buffer.read()
    stopping.set()
    time.sleep(30.0)
    os._exit(1)  # Ray hangs, and nobody is left who would see


def main() -> int:
    if sys.argv[1:2] == ["--held"]:
        hold_to_parent("SIGKILL")
        os.execv(sys.argv[2], sys.argv[2:])
    ignore_interrupts()
    hold_to_parent("SIGKILL")  # and Ray ends what a dead driver has asked for
    os.dup2(2, 1)  # Ray prints
    line = sys.stdin.buffer.readline()
    if not line:
        return 0  # whoever started us is gone already
    wish, stopping = Wish.unpack(line), threading.Event()
    threading.Thread(target=_follow_input, args=(stopping,), name="leash", daemon=True).start()
    try:
        launch(wish, stopping)
    except UserError as error:
        _say(str(error))
        return CANNOT
    return 0


if __name__ == "__main__":
    from sfserver.serve import by_ray  # what is handed to Ray must have a name that other machines can import

    sys.exit(by_ray.main())
