"""`sfserver animatic` as a person uses it: words, second runs, Ctrl-C, names of media, what is said."""

from __future__ import annotations

import json
import os
import signal
import sys
import zipfile
from pathlib import Path

import barcodes
import cattrs
import pytest
import timelines as t
from counting_engine import CountingEngine
from sfwire.errors import ErrorCode, RequestError
from timelines import clip, gap, load, marker, played, save, timeline

from sfserver.cli import CANCELLED, USER_ERROR, main
from sfserver.clip import recipe


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """Three panels that say 0, 10 and 20, each five frames long, with gaps of four between."""
    for i in range(3):
        barcodes.still(tmp_path / f"panel{i}.png", i * 10)
    panels = [clip(f"panel{i}.png", 0, 5, 24) for i in range(3)]
    return save(timeline(panels[0], gap(4, 24), panels[1], gap(4, 24), panels[2]), tmp_path / "board.otio")


def fill(board: Path, *more: str, out: str = "filled.otio") -> int:
    return main(["animatic", str(board), "--out", str(board.with_name(out)), *more])


def movies(board: Path, out: str = "filled") -> list[Path]:
    return sorted(board.with_name(f"{out}_inbetween").glob("*.mp4"))


# Words


def test_markers_in_the_gap_are_prompts_in_time(engine: CountingEngine, tmp_path: Path) -> None:
    for i in range(2):
        barcodes.still(tmp_path / f"panel{i}.png", i * 10)
    before = clip("panel0.png", 0, 5, 24, metadata={"note": "never heard"})
    words = [marker(6, "then it snows", 24), marker(1, "it rains", 24)]
    made = timeline(before, gap(9, 24, words), clip("panel1.png", 0, 5, 24))
    assert fill(save(made, tmp_path / "board.otio"), "--prompt", "nor this") == 0
    assert (engine.jobs[0].prompt, engine.jobs[0].prompts) == ("it rains", ((7, "then it snows"),))


def test_guides_and_markers_of_the_track_are_heard_where_they_stand(engine: CountingEngine, board: Path) -> None:
    made = load(board)
    made.tracks.markers.append(marker(6, "a guide in the first gap", 24))
    made.tracks[0].markers.append(marker(15, "a marker of the track in the second", 24))
    made.tracks.markers.append(marker(2, "over a panel", 24))
    save(made, board)
    assert fill(board) == 0
    assert [job.prompt for job in engine.jobs] == ["a guide in the first gap", "a marker of the track in the second"]


def test_else_the_clip_before_says_it_and_else_the_command_line(engine: CountingEngine, board: Path) -> None:
    made = load(board)
    made.tracks[0][2].metadata["notes"] = "she turns"
    save(made, board)
    assert fill(board, "--prompt", "as always") == 0
    assert [job.prompt for job in engine.jobs] == ["as always", "she turns"]


def test_a_marker_in_the_end_of_a_hold_is_the_gaps(engine: CountingEngine, tmp_path: Path) -> None:
    for i in range(2):
        barcodes.still(tmp_path / f"panel{i}.png", i * 10)
    words = [marker(2, "stays with the panel", 24), marker(20, "the fox wakes", 24)]
    made = timeline(clip("panel0.png", 0, 24, 24, markers=words), clip("panel1.png", 0, 24, 24))
    board = save(made, tmp_path / "board.otio")
    assert fill(board, "--hold", "8") == 0
    assert engine.jobs[0].prompt == "the fox wakes"
    made = load(board.with_name("filled.otio"))
    panel, new, _ = made.tracks[0]
    assert [m.comment for m in panel.markers] == ["stays with the panel"]
    assert [(m.comment, m.marked_range.start_time.value) for m in new.markers] == [("the fox wakes", 4)]


# Again


def test_a_second_run_makes_only_what_changed(engine: CountingEngine, board: Path, capsys) -> None:
    assert fill(board) == 0
    first = {path.name: path.stat().st_mtime_ns for path in movies(board)}
    assert fill(board) == 0
    assert len(engine.jobs) == 2
    assert capsys.readouterr().out.splitlines()[-1].endswith("made before")
    made = load(board)
    made.tracks[0][3].markers.append(marker(0, "she runs", 24))
    save(made, board)
    assert fill(board) == 0
    assert [job.prompt for job in engine.jobs] == ["", "", "she runs"]
    assert {path.name: path.stat().st_mtime_ns for path in movies(board)}.items() > first.items()


def test_another_picture_under_the_same_name_is_noticed(engine: CountingEngine, board: Path) -> None:
    assert fill(board) == 0
    barcodes.still(board.with_name("panel2.png"), 25)
    assert fill(board) == 0
    assert len(engine.jobs) == 3
    assert played(board.with_name("filled.otio"))[14:18] == [13, 16, 19, 22]


