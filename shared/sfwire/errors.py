"""Everything that can go wrong between a client and the server.

    WireError
    ├── BadMessage             bytes that are not a message, or a message with an absurd value: where, and what
    ├── RequestError           one request was refused or broke off: code, sentence, field, worth another try?
    └── ServerUnavailable      nobody can be talked to
        ├── NoConnectionFile   no server has said where it is
        ├── ServerSilent       it was there and does not answer any more
        └── WrongProtocol      it answers, in another version

`str(error)` of each is one sentence fit for a person, with the value, the limit and the remedy.
"""

from __future__ import annotations

from enum import StrEnum


class ErrorCode(StrEnum):
    """What kind of failure a `Failed` message reports. `RETRYABLE` below says which are worth another try."""

    BAD_MESSAGE = "bad_message"
    """The bytes could not be read as a message; `field` names the place."""
    PROTOCOL_VERSION = "protocol_version"
    """Client and server speak different versions of the wire."""
    HELLO_FIRST = "hello_first"
    """The server does not know this connection (it may have restarted): greet again, then ask again."""
    UNKNOWN_ENGINE = "unknown_engine"
    ENGINE_UNAVAILABLE = "engine_unavailable"
    """The engine is known, but files or hardware that it needs are missing."""
    BAD_VALUE = "bad_value"
    """A well-formed request that cannot be done; `field` names the value."""
    QUEUE_FULL = "queue_full"
    """There is no place for it now, there may be one later."""
    OUT_OF_MEMORY = "out_of_memory"
    NOT_FINITE = "not_finite"
    """The model produced NaN or infinity: weights and precision do not fit together."""
    WORKER_DIED = "worker_died"
    WORKER_HUNG = "worker_hung"
    TAKEN_OUT = "taken_out"
    """Somebody who runs the server took it out of the queue."""
    SHUTTING_DOWN = "shutting_down"
    INTERNAL = "internal"
    """A mistake of ours; the server's log has the details."""


RETRYABLE = frozenset({ErrorCode.HELLO_FIRST, ErrorCode.QUEUE_FULL, ErrorCode.WORKER_DIED, ErrorCode.WORKER_HUNG})


class WireError(Exception):
    """Root of everything this package raises on purpose."""


class BadMessage(WireError):
    """Bytes or values that the protocol does not allow.

    `field` is the path of the offending value as in `keyframes[2].at`, or "" when the message as a whole is wrong.
    `id` is the request's id when at least that could be read, so that the answer can name it.
    """

    def __init__(self, message: str, field: str = "", id: str | None = None) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.message = message
        self.field = field
        self.id = id


class RequestError(WireError):
    """One request failed. `field` names the request's value that is to blame, "" if none is."""

    def __init__(self, code: ErrorCode, message: str, field: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field

    @property
    def retryable(self) -> bool:
        return self.code in RETRYABLE


class ServerUnavailable(WireError):
    """No server can be talked to; the subclasses say why."""


class NoConnectionFile(ServerUnavailable):
    """No server has left a readable connection file."""


class ServerSilent(ServerUnavailable):
    """The server does not answer within its time-out."""


class WrongProtocol(ServerUnavailable):
    """The server speaks another version of the wire."""
