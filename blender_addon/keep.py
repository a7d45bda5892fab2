"""Where strips find their frames: beside the .blend as soon as there is one, by a path that moves with it.

Frames of a file that was never saved lie in Blender's folder for the user's data, which outlives this extension. When
the file is saved they are brought beside it; those in the user's folder stay, since another file may show them (an
auto-save, a copy), until the user has them cleaned. Nothing is overwritten.
"""

from __future__ import annotations

from pathlib import Path

import bpy

from . import drafts, frames, strips


def user_parents() -> tuple[Path, ...]:
    """Where frames of unsaved files may lie: the place of today, and that of version 0.1.0."""
    today = Path(bpy.utils.user_resource("DATAFILES"))
    return today, Path(bpy.utils.extension_path_user(__package__, path="unsaved"))


def parent() -> Path:
    """The folder below which frames are kept: the .blend's, or while there is none the user's."""
    return Path(bpy.data.filepath).parent if bpy.data.filepath else user_parents()[0]


def written(folder: Path) -> str:
    """A folder as a strip holds it: relative to the .blend where it lies below that."""
    if not bpy.data.filepath or not folder.is_relative_to(Path(bpy.data.filepath).parent):
        return str(folder)
    return bpy.path.relpath(str(folder))


def bring_beside(file: Path) -> dict[str, Path]:
    """Before `file` is saved: what its strips show from the user's folder is brought beside it, and paths below it
    become relative. Returns the new folders by job. Raises OSError, with the strips left as they are."""
    homes = [home / frames.FOLDER for home in user_parents()]
    brought = {}
    for folder in strips.frame_folders():
        if folder.parent in homes and folder.is_dir():
            beside = frames.copy_folder(folder, file.parent)
            strips.repoint(folder, str(beside))
            brought[folder.name] = beside
    make_relative()
    return brought


def make_relative() -> None:
    """Write the folders below the .blend's as paths that move with it."""
    for folder in strips.frame_folders():
        strips.repoint(folder, written(folder))


def find_again() -> None:
    """After a load or an undo: strips whose frames are gone, or in the user's folder, show those beside the file; and
    instead of a draft what has come since."""
    homes = [home / frames.FOLDER for home in user_parents()]
    for folder in strips.frame_folders() if bpy.data.filepath else ():
        beside = parent() / frames.FOLDER / folder.name
        if folder != beside and beside.is_dir() and (folder.parent in homes or not folder.is_dir()):
            strips.repoint(folder, written(beside))
    drafts.show_what_came()