def test_a_movie_that_was_cut_off_is_made_again(engine: CountingEngine, board: Path) -> None:
    assert fill(board) == 0
    spoiled = movies(board)[0]
    spoiled.write_bytes(spoiled.read_bytes()[:200])
    assert fill(board) == 0
    assert len(engine.jobs) == 3
    assert spoiled.stat().st_size > 200


def test_a_filled_timeline_is_filled_anew_where_it_was_edited(engine: CountingEngine, board: Path) -> None:
    assert fill(board) == 0
    edited = load(board.with_name("filled.otio"))
    edited.tracks[0][2].source_range = t.span(0, 9, 24)  # a panel that stays longer changes no picture
    edited.tracks[0][3].source_range = t.span(0, 3, 24)
    save(edited, board.with_name("edited.otio"))
    assert fill(board.with_name("edited.otio"), out="again.otio") == 0
    assert len(engine.jobs) == 3
    assert len(engine.jobs[2].wanted()) == 3
    again = load(board.with_name("again.otio"))
    assert [c.name for c in again.tracks[0]] == [c.name for c in edited.tracks[0]]


def test_the_same_pair_twice_is_made_once(engine: CountingEngine, tmp_path: Path) -> None:
    for i in range(2):
        barcodes.still(tmp_path / f"panel{i}.png", i * 10)
    ends = [clip(f"panel{i % 2}.png", 0, 5, 24) for i in range(4)]
    made = timeline(ends[0], gap(4, 24), ends[1], gap(4, 24), ends[2], gap(4, 24), ends[3])
    board = save(made, tmp_path / "board.otio")
    assert fill(board) == 0
    assert len(engine.jobs) == 2
    assert played(tmp_path / "filled.otio")[5:9] == played(tmp_path / "filled.otio")[23:27] == [2, 4, 6, 8]


def test_the_recipe_is_in_the_clip_and_in_the_movie(engine: CountingEngine, board: Path) -> None:
    assert fill(board, "--seed", "7", "--prompt", "a fox") == 0
    made = load(board.with_name("filled.otio"))
    record = made.tracks[0][1].metadata["sfserver"]
    inside = recipe.read(movies(board)[0])
    assert json.loads(inside.text()) == json.loads(json.dumps(cattrs.unstructure(inside)))
    assert record["recipe"]["seed"] == inside.seed == 7
    assert record["recipe"]["prompt"] == inside.prompt == "a fox"
    assert record["key"] == inside.key


def test_no_recipe_leaves_the_prompt_nowhere(engine: CountingEngine, board: Path) -> None:
    assert fill(board, "--prompt", "the secret fox", "--no-recipe") == 0
    for path in (board.with_name("filled.otio"), *movies(board)):
        assert b"secret" not in path.read_bytes()
    assert fill(board, "--prompt", "the secret fox", "--no-recipe") == 0
    assert len(engine.jobs) == 2, "it is known again by its hash all the same"


@pytest.mark.parametrize(("codec", "suffix"), [("prores", ".mov"), ("ffv1", ".mkv"), ("png", ".mov")])
def test_clips_may_be_kept_in_other_codecs(codec: str, suffix: str, engine: CountingEngine, board: Path) -> None:
    assert fill(board, "--codec", codec) == 0
    assert {path.suffix for path in board.with_name("filled_inbetween").iterdir()} == {suffix, ".json"}
    assert played(board.with_name("filled.otio")) == played_of_pairs()
    assert fill(board, "--codec", codec) == 0
    assert len(engine.jobs) == 2
    assert fill(board) == 0
    assert len(engine.jobs) == 4, "another codec is another movie"


# Broken off


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent as SIGINT")
def test_ctrl_c_keeps_what_is_whole_and_the_next_makes_the_rest(engine: CountingEngine, board: Path, capsys) -> None:
    def press(index: int) -> None:
        if len(engine.jobs) == 2 and index == 2:
            os.kill(os.getpid(), signal.SIGINT)

    engine.at = press
    assert fill(board) == CANCELLED
    assert f"cancelled; 1 of 2 gaps are filled in {board.with_name('filled.otio')}" in capsys.readouterr().err
    assert played(board.with_name("filled.otio")) == [*[0] * 5, 2, 4, 6, 8, *[10] * 5, *[None] * 4, *[20] * 5]
    assert [path.suffix for path in board.with_name("filled_inbetween").iterdir()].count(".mp4") == 1
    assert not list(board.with_name("filled_inbetween").glob("*.part"))
    engine.at = lambda index: None
    assert fill(board) == 0
    assert len(engine.jobs) == 3
    assert None not in played(board.with_name("filled.otio"))


