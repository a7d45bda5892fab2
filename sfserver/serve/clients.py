"""Who is connected, as the broker knows it, sans I/O: which session speaks by which connection, and since when not.

A session has one connection at a time, and a connection one session. What belongs to it lives in `jobs.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import define, field
from sfwire import limits as L
from sfwire import messages as m


@define(eq=False)
class Client:
    """A connection that has said Hello. `peer` is ZeroMQ's name for it, `session` its own."""

    peer: bytes
    session: str
    name: str
    protocol: int
    heard_at: float


@define
class Clients:
    waiting_hellos: dict[bytes, m.Hello] = field(factory=dict[bytes, m.Hello])
    """By connection, until there is a worker that says which engines there are."""
    waiting_bytes: dict[bytes, int] = field(factory=dict[bytes, int])
    """Sent to a connection and not taken by its computer yet, where that is counted."""
    _by_peer: dict[bytes, Client] = field(factory=dict[bytes, Client])
    """Who was silent longest comes first."""
    _peers: dict[str, bytes] = field(factory=dict[str, bytes])
    """By session."""

    def __len__(self) -> int:
        return len(self._by_peer)

    def __iter__(self) -> Iterator[Client]:
        return iter(list(self._by_peer.values()))

    def at(self, peer: bytes) -> Client | None:
        return self._by_peer.get(peer)

    def of(self, session: str) -> Client | None:
        peer = self._peers.get(session)
        return None if peer is None else self._by_peer[peer]

    def heard(self, peer: bytes, now: float) -> Client | None:
        """It has said something just now."""
        client = self._by_peer.pop(peer, None)
        if client is not None:
            client.heard_at = now
            self._by_peer[peer] = client
        return client

    def left_by(self, peer: bytes, hello: m.Hello) -> list[bytes]:
        """Connections that are nobody's by this Hello: what was asked for by them would be nobody's too.

        A session that comes from elsewhere leaves its old connection, and a connection that names another session its
        old session's.
        """
        known = [(other, self.at(other)) for other in dict.fromkeys((peer, self._peers.get(hello.session, peer)))]
        return [other for other, client in known if client and (client.session == hello.session) != (other == peer)]

    def enter(self, peer: bytes, hello: m.Hello, now: float) -> None:
        self._by_peer.pop(peer, None)  # so that it comes last
        self._by_peer[peer] = Client(peer, hello.session, hello.client, hello.protocol, now)
        self._peers[hello.session] = peer

    def leave(self, peer: bytes) -> Client | None:
        """It is forgotten; who that was."""
        self.waiting_hellos.pop(peer, None)
        client = self._by_peer.pop(peer, None)
        if client is not None:
            del self._peers[client.session]
        return client

    def lost(self, now: float) -> list[Client]:
        """Who has been silent for too long."""
        found: list[Client] = []
        for client in self._by_peer.values():
            if now - client.heard_at <= L.CLIENT_LOST_AFTER_S:
                break
            found.append(client)
        return found
