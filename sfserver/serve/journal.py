"""The journal: what is asked of this server, written down, so that a queue outlives its server.

SQLite beside the connection file, readable by its owner alone. A process may be killed at any moment: what was
committed stays. It holds names of clients, ids, hashes and counts, no picture and no prompt (`kept.py`).

A journal that is full, damaged or somebody else's costs the journal and not the server: everything here says so in the
log and goes on without. It is one server's: the connection file's lock is taken before it, and SQLite's own after.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from contextlib import closing, suppress
from pathlib import Path

import structlog
from sfwire import messages as m
from sfwire.codec import decode_to_client, encode
from sfwire.errors import BadMessage

from . import steering
from .jobs import REMEMBERED_ENDS
from .kept import KEPT_S, MAX_KEPT, Claimed, Entered, Entry, Fact, Left, Past, Paused, Taken
from .private import private_file

APPLICATION = 0x53465131
"""In the file's header: it is ours."""
FORMAT = 1
FORGET_EVERY = 1000
"""Facts, until what is old is forgotten: a client that asks and cancels all day fills no disk."""
_TABLES = """
create table entries (owner text, id text, key text, content text, client text, engine text, num_frames integer,
    first integer, round integer, priority text, at real, primary key (owner, id)) without rowid;
create table ends (owner text, id text, how blob, at real, primary key (owner, id)) without rowid;
create index ends_at on ends (at);
create table state (name text primary key, value integer) without rowid;
"""
_COLUMNS = "key, owner, id, content, client, engine, num_frames, first, round, priority"

log = structlog.get_logger("journal")


class Unusable(Exception):
    """It is there, and nothing for us; the sentence says why."""


class Journal:
    """`past` is what was found. `write` never raises."""

    def __init__(self, path: Path | None) -> None:
        """None: nothing is written."""
        self.past = Past()
        self._db: sqlite3.Connection | None = None
        self._written = 0
        if path is None:
            return
        try:
            self._open(path)
        except (OSError, Unusable, sqlite3.OperationalError) as error:  # full or locked: it may be whole
            self._give_up(error)
        except sqlite3.DatabaseError as error:
            self._begin_anew(path, error)

    @property
    def is_kept(self) -> bool:
        return self._db is not None

    def write(self, fact: Fact) -> None:
        """One transaction. Where that fails the journal is given up until the server's next start."""
        if self._db is None:
            return
        try:
            with self._db:
                _put(self._db, fact, time.time())
                self._written += 1
                if self._written % FORGET_EVERY == 0:
                    _forget(self._db, time.time())
        except sqlite3.Error as error:
            self._give_up(error)

    def close(self) -> None:
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _open(self, path: Path) -> None:
        _require_plain(path)
        db = self._db = sqlite3.connect(path, timeout=1.0, isolation_level="IMMEDIATE", check_same_thread=False)
        private_file(path)
        db.execute("pragma locking_mode = exclusive")
        (application,) = db.execute("pragma application_id").fetchone()
        (version,) = db.execute("pragma user_version").fetchone()
        if not db.execute("select count(*) from sqlite_master").fetchone()[0]:
            db.executescript(
                f"pragma journal_mode = wal; pragma application_id = {APPLICATION}; pragma user_version = {FORMAT};"
                f"begin; {_TABLES} commit;"
            )
        elif application != APPLICATION:
            raise Unusable(f"{path} is another program's database")
        elif version != FORMAT:
            raise Unusable(f"{path} is of format {version}, this version writes {FORMAT}")
        db.execute("pragma synchronous = normal")
        (complaint,) = db.execute("pragma quick_check(1)").fetchone()
        if complaint != "ok":
            raise sqlite3.DatabaseError(complaint)
        with db:
            _forget(db, time.time())
        try:
            self.past = _read(db)
        except (TypeError, ValueError) as error:  # columns of other kinds than ours
            raise sqlite3.DatabaseError(str(error)) from None

    def _begin_anew(self, path: Path, error: Exception) -> None:
        """Put the damaged one aside, for whoever wants to look, and begin another."""
        self.close()
        aside = path.with_name(f"{path.name}.damaged")
        log.warning("the journal is damaged; the queue it held is lost", why=str(error), kept_as=str(aside))
        try:
            os.replace(path, aside)
            for suffix in ("-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            self._open(path)
        except (sqlite3.Error, OSError, Unusable) as second:
            self._give_up(second)

    def _give_up(self, error: Exception) -> None:
        log.warning("no journal is written: a restart will forget the queue", why=m.fit(str(error)))
        self.close()


def _require_plain(path: Path) -> None:
    """A pipe would be waited for, a link leads somewhere else."""
    with suppress(FileNotFoundError):
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or (hasattr(os, "getuid") and found.st_uid != os.getuid()):
            raise Unusable(f"{path} is no plain file of this user")


def _put(db: sqlite3.Connection, fact: Fact, at: float) -> None:
    match fact:
        case Entered(e):
            row = (e.key, e.owner, e.id, e.content, e.client, e.engine, e.num_frames, e.first, e.round, e.priority, at)
            db.execute(f"insert or replace into entries ({_COLUMNS}, at) values (?,?,?,?,?,?,?,?,?,?,?)", row)
        case Taken(owner, id, first):
            db.execute("update entries set first = ? where owner = ? and id = ?", (first, owner, id))
        case Left(owner, id, how, keeps):
            db.execute("insert or replace into ends values (?, ?, ?, ?)", (owner, id, bytes(encode(how)[0]), at))
            if not keeps:
                db.execute("delete from entries where owner = ? and id = ?", (owner, id))
        case Claimed(owner, id):
            db.execute("delete from entries where owner = ? and id = ?", (owner, id))
        case Paused(is_paused):
            db.execute("insert or replace into state values ('paused', ?)", (is_paused,))


def _forget(db: sqlite3.Connection, now: float) -> None:
    for table in ("entries", "ends"):
        db.execute(f"delete from {table} where at < ?", (now - KEPT_S,))
    db.execute(
        "delete from ends where at < (select at from ends order by at desc limit 1 offset ?)", (REMEMBERED_ENDS,)
    )


def _read(db: sqlite3.Connection) -> Past:
    rows = db.execute(f"select {_COLUMNS} from entries order by round, at").fetchall()
    entries = tuple(entry for entry in (Entry(*row) for row in rows) if _can_be_shown(entry))[:MAX_KEPT]
    ends: list[tuple[str, m.Done | m.Failed]] = []
    for owner, how in db.execute("select owner, how from ends order by at"):
        with suppress(BadMessage):
            message, _ = decode_to_client([how])
            if isinstance(message, m.Done | m.Failed):
                ends.append((owner, message))
    paused = db.execute("select value from state where name = 'paused'").fetchone()
    return Past(entries, tuple(ends), bool(paused and paused[0]))


def _can_be_shown(entry: Entry) -> bool:
    """Whoever looks at the queue is told of it, and its place is counted with."""
    try:
        steering.away(entry)
    except (TypeError, m.Refused):
        return False
    return all(type(number) is int for number in (entry.num_frames, entry.first, entry.round))


def unfinished(path: Path) -> list[str]:
    """Ids in a journal that nobody has open: for tests and for people."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        return [id for (id,) in db.execute("select id from entries order by at")]
