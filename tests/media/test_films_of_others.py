"""A film that somebody else made leads to no other file and to no address."""

from __future__ import annotations

import socket
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from sfserver.media import MediaError
from sfserver.media.clip import ClipWriter
from sfserver.media.codecs import CODECS
from sfserver.media.container import open_film
from sfserver.media.movie import read_movie

LEADING = "ffconcat version 1.0\nfile private.mp4\n"


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """A film that nobody was to see, beside the one that was sent."""
    clip = ClipWriter(tmp_path / "private.mp4", 64, 64, Fraction(24))
    for _ in range(5):
        clip.write(np.full((64, 64, 3), 200, np.uint8))
    clip.close()
    return tmp_path / "private.mp4"


def test_a_list_of_films_is_none(private: Path) -> None:
    path = private.with_name("list.mp4")
    path.write_text(LEADING)
    with pytest.raises(MediaError, match="is no movie"):
        read_movie(path, Fraction(0))


def test_the_control_without_this_another_film_is_opened(private: Path) -> None:
    path = private.with_name("list.mp4")
    path.write_text(LEADING)
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).width == 64


def test_a_name_is_never_an_address(private: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(private.parent)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        name = Path(f"tcp:127.0.0.1:{server.getsockname()[1]}")
        name.write_bytes(private.read_bytes())
        with open_film(name) as container:
            assert next(container.decode(video=0)).width == 64
        with pytest.raises(BlockingIOError):
            server.accept()


def test_the_control_without_this_it_is_one(private: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(private.parent)
    Path("concat:private.mp4").write_bytes(b"no film")
    with av.open("concat:private.mp4") as container:
        assert next(container.decode(video=0)).width == 64
    with pytest.raises(MediaError):
        read_movie(Path("concat:private.mp4"), Fraction(0))


@pytest.mark.parametrize("codec", CODECS.values(), ids=lambda codec: codec.name)
def test_what_we_write_ourselves_is_read(codec, tmp_path: Path) -> None:
    for suffix in codec.suffixes:
        clip = ClipWriter(tmp_path / f"film{suffix}", 64, 64, Fraction(24), codec=codec)
        clip.write(np.full((64, 64, 3), 90, np.uint8))
        clip.close()
        assert read_movie(tmp_path / f"film{suffix}", Fraction(0)).image.shape == (64, 64, 3)
