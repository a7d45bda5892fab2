"""A folder that came from somebody else may hold links under the names that we write to: nothing is written through."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from sfserver.media import MediaError, SequenceWriter
from sfserver.media import files as written
from sfserver.media.clip import ClipWriter
from sfserver.media.files import appearing, claim, make_folder

PICTURE = np.zeros((32, 32, 3), np.uint8)
MINE = b"what is mine\n"


def a_clip(folder: Path) -> None:
    clip = ClipWriter(folder / "clip.mp4", 32, 32, Fraction(24))
    clip.write(PICTURE)
    clip.close()


def a_sequence(folder: Path) -> None:
    SequenceWriter(folder, goes_on=True).write(0, PICTURE)


def a_text(folder: Path) -> None:
    with appearing(folder / "recipe.json") as part:
        part.write_text("{}")


def a_probe(folder: Path) -> None:
    make_folder(folder)


WRITERS = [
    (a_clip, "clip.mp4.part"),
    (a_sequence, "0000.png.part"),
    (a_text, "recipe.json.part"),
    (a_probe, ".probe.part"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "mine").write_bytes(MINE)
    return tmp_path / "mine"


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to], ids=["symbolic", "hard"])
@pytest.mark.parametrize(("write", "name"), WRITERS, ids=lambda value: getattr(value, "__name__", ""))
def test_what_a_link_leads_to_stays_as_it_is(
    write: Callable[[Path], None], name: str, link: Callable[[Path, Path], None], folder: Path, mine: Path
) -> None:
    link(folder / name, mine)
    write(folder)
    assert mine.read_bytes() == MINE
    assert not (folder / name).exists()


@pytest.mark.parametrize(("write", "name"), WRITERS[:3], ids=lambda value: getattr(value, "__name__", ""))
def test_the_control_without_a_beginning_of_its_own_it_is_written_over(
    write: Callable[[Path], None], name: str, folder: Path, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sfserver.media.clip.begin", Path.touch)
    monkeypatch.setattr(written, "begin", Path.touch)
    (folder / name).symlink_to(mine)
    write(folder)
    assert mine.read_bytes() != MINE


def test_nothing_is_made_where_a_link_leads_nowhere(folder: Path, tmp_path: Path) -> None:
    (folder / ".probe.part").symlink_to(tmp_path / "autostart")
    make_folder(folder)
    assert not (tmp_path / "autostart").exists()


def test_a_folder_in_the_way_is_one_sentence(folder: Path) -> None:
    (folder / "recipe.json.part").mkdir()
    with pytest.raises(MediaError, match="cannot be written"):
        a_text(folder)


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="Windows knows no such links without more rights")
def test_a_lock_that_is_a_link_is_refused_and_nothing_is_emptied(folder: Path, mine: Path) -> None:
    (folder / ".lock").symlink_to(mine)
    with pytest.raises(MediaError, match="cannot be written"):
        claim(folder)
    assert mine.read_bytes() == MINE
