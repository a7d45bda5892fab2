"""Frames on disk: where a job's pictures lie, how they are written, and what may be deleted again.

No Blender here. A frame appears under its name only when it is whole. Deleting is bounded: only folders with the name
of a job, in them only files with names that we give, and never through a link.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import time
import zlib
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .record import is_job

FOLDER = "inbetween"
"""Beside the .blend; one folder below it for each job."""
WAITING = "waiting.png"
"""What a strip shows before its first frame: nothing, in the frames' size."""
PIECE_BYTES = 512 * 1024
"""Written at once: about half a millisecond on a disk of today."""
_OURS = re.compile(r"(((frame|draft)_\d{5}|waiting|keyframe_first|keyframe_last)\.png|keyframe_\d{5}\.tga)(\.part)?")
"""`keyframe_first` and `keyframe_last` are those of version 0.1.0."""


def frame_name(index: int) -> str:
    """File name of the picture at a place in the clip, in which the keyframe before the gap has 0."""
    return f"frame_{index:05d}.png"


def draft_name(index: int) -> str:
    """The same of a picture that stands in for one that takes its time: another name, since Blender 5 keeps the picture
    of a file that is overwritten."""
    return f"draft_{index:05d}.png"


def standing_for(draft: str) -> str | None:
    """File name of the picture that a draft's stands in for, None where it is none."""
    return draft.replace("draft_", "frame_") if draft.startswith("draft_") else None


def keyframe_name(index: int) -> str:
    """The same of a picture that is given."""
    return f"keyframe_{index:05d}.tga"


def write_waiting(folder: Path, width: int, height: int) -> None:
    """A PNG of one bit a pixel, transparent all over (PNG specification, 11.2.2, 11.3.1.1). Raises OSError."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1 + (width + 7) // 8) * height, 1)
    chunks = chunk(b"IHDR", head) + chunk(b"tRNS", b"\0\0") + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    (folder / WAITING).write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


def make_folder(parent: Path, job: str) -> Path:
    """A new folder for one job's frames. Raises OSError."""
    assert is_job(job)
    folder = parent / FOLDER / job
    folder.mkdir(parents=True)
    return folder


def copy_folder(folder: Path, parent: Path) -> Path:
    """Have a job's frames below `parent` too: as further names of the same files, or copied where the disk has no such.

    What is there already stays as it is. Raises OSError.
    """
    assert is_job(folder.name)
    home = parent / FOLDER / folder.name
    home.mkdir(parents=True, exist_ok=True)
    for path in _our_files(folder):
        there = home / path.name
        if path.suffix == ".part" or there.exists():
            continue
        try:
            os.link(path, there)
        except OSError:
            part = there.with_name(there.name + ".part")
            part.unlink(missing_ok=True)
            shutil.copyfile(path, part)
            os.replace(part, there)
    return home


def delete_folder(parent: Path, job: str) -> int:
    """Delete a job's frames, and its folder if nothing else is in it; returns the bytes freed. Raises OSError."""
    folder = parent / FOLDER / job
    if not is_job(job) or not folder.is_dir() or folder.is_symlink() or folder.parent.is_symlink():
        return 0
    freed = 0
    for path in list(_our_files(folder)):
        freed += path.stat().st_size
        path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()
    return freed


def delete_keyframes(folder: Path, but: Collection[str]) -> None:
    """Delete what only an unfinished fill needs, as far as it can be: the disk may be gone."""
    with suppress(OSError):
        for path in list(folder.glob("keyframe_?????.tga")):
            if path.name not in but:
                path.unlink()


def delete_drafts(folder: Path) -> int:
    """Delete the pictures of a draft, as far as it can be; returns the bytes freed."""
    freed = 0
    with suppress(OSError):
        for path in list(folder.glob("draft_?????.png")):
            size = path.stat().st_size
            path.unlink()
            freed += size
    return freed


