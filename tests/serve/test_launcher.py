"""What keeps a launcher at work beside a server, whatever that launcher is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servers import eventually

from sfserver.serve.launcher import Launcher

LEAVES_WORD = """
import os, pathlib, sys
line = sys.stdin.readline()
pathlib.Path(sys.argv[1], f"{os.getpid()}").write_text(line)
if sys.argv[2] != "stay":
    sys.exit(int(sys.argv[2]))
sys.stdin.read()
pathlib.Path(sys.argv[1], "over").write_text("")
"""


@contextmanager
def launcher(folder: Path, then: str, mended_after_s: float = 0.01) -> Iterator[Launcher]:
    command = [sys.executable, "-c", LEAVES_WORD, str(folder), then]
    one = Launcher(command, lambda path, join: f"{path} {join.decode()}\n".encode(), mended_after_s)
    try:
        yield one
    finally:
        one.stop()


def words(folder: Path) -> list[str]:
    return [note.read_text() for note in folder.iterdir() if note.name != "over"]


def test_it_is_told_once_where_workers_join_and_ends_with_its_pipe(tmp_path: Path) -> None:
    with launcher(tmp_path, "stay") as one:
        one.invite(Path("here"), b"secret")
        one.invite(Path("here"), b"secret")
        eventually(lambda: "here secret\n" in words(tmp_path))
    assert words(tmp_path) == ["here secret\n"]
    assert (tmp_path / "over").exists(), "it ended by itself before `stop` was over"


def test_one_that_dies_or_waits_for_something_to_be_mended_is_started_again(tmp_path: Path) -> None:
    for code in ("1", "2"):
        folder = tmp_path / code
        folder.mkdir()
        with launcher(folder, code) as one:
            one.invite(Path("here"), b"secret")
            eventually(lambda folder=folder: len(words(folder)) > 2)


def test_the_control_one_that_waits_for_something_to_be_mended_is_left_in_peace_meanwhile(tmp_path: Path) -> None:
    with launcher(tmp_path, "2", mended_after_s=3600.0) as one:
        one.invite(Path("here"), b"secret")
        eventually(lambda: words(tmp_path) == ["here secret\n"])
        assert one._process is not None
        one._process.wait(120)
    assert len(words(tmp_path)) == 1


def test_none_is_started_once_it_was_stopped(tmp_path: Path) -> None:
    with launcher(tmp_path, "stay") as one:
        one.stop()
        one.invite(Path("here"), b"secret")
    assert not words(tmp_path)
