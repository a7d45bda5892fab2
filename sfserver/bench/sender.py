"""The wire's server end with nothing behind it: one client, one request at a time, the same picture for every frame.

Run as a script it prints its connection as JSON and serves until the client says Bye.
"""

from __future__ import annotations

import json

import attrs
import zmq
from sfwire import limits as L
from sfwire import messages as m
from sfwire.channel import ServerKeys, Socket, listen
from sfwire.codec import decode_to_server, encode
from sfwire.connection import Connection

from .blank import INFO

WELCOME = m.Welcome(L.PROTOCOL, "sender", "sender", (INFO,), INFO.id, "nothing else is measured")


def main() -> None:
    keys, client_secret = ServerKeys.generate()
    with listen(zmq.Context(), keys, "127.0.0.1", 0) as (socket, endpoint):
        connection = Connection(endpoint, keys.public, keys.client_public, client_secret)
        print(json.dumps(attrs.asdict(connection)), flush=True)  # noqa: T201
        _serve(socket)


def _serve(socket: Socket) -> None:
    request, peer, picture, sent, credit = None, b"", b"", 0, 0
    while True:
        more = request is not None and sent < credit
        if socket.poll(0 if more else 1000):
            peer, *parts = socket.recv_multipart()
            message, _ = decode_to_server(parts)
            match message:
                case m.Hello():
                    socket.send_multipart([peer, *encode(WELCOME)])
                case m.Generate():
                    request, sent, credit = message, 0, message.credit
                    picture = bytes(message.width * message.height * L.CHANNELS)
                    socket.send_multipart([peer, *encode(m.Accepted(message.id, 0))])
                case m.Credit():
                    credit = max(credit, message.total)
                case m.Ping():
                    live = (m.LiveRequest(request.id, sent),) if request else ()
                    socket.send_multipart([peer, *encode(m.Pong(message.nonce, "sender", 1, 0, ("busy",), live))])
                case m.Bye():
                    return
                case _:
                    pass
        elif more and request is not None:
            sent += 1
            frame = m.Frame(request.id, sent, request.width, request.height, "raw")
            socket.send_multipart([peer, *encode(frame, [picture])], copy=False)
            if sent == request.num_frames - 2:
                done = m.Done(request.id, "finished", sent, request.seed, request.engine, INFO.version)
                socket.send_multipart([peer, *encode(done)])
                request = None


if __name__ == "__main__":
    main()
