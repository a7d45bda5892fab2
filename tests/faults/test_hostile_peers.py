"""Absurd messages, strangers and slow readers on a live server, while another client's stream goes on untouched."""

from __future__ import annotations

import json
import random
import socket as sockets
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import attrs
import msgpack
import pytest
import zmq
from servers import Server, assert_all_there, request, running
from sfwire import connection as connections
from sfwire import limits as L
from sfwire import messages as m
from sfwire.channel import Context, Socket, connect
from sfwire.codec import decode_to_client, encode
from sfwire.errors import ErrorCode
from test_codec import PICTURE, mutated


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def raw(server: Server) -> Iterator[Socket]:
    """A peer with the right keys and no manners."""
    context: Context = zmq.Context()
    socket = connect(context, connections.read(server.connection_file))
    yield socket
    socket.close(linger=0)
    context.term()


def answer(socket: Socket, timeout_ms: int = 60_000) -> m.ToClient | None:
    if not socket.poll(timeout_ms):
        return None
    return decode_to_client(socket.recv_multipart())[0]


def until_the_pong(socket: Socket, nonce: int) -> list[m.ToClient]:
    """All that the server has to say until it answers this ping: what is asked now is answered before it."""
    socket.send_multipart(encode(m.Ping(nonce)))
    said: list[m.ToClient] = []
    while not (said and isinstance(said[-1], m.Pong) and said[-1].nonce == nonce):
        message = answer(socket)
        assert message is not None, said[-3:]
        said.append(message)
    return said


def until_the_end(socket: Socket, request_id: str) -> list[m.ToClient]:
    """All that the server says until this request has ended, and what follows at once."""
    said: list[m.ToClient] = []
    while not (said and isinstance(said[-1], m.Done | m.Failed) and said[-1].id == request_id):
        message = answer(socket)
        assert message is not None, said[-3:]
        said.append(message)
    return said + until_the_pong(socket, 12345)


def greet(socket: Socket) -> None:
    socket.send_multipart(encode(m.Hello(L.PROTOCOL, "raw", "raw-session")))
    assert isinstance(answer(socket), m.Welcome)


def test_mutated_messages_are_answered_and_other_streams_are_untouched(server: Server, raw: Socket) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201
    rng = random.Random(seed)
    greet(raw)
    wanted = request(60, delay_ms=10.0)
    with server.client() as client, client.submit(wanted) as stream:
        pictures = iter(stream)
        got = [next(pictures)]
        for _ in range(2000):
            raw.send_multipart(mutated(rng))
            while raw.poll(0):
                raw.recv_multipart()
        got += list(pictures)
        assert_all_there(got, wanted)
        assert stream.interrupted is None
    assert until_the_pong(raw, 77), "the connection is kept"


def test_a_refusal_says_code_field_and_sentence(raw: Socket) -> None:
    greet(raw)
    message = encode(m.Generate("bad1", "fake", 16, 16, 9, (m.Keyframe(0, 0, 16, 16),), 1), [PICTURE])
    raw.send_multipart([msgpack.packb(msgpack.unpackb(bytes(message[0])) | {"width": 1}), PICTURE])
    failed = answer(raw)
    assert isinstance(failed, m.Failed)
    assert (failed.id, failed.code, failed.field) == ("bad1", ErrorCode.BAD_MESSAGE, "width")


def test_what_cannot_be_quoted_in_an_answer_ends_nobody(server: Server, raw: Socket) -> None:
    """Each of these once ended the server's process."""
    greet(raw)
    front = server.front().pid
    generate = msgpack.unpackb(bytes(encode(m.Generate("x", "fake", 16, 16, 9, (m.Keyframe(0, 0, 16, 16),), 1))[0]))
    wanted = request(30, delay_ms=5.0)
    with server.client() as client, client.submit(wanted) as stream:
        pictures = iter(stream)
        got = [next(pictures)]
        for _ in range(10):
            raw.send(msgpack.packb({"type": "ping", "nonce": 1, "\x7f": 1}))
            raw.send_multipart([msgpack.packb(generate | {"params": {"\x7f": None}}), PICTURE])
            for _ in range(2):
                failed = answer(raw)
                assert isinstance(failed, m.Failed)
                assert failed.code is ErrorCode.BAD_MESSAGE
        assert_all_there([*got, *pictures], wanted)
        assert stream.interrupted is None
    assert server.front().pid == front


def test_a_malformed_message_with_a_live_requests_id_does_not_end_it(server: Server, raw: Socket) -> None:
    greet(raw)
    keyframe = (m.Keyframe(0, 0, 16, 16),)
    good = m.Generate("live", "fake", 16, 16, 30, keyframe, 1, params={"delay_ms": 5.0}, credit=64)
    raw.send_multipart(encode(good, [PICTURE]))
    raw.send_multipart([bytes(encode(good)[0]).replace(b"raw", b"gif"), PICTURE])
    terminal = [said for said in until_the_end(raw, "live") if isinstance(said, m.Done | m.Failed)]
    assert [(type(t), t.id) for t in terminal] == [(m.Failed, None), (m.Done, "live")]


