"""Files that anybody may have put there, opened only if they are plain files of a sane size.

A pipe would block its reader for ever and a device has no end, whatever name it stands under.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path
from typing import BinaryIO

_FLAGS = os.O_RDONLY | (os.O_BINARY if sys.platform == "win32" else os.O_NONBLOCK)


def open_regular(path: Path, most_bytes: int | None = None) -> BinaryIO:
    """The file, opened for reading. Raises OSError, also where it is no plain file or is larger than `most_bytes`."""
    file = os.fdopen(os.open(path, _FLAGS), "rb")
    try:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a plain file", str(path))
        if most_bytes is not None and status.st_size > most_bytes:
            raise _too_large(path, status.st_size, most_bytes)
    except OSError:
        file.close()
        raise
    return file


def read_regular(path: Path, most_bytes: int) -> bytes:
    """All of a file. Raises OSError as `open_regular` does."""
    with open_regular(path, most_bytes) as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise _too_large(path, len(content), most_bytes)
    return content


def _too_large(path: Path, size: int, most: int) -> OSError:
    return OSError(errno.EFBIG, f"it has {size} bytes, at most {most} make sense", str(path))
