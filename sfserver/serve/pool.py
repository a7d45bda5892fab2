"""Worker processes as the front sees them: messages in, messages out, and word of every death.

Two threads for each worker, one reading its pipe and one writing, so that the front never waits for a process that
hangs. What arrives lands in one queue, and a byte in a socket pair wakes the front's poller.
"""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import BinaryIO, cast

import structlog
from attrs import frozen
from sfwire import messages as m
from sfwire.codec import Buffer, decode_to_client, encode
from sfwire.errors import BadMessage

from ..config import ServerConfig
from . import link
from .devices import Device, unpinned
from .ends import was_ended
from .private import private_file, private_folder
from .worker import pack_config

_KEEP_LOG_BYTES = 1024 * 1024
_EXIT_S = 5.0
"""Between the end of a worker's pipe and its own."""

log = structlog.get_logger("front")


@frozen
class Came:
    """Somebody dialled in and has this place now."""

    worker: int
    pid: int
    device: str


@frozen(eq=False)
class Said:
    worker: int
    message: m.ToClient
    buffers: list[Buffer]


@frozen
class Died:
    worker: int
    why: str
    was_ended: bool = False
    """By a signal from outside."""


class Pool:
    """A place for each of `devices`, each with a process started by `command`."""

    def __init__(self, command: Sequence[str], config: ServerConfig, devices: Sequence[Device] | None = None) -> None:
        """Without `devices`: `config.workers` places that share whatever there is."""
        self._command = list(command)
        self._config = config
        self._devices = unpinned(config.workers) if devices is None else tuple(devices)
        self._events: deque[tuple[_Process, Said | Died]] = deque()
        self._places: list[_Process | None] = [None] * len(self._devices)
        self.wake_reader, self._wake_writer = socket.socketpair()
        self.wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)

    @property
    def size(self) -> int:
        return len(self._places)

    def start(self, index: int) -> tuple[int, str]:
        """A new process in this place, after killing the old one; its pid and device. Raises OSError."""
        self.kill(index)
        process = self._places[index] = _Process(index, self._command, self._devices[index], self._config, self._put)
        try:
            process.begin()
        except RuntimeError:  # what Python says where the system gives no more threads
            self.kill(index)
            raise OSError(errno.EAGAIN, "no thread can be started") from None
        return process.pid, self._devices[index].name

    def send(self, index: int, message: m.ToServer, buffers: Sequence[Buffer]) -> None:
        """Queue a message for a worker; never blocks."""
        process = self._places[index]
        if process is not None:
            process.send(encode(message, buffers))

    def events(self) -> Iterator[Said | Died]:
        """What has happened since this was last asked.

        One at a time, since a process may be replaced over what it said, and then nobody wants its last words.
        """
        with suppress(BlockingIOError):
            self.wake_reader.recv(4096)
        while self._events:
            process, event = self._events.popleft()
            if self._places[event.worker] is process:
                yield event

    def _put(self, process: _Process, event: Said | Died) -> None:
        self._events.append((process, event))
        self.wake()

    def kill(self, index: int) -> None:
        process, self._places[index] = self._places[index], None
        if process is not None:
            process.kill()

    def wake(self) -> None:
        """Make the front's poller return. Any thread may."""
        with suppress(OSError):  # full: it is awake; closed: it is gone
            self._wake_writer.send(b"\0")

    def close(self) -> None:
        for index in range(len(self._places)):
            self.kill(index)
        self.wake_reader.close()
        self._wake_writer.close()


class _Process:
    """One worker process and the two threads that keep its pipes moving."""

    def __init__(
        self,
        index: int,
        command: Sequence[str],
        device: Device,
        config: ServerConfig,
        put: Callable[[_Process, Said | Died], None],
    ) -> None:
        self._index = index
        self._config = device.settled(config)
        self._log = config.log_dir / f"worker-{index}.log"
        self._put = put
        self._outbox: SimpleQueue[list[Buffer] | None] = SimpleQueue()
        private_folder(self._log.parent)
        private_file(self._log)
        fresh = not self._log.exists() or self._log.stat().st_size > _KEEP_LOG_BYTES
        with self._log.open("wb" if fresh else "ab") as stderr:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=device.environment(os.environ),
            )
        self._stdin = cast(BinaryIO, self._process.stdin)
        self._stdout = cast(BinaryIO, self._process.stdout)
        link.widen(self._stdin)
        link.widen(self._stdout)

    @property
    def pid(self) -> int:
        return self._process.pid

    def begin(self) -> None:
        self._outbox.put([pack_config(self._config)])
        threading.Thread(target=self._read, name=f"from worker {self._index}", daemon=True).start()
        threading.Thread(target=self._write, name=f"to worker {self._index}", daemon=True).start()

    def send(self, parts: list[Buffer]) -> None:
        self._outbox.put(parts)

    def kill(self) -> None:
        """End it now. A worker has nothing to save."""
        self._process.kill()
        self._outbox.put(None)

    def _read(self) -> None:
        why = ""
        try:
            while True:
                message, buffers = decode_to_client(list(link.read(self._stdout)))
                self._put(self, Said(self._index, message, buffers))
        except EOFError:
            pass
        except BadMessage as error:
            why = f"it said something that is no message: {error}"
        except Exception:  # the boundary of this thread: a worker that nobody hears would never be missed
            log.exception("mistake", worker=self._index)
            why = "the server failed over what it said"
        code = self._ended(at_once=bool(why))
        self._outbox.put(None)
        self._put(self, Died(self._index, why or self._last_words(code), not why and was_ended(code)))

    def _ended(self, at_once: bool) -> int:
        """The exit code of a process that is as good as gone; one that only closed its pipe is ended."""
        with suppress(OSError):
            self._stdout.close()
        if not at_once:
            with suppress(subprocess.TimeoutExpired):
                return self._process.wait(_EXIT_S)
        self._process.kill()
        return self._process.wait()

    def _write(self) -> None:
        try:
            while (parts := self._outbox.get()) is not None:
                link.write(self._stdin, parts)
        except (OSError, ValueError):
            pass  # its death is the reading thread's to tell
        except Exception:  # the boundary of this thread: a worker that hears nothing is of no use
            log.exception("mistake", worker=self._index)
            self._process.kill()
        with suppress(OSError):
            self._stdin.close()

    def _last_words(self, code: int) -> str:
        """How it ended, and the last line of its log."""
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        with suppress(OSError), self._log.open("rb") as file:
            file.seek(max(0, self._log.stat().st_size - 2000))
            lines = file.read().decode("utf-8", "replace").strip().splitlines()
            if lines and code > 0:
                return f"{how}: {lines[-1][:200]}"
        return how
