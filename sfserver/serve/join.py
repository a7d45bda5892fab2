"""The join file: where workers from other machines dial in, and the keys that let them.

Whoever can read it can serve, and so sees every keyframe and prompt that comes to that worker: it is 0600, and one that
others could read or write is refused. Its keys are other keys than those of the connection file, for another port: with
them nobody can submit, and with a client's nobody can serve. Keys live as long as one `sfserver serve`.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from pathlib import Path
from typing import Any, cast

import attrs
from attrs import frozen
from sfwire.channel import ServerKeys
from sfwire.connection import Connection
from sfwire.messages import fit
from sfwire.regular import open_regular

from ..errors import UserError

FORMAT = 1
_MAX_BYTES = 8192
_MAX_REASON_CHARS = 120
_KEY = re.compile(r"[0-9A-Za-z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
_ENDPOINT = re.compile(r"tcp://(\[[0-9A-Fa-f:.%]{2,60}\]|[0-9A-Za-z.\-]{1,253}):([0-9]{1,5})")
_WHERE = f"make it anew with: sfserver serve --workers-from ADDRESS (format {FORMAT})"


@frozen
class Join:
    """What a worker needs to join one server. Keys are Z85 text (ZeroMQ RFC 32)."""

    endpoint: str
    """As in tcp://192.168.1.5:5600, as workers reach it."""
    server_public_key: str = attrs.field(repr=False)
    worker_public_key: str = attrs.field(repr=False)
    worker_secret_key: str = attrs.field(repr=False)

    @property
    def connection(self) -> Connection:
        return Connection(self.endpoint, self.server_public_key, self.worker_public_key, self.worker_secret_key)

    def pack(self) -> bytes:
        return json.dumps({"format": FORMAT, **attrs.asdict(self)}, indent=1).encode()


def beside(connection_file: Path) -> Path:
    """Where a server keeps its join file: beside the file that tells clients, by its name."""
    return connection_file.with_name(f"{connection_file.stem}-join.json")


def made(endpoint: str, keys: ServerKeys, worker_secret: str) -> Join:
    """`endpoint` is the listening one: `keys.client_public` is the workers' key there."""
    return Join(endpoint, keys.public, keys.client_public, worker_secret)


def write(join: Join, path: Path) -> None:
    """Write the file in one step, readable for its owner alone. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(join.pack())
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None


def read(path: Path) -> Join:
    """Raises UserError, one sentence with the remedy, where it is not there, open to others or no join file."""
    try:
        with open_regular(path) as file:
            _refuse_if_others_may_use(path, os.fstat(file.fileno()))
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); copy the server's join file there") from None
    try:
        return unpack(content)
    except ValueError as error:
        raise UserError(f"{path} is not a join file ({fit(str(error), _MAX_REASON_CHARS)}); {_WHERE}") from None


def unpack(content: bytes) -> Join:
    """Raises ValueError, saying what is wrong."""
    if len(content) > _MAX_BYTES:
        raise ValueError(f"more than {_MAX_BYTES} bytes")
    try:
        loaded: object = json.loads(content.decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(loaded, dict):
        raise ValueError("not a map")
    body = cast("dict[str, Any]", loaded)
    found = body.pop("format", None)
    if "client_secret_key" in body:
        raise ValueError("it is a client's connection file, whose keys cannot serve")
    if found != FORMAT:
        raise ValueError(f"its format is {fit(str(found), 20)}, and this version reads {FORMAT}")
    names = attrs.fields_dict(Join)
    if set(body) != set(names):
        raise ValueError(f"it should hold {', '.join(names)}, and nothing else")
    for name in ("server_public_key", "worker_public_key", "worker_secret_key"):
        if not isinstance(body[name], str) or not _KEY.fullmatch(body[name]):
            raise ValueError(f"{name} is not a key")
    address = _ENDPOINT.fullmatch(body["endpoint"]) if isinstance(body["endpoint"], str) else None
    if address is None or not 0 < int(address[2]) < 2**16:
        raise ValueError("endpoint is not a tcp address with a port")
    return Join(**body)


def _refuse_if_others_may_use(path: Path, status: os.stat_result) -> None:
    if sys.platform == "win32":  # access lists are inherited from the user's folder
        return
    if status.st_uid != os.getuid():
        raise UserError(f"{path} belongs to another user; copy it to a file of your own")
    if stat.S_IMODE(status.st_mode) & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise UserError(
            f"{path} can be read by other users (mode {mode:o}), and whoever has it can serve; "
            f"close it with chmod 600 {path}, or make new keys by starting the server again"
        )
