"""What stands under a name that is trusted to be a file: pipes, devices and endless things are refused, not read."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from sfwire import connection as connections
from sfwire.errors import NoConnectionFile
from sfwire.regular import open_regular, read_regular

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")


def test_a_plain_file_is_read_and_a_link_to_one_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "link", 7) == b"content"


def test_one_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    with pytest.raises(OSError, match="7 bytes, at most 6"):
        read_regular(tmp_path / "file", 6)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("what", ["pipe", "folder", "/dev/zero", "/dev/tty"])
def test_everything_else_is_refused_without_waiting_for_it(tmp_path: Path, what: str) -> None:
    path = tmp_path / "name"
    if what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    else:
        path.symlink_to(what)
    with pytest.raises(OSError):  # noqa: PT011  the reasons differ, what counts is that there is one
        open_regular(path)
    with pytest.raises(NoConnectionFile, match="cannot be read"):
        connections.read(path)
