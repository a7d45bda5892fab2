"""Nothing that others chose moves the cursor of whoever reads it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from dissolving_engine import DissolvingEngine

from sfserver.cli import main
from sfserver.commands import terminal
from sfserver.commands.bars import Bar
from sfserver.serve import supervise

ROOT = Path(__file__).parents[2] / "sfserver"
NASTY = "clip\x1b]0;title\x07\x9b2J"
PRINTS = {"echo", "print", "print_json", "log"}
APART = {
    "commands/terminal.py": "this is the place",
    "serve/supervise.py": "loads neither typer nor rich, and fits what it says itself",
    "commands/benching.py": "a table of our own figures",
    "commands/queueing.py": "a table: its cells are made safe",
    "serve/dialling.py": "loads neither typer nor rich, and fits what it says itself",
    "serve/by_ray.py": "the same",
    "serve/keeper.py": "the same; names of devices alone are not its own words",
    "cli.py": "two tables: their cells are made safe, their figures are ours",
}


def prints(code: str) -> list[int]:
    """Lines on which something is written to a terminal by any other way."""
    calls = (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call))
    return [
        call.lineno
        for call in calls
        if (isinstance(call.func, ast.Name) and call.func.id == "print")
        or (isinstance(call.func, ast.Attribute) and call.func.attr in PRINTS and _is_terminal(call.func.value))
        or (isinstance(call.func, ast.Attribute) and ast.unparse(call.func) in ("sys.stdout.write", "sys.stderr.write"))
    ]


def _is_terminal(value: ast.expr) -> bool:
    return any(word in ast.unparse(value).lower() for word in ("console", "typer", "click"))


@pytest.mark.parametrize(
    "page", sorted(p for p in ROOT.rglob("*.py") if "bench" not in p.parts), ids=lambda p: str(p.relative_to(ROOT))
)
def test_a_page_prints_by_the_one_way(page: Path) -> None:
    found = prints(page.read_text("utf-8"))
    if page.relative_to(ROOT).as_posix() not in {*APART, "serve/pulse.py"}:
        assert not found


def test_the_pages_that_stand_apart_exist() -> None:
    assert [name for name in APART if not (ROOT / name).is_file()] == []


def test_the_control_other_ways_are_found() -> None:
    code = "import typer\ntyper.echo(x)\nself._console.print(x)\nConsole().print(x)\nprint(x)\nlog.info(x)"
    assert prints(code) == [2, 3, 4, 5]
    assert prints("sys.stdout.write(x)") == [1]


def test_a_folder_with_an_escape_code_in_its_name(engine: DissolvingEngine, pair, tmp_path: Path, capsys) -> None:
    assert main(["generate", *pair, "--frames", "9", "--out", str(tmp_path / NASTY)]) == 0
    said = capsys.readouterr()
    assert "clip?]0;title??2J" in said.out
    assert not {"\x1b]", "\x07", "\x9b"} & {c for c in ("\x1b]", "\x07", "\x9b") if c in said.out + said.err}


def test_notes_and_sentences_too(capsys) -> None:
    with Bar() as bar:
        bar.note(f"{NASTY}: its transparency was filled with grey")
    supervise._say(f"connection file {NASTY}")
    terminal.say(NASTY)
    said = capsys.readouterr()
    assert said.out.count("clip?]0;title??2J") == 2
    assert "clip?]0;title??2J" in said.err


def test_the_control_a_terminal_gets_it_as_it_is_without_this(capsys) -> None:
    import typer

    typer.echo(NASTY)
    assert "\x07" in capsys.readouterr().out