def test_the_same_generate_twice_is_done_once(raw: Socket) -> None:
    greet(raw)
    once = encode(m.Generate("twice", "fake", 16, 16, 9, (m.Keyframe(0, 0, 16, 16),), 1, credit=64), [PICTURE])
    for _ in range(3):
        raw.send_multipart(once)
    said = until_the_end(raw, "twice")
    assert [message.index for message in said if isinstance(message, m.Frame)] == list(range(1, 9))
    assert sum(isinstance(message, m.Done) for message in said) == 1
    raw.send_multipart(once)
    assert isinstance(answer(raw), m.Done), "asked after its end, it is answered from memory"


def test_generate_before_hello_is_told_to_greet(raw: Socket) -> None:
    message = m.Generate("early", "fake", 16, 16, 9, (m.Keyframe(0, 0, 16, 16),), 1)
    raw.send_multipart(encode(message, [PICTURE]))
    failed = answer(raw)
    assert isinstance(failed, m.Failed)
    assert (failed.code, failed.retryable) == (ErrorCode.HELLO_FIRST, True)


def test_another_protocol_is_refused_with_both_numbers(raw: Socket) -> None:
    raw.send_multipart(encode(m.Hello(99, "future", "s")))
    failed = answer(raw)
    assert isinstance(failed, m.Failed)
    assert failed.code is ErrorCode.PROTOCOL_VERSION


def test_a_client_cannot_touch_anothers_request(server: Server, raw: Socket) -> None:
    greet(raw)
    wanted = request(30, delay_ms=10.0)
    with server.client() as client, client.submit(wanted) as stream:
        pictures = iter(stream)
        got = [next(pictures)]
        ids = [job.id for job in client.status().jobs]
        for request_id in ids:
            raw.send_multipart(encode(m.Cancel(request_id)))
        got += list(pictures)
        assert_all_there(got, wanted)


def test_strangers_on_the_port_disturb_nobody(server: Server) -> None:
    port = int(connections.read(server.connection_file).endpoint.rsplit(":", 1)[1])
    wanted = request(40, delay_ms=10.0)
    with server.client() as client, client.submit(wanted) as stream:
        pictures = iter(stream)
        got = [next(pictures)]
        for data in (b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", bytes(1000), b"\xff" * 64):
            with sockets.create_connection(("127.0.0.1", port), timeout=60) as stranger:
                stranger.sendall(data)
        got += list(pictures)
        assert_all_there(got, wanted)


def test_prompts_are_not_in_the_log(server: Server, raw: Socket) -> None:
    greet(raw)
    message = m.Generate("p1", "fake", 16, 16, 3, (m.Keyframe(0, 0, 16, 16),), 1, prompt="a secret film", credit=9)
    raw.send_multipart(encode(message, [PICTURE]))
    while not isinstance(answer(raw), m.Done):
        pass
    log = Path(server.log_dir / "server.log").read_text()
    events = [json.loads(line) for line in log.splitlines()]
    assert any(e["event"] == "request" for e in events)
    assert "a secret film" not in log


def test_a_mistaken_message_is_not_in_the_log_either(server: Server, raw: Socket) -> None:
    """A prompt in the wrong field, and as the name of a field and of a parameter."""
    greet(raw)
    good = msgpack.unpackb(bytes(encode(m.Generate("p2", "fake", 16, 16, 3, (m.Keyframe(0, 0, 16, 16),), 1))[0]))
    for wrong in ({"encoding": "my secret"}, {"my secret": 1}, {"params": {"my secret": None}}, {"type": "my secret"}):
        raw.send_multipart([msgpack.packb(good | wrong), PICTURE])
    until_the_pong(raw, 5)
    log = Path(server.log_dir / "server.log").read_text()
    assert [e["field"] for e in map(json.loads, log.splitlines()) if e["event"] == "bad message"][-4:]
    assert "my secret" not in log


def test_at_debug_they_are(tmp_path: Path) -> None:
    with running(tmp_path, log_level="debug") as server, server.client() as client:
        list(client.submit(attrs.evolve(request(3), prompt="a secret film")))
        assert "a secret film" in (server.log_dir / "server.log").read_text()


def test_the_server_writes_its_log_and_its_connection_file_and_nothing_else(tmp_path: Path) -> None:
    with running(tmp_path) as server, server.client() as client:
        list(client.submit(request(5)))
        written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {
        "run/connection.json",
        "run/connection.json.lock",
        "run/connection.json.journal",
        "run/connection.json.journal-wal",
        "run/connection.json.operator",
        "log/server.log",
        "log/front.log",
        "log/worker-0.log",
    }


def test_no_message_has_a_field_for_a_path_an_address_or_a_command() -> None:
    """Texts that a client sends are ids, a prompt, a name for the log or a parameter's value, and nothing else."""
    texts = {
        f"{kind.__name__}.{field.name}"
        for kind in (*get_args(m.ToServer), m.Keyframe)
        for field in attrs.fields(kind)
        if "str" in str(field.type) or "Mapping" in str(field.type)
    }
    assert texts == {
        "Hello.client", "Hello.session", "Generate.id", "Generate.engine", "Generate.prompt",
        "Generate.negative_prompt", "Generate.params", "Credit.id", "Cancel.id",
        "Steer.operator", "Steer.job",
    }  # fmt: skip
