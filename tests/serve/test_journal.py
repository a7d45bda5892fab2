"""The journal holds what was accepted and how it ended, and costs the server nothing but itself."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import attrs
import pytest
from sfwire import messages as m
from sfwire.errors import ErrorCode

from sfserver.serve.jobs import REMEMBERED_ENDS
from sfserver.serve.journal import FORGET_EVERY, FORMAT, Journal, unfinished
from sfserver.serve.kept import KEPT_S, MAX_KEPT, Claimed, Entered, Entry, Left, Past, Paused, Taken

ENTRY = Entry("job1", "s", "r1", "c0ffee", "blender", "draft", 33, 1, 5, "batch")
DONE = m.Done("r0", "finished", 8, 1, "draft", "1")
linux = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full and its like are Linux's")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "connection.json.journal"


def written(path: Path, *facts: object) -> Past:
    """What the next server finds after these."""
    journal = Journal(path)
    assert journal.is_kept
    for fact in facts:
        journal.write(fact)  # type: ignore[arg-type]
    journal.close()
    return found(path)


def found(path: Path) -> Past:
    journal = Journal(path)
    journal.close()
    return journal.past


def test_what_has_not_ended_is_found_again_with_what_was_taken(path: Path) -> None:
    other = attrs.evolve(ENTRY, key="job2", id="r2", round=3)
    past = written(path, Entered(ENTRY), Entered(other), Taken("s", "r1", 12), Paused(True))
    assert past == Past((other, attrs.evolve(ENTRY, first=12)), (), True)
    assert unfinished(path) == ["r1", "r2"]


def test_what_ended_is_told_again_and_waits_no_more_unless_its_place_is_kept(path: Path) -> None:
    failed = m.Failed("r1", ErrorCode.NOT_FINITE, "a sentence")
    past = written(path, Entered(ENTRY), Left("s", "r1", failed, False))
    assert past == Past((), (("s", failed),))
    stopped = m.Done("r2", "cancelled", 3, 1, "draft", "1")
    second = attrs.evolve(ENTRY, id="r2")
    past = written(path, Entered(second), Left("s", "r2", stopped, True))
    assert past == Past((second,), (("s", failed), ("s", stopped)))
    assert written(path, Claimed("s", "r2")).entries == ()


def test_it_is_the_users_alone_and_holds_no_prompt(path: Path) -> None:
    written(path, Entered(ENTRY))
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with closing(sqlite3.connect(path)) as db:
        columns = {name for _, name, *_ in db.execute("pragma table_info(entries)")}
    assert not columns & {"prompt", "negative_prompt", "prompts", "keyframes", "params"}


def test_what_is_a_day_old_is_forgotten_and_no_more_is_found_than_may_be_kept(path: Path, monkeypatch) -> None:
    written(path, *(Entered(attrs.evolve(ENTRY, id=f"r{n}", round=n)) for n in range(MAX_KEPT + 9)))
    assert [entry.round for entry in found(path).entries] == list(range(MAX_KEPT))
    written(path, Left("s", "r0", DONE, False))
    with closing(sqlite3.connect(path)) as db, db:
        for table in ("entries", "ends"):
            db.execute(f"update {table} set at = at - ?", (KEPT_S + 1,))
    assert found(path) == Past()


def test_what_was_written_stays_when_the_writer_is_killed(path: Path) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom sfserver.serve.journal import Journal\n"
        "from sfserver.serve.kept import Entered, Entry\n"
        "journal = Journal(Path(sys.argv[1]))\n"
        "for n in range(100):\n"
        "    journal.write(Entered(Entry('k', 's', f'r{n}', 'c', 'b', 'draft', 9, 0, n, 'batch')))\n"
        "os.kill(os.getpid(), 9) if hasattr(os, 'kill') else os._exit(9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], timeout=200, check=False)
    assert len(unfinished(path)) == 100
    assert len(found(path).entries) == MAX_KEPT


def test_two_do_not_write_one_journal(path: Path) -> None:
    first = Journal(path)
    first.write(Entered(ENTRY))
    second = Journal(path)
    assert not second.is_kept
    second.write(Entered(attrs.evolve(ENTRY, id="other")))
    first.close()
    assert found(path).entries == (ENTRY,)


@pytest.mark.parametrize("how", ["text", "cut", "noise", "columns"])
def test_a_damaged_one_is_put_aside_and_another_begun(path: Path, how: str) -> None:
    written(path, *(Entered(attrs.evolve(ENTRY, id=f"r{n}")) for n in range(60)))
    content = path.read_bytes()
    if how == "columns":
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("update entries set round = 'x'")
            db.execute("insert into ends values ('s', 'r', 'no message', 9e9)")
    else:
        path.write_bytes(
            {"text": b"not a database" * 99, "cut": content[:5000], "noise": content[:200] + os.urandom(9000)}[how]
        )
    assert found(path) == Past()
    assert path.with_name(path.name + ".damaged").exists()
    assert written(path, Entered(ENTRY)).entries == (ENTRY,)


def test_another_programs_database_and_a_newer_format_are_left_as_they_are(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("create table ours (x)")
    before = path.read_bytes()
    journal = Journal(path)
    assert not journal.is_kept
    journal.write(Entered(ENTRY))
    assert path.read_bytes() == before
    path.unlink()
    written(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"pragma user_version = {FORMAT + 1}")
    assert not Journal(path).is_kept


@linux
def test_a_pipe_a_folder_and_a_link_cost_the_journal_alone(path: Path, tmp_path: Path) -> None:
    os.mkfifo(path)
    assert not Journal(path).is_kept
    path.unlink()
    path.mkdir()
    assert not Journal(path).is_kept
    path.rmdir()
    path.symlink_to(tmp_path / "elsewhere")
    assert not Journal(path).is_kept
    assert not (tmp_path / "elsewhere").exists()
    assert not Journal(tmp_path / "none" / "journal").is_kept


def test_a_full_one_is_given_up_and_what_it_held_is_found(path: Path) -> None:
    journal = Journal(path)
    journal.write(Entered(ENTRY))
    assert journal._db is not None
    pages = journal._db.execute("pragma page_count").fetchone()[0]
    journal._db.execute(f"pragma max_page_count = {pages}")  # as a disk without a page left
    for number in range(200):
        journal.write(Entered(attrs.evolve(ENTRY, id=f"more{number}")))
    assert not journal.is_kept
    assert ENTRY in found(path).entries


def test_a_client_that_asks_and_cancels_all_day_fills_no_disk(path: Path) -> None:
    journal = Journal(path)
    many = REMEMBERED_ENDS + 3 * FORGET_EVERY
    for number in range(many):
        journal.write(Left("s", f"r{number}", DONE, False))
    journal.close()
    with closing(sqlite3.connect(path)) as db:
        (kept,) = db.execute("select count(*) from ends").fetchone()
    assert REMEMBERED_ENDS <= kept <= REMEMBERED_ENDS + FORGET_EVERY < many


def test_an_entry_that_could_not_be_shown_is_not_one(path: Path) -> None:
    """One bit of a client's name, say, that no check of the file's pages sees."""
    written(path, Entered(ENTRY), Entered(attrs.evolve(ENTRY, id="r2")))
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("update entries set client = ? where id = 'r2'", ("b\x1blender",))
    assert found(path).entries == (ENTRY,)
