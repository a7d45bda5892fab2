"""The front process: one ROUTER, one broker, a pool of workers, one loop. Never imports torch.

It reads its setup from standard input, says on standard output where it listens and when it is ready, and ends when
standard input ends, that is, with the supervisor that started it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any
from uuid import uuid4

import attrs
import structlog
import zmq
from attrs import frozen
from sfwire import limits as L
from sfwire.channel import Context, ServerKeys, Socket, listen
from sfwire.codec import Buffer, decode_to_server, encode
from sfwire.errors import BadMessage

from .. import __version__
from ..config import ServerConfig, load_config
from .actions import Action, Note, Refuse, Replace, ToClient, ToWorker
from .broker import Broker
from .contents import Contents, Held
from .devices import Device
from .endpoint import journal_path
from .journal import Journal
from .leash import hold_to_parent, ignore_interrupts, take_children_along
from .lines import Lines
from .logs import log_to_file
from .order import InOrder
from .pool import Came, Died, Pool
from .pools import Pools
from .remote import RemotePool
from .worker import pack_config

CANNOT_LISTEN = 2
"""Exit code where the port is somebody else's."""
TICK_S = 0.1
BEAT_S = 1.0
"""The supervisor hears this often that the loop goes round."""
END_TIMEOUT_S = 10.0
MESSAGES_A_TURN = 32
"""From clients, before workers get their turn again."""
READING_A_TURN_S = 0.02
"""And no longer than this, however long they take to decode. ZeroMQ takes one from each client in turn."""

log = structlog.get_logger("front")


@frozen
class Setup:
    """All that a front process is told at its start."""

    config: ServerConfig
    keys: ServerKeys
    port: int
    worker_command: tuple[str, ...]
    devices: tuple[Device, ...] = ()
    """One for each worker that is started here."""
    worker_keys: ServerKeys | None = None
    workers_port: int = 0
    operator: str = ""
    """What who steers the queue must know."""

    def pack(self) -> bytes:
        body = {
            "config": json.loads(pack_config(self.config)),
            "keys": [self.keys.public, self.keys.secret, self.keys.client_public],
            "port": self.port,
            "worker_command": self.worker_command,
            "devices": [attrs.asdict(device) for device in self.devices],
            "worker_keys": self.worker_keys and attrs.astuple(self.worker_keys),
            "workers_port": self.workers_port,
            "operator": self.operator,
        }
        return json.dumps(body).encode() + b"\n"

    @staticmethod
    def unpack(line: bytes) -> Setup:
        body: dict[str, Any] = json.loads(line)
        config = load_config(flags=body["config"], environment={})
        devices = tuple(Device(**device) for device in body["devices"])
        worker_keys = body["worker_keys"] and ServerKeys(*body["worker_keys"])
        command, keys = tuple(body["worker_command"]), ServerKeys(*body["keys"])
        return Setup(config, keys, body["port"], command, devices, worker_keys, body["workers_port"], body["operator"])


