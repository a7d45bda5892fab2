"""Where this server can be found: its keys, its address and the connection file that tells clients."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
from sfwire import connection as connections
from sfwire.channel import ServerKeys
from sfwire.connection import Connection
from sfwire.errors import NoConnectionFile

from ..config import ConfigError, ServerConfig


def connection_path(config: ServerConfig) -> Path:
    """Raises NoConnectionFile where the platform has no folder for it."""
    return config.connection_file or connections.default_path()


def require_free(path: Path) -> None:
    """Raises ConfigError if a running server has written this file: two would take each other's clients."""
    try:
        pid = connections.read(path).pid
        began = psutil.Process(pid).create_time()
        written = path.stat().st_mtime
    except (NoConnectionFile, psutil.Error, OSError):
        return
    if began <= written + 1.0:  # else the number was given to another process since
        raise ConfigError(
            f"a server is running already (pid {pid}, {path}); stop it, or name another file with --connection-file"
        )


def publish(path: Path, endpoint: str, keys: ServerKeys, client_secret: str) -> None:
    """Tell clients where the server is. Raises OSError."""
    host, port = endpoint.removeprefix("tcp://").rsplit(":", 1)
    reachable = "127.0.0.1" if host in ("0.0.0.0", "[::]") else host
    found = Connection(
        endpoint=f"tcp://{reachable}:{port}",
        server_public_key=keys.public,
        client_public_key=keys.client_public,
        client_secret_key=client_secret,
        pid=os.getpid(),
    )
    connections.write(found, path)


def withdraw(path: Path) -> None:
    """Take the file away if it is still ours."""
    try:
        if connections.read(path).pid == os.getpid():
            path.unlink()
    except (NoConnectionFile, OSError):
        pass
