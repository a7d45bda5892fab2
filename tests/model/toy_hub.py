"""A hub small enough to hold in one's hand: serves files as the Hugging Face hub does, and misbehaves when told to."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0" * 39 + "1"


class ToyHub(ThreadingHTTPServer):
    """`files` maps (repository, name) to bytes. Everything that was asked is in `requests`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[tuple[str, str], bytes] = {}
        self.small: set[str] = set()
        """Names kept in git itself, whose hash is git's."""
        self.corrupt: set[str] = set()
        """Names whose bytes do not match their hash."""
        self.break_after: dict[str, int] = {}
        """Names whose connection is dropped, once, after so many bytes."""
        self.no_hash = False
        self.bytes_elsewhere = False
        """Send clients to another host for a file's bytes, as the hub does."""
        self.gated: set[str] = set()
        self.requests: list[Request] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def downloads(self, name: str) -> list[Request]:
        return [request for request in self.requests if request.method == "GET" and request.path.endswith(name)]


class Request:
    def __init__(self, handler: BaseHTTPRequestHandler) -> None:
        self.method, self.path = handler.command, handler.path
        self.range = handler.headers.get("Range")
        self.token = handler.headers.get("Authorization")
        self.host = handler.headers.get("Host")


@contextmanager
def serving() -> Iterator[ToyHub]:
    hub = ToyHub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join(timeout=60)
        hub.server_close()


def hash_of(content: bytes, small: bool) -> str:
    if small:
        return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
    return hashlib.sha256(content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ToyHub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.server.requests.append(Request(self))
        self.path = urllib.parse.unquote(self.path)
        tree = re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/[^/]+/(.+?)(?:\?.*)?", self.path)
        file = re.fullmatch(r"/(?:bytes/)?([^/]+/[^/]+)/resolve/[^/]+/(.+)", self.path)
        if tree:
            self._list(tree[1], tree[2])
        elif file:
            self._file(file[1], file[2])
        else:
            self._refuse(404, "RepoNotFound")

    def _list(self, repository: str, folder: str) -> None:
        entries = [
            {"type": "file", "path": name, "size": len(content), "oid": hash_of(content, small=True)}
            for (home, name), content in self.server.files.items()
            if home == repository and name.startswith(folder + "/")
        ]
        self._send(json.dumps(entries).encode(), {"Content-Type": "application/json"})

    def _file(self, repository: str, name: str) -> None:
        hub = self.server
        if repository in hub.gated:
            return self._refuse(403, "GatedRepo")
        if not any(home == repository for home, _ in hub.files):
            return self._refuse(404, "RepoNotFound")
        content = hub.files.get((repository, name))
        if content is None:
            return self._refuse(404, "EntryNotFound")
        headers = {"X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if not hub.no_hash:
            headers["ETag"] = f'"{hash_of(content, name in hub.small)}"'
        if hub.bytes_elsewhere and not self.path.startswith("/bytes/"):
            headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(len(content))}
            headers["Location"] = f"http://localhost:{hub.server_port}/bytes{self.path}"
            return self._send(b"", headers, status=302)
        if name in hub.corrupt:
            content = bytes(len(content))
        return self._send_from(content, name, headers)

    def _send_from(self, content: bytes, name: str, headers: dict[str, str]) -> None:
        start = int(re.fullmatch(r"bytes=(\d+)-", self.headers["Range"])[1]) if "Range" in self.headers else 0
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        drop = self.server.break_after.pop(name, None) if self.command == "GET" else None
        self._send(content[start:], headers, 206 if start else 200, drop)

    def _send(self, body: bytes, headers: dict[str, str], status: int = 200, drop_after: int | None = None) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:drop_after])
        if drop_after is not None:
            self.close_connection = True

    def _refuse(self, status: int, code: str) -> None:
        self._send(b"", {"X-Error-Code": code, "X-Error-Message": code}, status)
