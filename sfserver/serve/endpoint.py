"""Where this server can be found: its keys, its address and the connection file that tells clients."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout
from sfwire import connection as connections
from sfwire.channel import ServerKeys
from sfwire.connection import Connection
from sfwire.errors import NoConnectionFile

from ..config import ConfigError, ServerConfig
from .private import private_folder

CLAIM_TIMEOUT_S = 1.0
"""A client that only looks whether there is a server holds the lock for a moment."""


def connection_path(config: ServerConfig) -> Path:
    """Raises NoConnectionFile where the platform has no folder for it."""
    return config.connection_file or connections.default_path()


def journal_path(config: ServerConfig) -> Path:
    """The queue, written down."""
    path = connection_path(config)
    return path.with_name(f"{path.name}.journal")


def operator_path(path: Path) -> Path:
    """What who steers the queue must know, beside the connection file in `path`."""
    return path.with_name(f"{path.name}.operator")


def claim(path: Path) -> BaseFileLock:
    """Make the connection file this process's own until it ends, however it ends: the system lets go of the lock.

    Raises ConfigError where another server has it, since two would take each other's clients, and OSError.
    """
    private_folder(path.parent)
    lock = _lock(path)
    try:
        return lock.acquire(timeout=CLAIM_TIMEOUT_S).lock
    except Timeout:
        raise ConfigError(
            f"a server is running already{_named(path)}; stop it, or name another file with --connection-file"
        ) from None
    except NotImplementedError as error:  # a file system without locks
        raise OSError(errno.ENOLCK, str(error), str(path)) from None


def require_running(path: Path) -> None:
    """Raises NoConnectionFile, with the remedy, where no server of this computer stands behind the file.

    A file that names another computer is taken at its word, and so is one whose port answers: a tunnel may be there.
    """
    found = connections.read(path)
    if found.is_loopback and not _is_claimed(path) and not _answers(found):
        raise NoConnectionFile(
            f"no server is running (the one that left {path} has ended); start one with: sfserver serve"
        )


def _lock(path: Path) -> BaseFileLock:
    return FileLock(path.with_name(f"{path.name}.lock"), mode=0o600, thread_local=False)


def _is_claimed(path: Path) -> bool:
    lock = _lock(path)
    try:
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True
    except (OSError, NotImplementedError):  # nobody could have claimed it there either
        return False


def _answers(found: Connection) -> bool:
    host, port = found.endpoint.removeprefix("tcp://").rsplit(":", 1)
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=1.0).close()
    except OSError:
        return False
    return True


def _named(path: Path) -> str:
    try:
        return f" (pid {connections.read(path).pid}, {path})"
    except NoConnectionFile:  # it has not come as far as writing it
        return f" ({path})"


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


def publish_operator(path: Path, operator: str) -> None:
    """For who may read what is this user's alone. Raises OSError, with the name of the file that it goes with."""
    part = operator_path(path).with_suffix(".part")
    try:
        part.unlink(missing_ok=True)
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(operator)
        os.replace(part, operator_path(path))
    except OSError as error:  # a full disk says so when the file is closed, and names none
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None


def withdraw(path: Path) -> None:
    """Take the file away if it is still ours."""
    try:
        if connections.read(path).pid == os.getpid():
            path.unlink()
            operator_path(path).unlink(missing_ok=True)
    except (NoConnectionFile, OSError):
        pass
