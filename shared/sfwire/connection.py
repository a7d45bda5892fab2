"""The connection file: where the server is, and the keys to talk to it.

Whoever can read it can use the server, so it is 0600 in a 0700 folder and a file that others could read or write is
refused. The server's own secret key is never in it.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from attrs import asdict, field, frozen

from .errors import NoConnectionFile
from .messages import fit
from .regular import open_regular

ENVIRONMENT_VARIABLE = "SFSERVER_CONNECTION_FILE"
_FORMAT = 1
_MAX_BYTES = 8192
"""The file has about 300 bytes; anything much larger is something else."""
_MAX_REASON_CHARS = 120
_MAX_PID = 2**31 - 1
_MAX_PORT = 2**16 - 1
_Z85_KEY = re.compile(r"[0-9A-Za-z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
_ENDPOINT = re.compile(r"tcp://[0-9A-Za-z.\-:\[\]]{1,253}:[0-9]{1,5}")


@frozen
class Connection:
    """What a client needs to talk to one server. Keys are Z85 text of 40 characters (ZeroMQ RFC 32)."""

    endpoint: str
    """As in tcp://127.0.0.1:5555."""
    server_public_key: str = field(repr=False)
    client_public_key: str = field(repr=False)
    client_secret_key: str = field(repr=False)
    pid: int = 0
    """Process that wrote the file, so that a stale one can be told."""

    @property
    def is_loopback(self) -> bool:
        return is_loopback(self.endpoint.removeprefix("tcp://").rsplit(":", 1)[0])


def is_loopback(host: str) -> bool:
    """A name other than localhost counts as somewhere else: who knows where it leads tomorrow."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def default_path(environment: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Path:
    """`SFSERVER_CONNECTION_FILE`, or `sfserver/connection.json` in the platform's folder for what lives one login long.

    Raises NoConnectionFile where there is no such folder, saying which variable to set.
    """
    named = environment.get(ENVIRONMENT_VARIABLE)
    if named:
        return Path(named)
    if platform == "win32":
        base = environment.get("LOCALAPPDATA")
    elif platform == "darwin":
        base = _below_home(environment, "Library/Application Support")
    else:
        base = environment.get("XDG_RUNTIME_DIR") or _below_home(environment, ".local/state")
    if not base:
        raise NoConnectionFile(f"there is no home folder to keep the connection file in; set {ENVIRONMENT_VARIABLE}")
    return Path(base) / "sfserver" / "connection.json"


def _below_home(environment: Mapping[str, str], rest: str) -> str | None:
    home = environment.get("HOME")
    return f"{home}/{rest}" if home else None


def write(connection: Connection, path: Path) -> None:
    """Write the file in one step, readable for its owner alone. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({"format": _FORMAT, **asdict(connection)}, file, indent=1)
        os.replace(part, path)
    except OSError as error:  # a full disk, which names no file: what was begun is not left there
        part.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None


def read(path: Path | None = None) -> Connection:
    """The connection that a server left. Raises NoConnectionFile with what to do."""
    path = path or default_path()
    try:
        with open_regular(path) as file:
            _refuse_if_others_may_use(path, os.fstat(file.fileno()))
            content = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise NoConnectionFile(f"no server is running ({path} is not there); start one with: sfserver serve") from None
    except OSError as error:
        raise NoConnectionFile(f"{path} cannot be read: {error.strerror}") from None
    try:
        return _parse(content)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        why = fit(str(error), _MAX_REASON_CHARS)
        raise NoConnectionFile(
            f"{path} is not a connection file ({why}); delete it and start the server again"
        ) from None


def _refuse_if_others_may_use(path: Path, status: os.stat_result) -> None:
    if sys.platform == "win32":  # the folder below LOCALAPPDATA is the user's own by its access list
        return
    if status.st_uid != os.getuid():
        raise NoConnectionFile(f"{path} belongs to another user; set {ENVIRONMENT_VARIABLE} to a file of your own")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise NoConnectionFile(
            f"{path} can be read by other users (mode {stat.S_IMODE(status.st_mode):o}); stop the server, "
            "delete the file and start again"
        )


def _parse(content: bytes) -> Connection:
    if len(content) > _MAX_BYTES:
        raise ValueError(f"more than {_MAX_BYTES} bytes")
    loaded: object = json.loads(content.decode("utf-8"))
    if not isinstance(loaded, dict):
        raise ValueError("not a map")
    body = cast("dict[str, Any]", loaded)
    if body.pop("format", None) != _FORMAT:
        raise ValueError(f"format is not {_FORMAT}")
    connection = Connection(**body)
    for name in ("server_public_key", "client_public_key", "client_secret_key"):
        value = body[name]
        if not isinstance(value, str) or not _Z85_KEY.fullmatch(value):
            raise ValueError(f"{name} is not a key")
    if not isinstance(connection.endpoint, str) or not _ENDPOINT.fullmatch(connection.endpoint):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError("endpoint is not a tcp address")
    if not 0 < int(connection.endpoint.rsplit(":", 1)[1]) <= _MAX_PORT:
        raise ValueError("endpoint has no port")
    if type(connection.pid) is not int or not 0 <= connection.pid <= _MAX_PID:
        raise ValueError("pid is not the number of a process")
    return connection
