"""Frames on disk: where a job's pictures lie, the thread that writes them, and what may be deleted again.

No Blender here. A frame appears under its name only when it is whole. Deleting is bounded: only folders with the name
of a job, in them only files with names that we give, and never through a link.
"""

from __future__ import annotations

import os
import queue
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .record import is_job

FOLDER = "inbetween"
"""Beside the .blend; one folder below it for each job."""
FIRST_KEYFRAME, LAST_KEYFRAME = "keyframe_first.png", "keyframe_last.png"
_OURS = re.compile(r"(frame_\d{5}|keyframe_first|keyframe_last)\.png(\.part)?")


def frame_name(number: int) -> str:
    """File name of the frame that is `number`-th in its gap, from 1."""
    return f"frame_{number:05d}.png"


def make_folder(parent: Path, job: str) -> Path:
    """A new folder for one job's frames. Raises OSError."""
    assert is_job(job)
    folder = parent / FOLDER / job
    folder.mkdir(parents=True)
    return folder


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


class Writer:
    """A thread that writes files, so that a slow disk does not hold up the interface."""

    def __init__(self) -> None:
        self._orders: queue.SimpleQueue[tuple[str, Path, bytes | memoryview] | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[Written] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="inbetween-writer", daemon=True)
        self._thread.start()

    def put(self, job: str, path: Path, data: bytes | memoryview) -> None:
        self._orders.put((job, path, data))

    def results(self) -> Iterator[Written]:
        """What has been done since, in the order of the orders. Never blocks."""
        while True:
            try:
                yield self._results.get_nowait()
            except queue.Empty:
                return

    def close(self) -> None:
        """Finish what was ordered, within a second, and end."""
        self._orders.put(None)
        self._thread.join(timeout=1.0)

    def _run(self) -> None:
        while (order := self._orders.get()) is not None:
            job, path, data = order
            try:
                _write_whole(path, data)
            except OSError as error:
                self._results.put(Written(job, path.name, error))
            else:
                self._results.put(Written(job, path.name))


def _write_whole(path: Path, data: bytes | memoryview) -> None:
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(data)
    os.replace(part, path)


def png_size(data: bytes | memoryview) -> tuple[int, int] | None:
    """(width, height) that a PNG file says of itself, None if it is none (PNG specification, 5.2 and 11.2.2)."""
    head = bytes(data[:24])
    if len(head) < 24 or head[:8] != b"\x89PNG\r\n\x1a\n" or head[12:16] != b"IHDR":
        return None
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