class Front:
    """One run of the server, from the first worker's start to the last one's end."""

    def __init__(
        self, socket: Socket, lines: Lines, pool: Pools, broker: Broker, journal: Journal, workers: int
    ) -> None:
        self._socket = socket
        self._lines = lines
        self._pool = pool
        self._broker = broker
        self._journal = journal
        self._poller = zmq.Poller()
        self._poller.register(socket, zmq.POLLIN)
        self._poller.register(pool.wake_reader.fileno(), zmq.POLLIN)
        self._contents = Contents(pool.wake)
        self._without_clients = zmq.Poller()
        """For when they have said more than is held."""
        self._without_clients.register(pool.wake_reader.fileno(), zmq.POLLIN)
        self._stopping = threading.Event()
        self._in_order = InOrder(self._perform, self._blame)
        self._in_order.do(lambda: [Replace(index) for index in range(workers)])

    def stop(self) -> None:
        """Any thread may ask for the end."""
        self._stopping.set()
        self._pool.wake()

    def run(self) -> None:
        """Until `stop`: clients' messages, workers' messages, time."""
        said_ready, beat_at = False, 0.0
        while not self._stopping.is_set():
            poller = self._without_clients if self._contents.is_full else self._poller
            poller.poll(int(min(TICK_S, self._lines.pause_s) * 1000))
            self._read_held()
            self._read_clients()
            self._look_at_lines()
            self._read_workers()
            self._in_order.do(lambda: self._broker.tick(time.monotonic()))
            if self._broker.ready and not said_ready:
                said_ready = True
                tell(ready=True)
            if time.monotonic() - beat_at >= BEAT_S:
                beat_at = time.monotonic()
                tell(beat=True)
        self._in_order.do(lambda: self._broker.shut_down(time.monotonic()))
        self._contents.close()

    def _read_held(self) -> None:
        for held in self._contents.whole():
            now = time.monotonic()
            self._in_order.do(partial(self._hear_whole, held, now), partial(self._broker.on_mistake, held.peer, now))

    def _read_clients(self) -> None:
        enough_at = time.monotonic() + READING_A_TURN_S
        for _ in range(MESSAGES_A_TURN):
            message = None if self._contents.is_full else receive(self._socket, self._lines)
            if message is None:
                return
            (peer, parts), now = message, time.monotonic()
            self._in_order.do(partial(self._hear, peer, parts, now), partial(self._broker.on_mistake, peer, now))
            if now > enough_at:
                return

    def _look_at_lines(self) -> None:
        for peer, waiting_bytes in self._lines.look(time.monotonic()):
            self._in_order.do(partial(self._broker.on_waiting, peer, waiting_bytes))

    def _hear(self, peer: bytes, parts: list[Buffer], now: float) -> list[Action]:
        try:
            message, buffers = decode_to_server(parts)
        except BadMessage as error:
            return self._broker.on_bad_message(peer, error, now)
        if self._contents.holds(peer, message, buffers):
            return self._broker.on_sign_of_life(peer, now)
        return self._broker.on_client(peer, message, buffers, now)

    def _hear_whole(self, held: Held, now: float) -> list[Action]:
        return self._broker.on_client(held.peer, held.message, held.buffers, now, held.content)

    def _read_workers(self) -> None:
        for event in self._pool.events():
            now = time.monotonic()
            gone = partial(self._broker.on_worker_gone, event.worker)
            if isinstance(event, Came):
                self._broker.on_worker_came(event.worker, event.pid, event.device, now)
            elif isinstance(event, Died):
                self._in_order.do(partial(gone, event.why, now, event.was_ended))
            else:
                hear = partial(self._broker.on_worker, event.worker, event.message, event.buffers, now)
                self._in_order.do(hear, partial(gone, "the server failed over what it said", now))

    def _perform(self, action: Action) -> Sequence[Action]:
        match action:
            case ToClient():
                return self._send(action)
            case ToWorker():
                self._pool.send(action.worker, action.message, action.buffers)
            case Replace():
                return self._start(action.worker)
            case Refuse():
                self._pool.refuse(action.worker, action.why)
            case Note():
                self._journal.write(action.fact)
        return ()

    def _blame(self, action: Action) -> Sequence[Action]:
        """It could not be carried out: whose loss is that?"""
        now = time.monotonic()
        if isinstance(action, ToClient):
            return self._broker.on_client_gone(action.peer, now)
        if isinstance(action, Note):
            return ()
        return self._broker.on_worker_gone(action.worker, "the server could not talk to it", now)

    def _send(self, action: ToClient) -> Sequence[Action]:
        """A client that cannot take what credit allowed it, or is gone, is forgotten: nothing is dropped in silence."""
        parts: list[Buffer] = [action.peer, *encode(action.message, action.buffers)]
        try:
            self._socket.send_multipart(parts, zmq.NOBLOCK, copy=False)
        except (zmq.Again, zmq.ZMQError) as error:
            if error.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                raise
            self._lines.shut(action.peer)
            return self._broker.on_client_gone(action.peer, time.monotonic())
        self._lines.handed(action.peer, parts[1:])
        return ()

    def _start(self, worker: int) -> Sequence[Action]:
        try:
            started = self._pool.start(worker)
            if started is not None:
                self._broker.on_worker_started(worker, *started)
        except OSError as error:  # no process, no descriptor, no disk: it may be over in a while
            return self._broker.on_worker_gone(worker, f"it could not be started: {error.strerror}", time.monotonic())
        return ()


