"""A TCP proxy on loopback that spoils what passes through it, as networks, sleeping laptops and middleboxes do."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from typing import Literal

from attrs import define, evolve, field, frozen
from sfwire import connection as connections
from sfwire.connection import Connection

Kind = Literal["drop", "flip", "stall", "reset", "close", "half-close", "throttle", "reorder", "blackhole", "refuse"]
KINDS: tuple[Kind, ...] = Kind.__args__  # type: ignore[attr-defined]
CHUNK_BYTES = 16 * 1024


@frozen
class Fault:
    """What happens to the next bytes in one direction, and for how long.

    drop: they vanish. flip: one bit is another. stall: nothing passes for `seconds`. reset, close, half-close: the
    connection ends, in that way. throttle: `seconds` of 20 kB/s. reorder: the client's side is reset, and what it had
    sent reaches the server after `seconds`, when a newer connection has spoken. blackhole: the connection stays, and
    nothing passes any more. refuse: it is reset, and so is every new one for `seconds`.
    """

    kind: Kind
    to_server: bool
    seconds: float = 0.0


class Proxy:
    """Forwards to wherever `upstream` says. Runs in a thread of its own until `close`."""

    def __init__(self, upstream: Callable[[], tuple[str, int]]) -> None:
        self.struck = 0
        """Faults that met bytes."""
        self._upstream = upstream
        self._armed: Fault | None = None
        self._refusing_until = 0.0
        started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run(started)), name="proxy", daemon=True)
        self._thread.start()
        started.wait()

    def arm(self, fault: Fault) -> None:
        """The next bytes that pass in its direction meet the fault."""
        self._armed = fault

    def through(self, connection: Connection) -> Connection:
        """The same server, reached through here."""
        return evolve(connection, endpoint=f"tcp://127.0.0.1:{self.port}")

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._enough.set)
        self._thread.join(10)

    async def _run(self, started: threading.Event) -> None:
        self._loop, self._enough = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = int(server.sockets[0].getsockname()[1])
        started.set()
        await self._enough.wait()
        server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = _End(reader, writer)
        if self._loop.time() < self._refusing_until:
            client.reset()
            return
        try:
            server = _End(*await asyncio.open_connection(*self._upstream()))
        except OSError:  # no server at the moment
            client.reset()
            return
        pair = _Pair(client, server)
        with contextlib.suppress(asyncio.CancelledError):  # by `close`: everything ends here
            try:
                await asyncio.gather(self._pump(pair, to_server=True), self._pump(pair, to_server=False))
            finally:
                client.close()
                server.close()

    async def _pump(self, pair: _Pair, to_server: bool) -> None:
        source, sink = (pair.client, pair.server) if to_server else (pair.server, pair.client)
        with contextlib.suppress(OSError):
            while data := await source.reader.read(CHUNK_BYTES):
                if pair.silent:
                    continue
                fault = self._armed
                if fault is not None and fault.to_server == to_server:
                    self._armed = None
                    self.struck += 1
                    data = await self._spoil(fault, pair, sink, data)
                sink.writer.write(data)
                await sink.writer.drain()
        with contextlib.suppress(OSError):
            if sink.writer.can_write_eof() and not sink.writer.is_closing():
                sink.writer.write_eof()

    async def _spoil(self, fault: Fault, pair: _Pair, sink: _End, data: bytes) -> bytes:
        """What is to be forwarded in place of `data`."""
        match fault.kind:
            case "drop":
                return b""
            case "flip":
                middle = len(data) // 2
                return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
            case "stall":
                await asyncio.sleep(fault.seconds)
                return data
            case "throttle":
                for begin in range(0, min(len(data), int(20_000 * fault.seconds)), 1000):
                    sink.writer.write(data[begin : begin + 1000])
                    await asyncio.sleep(0.05)
                return data[int(20_000 * fault.seconds) // 1000 * 1000 :]
            case "half-close":
                sink.writer.write(data)
                sink.writer.write_eof()
                raise ConnectionAbortedError
            case "blackhole":
                pair.silent = True
                return b""
            case "reorder":
                pair.client.reset()
                await asyncio.sleep(fault.seconds)
                with contextlib.suppress(RuntimeError):  # the other direction has closed its half by now
                    pair.server.writer.write(data)
                await pair.server.writer.drain()
                raise ConnectionAbortedError
            case "refuse":
                self._refusing_until = self._loop.time() + fault.seconds
                pair.reset()
            case "reset":
                pair.reset()
            case "close":
                pair.client.close()
                pair.server.close()
        raise ConnectionAbortedError


@define
class _End:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """End it with RST in place of FIN."""
        ours: socket.socket | None = self.writer.get_extra_info("socket")
        if ours is not None and ours.fileno() >= 0:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@define
class _Pair:
    client: _End
    server: _End
    silent: bool = field(default=False)

    def reset(self) -> None:
        self.client.reset()
        self.server.reset()


def server_of(path_reader: Callable[[], Connection]) -> Callable[[], tuple[str, int]]:
    """Where the server of a connection file listens now; raises ConnectionError where there is none."""

    def where() -> tuple[str, int]:
        try:
            host, port = path_reader().endpoint.removeprefix("tcp://").rsplit(":", 1)
        except connections.NoConnectionFile as error:
            raise ConnectionRefusedError(str(error)) from None
        return host, int(port)

    return where
