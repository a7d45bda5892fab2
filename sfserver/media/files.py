"""The error of this package, and files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import UserError
from ..samples import Picture

__all__ = [
    "MediaError",
    "Picture",
    "appearing",
    "begin",
    "claim",
    "let_go",
    "make_folder",
    "remove_folders",
    "write_error",
]

PART_SUFFIX = ".part"
"""Of a file that is still being written. It is renamed when it is whole and removed when that fails."""


class MediaError(UserError):
    """A picture that cannot be used or a file that cannot be written: one sentence, with the remedy."""


def write_error(path: Path, error: OSError) -> MediaError:
    """What to tell the user about an `error` of the system while `path` was written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return MediaError(f"{path}: the disk is full; free some space or choose another place with --out")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return MediaError(f"{path}: may not be written here; choose another place with --out")
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return MediaError(f"{path}: a file stands where a folder is needed; choose another place with --out")
    reason = (error.strerror or str(error) or type(error).__name__).lower()
    return MediaError(f"{path}: cannot be written ({reason}); choose another place with --out")


def begin(part: Path) -> None:
    """An empty file of ours by this name, whatever stood there. Raises OSError.

    A folder that came from somebody else may hold a link by that name, and whoever wrote through it would write over
    what it leads to.
    """
    part.unlink(missing_ok=True)
    part.touch(exist_ok=False)


@contextlib.contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """Gives the name to write to; `path` itself appears, or is replaced, when the block ends without an error.

    Raises MediaError for an OSError of the block or of the rename, and leaves nothing behind then.
    """
    part = path.with_name(path.name + PART_SUFFIX)
    try:
        begin(part)
        yield part
        os.replace(part, path)
    except BaseException as error:  # also KeyboardInterrupt: whatever ends the block, the half-written file must go
        with contextlib.suppress(OSError):
            part.unlink()
        if isinstance(error, OSError):
            raise write_error(path, error) from error
        raise


def claim(out: Path) -> FileLock | None:
    """Make `out`, a folder that is there or a file in one, this run's own until `let_go`. Raises MediaError.

    The system lets go of it too, with the process. None on a file system without locks.
    """
    lock = FileLock(out / ".lock" if out.is_dir() else out.with_name(f".{out.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise MediaError(f"{out}: another run is writing there; choose another place with --out") from None
    except NotImplementedError:
        return None
    except OSError as error:
        raise write_error(out, error) from error
    return lock


def let_go(lock: FileLock | None) -> None:
    if lock is not None:
        with contextlib.suppress(OSError):
            Path(lock.lock_file).unlink()
        lock.release()


def make_folder(folder: Path) -> list[Path]:
    """Make `folder` with its parents and prove that files can be written in it, before hours of work depend on it.

    Returns the folders that were made, innermost first, so that they can be taken away again. Raises MediaError.
    """
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe{PART_SUFFIX}"
        begin(probe)
        probe.unlink(missing_ok=True)
    except OSError as error:
        remove_folders(missing)
        raise write_error(folder, error) from error
    return missing


def remove_folders(folders: list[Path]) -> None:
    """Take away those of `folders` (innermost first) that are empty."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()