def receive(socket: Socket, lines: Lines) -> tuple[bytes, list[Buffer]] | None:
    """The next message and who sent it, or None where none is there.

    Pictures stay where ZeroMQ put them until the worker has them. Of a message that has more parts than any may have,
    one more is kept, so that it is refused, and its sender is shut.
    """
    try:
        frame = socket.recv(zmq.NOBLOCK, copy=False)
    except zmq.Again:
        return None
    peer, parts, sizes = frame.bytes, list[Buffer](), list[int]()
    while frame.more:
        frame = socket.recv(zmq.NOBLOCK, copy=False)
        sizes.append(len(frame))
        if len(parts) <= L.MAX_PARTS:
            parts.append(frame.buffer)
    lines.read(peer, int(frame.get(zmq.SRCFD)), sizes)
    if len(sizes) > L.MAX_PARTS:
        lines.shut(peer)
    return peer, parts


def serve(setup: Setup) -> None:
    """Run one front process until its standard input ends."""
    config = setup.config
    log_to_file(config, "server.log")
    boot = uuid4().hex
    context: Context = zmq.Context()
    pool = _pools(setup)
    journal = Journal(journal_path(config) if config.journal else None)
    try:
        with listen(context, setup.keys, config.host, setup.port) as (socket, endpoint):
            lines = Lines(context, socket)
            name, now = f"sfserver {__version__}", time.monotonic()
            here = len(setup.devices)
            broker = Broker(
                boot,
                name,
                here,
                config.beat_timeout_s,
                now,
                counts=lines.counts,
                places=len(pool.remote_places),
                operator=setup.operator,
                past=journal.past if journal.is_kept else None,
            )
            tell(endpoint=endpoint)
            log.info("listening", endpoint=endpoint, boot=boot, workers=here)
            front = Front(socket, lines, pool, broker, journal, here)
            threading.Thread(target=_wait_for_end, args=(front,), name="leash", daemon=True).start()
            front.run()
            pool.end_all()
            lines.close()
            time.sleep(0.05)  # libzmq's thread sends the last Failed messages before the socket closes
        log.info("stopped")
    finally:
        pool.close()
        journal.close()
        context.term()


def _pools(setup: Setup) -> Pools:
    pool = Pool(setup.worker_command, setup.config, setup.devices)
    if setup.worker_keys is None:
        return Pools(pool, None)
    host, places = setup.config.workers_from.removeprefix("tcp://").rsplit(":", 1)[0], range(pool.size, L.MAX_WORKERS)
    try:
        remote = RemotePool(setup.worker_keys, host, setup.workers_port, places, pool.wake)
    except zmq.ZMQError as error:
        pool.close()
        where = f"{host}:{setup.workers_port}"
        tell(failed=f"cannot listen for workers on {where} ({error.strerror}); choose another --workers-from")
        sys.exit(CANNOT_LISTEN)
    tell(workers=remote.endpoint)
    return Pools(pool, remote)


def tell(**facts: object) -> None:
    """One line of JSON to the supervisor. One that does not listen is not waited for: it was stopped, or is gone."""
    with suppress(OSError):
        os.write(sys.stdout.fileno(), json.dumps(facts).encode() + b"\n")


def _wait_for_end(front: Front) -> None:
    while sys.stdin.buffer.read(1):
        pass
    front.stop()
    time.sleep(END_TIMEOUT_S)
    os._exit(1)  # it hangs, and nobody is left who would see


def main() -> None:
    """The supervisor's child."""
    ignore_interrupts()
    hold_to_parent("SIGCONT")
    take_children_along()
    os.set_blocking(sys.stdout.fileno(), False)
    setup = Setup.unpack(sys.stdin.buffer.readline())
    try:
        serve(setup)
    except zmq.ZMQError as error:
        where = f"{setup.config.host}:{setup.port}"
        tell(failed=f"cannot listen on {where} ({error.strerror}); choose another --port or --host")
        sys.exit(CANNOT_LISTEN)


if __name__ == "__main__":
    main()
