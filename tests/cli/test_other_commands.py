"""`sfserver doctor`, `models` and what is no command: each line is ok, or says what to do."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
from dissolving_engine import INFO, DissolvingEngine
from rich.console import Console
from sfwire import connection as connections
from sfwire.connection import Connection

from sfserver import cli, doctor
from sfserver.cli import main
from sfserver.commands import bars
from sfserver.config import ServerConfig, load_config
from sfserver.doctor import Finding, examine
from sfserver.engine import table


def finding(check: str, config: ServerConfig | None = None) -> Finding:
    return next(f for f in examine(config or load_config()) if f.check == check)


def test_a_sound_machine_is_ok_line_by_line(engine: DissolvingEngine, capsys) -> None:
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(examine(load_config()))
    assert all(line.startswith("ok ") for line in lines)


def test_json_says_the_same_to_programs(engine: DissolvingEngine, capsys) -> None:
    assert main(["doctor", "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)
    assert {"python", "torch", "memory", "address", "models folder", "server", "video"} <= {
        f["check"] for f in findings
    }
    assert all(f["ok"] and f["found"] for f in findings)


def test_one_finding_makes_the_exit_code_one_and_its_line_says_what_to_do(
    engine: DissolvingEngine, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(doctor, "LEAST_MEMORY_BYTES", 10**18)
    assert main(["doctor"]) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("ok ")]
    assert line.startswith("FIX  memory")
    assert "close other programs" in line
    assert main(["doctor", "--json"]) == 1
    assert [f["check"] for f in json.loads(capsys.readouterr().out) if not f["ok"]] == ["memory"]


def test_port_that_is_taken_is_found(engine: DissolvingEngine) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        found = finding("address", attrs.evolve(load_config(), port=port))
    assert str(port) in found.found
    assert "end the program that holds it" in found.remedy


def test_address_that_is_not_ours_is_found(engine: DissolvingEngine) -> None:
    assert finding("address", attrs.evolve(load_config(), host="192.0.2.1")).remedy


@pytest.mark.skipif(sys.platform != "linux", reason="/sys is a place of Linux where even root may not make files")
def test_folder_that_cannot_be_written_is_found(engine: DissolvingEngine) -> None:
    found = finding("log folder", attrs.evolve(load_config(), log_dir=Path("/sys/sfserver")))
    assert "set SFSERVER_LOG_DIR to another folder" in found.remedy


def test_folders_are_looked_at_and_not_made(engine: DissolvingEngine, machine: Path) -> None:
    before = sorted(machine.rglob("*"))
    examine(load_config())
    assert sorted(machine.rglob("*")) == before


def test_missing_torch_is_found(engine: DissolvingEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "pip install --force-reinstall torch" in finding("torch").remedy


def test_device_that_is_not_there_is_found(engine: DissolvingEngine) -> None:
    import torch

    absent = "mps" if torch.cuda.is_available() else "cuda"
    found = finding("torch", attrs.evolve(load_config(), device=absent))
    assert f"the settings ask for {absent}" in found.remedy


def test_missing_encoder_is_found(engine: DissolvingEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("av.codecs_available", frozenset())
    assert "--force-reinstall av" in finding("video").remedy


def leave_connection_file(path: Path, port: int) -> None:
    key = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
    connections.write(Connection(f"tcp://127.0.0.1:{port}", key, key, key, os.getpid()), path)


@pytest.mark.skipif(sys.platform == "win32", reason="folders there have access lists")
def test_connection_file_that_others_can_read_is_found(engine: DissolvingEngine, machine: Path) -> None:
    path = machine / "run" / "connection.json"
    leave_connection_file(path, 1)
    path.chmod(0o644)
    assert "can be read by other users" in finding("server").remedy


def test_server_that_does_not_answer_is_found(
    engine: DissolvingEngine, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "ANSWER_TIMEOUT_S", 0.5)
    path = machine / "run" / "connection.json"
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        leave_connection_file(path, silent.getsockname()[1])
        found = finding("server")
    assert "did not answer within 0.5 s" in found.found
    assert f"delete {path}" in found.remedy


def test_no_complete_engine_is_found(engine: DissolvingEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = attrs.evolve(INFO, available=False, missing=("weights.safetensors; run: sfserver fetch fake",))
    monkeypatch.setattr(table, "describe_all", lambda config: (gone,))
    assert "sfserver models" in finding("engines").remedy


def test_models_says_what_is_missing_and_how_to_get_it(
    engine: DissolvingEngine, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    gone = attrs.evolve(
        INFO,
        id="big",
        available=False,
        uses_prompt=True,
        memory_bytes=11_500_000_000,
        missing=("weights.safetensors; run: sfserver fetch big",),
    )
    monkeypatch.setattr(table, "describe_all", lambda config: (INFO, gone))
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [word for word in ("fake", "ready", "ignored", "small") if word not in lines[1]] == []
    assert [word for word in ("big", "1 missing", "used", "11.5 GB") if word not in lines[2]] == []
    assert main(["models", "big"]) == 0
    assert "missing: weights.safetensors; run: sfserver fetch big" in capsys.readouterr().out
    assert main(["models", "nonsense"]) == 2
    assert "there are: fake, big" in capsys.readouterr().err


def test_help_waits_for_no_codec_and_no_torch() -> None:
    code = "import sys, sfserver.cli; print(sorted({'torch', 'numpy', 'PIL', 'av', 'OpenEXR'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=True)
    assert done.stdout.strip() == "[]"


def test_without_a_command_the_help_is_all_that_is_said(capsys) -> None:
    assert main([]) == 2
    captured = capsys.readouterr()
    assert "generate" in captured.out
    assert captured.err == ""


def test_unknown_command_is_one_line(capsys) -> None:
    assert main(["generatte"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "sfserver: No such command 'generatte'. Did you mean 'generate'? (see sfserver --help)"
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["{nowhere}", "{out}"], "nowhere"),
        (["{text}", "{out}"], "text.safetensors"),
        (["{text}", "{out}", "--preset", "nope"], "there is no model 'nope'; there are: self-forcing"),
        (["{text}", "{out}", "--lora", "a.safetensors=much"], "'much' is not a strength"),
        (["{text}", "{out}", "--lora", "a.safetensors=nan"], "'nan' is not a strength"),
        (["{text}", "{out}", "--lora", "a.safetensors=1e999"], "'1e999' is not a strength"),
    ],
)
def test_weights_that_cannot_be_converted_are_one_line(
    tmp_path: Path, capsys, arguments: list[str], sentence: str
) -> None:
    (tmp_path / "text.safetensors").write_text("no weights")
    places = {"nowhere": tmp_path / "nowhere", "text": tmp_path / "text.safetensors", "out": tmp_path / "out"}
    assert main(["convert", *[a.format(**places) for a in arguments]]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line]
    assert line.startswith("sfserver: ")
    assert sentence in line
    assert not (tmp_path / "out").exists()


def test_what_is_complained_of_is_one_line_of_sane_length_without_escape_codes(capsys) -> None:
    assert cli._complain("\x1b[2Jno such file: \x9b31m" + "x" * 5_000_000) == cli.USER_ERROR
    said = capsys.readouterr().err
    assert said.startswith("sfserver: ?[2Jno such file: ?31m")
    assert len(said) < 2000


def test_progress_that_nobody_watches_is_a_line_at_each_hundredth() -> None:
    """The extension for Blender reads these of `sfserver fetch`."""
    log = io.StringIO()
    with bars.bytes_bar(Console(file=log)) as show:
        for done in range(0, 10**6 + 1, 1000):
            show("vae.safetensors", done, 10**6)
    lines = log.getvalue().splitlines()
    assert len(lines) == 101
    assert (lines[0], lines[-1]) == ("vae.safetensors: 0 of 1000000", "vae.safetensors: 1000000 of 1000000")


def test_what_nobody_has_seen_a_device_do_is_said() -> None:
    assert "ROCm" in doctor._unverified(is_rocm=True, is_mps=False)
    assert "MPS" in doctor._unverified(is_rocm=False, is_mps=True)
    assert doctor._unverified(is_rocm=False, is_mps=False) == "", "the control: a device that is known"
