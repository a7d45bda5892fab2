"""Mutated messages over the wire to a live server, while another client's streams go on beside them."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator

import zmq
from servers import request
from sfwire import connection as connections
from sfwire import limits as L
from sfwire import messages as m
from sfwire.channel import Context, Socket, connect
from sfwire.codec import decode_to_client, encode
from sfwire.errors import BadMessage

from .figures import Plan
from .frames import follow
from .house import House
from .mutate import mutated

A_TURN = 1000
ANSWER_WITHIN_MS = 60_000


def run(plan: Plan) -> Iterator[None]:
    """Each case is a turn of a thousand messages on a connection of its own."""
    house = House(plan.folder / "wire", {"workers": 2})
    house.start()
    house.wait_ready()
    front = house.find("front")
    streaming = threading.Event()
    bystander = threading.Thread(target=_stream, args=(plan, house, streaming), daemon=True)
    bystander.start()
    context: Context = zmq.Context()
    try:
        for number, rng in plan.cases():
            _turn(plan, house, context, rng, number)
            now = house.find("front")
            if front is not None and (now is None or now.pid != front.pid):
                plan.figures.find("broken", f"turn {number}: the front ended")
                front = now
            yield
    finally:
        streaming.set()
        bystander.join(180)
        context.destroy(linger=0)
        house.stop(plan.figures, "at the end")
        house.remove()


def _turn(plan: Plan, house: House, context: Context, rng: random.Random, number: int) -> None:
    socket = connect(context, connections.read(house.connection_file))
    socket.send_multipart(encode(m.Hello(L.PROTOCOL, "torture", f"session{number}")))
    for count in range(A_TURN):
        try:
            socket.send_multipart(mutated(rng), zmq.NOBLOCK)
        except zmq.Again:  # it has enough to do
            if not _answered(plan, socket, count):
                break
        else:
            plan.figures.counts["messages"] += 1
        while socket.poll(0):
            _read(plan, socket)
        if count % 100 == 99 and not _answered(plan, socket, count):
            break
    socket.send_multipart(encode(m.Bye()))
    socket.close(linger=1000)


def _answered(plan: Plan, socket: Socket, nonce: int) -> bool:
    """Whether a ping on the same connection is answered, after all that came before it."""
    socket.send_multipart(encode(m.Ping(nonce)))
    while socket.poll(ANSWER_WITHIN_MS):
        said = _read(plan, socket)
        if isinstance(said, m.Pong) and said.nonce == nonce:
            return True
    plan.figures.find("broken", f"no answer to a ping within {ANSWER_WITHIN_MS // 1000} s")
    return False


def _read(plan: Plan, socket: Socket) -> m.ToClient | None:
    parts = socket.recv_multipart()
    try:
        return decode_to_client(parts)[0]
    except BadMessage as error:
        plan.figures.find("exceptions", f"the server said something that is no message: {error}")
        return None


def _stream(plan: Plan, house: House, enough: threading.Event) -> None:
    """One clip after the other, none of which may be interrupted."""
    number = 0
    with house.client(name="bystander") as client:
        while not enough.is_set():
            number += 1
            wanted = request(40, seed=number, delay_ms=1.0)
            with client.submit(wanted) as stream:
                followed = follow(stream, wanted)
            followed.count(plan.figures, f"the bystander's clip {number}")
            if followed.interruptions:
                plan.figures.find("broken", f"the bystander was interrupted: {followed.interruptions}")
