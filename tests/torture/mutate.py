"""Messages that nobody should send: good ones with values swapped, bytes flipped, parts added, structures nested."""

from __future__ import annotations

import copy
import random
import struct
from typing import Any

import msgpack
from sfwire import limits as L
from sfwire import messages as m
from sfwire.codec import encode
from sfwire.errors import ErrorCode
from test_codec import ABSURD
from wire_examples import PICTURE, SIDE, request

NASTY_TEXTS = (
    "\x7f",
    "\x1b[2J",
    "\x85\u2028\u202e",
    "\ud7ff\U0010ffff",
    "../../etc/passwd",
    "%s%n{0}",
    "type",
    "a" * 64,
    "a" * 65,
    "é" * 81,
    "\n" * 2001,
)
NASTY_NUMBERS = (
    0,
    1,
    -1,
    255,
    1000,
    1001,
    4096,
    2**31,
    2**63 - 1,
    2**63,
    2**64 - 1,
    -(2**63),
    0.5,
    1e308,
    float("inf"),
)
ABSURD_VALUES: tuple[Any, ...] = (
    *ABSURD,
    *NASTY_TEXTS,
    *NASTY_NUMBERS,
    [[[[[]]]]],
    {"\x7f": 1},
    [0] * 200,
    b"\x00" * 99,
)

_GENERATE, _ = request()
TO_SERVER: tuple[tuple[m.Message, int], ...] = (
    (_GENERATE, 2),
    (m.Generate("r2", "fake", SIDE, SIDE, 9, (m.Keyframe(4, 0, SIDE, SIDE),), 7, "a cat", "", {"delay_ms": 1}, 3), 1),
    (m.Hello(L.PROTOCOL, "torture", "session"), 0),
    (m.Credit("r1", 16), 0),
    (m.Cancel("r1"), 0),
    (m.Ping(7), 0),
    (m.Status(), 0),
    (m.Bye(), 0),
)
_ENGINE = m.EngineInfo("fake", "Fake", "Counts", "1", "none", False, False, True, parameters=(
    m.Parameter("delay_ms", "float", 0.0, "Time", 0.0, 60_000.0),
    m.Parameter("way", "choice", "a", "Way", choices=("a", "b")),
))  # fmt: skip
TO_CLIENT: tuple[tuple[m.Message, int], ...] = (
    (m.Frame("r1", 1, SIDE, SIDE, "raw", 0.5), 1),
    (m.Welcome(L.PROTOCOL, "boot", "server", (_ENGINE,), "fake", "the only one"), 0),
    (m.Accepted("r1", 1), 0),
    (m.Progress("r1", "counting", 1, 9), 0),
    (m.Done("r1", "finished", 7, 1, "fake", "1"), 0),
    (m.Failed("r1", ErrorCode.WORKER_DIED, "it died", "", True), 0),
    (m.Pong(7, "boot", 1, 0, ("idle", "busy"), (m.LiveRequest("r1", 3),)), 0),
    (m.Report("boot", 1.5, 1, 2, (m.JobStatus("r1", "fake", "running", 1, 0),), (m.WorkerStatus(0, 9, "busy", 0),)), 0),
)
_PACKED = {
    to_server: [(bytes(encode(message)[0]), buffers) for message, buffers in kinds]
    for to_server, kinds in ((True, TO_SERVER), (False, TO_CLIENT))
}


def corpus(to_server: bool) -> list[bytes]:
    """The headers that mutation begins with."""
    return [header for header, _ in _PACKED[to_server]]


def mutated(rng: random.Random, to_server: bool = True) -> list[bytes]:
    """The parts of one message; some are good ones, since what follows from them has to be met as well."""
    if to_server and rng.random() < 0.2:
        return _good(rng)
    header, buffers = rng.choice(_PACKED[to_server])
    chance = rng.random()
    if chance < 0.5:
        header = with_other_values(rng, header)
    elif chance < 0.9:
        header = _with_other_bytes(rng, header, to_server)
    elif chance < 0.93:
        header = rng.choice([b"\x91", b"\x81\xa4type", b"\x81\xa1a"]) * rng.randrange(1, 2000)
    elif chance < 0.95:
        header = rng.randbytes(rng.randrange(200))
    return [header, *_pictures(rng, buffers)]


def _good(rng: random.Random) -> list[bytes]:
    """A well-formed message to the server, of few ids and sessions, so that they meet."""
    id, keyframes = f"r{rng.randrange(6)}", (m.Keyframe(0, 0, SIDE, SIDE),)
    ask = m.Generate(id, "fake", SIDE, SIDE, rng.randrange(2, 12), keyframes, 1, resume_from=rng.choice([0, 0, 3]))
    message: m.ToServer = rng.choice(
        [
            ask,
            ask,
            m.Credit(id, rng.randrange(80)),
            m.Cancel(id),
            m.Hello(rng.choice([L.OLDEST_PROTOCOL, L.PROTOCOL]), "torture", f"session{rng.randrange(3)}"),
            m.Ping(rng.randrange(9)),
            m.Bye(),
        ]
    )
    return [bytes(encode(message)[0]), *[PICTURE] * isinstance(message, m.Generate)]


def _pictures(rng: random.Random, usual: int) -> list[bytes]:
    chance = rng.random()
    if chance < 0.8:
        return [PICTURE] * usual
    if chance < 0.9:
        return [PICTURE] * rng.randrange(12)
    return [bytes(rng.choice([0, 1, 767, 769, 5000]))] * rng.randrange(3)


def with_other_values(rng: random.Random, header: bytes) -> bytes:
    """The same map with one to three values, keys or elements swapped. Raises what msgpack does where it is none."""
    body: dict[Any, Any] = msgpack.unpackb(header, strict_map_key=False)
    for _ in range(rng.randint(1, 3)):
        place: Any = body
        while isinstance(place, dict | list) and place and rng.random() < 0.5:  # somewhere further in
            inner = [v for v in (place.values() if isinstance(place, dict) else place) if isinstance(v, dict | list)]
            if not inner:
                break
            place = rng.choice(inner)
        value = copy.deepcopy(rng.choice(ABSURD_VALUES))  # what is changed next may lie inside it
        if isinstance(place, dict):
            chance = rng.random()
            if chance < 0.15:
                place[rng.choice(NASTY_TEXTS)] = value
            elif chance < 0.3 and place:
                del place[rng.choice(list(place))]
            elif place:
                place[rng.choice(list(place))] = value
        elif isinstance(place, list):
            place[rng.randrange(len(place) + 1) :] = [value] * rng.choice([0, 1, 1, 40])
    return msgpack.packb(body, unicode_errors="surrogatepass")


def _with_other_bytes(rng: random.Random, header: bytes, to_server: bool) -> bytes:
    data = bytearray(header)
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(6):
            case 0:
                data[at : at + 1] = rng.randbytes(1)
            case 1:
                del data[at : at + rng.randint(1, 5)]
            case 2:
                data[at:at] = rng.randbytes(rng.randint(1, 5))
            case 3:
                data[at:at] = data[at : at + rng.randint(1, 30)]
            case 4:  # a length that is not there
                data[at : at + 5] = rng.choice([b"\xdb", b"\xdd", b"\xdf", b"\xc6"]) + struct.pack(
                    ">I", rng.choice([0, 99, 2**32 - 1])
                )
            case _:  # the end of another message
                other = rng.choice(_PACKED[to_server])[0]
                data[at:] = other[rng.randrange(len(other)) :]
    return bytes(data)
