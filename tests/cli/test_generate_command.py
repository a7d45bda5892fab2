"""`sfserver generate`, in process, with an engine that dissolves."""

from __future__ import annotations

import os
import signal
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from dissolving_engine import DissolvingEngine, ctrl_c, dissolve, out_of_memory
from PIL import Image

from sfserver.cli import CANCELLED, USER_ERROR, main
from sfserver.clip import interrupts, planning
from sfserver.media import MediaError, SequenceWriter


def names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def pixels(path: Path | str) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def clip_frames(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


# What it leaves


def test_folder_gets_sequence_clip_and_sheet(engine: DissolvingEngine, pair, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    assert main(["generate", *pair, "--frames", "9", "--out", str(out)]) == 0
    assert names(out) == ["clip.mp4", "contact_sheet.png", *[f"frames/{i:04}.png" for i in range(9)], "recipe.json"]
    assert clip_frames(out / "clip.mp4") == 9
    assert capsys.readouterr().out.startswith(f"9 frames in {out}: 7 made by fake in ")


def test_keyframes_stay_untouched_and_the_rest_is_the_engines(engine: DissolvingEngine, pair, tmp_path: Path) -> None:
    main(["generate", *pair, "--frames", "9", "--out", str(tmp_path / "out")])
    assert np.array_equal(pixels(tmp_path / "out/frames/0000.png"), pixels(pair[0]))
    assert np.array_equal(pixels(tmp_path / "out/frames/0008.png"), pixels(pair[1]))
    for i in range(1, 8):
        assert np.array_equal(pixels(tmp_path / f"out/frames/{i:04}.png"), dissolve(engine.jobs[0], i))


def test_mp4_alone(engine: DissolvingEngine, pair, tmp_path: Path) -> None:
    assert main(["generate", *pair, "--frames", "9", "--fps", "29.97", "--out", str(tmp_path / "new/clip.mp4")]) == 0
    assert names(tmp_path / "new") == ["clip.mp4"]
    with av.open(str(tmp_path / "new/clip.mp4")) as container:
        assert container.streams.video[0].average_rate == Fraction(30000, 1001)
    assert clip_frames(tmp_path / "new/clip.mp4") == 9


def test_between_only_leaves_keyframes_out_and_keeps_numbers(engine: DissolvingEngine, pair, tmp_path: Path) -> None:
    assert main(["generate", *pair, "--frames", "5", "--between-only", "--out", str(tmp_path / "out")]) == 0
    assert names(tmp_path / "out/frames") == ["0001.png", "0002.png", "0003.png"]
    assert clip_frames(tmp_path / "out/clip.mp4") == 3


def test_further_keyframes_come_at_their_place_in_any_order(engine: DissolvingEngine, pair, tmp_path: Path) -> None:
    for name, colour in (("a", 10), ("b", 240)):
        Image.new("RGB", (64, 48), (colour, colour, colour)).save(tmp_path / f"{name}.png")
    further = ["--at", f"6:{tmp_path / 'b.png'}", "--at", f"2:{tmp_path / 'a.png'}"]
    assert main(["generate", *pair, "--frames", "9", *further, "--out", str(tmp_path / "out")]) == 0
    assert [k.at for k in engine.jobs[0].keyframes] == [0, 2, 6, 8]
    assert (pixels(tmp_path / "out/frames/0002.png") == 10).all()
    assert (pixels(tmp_path / "out/frames/0006.png") == 240).all()
    assert clip_frames(tmp_path / "out/clip.mp4") == 9


def test_auto_size_is_the_start_pictures_as_the_engine_needs_it(engine: DissolvingEngine, pair, tmp_path: Path) -> None:
    Image.new("RGB", (101, 75)).save(tmp_path / "odd.png")
    main(["generate", str(tmp_path / "odd.png"), pair[1], "--frames", "3", "--out", str(tmp_path / "out")])
    assert (engine.jobs[0].width, engine.jobs[0].height) == (104, 72)
    assert pixels(tmp_path / "out/frames/0001.png").shape == (72, 104, 3)


def test_what_is_typed_reaches_the_engine_in_its_type(engine: DissolvingEngine, pair, tmp_path: Path) -> None:
    typed = ["--set", "level=7", "--set", "gain=1", "--set", "mirror=yes", "--set", "style=loud", "--seed", "5"]
    main(
        [
            "generate",
            *pair,
            "--size",
            "128x64",
            "--prompt",
            "a",
            "--negative-prompt",
            "b",
            *typed,
            "--out",
            str(tmp_path / "o"),
        ]
    )
    job = engine.jobs[0]
    assert job.params == {"level": 7, "gain": 1.0, "mirror": True, "style": "loud"}
    assert (job.width, job.height, job.num_frames, job.seed) == (128, 64, 33, 5)
    assert (job.prompt, job.negative_prompt) == ("a", "b")


def test_what_the_engine_found_is_told_with_its_place(engine: DissolvingEngine, pair, tmp_path: Path, capsys) -> None:
    engine.finding = "camera: push 1.6x"
    assert main(["generate", *pair, "--frames", "4", "--out", str(tmp_path / "one")]) == 0
    assert "note: camera: push 1.6x\n" in capsys.readouterr().err
    typed = ["--at", f"3:{pair[0]}", "--frames", "7", "--out", str(tmp_path / "two")]
    assert main(["generate", *pair, *typed]) == 0
    err = capsys.readouterr().err
    assert "frames 0 to 3: camera: push 1.6x" in err
    assert "frames 3 to 6: camera: push 1.6x" in err


def test_what_is_found_again_after_an_interruption_is_told_once(
    engine: DissolvingEngine, pair, tmp_path, capsys
) -> None:
    engine.finding = "camera: push 1.6x"
    assert (
        main(["generate", *pair, "--frames", "6", "--out", str(tmp_path / "one")]) == 0
    )  # found with each of two chunks
    assert capsys.readouterr().err.count("camera: push 1.6x") == 1


def test_later_prompts_reach_the_engine_in_order_of_time(engine: DissolvingEngine, pair, tmp_path: Path) -> None:
    typed = ["--prompt", "sun", "--prompt-at", "6:it rains: a lot", "--prompt-at", "2:clouds"]
    assert main(["generate", *pair, "--frames", "9", *typed, "--out", str(tmp_path / "out")]) == 0
    assert engine.jobs[0].prompt == "sun"
    assert engine.jobs[0].prompts == ((2, "clouds"), (6, "it rains: a lot"))


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["6"], "is not a frame and a prompt"),
        (["x:rain"], "is not a frame and a prompt"),
        (["6: "], "is not a frame and a prompt"),
        (["9:rain"], "outside the clip of 9 frames"),
        (["2:rain", "2:sun"], "another prompt begins at frame 2"),
    ],
)
def test_a_later_prompt_that_cannot_be_is_refused(typed, said, engine, pair, tmp_path: Path, capsys) -> None:
    options = [option for text in typed for option in ("--prompt-at", text)]
    assert main(["generate", *pair, "--frames", "9", *options, "--out", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err
    assert not engine.jobs


def test_notes_say_what_the_user_should_know(engine: DissolvingEngine, pair, tmp_path: Path, capsys) -> None:
    engine.confidence = 0.3
    Image.new("RGBA", (48, 64), (0, 0, 0, 0)).save(tmp_path / "tall.png")
    assert (
        main(
            [
                "generate",
                pair[0],
                str(tmp_path / "tall.png"),
                "--frames",
                "5",
                "--prompt",
                "x",
                "--out",
                str(tmp_path / "o"),
            ]
        )
        == 0
    )
    err = capsys.readouterr().err
    for part in (
        "ignores the prompt",
        "different aspects",
        "what is transparent was filled with grey",
        "3 of 3 frames are uncertain",
    ):
        assert part in err


def test_threads_of_torch_are_told_not_to_spin_before_it_is_loaded(
    engine: DissolvingEngine, pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str | None] = []

    def load(engine_id: str, config: object) -> DissolvingEngine:
        seen.append(os.environ.get("OMP_WAIT_POLICY"))
        return engine

    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")  # so that the variable is put back after the test
    monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setattr(planning.table, "load", load)
    main(["generate", *pair, "--frames", "3", "--out", str(tmp_path / "out")])
    assert seen == ["PASSIVE"]


def test_same_command_gives_the_same_bytes(engine: DissolvingEngine, pair, tmp_path: Path) -> None:
    for out in ("a", "b"):
        main(["generate", *pair, "--frames", "5", "--out", str(tmp_path / out)])
    for name in names(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


# What goes wrong

BAD = {
    "missing start": (["{nowhere}", "{end}"], "there is no such file"),
    "not a picture": (["{text}", "{end}"], "is not a PNG"),
    "one pixel": (["{start}", "{dot}"], "1x1"),
    "folder": (["{start}", "{folder}"], "is a folder"),
    "no frames": (["{start}", "{end}", "--frames", "-5"], "--frames -5: START and END count"),
    "two frames": (["{start}", "{end}", "--frames", "2"], "--frames 2: START and END count"),
    "over the protocol": (["{start}", "{end}", "--frames", "1001"], "--frames 1001: at most 1000 are made at once"),
    "over the engine": (["{start}", "{end}", "--frames", "301"], "makes clips of 2 to 300"),
    "no number": (["{start}", "{end}", "--frames", "many"], "valid integer"),
    "size": (["{start}", "{end}", "--size", "big"], "neither auto nor a size"),
    "size zero": (["{start}", "{end}", "--size", "0x0"], "needs at least 16"),
    "size off grid": (["{start}", "{end}", "--size", "100x96"], "needs a multiple of 8, try 96"),
    "size over engine": (["{start}", "{end}", "--size", "1024x1024"], "choose a smaller size"),
    "size over protocol": (["{start}", "{end}", "--size", "9000x16"], "more than 4096 pixels"),
    "fit": (["{start}", "{end}", "--fit", "zoom"], "'zoom' is not one of"),
    "engine": (["{start}", "{end}", "--engine", "nope"], "there is no engine 'nope'; there are: fake"),
    "folder without weights": (["{start}", "{end}", "--engine", "{folder}"], "{folder}"),
    "unknown setting": (["{start}", "{end}", "--set", "speed=1"], "has no parameter 'speed'; it has: style"),
    "setting type": (["{start}", "{end}", "--set", "level=high"], "must be a whole number"),
    "setting range": (["{start}", "{end}", "--set", "level=10"], "must lie between 0 and 9"),
    "setting nan": (["{start}", "{end}", "--set", "gain=nan"], "must lie between 0 and 2"),
    "setting choice": (["{start}", "{end}", "--set", "style=x"], "choose one of plain, loud"),
    "setting bool": (["{start}", "{end}", "--set", "mirror=maybe"], "must be true or false"),
    "setting form": (["{start}", "{end}", "--set", "level"], "not a name and a value"),
    "seed": (["{start}", "{end}", "--seed", "-1"], "seed: -1 is outside 0 to"),
    "seed too large": (["{start}", "{end}", "--seed", str(2**63)], "seed: 9223372036854775808 is outside 0 to"),
    "fps zero": (["{start}", "{end}", "--fps", "0"], "outside 1 to 240"),
    "fps over zero": (["{start}", "{end}", "--fps", "1/0"], "is not a rate"),
    "fps without end": (["{start}", "{end}", "--fps", "1e99999999"], "is not a rate"),
    "a pipe": (["{start}", "{pipe}"], "is not a file"),
    "fps word": (["{start}", "{end}", "--fps", "fast"], "is not a rate"),
    "at start": (["{start}", "{end}", "--at", "0:{end}"], "frame 0 is START already"),
    "at end": (["{start}", "{end}", "--at", "32:{end}"], "frame 32 is END already"),
    "at outside": (["{start}", "{end}", "--at", "33:{end}"], "choose 1 to 31"),
    "at twice": (["{start}", "{end}", "--at", "5:{end}", "--at", "5:{start}"], "choose another frame"),
    "at form": (["{start}", "{end}", "--at", "middle.png"], "not a frame and a picture"),
    "at missing": (["{start}", "{end}", "--at", "5:{nowhere}"], "there is no such file"),
    "25 keyframes": (
        ["{start}", "{end}", *[word for i in range(1, 24) for word in ("--at", f"{i}:{{end}}")]],
        "23 pictures between START and END; at most 22",
    ),
    "long prompt": (["{start}", "{end}", "--prompt", "x" * 4001], "prompt: 4001 characters"),
    "control characters": (["{start}", "{end}", "--prompt", "a\x1bb"], "control characters"),
    "no server": (["{start}", "{end}", "--connect"], "no server is running"),
    "unknown option": (["{start}", "{end}", "--frame", "9"], "No such option"),
    "missing end": (["{start}"], "Missing argument 'END'"),
    "foreign file": (["{start}", "{end}", "--out", "{folder}/clip.webm"], ".webm is not written"),
    "folder named as a clip": (["{start}", "{end}", "--out", "{clip}"], "is a folder"),
    "file in the way": (["{start}", "{end}", "--out", "{text}"], "a file stands where a folder is needed"),
    "file on the way": (
        ["{start}", "{end}", "--out", "{text}/deep/clip.mp4"],
        "a file stands where a folder is needed",
    ),
    "pictures are there": (["{start}", "{end}", "--out", "{used}"], "already holds pictures"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_the_user_can_mend_is_one_line_and_leaves_nothing(
    engine: DissolvingEngine, pair, tmp_path: Path, capsys, name: str
) -> None:
    places = {"start": pair[0], "end": pair[1], "nowhere": tmp_path / "nowhere.png"}
    for kind in ("text", "dot", "folder", "clip", "used", "pipe"):
        places[kind] = tmp_path / {"text": "text.txt", "dot": "dot.png", "clip": "clip.mp4"}.get(kind, kind)
    Path(places["text"]).write_text("hello")
    os.mkfifo(places["pipe"])
    Image.new("RGB", (1, 1)).save(places["dot"])
    for kind in ("folder", "clip", "used"):
        Path(places[kind]).mkdir()
    (Path(places["used"]) / "frames").mkdir()
    (Path(places["used"]) / "frames" / "0007.png").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    arguments, sentence = BAD[name]
    arguments = [a.format(**places) for a in arguments]
    if "--out" not in arguments:
        arguments += ["--out", str(tmp_path / "out" / "deep")]
    assert main(["generate", *arguments]) == USER_ERROR
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if not line.startswith("note: ")]
    assert len(lines) == 1, err
    assert lines[0].startswith("sfserver: ")
    assert sentence.format(**places) in lines[0]
    assert sorted(tmp_path.rglob("*")) == before
    assert engine.jobs == []


def test_bad_setting_in_the_environment_is_one_line(
    engine: DissolvingEngine, pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setenv("SFSERVER_DEVICE", "toaster")
    assert main(["generate", *pair, "--out", str(tmp_path / "out")]) == USER_ERROR
    assert capsys.readouterr().err == "sfserver: SFSERVER_DEVICE: 'toaster'; choose one of auto, cpu, cuda, mps\n"


def test_failure_in_mid_clip_keeps_the_frames(engine: DissolvingEngine, pair, tmp_path: Path, capsys) -> None:
    engine.at = out_of_memory(5)
    out = tmp_path / "out"
    assert main(["generate", *pair, "--frames", "9", "--out", str(out)]) == USER_ERROR
    assert names(out) == ["clip.mp4", "contact_sheet.png", *[f"frames/{i:04}.png" for i in range(5)], "recipe.json"]
    assert clip_frames(out / "clip.mp4") == 5
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"sfserver: the device has no memory left; try 256x256; the first 4 of 7 frames are in {out}"


@pytest.mark.parametrize("out", ["out", "new/clip.mp4"])
def test_failure_before_any_frame_leaves_nothing(engine: DissolvingEngine, pair, tmp_path: Path, out: str) -> None:
    engine.at = out_of_memory(1)
    assert main(["generate", *pair, "--out", str(tmp_path / out)]) == USER_ERROR
    assert names(tmp_path) == ["end.png", "start.png"]
    assert not (tmp_path / out).parent.joinpath("new").exists()
    assert not (tmp_path / "out").exists()


def test_full_disk_leaves_whole_frames_and_no_clip(
    full_disk_for, engine: DissolvingEngine, pair, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "out"
    full_disk_for("0003.png")
    assert main(["generate", *pair, "--frames", "9", "--out", str(out)]) == USER_ERROR
    assert names(out) == ["frames/0000.png", "frames/0001.png", "frames/0002.png"]
    assert "the disk is full; free some space" in capsys.readouterr().err.splitlines()[-1]
    assert engine.closed


def test_disk_that_is_full_at_the_last_file_leaves_what_is_whole(
    full_disk_for, engine, pair, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "out"
    full_disk_for("contact_sheet.png")
    assert main(["generate", *pair, "--frames", "3", "--out", str(out)]) == USER_ERROR
    assert names(out) == ["clip.mp4", "frames/0000.png", "frames/0001.png", "frames/0002.png"]
    assert clip_frames(out / "clip.mp4") == 3
    assert "contact_sheet.png: the disk is full" in capsys.readouterr().err.splitlines()[-1]


def test_mistake_of_ours_keeps_its_traceback_but_no_half_clip(engine: DissolvingEngine, pair, tmp_path: Path) -> None:
    def bug(at: int) -> None:
        if at == 5:
            raise ZeroDivisionError

    engine.at = bug
    with pytest.raises(ZeroDivisionError):
        main(["generate", *pair, "--frames", "9", "--out", str(tmp_path / "out")])
    assert names(tmp_path / "out") == [f"frames/{i:04}.png" for i in range(5)]


# Ctrl-C


@pytest.mark.parametrize("out", ["out", "clip.mp4"])
def test_ctrl_c_keeps_the_frames_made_so_far_and_says_so(
    engine: DissolvingEngine, pair, tmp_path: Path, capsys, out: str
) -> None:
    engine.at = ctrl_c(6)
    assert main(["generate", *pair, "--frames", "9", "--out", str(tmp_path / out)]) == CANCELLED
    clip = tmp_path / out if out.endswith(".mp4") else tmp_path / out / "clip.mp4"
    assert clip_frames(clip) == 5, "the first keyframe and frames 1 to 4; frame 5 was in a chunk that never came"
    assert capsys.readouterr().err.splitlines()[-1] == f"sfserver: cancelled; 4 of 7 frames are in {tmp_path / out}"
    assert engine.closed
    assert not list(tmp_path.rglob("*.part"))


def test_ctrl_c_before_the_first_frame_leaves_nothing(engine: DissolvingEngine, pair, tmp_path: Path, capsys) -> None:
    engine.at = ctrl_c(1)
    assert main(["generate", *pair, "--out", str(tmp_path / "out")]) == CANCELLED
    assert not (tmp_path / "out").exists()
    assert capsys.readouterr().err.splitlines()[-1] == "sfserver: cancelled; nothing was made"


@pytest.mark.parametrize("is_guarded", [True, False], ids=["guarded", "control"])
def test_ctrl_c_while_a_frame_is_written_waits_until_it_is_whole(
    engine: DissolvingEngine, pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_guarded: bool
) -> None:
    """In the control Ctrl-C is not held back: the frame is on disk but missing from the clip."""
    write = SequenceWriter.write

    def write_and_interrupt(self: SequenceWriter, index: int, image: np.ndarray) -> Path:
        path = write(self, index, image)
        if index == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return path

    monkeypatch.setattr(SequenceWriter, "write", write_and_interrupt)
    if not is_guarded:
        monkeypatch.setattr(interrupts.Interrupts, "deferred", lambda self: interrupts.contextlib.nullcontext())
    out = tmp_path / "out"
    assert main(["generate", *pair, "--frames", "9", "--out", str(out)]) == CANCELLED
    assert len(names(out / "frames")) == 4
    assert clip_frames(out / "clip.mp4") == (4 if is_guarded else 3)


def test_ctrl_c_works_as_before_after_the_run(engine: DissolvingEngine, pair, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    main(["generate", *pair, "--frames", "3", "--out", str(tmp_path / "out")])
    assert signal.getsignal(signal.SIGINT) is before


def test_media_error_names_what_to_do() -> None:
    with pytest.raises(MediaError, match="choose another place with --out"):
        SequenceWriter(Path(os.devnull) / "frames")
