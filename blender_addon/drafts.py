"""Strips that still show a draft's pictures: which do, and what of it has come since."""

from __future__ import annotations

from pathlib import Path

from .frames import standing_for
from .strips import show_pictures, showing_frames
from .written import note


def shows_draft(folder: Path) -> bool:
    """Whether some strip of this file shows a draft's picture from the folder."""
    return any(
        shown == folder and any(standing_for(element.filename) for element in strip.elements)
        for strip, shown in showing_frames()
    )


def show_what_came() -> None:
    """Have strips that show a draft show what it stood in for, as far as that is on disk: a file that was saved in
    between, or an undo, knows no better."""
    for strip, folder in showing_frames():
        if note(strip, "draft_engine"):
            there = [_came(folder, element.filename) for element in strip.elements]
            show_pictures(strip, there)


def _came(folder: Path, name: str) -> str:
    final = standing_for(name)
    return final if final is not None and (folder / final).is_file() else name