def delete_nothing_made(folder: Path) -> None:
    """Delete the folder of a job that made nothing, as far as it can be."""
    with suppress(OSError):
        delete_folder(folder.parent.parent, folder.name)


def jobs_on_disk(parent: Path) -> dict[str, int]:
    """The jobs whose folders lie in `parent`, with the bytes that their frames take."""
    home = parent / FOLDER
    if not home.is_dir() or home.is_symlink():
        return {}
    folders = [path for path in home.iterdir() if is_job(path.name) and path.is_dir() and not path.is_symlink()]
    return {folder.name: sum(path.stat().st_size for path in _our_files(folder)) for folder in folders}


def _our_files(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if _OURS.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            yield path


@dataclass(frozen=True)
class Written:
    """What became of one frame: its file is there, or `error` says why not."""

    job: str
    name: str
    error: OSError | None = None


@dataclass
class _Order:
    job: str
    path: Path
    data: bytes | memoryview
    written_bytes: int = 0


class Writer:
    """Writes files a piece at a time, so that a large picture does not hold up the interface.

    Not a thread: Blender up to 5.0 runs on Python 3.11 and takes any thread's GIL for its own when it looks up its
    context (`PyC_IsInterpreterActive`), so a thread of Python beside it crashes it sooner or later.
    """

    def __init__(self) -> None:
        self._orders: deque[_Order] = deque()
        self._file: BinaryIO | None = None

    def put(self, job: str, path: Path, data: bytes | memoryview) -> None:
        self._orders.append(_Order(job, path, data))

    def step(self, budget_s: float) -> list[Written]:
        """Write for about that long; returns what is done, in the order of the orders."""
        deadline = time.perf_counter() + budget_s
        done: list[Written] = []
        while self._orders and time.perf_counter() < deadline:
            order = self._orders[0]
            try:
                whole = self._write_piece(order)
            except OSError as error:
                self._drop()
                done.append(Written(order.job, order.path.name, error))
            else:
                if whole:
                    self._orders.popleft()
                    done.append(Written(order.job, order.path.name))
        return done

    def redirect(self, job: str, folder: Path) -> None:
        """Write what is left of a job into another folder; a frame that is half written begins anew there."""
        if self._file is not None and self._orders[0].job == job:
            self._close_file()
            self._orders[0].written_bytes = 0
        for order in self._orders:
            if order.job == job:
                order.path = folder / order.path.name

    def close(self) -> None:
        """Forget what is not written yet."""
        if self._orders:
            self._drop()
        self._orders.clear()

    def _write_piece(self, order: _Order) -> bool:
        """Whether the file is whole now, under its name. Raises OSError."""
        part = order.path.with_name(order.path.name + ".part")
        if self._file is None:
            part.unlink(missing_ok=True)  # a link in a folder that came from somebody else leads anywhere
            self._file = part.open("xb", buffering=0)
        piece = order.data[order.written_bytes : order.written_bytes + PIECE_BYTES]
        order.written_bytes += self._file.write(piece)
        if order.written_bytes < len(order.data):
            return False
        self._file.close()
        self._file = None
        os.replace(part, order.path)
        return True

    def _drop(self) -> None:
        self._orders.popleft()
        self._close_file()

    def _close_file(self) -> None:
        if self._file is not None:
            with suppress(OSError):  # the disk is full: it has been said
                self._file.close()
            self._file = None


def png_size(data: bytes | memoryview) -> tuple[int, int] | None:
    """(width, height) that a PNG file says of itself, None if it is none (PNG specification, 5.2 and 11.2.2)."""
    head = bytes(data[:24])
    if len(head) < 24 or head[:8] != b"\x89PNG\r\n\x1a\n" or head[12:16] != b"IHDR":
        return None
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


def size_of_png(path: Path, size: tuple[int, int]) -> int | None:
    """Bytes of a PNG of (width, height), None where there is no such file."""
    try:
        with path.open("rb") as file:
            return path.stat().st_size if png_size(file.read(24)) == size else None
    except OSError:
        return None
