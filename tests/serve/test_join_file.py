"""The join file is the key to serving: one that is wrong, old or open to others is one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import zmq

from sfserver.errors import UserError
from sfserver.serve import join
from sfserver.serve.join import Join

PUBLIC, SECRET = (key.decode() for key in zmq.curve_keypair())
JOIN = Join("tcp://127.0.0.1:5600", PUBLIC, PUBLIC, SECRET)
BODY = json.loads(JOIN.pack())


def test_it_comes_back_as_it_was_written_and_is_the_owners_alone(tmp_path: Path) -> None:
    path = join.beside(tmp_path / "run" / "connection.json")
    join.write(JOIN, path)
    assert path == tmp_path / "run" / "connection-join.json"
    assert join.read(path) == JOIN
    assert path.stat().st_mode & 0o777 == 0o600
    assert SECRET not in repr(JOIN)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\xff", "decode"),
        (b"[]", "not a map"),
        (b"[" * 100_000, "8192"),
        (b"[" * 8000, "nested"),
        (json.dumps(BODY | {"format": 0}).encode(), "its format is 0, and this version reads 1"),
        (json.dumps(BODY | {"client_secret_key": SECRET}).encode(), "whose keys cannot serve"),
        (json.dumps(BODY | {"worker_secret_key": "short"}).encode(), "worker_secret_key is not a key"),
        (json.dumps(BODY | {"endpoint": "tcp://here"}).encode(), "endpoint"),
        (json.dumps(BODY | {"endpoint": "ipc:///tmp/x:1"}).encode(), "endpoint"),
        (json.dumps(BODY | {"more": 1}).encode(), "nothing else"),
    ],
)
def test_what_is_no_join_file_is_one_sentence(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "join.json"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(UserError, match=why) as refused:
        join.read(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_one_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "join.json"
    join.write(JOIN, path)
    path.chmod(mode)
    with pytest.raises(UserError, match="chmod 600"):
        join.read(path)


def test_one_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"copy the server.s join file there"):
        join.read(tmp_path / "join.json")