def test_a_gap_that_fails_is_said_and_the_others_are_made(engine: CountingEngine, board: Path, capsys) -> None:
    def fail(index: int) -> None:
        if len(engine.jobs) == 1 and index == 3:
            raise RequestError(ErrorCode.OUT_OF_MEMORY, "the device has no memory left; try 256x256")

    engine.at = fail
    assert fill(board) == 0
    said = capsys.readouterr()
    assert "not filled: gap at 00:00:00:05 on V1, 4 frames: the device has no memory left; try 256x256" in said.err
    assert "1 of 2 gaps filled" in said.out
    assert played(board.with_name("filled.otio")) == [*[0] * 5, *[None] * 4, *[10] * 5, 12, 14, 16, 18, *[20] * 5]


# Names and places


def test_movies_are_named_as_the_clips_beside_them_or_as_asked(engine: CountingEngine, board: Path) -> None:
    def url(out: str) -> str:
        made = load(board.with_name(out))
        return made.tracks[0][1].media_reference.target_url

    assert fill(board) == 0
    assert url("filled.otio").startswith("filled_inbetween/")
    assert fill(board, "--absolute", out="absolute.otio") == 0
    assert url("absolute.otio").startswith(str(board.parent / "absolute_inbetween"))
    made = load(board)
    made.tracks[0][0].media_reference.target_url = f"file://{board.parent}/panel0.png"
    save(made, board.with_name("urls.otio"))
    assert fill(board.with_name("urls.otio"), out="as_urls.otio") == 0
    assert url("as_urls.otio").startswith(f"file://{board.parent}/as_urls_inbetween/")


def test_written_elsewhere_relative_names_lead_to_the_same_files(engine: CountingEngine, board: Path) -> None:
    out = board.parent / "sub" / "deep" / "filled.otio"
    assert main(["animatic", str(board), "--out", str(out)]) == 0
    assert played(out) == played_of_pairs()


def played_of_pairs() -> list[int | None]:
    return [*[0] * 5, 2, 4, 6, 8, *[10] * 5, 12, 14, 16, 18, *[20] * 5]


@pytest.mark.parametrize(("first", "second"), [("otio", "otioz"), ("otioz", "otioz"), ("otioz", "otio")])
def test_bundles_hold_their_media(first: str, second: str, engine: CountingEngine, board: Path, monkeypatch) -> None:
    if first == "otioz":
        bundled = board.with_name("bundled.otioz")
        monkeypatch.chdir(board.parent)
        t.otio.adapters.write_to_file(load(board), str(bundled))
        monkeypatch.chdir("/")
        board = bundled
        for panel in board.parent.glob("panel*.png"):
            panel.unlink()
    out = board.with_name(f"filled.{second}")
    assert main(["animatic", str(board), "--out", str(out)]) == 0
    if second == "otioz":
        inside = board.parent / "unpacked"
        with zipfile.ZipFile(out) as packed:
            assert packed.testzip() is None
            packed.extractall(inside)
        out = inside / "content.otio"
        for movie in movies(board):
            movie.unlink()
    assert played(out) == played_of_pairs()


def test_two_formats_share_their_movies_and_are_both_known(engine: CountingEngine, board: Path) -> None:
    for _ in range(2):
        assert fill(board) == 0
        assert fill(board, out="filled.otioz") == 0
    assert len(engine.jobs) == 2


def test_one_track_alone(engine: CountingEngine, board: Path) -> None:
    made = load(board)
    made.tracks.append(made.tracks[0].deepcopy())
    made.tracks[1].name = "Titles"
    save(made, board)
    assert fill(board, "--track", "Titles") == 0
    assert None in played(board.with_name("filled.otio"), 0)
    assert None not in played(board.with_name("filled.otio"), 1)
    assert fill(board, "--track", "V1", out="other.otio") == 0
    assert None not in played(board.with_name("other.otio"), 0)


def test_what_another_wrote_is_not_written_over(engine: CountingEngine, board: Path, capsys) -> None:
    out = board.with_name("filled.otio")
    out.write_text("my own work")
    assert fill(board) == USER_ERROR
    assert "is there already" in capsys.readouterr().err
    assert out.read_text() == "my own work"
    assert fill(board, "--overwrite") == 0
    assert fill(board) == 0
    save(load(out), out)  # as an editor would that changed it
    out.write_text(out.read_text() + "\n")
    assert fill(board) == USER_ERROR
    assert "was changed since" in capsys.readouterr().err
    assert fill(board, out="board.otio") == USER_ERROR
    assert "is the timeline that is read" in capsys.readouterr().err
