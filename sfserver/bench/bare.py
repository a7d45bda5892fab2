"""The yardstick for the wire: a bare pyzmq pair under CURVE that moves the same bytes and does nothing else.

Run as a script it is the sending process: it prints its endpoint and sends COUNT frames of SIZE bytes to each peer
that asks.
"""

from __future__ import annotations

import subprocess
import sys
import time

import zmq

HEADER_BYTES = 100
"""About what a Frame message's header has."""


def send_frames(public: str, secret: str, size_bytes: int) -> None:
    """Bind a ROUTER and answer every request, a number, with so many frames; until standard input ends."""
    context = zmq.Context()
    socket = context.socket(zmq.ROUTER)
    socket.curve_server = True
    socket.curve_publickey, socket.curve_secretkey = public.encode(), secret.encode()
    socket.sndhwm = 0
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    print(port, flush=True)  # noqa: T201
    header, picture = bytes(HEADER_BYTES), bytes(size_bytes)
    while True:
        peer, count = socket.recv_multipart()
        if count == b"end":
            break
        for _ in range(int(count)):
            socket.send_multipart([peer, header, picture], copy=False)
    context.destroy(linger=0)


class BarePair:
    """The receiving end, with the sender in a process of its own."""

    def __init__(self, size_bytes: int) -> None:
        public, secret = (key.decode() for key in zmq.curve_keypair())
        command = [sys.executable, "-m", "sfserver.bench.bare", public, secret, str(size_bytes)]
        self._sender = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._sender.stdout is not None
        port = int(self._sender.stdout.readline())
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        ours, our_secret = zmq.curve_keypair()
        self._socket.curve_serverkey = public.encode()
        self._socket.curve_publickey, self._socket.curve_secretkey = ours, our_secret
        self._socket.rcvtimeo = 20_000
        self._socket.connect(f"tcp://127.0.0.1:{port}")

    def frames_per_second(self, count: int) -> float:
        """Receive `count` frames, timed from the first one's arrival."""
        self._socket.send(str(count).encode())
        self._socket.recv_multipart(copy=False)
        began = time.perf_counter()
        for _ in range(count - 1):
            self._socket.recv_multipart(copy=False)
        return (count - 1) / (time.perf_counter() - began)

    def close(self) -> None:
        self._socket.send(b"end")
        self._sender.wait(10)
        assert self._sender.stdout is not None
        self._sender.stdout.close()
        self._context.destroy(linger=0)


if __name__ == "__main__":
    send_frames(sys.argv[1], sys.argv[2], int(sys.argv[3]))
