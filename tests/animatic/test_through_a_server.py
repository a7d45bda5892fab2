"""`sfserver animatic --connect`: one job a gap, all submitted, so that several workers share them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import timelines as t
from PIL import Image
from timelines import clip, gap, save, timeline

sys.path.insert(0, str(Path(__file__).parents[1] / "serve"))

from fake_engines import picture
from servers import Server, eventually, running

from sfserver.animatic import fill
from sfserver.cli import USER_ERROR, main

SIDE = 64


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("server"), workers=2) as server:
        yield server


@pytest.fixture
def board(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four panels, three gaps of eight."""
    monkeypatch.setenv("SFSERVER_CONNECTION_FILE", str(server.connection_file))
    for i in range(4):
        Image.new("RGB", (SIDE, SIDE), (i * 60, 0, 0)).save(tmp_path / f"panel{i}.png")
    items = [item for i in range(4) for item in (clip(f"panel{i}.png", 0, 5, 24), gap(8, 24))]
    return save(timeline(*items[:-1]), tmp_path / "board.otio")


def run(board: Path, *more: str) -> int:
    return main(
        ["animatic", str(board), "--connect", "--seed", "3", "--out", str(board.with_name("filled.otio")), *more]
    )


def frames(movie: Path) -> list[np.ndarray]:
    with av.open(str(movie)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_several_workers_share_the_gaps(server: Server, board: Path, monkeypatch) -> None:
    """All three are under way at once: they were not submitted one after the other."""
    turn = fill.Filling._turn
    live: list[int] = []

    def watched(filling: fill.Filling, *more):
        live.append(len(filling._live))
        return turn(filling, *more)

    monkeypatch.setattr(fill.Filling, "_turn", watched)
    assert run(board, "--set", "delay_ms=5") == 0
    assert max(live) == 3
    movies = sorted(board.with_name("filled_inbetween").glob("*.mp4"))
    assert len(movies) == 3
    for movie in movies:
        made = frames(movie)
        assert len(made) == 8
        for i, frame in enumerate(made):
            wanted = picture(3, i + 1, SIDE, SIDE)
            assert abs(frame.mean() - wanted.mean()) < 8, "colours of noise suffer in H.264; its mean does not"


def test_a_killed_worker_costs_no_frame(server: Server, board: Path) -> None:
    assert run(board, "--set", "fault=die", "--set", "fault_at=4") == 0
    assert [len(frames(m)) for m in board.with_name("filled_inbetween").glob("*.mp4")] == [8, 8, 8]


def test_a_server_that_is_not_there_is_one_line(board: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("SFSERVER_CONNECTION_FILE", str(tmp_path / "nowhere.json"))
    assert run(board) == USER_ERROR
    assert "no server is running" in capsys.readouterr().err.splitlines()[-1]
    assert not board.with_name("filled.otio").exists()
    assert not board.with_name("filled_inbetween").exists()


def test_nothing_is_left_working_at_the_server(server: Server, board: Path) -> None:
    assert run(board) == 0
    with server.client(name="looks") as looks:
        eventually(lambda: not looks.status().jobs)
    made = t.load(board.with_name("filled.otio"))
    assert made.tracks[0][1].metadata["sfserver"]["engine"] == "Fake"
