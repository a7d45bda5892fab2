"""One user of the soak, in a process of its own: `python -m tests.torture.soak_client CONNECTION_FILE SEED`.

A line of JSON for each clip: the figures it adds. Ends when its standard input does. A process, because libzmq ends the
one it runs in where a socket is being closed, with half a message of several parts out, at the moment in which its
connection breaks (session_base.cpp, `clean_pipes`): a user who is gone is replaced and counted, and the server goes on.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from pathlib import Path

import zmq
from attrs import asdict
from servers import request
from sfwire import connection as connections
from sfwire import limits as L
from sfwire import messages as m
from sfwire.channel import Context, connect
from sfwire.client import Client
from sfwire.codec import encode
from sfwire.errors import WireError

from .figures import Figures
from .frames import Followed, follow
from .house import GIVE_UP_AFTER_S
from .mutate import mutated


def use(connection_file: Path, rng: random.Random, enough: threading.Event) -> None:
    """Clips, one after the other, by clients that come and go; between two of them, absurd messages."""
    context: Context = zmq.Context()
    while not enough.is_set():
        try:
            options = {"give_up_after_s": GIVE_UP_AFTER_S, "window": rng.choice([2, 8, 16])}
            with Client(connection_file, name="soak", **options) as client:  # type: ignore[arg-type]
                for _ in range(rng.randrange(1, 30)):
                    case, followed = _something(client, rng)
                    added = Figures("soak", 0, 0)
                    followed.count(added, case)
                    _say(added)
                    if enough.is_set():
                        break
            _absurd(connection_file, context, rng)
        except WireError as error:
            added = Figures("soak", 0, 0)
            added.find("broken", f"soak: {error}")
            _say(added)
            time.sleep(1.0)
    context.destroy(linger=0)


def _something(client: Client, rng: random.Random) -> tuple[str, Followed]:
    """One clip: taken whole, cancelled somewhere, or read slowly."""
    frames, way = rng.randrange(3, 60), rng.choice(["whole", "whole", "cancelled", "slow"])
    wanted = request(frames, seed=rng.randrange(10**6), delay_ms=rng.choice([0.0, 1.0, 5.0]))
    at = rng.randrange(1, frames)
    with client.submit(wanted) as stream:

        def on_picture(count: int) -> None:
            if way == "cancelled" and count == at:
                stream.cancel()

        followed = follow(stream, wanted, on_picture, pause_s=0.01 if way == "slow" else 0.0)
    followed.cancelled = way == "cancelled"
    return f"{way} clip of {frames}", followed


def _absurd(connection_file: Path, context: Context, rng: random.Random) -> None:
    socket = connect(context, connections.read(connection_file))
    socket.send_multipart(encode(m.Hello(L.PROTOCOL, "absurd", f"absurd{rng.randrange(10**9)}")))
    for _ in range(rng.randrange(20)):
        socket.send_multipart(mutated(rng))
    socket.close(linger=200)


def _say(added: Figures) -> None:
    sys.stdout.write(json.dumps(asdict(added)) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    enough = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), enough.set()), daemon=True).start()
    use(Path(sys.argv[1]), random.Random(sys.argv[2]), enough)
