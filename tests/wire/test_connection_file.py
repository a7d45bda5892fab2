"""The connection file: who may read it, and what is refused."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from sfwire import connection as connections
from sfwire.channel import ServerKeys
from sfwire.connection import Connection
from sfwire.errors import NoConnectionFile


@pytest.fixture
def connection() -> Connection:
    keys, secret = ServerKeys.generate()
    return Connection("tcp://127.0.0.1:5555", keys.public, keys.client_public, secret, 17)


def test_it_comes_back_as_it_was_written(tmp_path: Path, connection: Connection) -> None:
    path = tmp_path / "folder" / "connection.json"
    connections.write(connection, path)
    assert connections.read(path) == connection


def test_file_and_folder_are_the_owners_alone(tmp_path: Path, connection: Connection) -> None:
    path = tmp_path / "folder" / "connection.json"
    connections.write(connection, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [p.name for p in path.parent.iterdir()] == ["connection.json"]


def test_a_file_that_others_may_read_is_refused(tmp_path: Path, connection: Connection) -> None:
    path = tmp_path / "connection.json"
    connections.write(connection, path)
    path.chmod(0o640)
    with pytest.raises(NoConnectionFile, match="640"):
        connections.read(path)
    path.chmod(0o600)  # the control
    assert connections.read(path) == connection


def test_keys_do_not_show_when_it_is_printed(connection: Connection) -> None:
    assert connection.client_secret_key not in repr(connection)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"format": 2}',
        "x" * 10_000,
        '{"format": 1, "endpoint": "ipc:///tmp/x"}',
        "[" * 5000,
    ],
    ids=["empty", "null", "array", "no fields", "another format", "too long", "another transport", "nested"],
)
def test_anything_else_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "connection.json"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(NoConnectionFile, match="delete it") as refused:
        connections.read(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("field", ["endpoint", "client_secret_key", "server_public_key", "pid"])
def test_each_field_is_checked(tmp_path: Path, connection: Connection, field: str) -> None:
    path = tmp_path / "connection.json"
    connections.write(connection, path)
    body = json.loads(path.read_text())
    path.write_text(json.dumps(body | {field: "tcp://x y:99"}))
    with pytest.raises(NoConnectionFile):
        connections.read(path)


def test_the_environment_names_the_file_before_the_platform_does() -> None:
    assert connections.default_path({"SFSERVER_CONNECTION_FILE": "/x/y.json", "XDG_RUNTIME_DIR": "/run/u"}) == Path(
        "/x/y.json"
    )
    assert connections.default_path({"XDG_RUNTIME_DIR": "/run/u"}, "linux") == Path("/run/u/sfserver/connection.json")
    assert connections.default_path({"HOME": "/h"}, "linux") == Path("/h/.local/state/sfserver/connection.json")
    assert connections.default_path({"HOME": "/h"}, "darwin").is_relative_to("/h/Library")
    assert "sfserver" in str(connections.default_path({"LOCALAPPDATA": "C:/L"}, "win32"))


def test_without_a_home_it_says_which_variable_to_set() -> None:
    with pytest.raises(NoConnectionFile, match="SFSERVER_CONNECTION_FILE"):
        connections.default_path({}, "linux")


def test_loopback_is_told_from_elsewhere(connection: Connection) -> None:
    import attrs

    assert connection.is_loopback
    for endpoint, loopback in {
        "tcp://[::1]:5": True,
        "tcp://192.168.1.5:5": False,
        "tcp://127.evil.org:5": False,
    }.items():
        assert attrs.evolve(connection, endpoint=endpoint).is_loopback == loopback
