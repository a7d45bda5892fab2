"""What the server writes belongs to its user alone: folders 0700, files 0600, whatever the umask was.

Logs may hold prompts and connection files hold keys. What was there before is made so too where it is ours by its name;
a folder that was given to us and holds other things keeps its mode.
"""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from pathlib import Path

OURS = "sfserver"
"""The name of our folder below each of the platform's."""


def be_private() -> None:
    """From here on this process and its children make folders and files that nobody else can read."""
    os.umask(0o077)


def private_folder(path: Path) -> None:
    """Make it and what is above it, and close it to others if it is ours. Raises OSError."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.name == OURS:
        _close_to_others(path, 0o700)


def private_file(path: Path) -> None:
    """Close a file that may be older than this rule to others. Raises nothing."""
    _close_to_others(path, 0o600)


def _close_to_others(path: Path, mode: int) -> None:
    if sys.platform == "win32":  # access lists are inherited from the user's folder
        return
    with suppress(OSError):
        status = path.lstat()
        if not stat.S_ISLNK(status.st_mode) and status.st_uid == os.getuid() and status.st_mode & 0o077:
            path.chmod(mode)
