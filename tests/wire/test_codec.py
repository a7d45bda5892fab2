"""Bytes become objects in one function, and it raises one exception."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import attrs
import hypothesis.strategies as st
import msgpack
import pytest
from hypothesis import given
from sfwire import limits as L
from sfwire import messages as m
from sfwire.codec import decode_to_client, decode_to_server, encode
from sfwire.errors import BadMessage, ErrorCode
from wire_examples import PICTURE, SIDE, frames, request, to_client, to_server


@given(to_server)
def test_what_a_client_says_arrives_as_it_was_said(case: tuple[m.ToServer, list[bytes]]) -> None:
    message, buffers = case
    assert decode_to_server(encode(message, buffers)) == (message, buffers)


@given(to_client)
def test_what_the_server_says_arrives_as_it_was_said(case: tuple[m.ToClient, list[bytes]]) -> None:
    message, buffers = case
    assert decode_to_client(encode(message, buffers)) == (message, buffers)


def body() -> dict[str, Any]:
    message, buffers = request()
    return msgpack.unpackb(bytes(encode(message, buffers)[0]))


def changed(change: Callable[[dict[str, Any]], object]) -> list[bytes]:
    header = body()
    change(header)
    return [msgpack.packb(header), PICTURE, PICTURE]


REFUSED = {
    "an unknown field": (lambda b: b.update(path="/etc/passwd"), ""),
    "an unknown field further in": (lambda b: b["keyframes"][1].update(path="x"), "keyframes[1]"),
    "an unknown type": (lambda b: b.update(type="shutdown"), "type"),
    "a type that only the server says": (lambda b: b.update(type="done"), "type"),
    "a type that is no text": (lambda b: b.update(type=["generate"]), "type"),
    "a missing field": (lambda b: b.pop("seed"), "seed"),
    "a missing field further in": (lambda b: b["keyframes"][0].pop("at"), "keyframes[0].at"),
    "text for a number": (lambda b: b.update(width="16"), "width"),
    "true for a number": (lambda b: b.update(width=True), "width"),
    "a fraction for a whole number": (lambda b: b.update(seed=1.0), "seed"),
    "bytes for text": (lambda b: b.update(prompt=b"x"), ""),
    "text for an array": (lambda b: b.update(keyframes="abc"), "keyframes"),
    "a map for an array": (lambda b: b.update(keyframes={}), "keyframes"),
    "a number in an array of maps": (lambda b: b.update(keyframes=[1, 2]), "keyframes[0]"),
    "no keyframe": (lambda b: b.update(keyframes=[]), "keyframes"),
    "25 keyframes": (lambda b: b.update(keyframes=b["keyframes"][:1] * 25), "keyframes"),
    "17 prompts": (lambda b: b.update(prompts=[{"at": i, "text": ""} for i in range(17)]), "prompts"),
    "two prompts from one frame on": (lambda b: b.update(prompts=[{"at": 4, "text": ""}] * 2), "prompts"),
    "prompts in disorder": (lambda b: b.update(prompts=[{"at": i, "text": ""} for i in (5, 4)]), "prompts"),
    "a prompt that is no pair": (lambda b: b.update(prompts=["a cat"]), "prompts[0]"),
    "a later prompt over the limit": (lambda b: b.update(prompts=[{"at": 1, "text": "x" * 4001}]), "prompts[0].text"),
    "a negative position": (lambda b: b["keyframes"][1].update(at=-1), "keyframes[1].at"),
    "a seed of 64 bits": (lambda b: b.update(seed=2**63), "seed"),
    "a picture 1 pixel wide": (lambda b: b.update(width=1), "width"),
    "a picture 20,000 pixels wide": (lambda b: b.update(width=20_000), "width"),
    "an encoding that is none": (lambda b: b.update(encoding="pickle"), "encoding"),
    "an encoding that cannot be hashed": (lambda b: b.update(encoding=["raw"]), "encoding"),
    "a prompt over the limit": (lambda b: b.update(prompt="x" * (L.MAX_PROMPT_CHARS + 1)), "prompt"),
    "control characters": (lambda b: b.update(prompt="\x1b[2J"), "prompt"),
    "an id with a path in it": (lambda b: b.update(id="../x"), "id"),
    "an id over the limit": (lambda b: b.update(id="x" * 65), "id"),
    "a parameter that is not a number": (lambda b: b.update(params={"a": float("nan")}), "params"),
    "a parameter that is an array": (lambda b: b.update(params={"a": [1]}), "params[a]"),
    "33 parameters": (lambda b: b.update(params={f"p{i}": 1 for i in range(33)}), "params"),
    "too much credit": (lambda b: b.update(credit=65), "credit"),
    "a buffer that is not there": (lambda b: b["keyframes"][1].update(buffer=5), "buffers"),
    "a buffer that nobody uses": (lambda b: b["keyframes"][1].update(buffer=0), "buffers"),
    "two channels": (lambda b: b["keyframes"][0].update(channels=2), "keyframes[0].channels"),
    "channels that are no number": (lambda b: b["keyframes"][0].update(channels="4"), "keyframes[0].channels"),
    "24 bits a sample": (lambda b: b["keyframes"][0].update(depth=24), "keyframes[0].depth"),
    "alpha that its buffer has not": (lambda b: b["keyframes"][1].update(channels=4), "keyframes[1].buffer"),
    "a depth that its buffer has not": (lambda b: b["keyframes"][1].update(depth=16), "keyframes[1].buffer"),
    "a size that its buffer has not": (lambda b: b["keyframes"][0].update(width=32), "keyframes[0].buffer"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_and_the_field_is_named(name: str) -> None:
    change, path = REFUSED[name]
    with pytest.raises(BadMessage) as refused:
        decode_to_server(changed(change))
    assert refused.value.field == path


BEYOND = {
    "a seed of 64 bits": {"seed": 2**63},
    "a picture 1 pixel wide": {"width": 1},
    "an id with a path in it": {"id": "../x"},
    "a prompt without end": {"prompt": "x" * (L.MAX_PROMPT_CHARS + 1)},
    "codes for a terminal": {"prompt": "\x1b[2J"},
    "a parameter that is no number": {"params": {"a": float("nan")}},
    "more credit than there is": {"credit": 65},
}


@pytest.mark.parametrize("case", BEYOND)
def test_a_message_cannot_be_made_and_the_control_without_its_validators_it_can(case: str) -> None:
    good, _ = request()
    assert isinstance(good, m.Generate)
    with pytest.raises(m.Refused):
        attrs.evolve(good, **BEYOND[case])
    with attrs.validators.disabled():
        made = attrs.evolve(good, **BEYOND[case])
    assert all(
        getattr(made, name) == value or value != value for name, value in BEYOND[case].items() if name != "params"
    )


def test_the_message_that_all_those_were_made_from_is_good() -> None:
    message, buffers = decode_to_server(changed(lambda b: None))
    assert isinstance(message, m.Generate)
    assert buffers == [PICTURE, PICTURE]


def test_a_refusal_names_the_request_if_it_can_be_read() -> None:
    with pytest.raises(BadMessage) as refused:
        decode_to_server(changed(lambda b: b.update(width=0)))
    assert refused.value.id == "r1"
    with pytest.raises(BadMessage) as refused:
        decode_to_server(changed(lambda b: b.update(id="no id", width=0)))
    assert refused.value.id is None


def test_a_key_that_stands_twice_is_refused() -> None:
    twice = b"\x82" + msgpack.packb("type") + msgpack.packb("status") + msgpack.packb("type") + msgpack.packb("bye")
    with pytest.raises(BadMessage, match="twice"):
        decode_to_server([twice])


@pytest.mark.parametrize(
    "parts",
    [[], [b""], [b"\xc1"], [b"\x93\x01\x02"], [msgpack.packb(7)], [b"\xdf\xff\xff\xff\xff"], [b"\x91" * 2000]],
    ids=["nothing", "empty", "not msgpack", "truncated", "a number", "a map of 4 billion", "nested 2,000 deep"],
)
def test_bytes_that_are_no_message_are_refused(parts: list[bytes]) -> None:
    with pytest.raises(BadMessage):
        decode_to_server(parts)


def test_size_and_count_are_checked_before_anything_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfwire.codec._unpack", lambda header, most: pytest.fail("it was decoded"))
    for parts in ([bytes(L.MAX_HEADER_BYTES + 1)], [b"\x80"] * (L.MAX_PARTS + 1)):
        with pytest.raises(BadMessage):
            decode_to_server(parts)
    with pytest.raises(pytest.fail.Exception):  # the control: a header of a good size does get there
        decode_to_server([b"\x80"])


NESTED = b"\xdd\x00\x01\xf4\x00" * 1000
"""Arrays of 128,000, each the first element of the one before: 1 MB set aside for every five bytes."""


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (NESTED + b"\xc0" * 128_000, "max_array_len"),
        (b"\xdc\x00\x81" + b"\xc0" * 129, "max_array_len"),
        (b"\xde\x00\x41" + b"".join(b"\xa2" + b"%02d" % i + b"\xc0" for i in range(65)), "max_map_len"),
        (b"\x81\xa1a" + b"\xdc\x00\x80" + b"\x90" * 128, "too many arrays and maps"),
        (b"\x81\xa1a" + b"\xdc\x00\x80" + b"\x80" * 128, "too many arrays and maps"),
    ],
    ids=["nested claims", "a long array", "a long map", "many arrays", "many maps"],
)
def test_a_header_is_refused_before_it_is_built(header: bytes, why: str) -> None:
    with pytest.raises(BadMessage, match=why):
        decode_to_server([header])


def test_the_largest_message_of_each_side_is_within_the_limits() -> None:
    keyframes = tuple(m.Keyframe(i, 0, 16, 16) for i in range(L.MAX_KEYFRAMES))
    prompts = tuple(m.PromptAt(i, "x") for i in range(L.MAX_PROMPTS))
    params = {f"p{i}": 1 for i in range(L.MAX_PARAMETERS)}
    generate = m.Generate("r", "e", 16, 16, 99, keyframes, 0, "x", "y", params, prompts=prompts)
    assert decode_to_server(encode(generate, [bytes(768)]))[0] == generate
    parameters = tuple(m.Parameter(f"p{i}", "choice", "", "", choices=("a", "b")) for i in range(L.MAX_PARAMETERS))
    engine = m.EngineInfo("e", "t", "s", "1", "l", True, True, True, ("x",) * 9, parameters=parameters)
    welcome = m.Welcome(L.PROTOCOL, "b", "s", (engine,) * L.MAX_ENGINES, "e", "")
    assert decode_to_client(encode(welcome))[0] == welcome
    yours = tuple(m.LiveRequest(f"r{i}", 1) for i in range(L.MAX_QUEUED + L.MAX_WORKERS))
    pong = m.Pong(1, "b", 1, 1, ("idle",) * L.MAX_WORKERS, yours)
    assert decode_to_client(encode(pong))[0] == pong


@pytest.mark.parametrize(
    "change",
    [
        {"uptime_s": float("nan")},
        {"uptime_s": float("inf")},
        {"uptime_s": -1.0},
        {"clients": -1},
        {"served": -1},
        {"boot": "\x1b[2J"},
        {"jobs": (m.JobStatus("r", "e", "running", 0, 0),) * 129},
        {"workers": (m.WorkerStatus(0, 1, "idle", 0),) * 65},
    ],
    ids=str,
)
def test_a_report_holds_nothing_that_no_server_can_mean(change: dict[str, Any]) -> None:
    report = m.Report("boot", 1.0, 0, 0, (), ())
    with pytest.raises(m.Refused):
        attrs.evolve(report, **change)


def test_what_stands_in_a_report_is_bounded_too() -> None:
    for bad in ((-1, 0), (0, -1)):
        with pytest.raises(m.Refused):
            m.WorkerStatus(bad[0], 1, "idle", bad[1])
    with pytest.raises(m.Refused):
        m.JobStatus("r", "e", "\x7f", 0, None)
    with pytest.raises(m.Refused):
        m.JobStatus("r", "e", "running", 0, -1)


def test_all_pictures_of_a_request_together_have_a_limit() -> None:
    side = 4096, 2160
    keyframes = tuple(m.Keyframe(i, i, *side) for i in range(9))
    message = m.Generate("r", "fake", *side, 9, keyframes, 0)
    picture = memoryview(bytes(side[0] * side[1] * 3))
    with pytest.raises(BadMessage, match="in all"):
        decode_to_server(encode(message, [picture] * 9))
    eight = attrs.evolve(message, keyframes=keyframes[:8])
    assert decode_to_server(encode(eight, [picture] * 8))[0] == eight


def test_an_error_code_is_one_of_ours_and_nothing_else() -> None:
    failed = m.Failed("r1", ErrorCode.HELLO_FIRST, "x")
    back, _ = decode_to_client(encode(failed))
    assert isinstance(back, m.Failed)
    assert back.code is ErrorCode.HELLO_FIRST  # a plain str would be equal, and no `is` would ever notice it
    header = msgpack.unpackb(bytes(encode(failed)[0]))
    with pytest.raises(BadMessage):
        decode_to_client([msgpack.packb(header | {"code": "nonsense"})])


def test_a_frame_of_the_wrong_length_is_refused() -> None:
    frame = m.Frame("r1", 1, SIDE, SIDE, "raw")
    with pytest.raises(BadMessage, match="768"):
        decode_to_client(encode(frame, [PICTURE[:-1]]))
    with pytest.raises(BadMessage):
        decode_to_client(encode(frame, []))


@given(frames())
def test_a_frame_is_refused_by_one_byte_too_few_whatever_its_samples(case: tuple[m.Frame, list[bytes]]) -> None:
    frame, (picture,) = case
    with pytest.raises(BadMessage, match=f"has {len(picture)}"):
        decode_to_client(encode(frame, [picture[:-1]]))


def test_a_picture_of_floats_that_no_buffer_may_hold_is_refused_with_the_remedy() -> None:
    keyframe = m.Keyframe(0, 0, 4096, 2160, 4, 32)
    message = m.Generate("r", "fake", 4096, 2160, 9, (keyframe,), 0)
    with pytest.raises(BadMessage, match=f"RGBA32.*at most {L.MAX_BUFFER_BYTES}.*depth of 16"):
        decode_to_server(encode(message, [b""]))


def test_what_is_as_protocol_1_has_it_is_said_as_protocol_1_says_it() -> None:
    message, buffers = request()
    assert set(msgpack.unpackb(bytes(encode(message, buffers)[0]))["keyframes"][0]) == {
        *("at", "buffer", "width", "height")
    }
    frame = msgpack.unpackb(bytes(encode(m.Frame("r1", 1, SIDE, SIDE, "raw"), [PICTURE])[0]))
    assert set(frame) == {"type", "id", "index", "width", "height", "encoding", "confidence"}
    deep = msgpack.unpackb(bytes(encode(m.Frame("r1", 1, SIDE, SIDE, "raw", None, 4, 16), [PICTURE])[0]))
    assert (deep["channels"], deep["depth"]) == (4, 16)


def test_50_000_mutated_messages_raise_nothing_but_bad_message() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201
    rng = random.Random(seed)
    accepted = refused = 0
    for _ in range(50_000):
        try:
            decode_to_server(mutated(rng))
            accepted += 1
        except BadMessage:
            refused += 1
    assert refused > 10 * accepted, (accepted, refused)  # else the mutations are too tame to show anything


def mutated(rng: random.Random) -> list[bytes]:
    """A good message with bytes flipped, cut, inserted, or with values swapped for absurd ones."""
    if rng.random() < 0.5:
        header = body()
        for _ in range(rng.randint(1, 3)):
            keyframes: Any = header.get("keyframes")
            inner = keyframes[0] if isinstance(keyframes, list) and keyframes else None
            where = inner if isinstance(inner, dict) and rng.random() < 0.5 else header
            where[rng.choice([*where, "extra", "id"])] = rng.choice(ABSURD)
        packed = msgpack.packb(header)
    else:
        data = bytearray(encode(*request())[0])
        for _ in range(rng.randint(1, 8)):
            at = rng.randrange(len(data))
            kind = rng.randrange(3)
            if kind == 0:
                data[at] = rng.randrange(256)
            elif kind == 1:
                del data[at : at + rng.randint(1, 5)]
            else:
                data[at:at] = rng.randbytes(rng.randint(1, 5))
            data = data or bytearray(b"\0")
        packed = bytes(data)
    return [packed, *[PICTURE] * rng.choice([2, 2, 2, 0, 1, 25])]


ABSURD = (
    None,
    True,
    -1,
    2**64 - 1,
    -(2**63),
    1e308,
    float("nan"),
    "",
    "x" * 5000,
    b"x",
    [],
    [[]],
    {},
    {"": {}},
    "\x00",
)


ANY_TEXT = st.text(st.characters(codec=None), max_size=60)


@given(ANY_TEXT, st.integers(0, 40))
def test_whatever_was_said_a_sentence_that_quotes_it_can_be_sent(said: str, most: int) -> None:
    failed = m.Failed("r1", ErrorCode.BAD_MESSAGE, m.fit(said, most), m.fit(said, L.MAX_NAME_CHARS))
    assert decode_to_client(encode(failed))[0] == failed


@given(ANY_TEXT)
def test_a_text_that_a_message_takes_can_be_sent(said: str) -> None:
    try:
        message = m.Hello(L.PROTOCOL, said, "s")
    except m.Refused:
        assert m.fit(said, L.MAX_NAME_CHARS) != said
        return
    assert decode_to_server(encode(message))[0] == message


@pytest.mark.parametrize("value", [2**63, -(2**63), 10**400])
def test_a_number_that_the_wire_cannot_carry_makes_no_message(value: int) -> None:
    with pytest.raises(m.Refused):
        m.Accepted("r1", value)
    with pytest.raises(m.Refused):
        m.Parameter("p", "int", value, "")
    with pytest.raises(m.Refused):
        request(params={"p": value})


@pytest.mark.parametrize(
    "body",
    [
        {"type": "ping", "nonce": 1, "\x7f": 1},
        {"type": "ping", "nonce": 1, "\x9b2J": 1},
        {"type": "cancel", "id": "\x7f"},
        {"type": "generate", "params": {"\x7f": None}},
    ],
    ids=["a field", "an escape code", "an id", "a parameter"],
)
def test_a_refusal_never_quotes_what_a_message_may_not_hold(body: dict[str, Any]) -> None:
    with pytest.raises(BadMessage) as refused:
        decode_to_server([msgpack.packb(body)])
    m.Failed(None, ErrorCode.BAD_MESSAGE, refused.value.message, refused.value.field)
