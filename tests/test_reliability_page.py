"""docs/reliability.md names a test for every promise, and each of them exists. SECURITY.md names tests too."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ROOT = TESTS.parent
PAGE = (ROOT / "docs" / "reliability.md").read_text("utf-8")
SECURITY = (ROOT / "SECURITY.md").read_text("utf-8")
NAME = re.compile(r"`((?:\w+/)?test_\w+\.py)::(\w+)`")


def rows(page: str) -> list[list[str]]:
    """The cells of every row of every table whose last column names tests."""
    found: list[list[str]] = []
    held = False
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")] if line.startswith("|") else []
        if not cells:
            held = False
        elif cells[-1].strip(" |") == "Held by":
            held = True
        elif held and not line.startswith("|---"):
            found.append(cells)
    return found


def promises_of_the_readme() -> list[str]:
    section = (ROOT / "README.md").read_text("utf-8").split("## What it promises")[1].split("\n## ")[0]
    return [" ".join(bullet.split()) for bullet in re.split(r"^- ", section, flags=re.MULTILINE)[1:]]


@cache
def names_in(page: str) -> frozenset[str]:
    """Tests of a page, and what it calls a test in its body (a state machine's TestCase)."""
    path = TESTS / page
    if not path.is_file():
        return frozenset()
    body = ast.parse(path.read_text("utf-8")).body
    functions = {node.name for node in body if isinstance(node, ast.FunctionDef)}
    assigned = {t.id for n in body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)}
    return frozenset(name for name in functions | assigned if name.lower().startswith("test"))


def strangers(page: str) -> list[str]:
    return [f"{file}::{name}" for file, name in NAME.findall(page) if name not in names_in(file)]


@pytest.mark.parametrize("page", [PAGE, SECURITY], ids=["reliability", "security"])
def test_every_test_that_a_page_names_exists(page: str) -> None:
    assert NAME.search(page)
    assert not strangers(page)


def test_the_control_a_test_that_does_not_exist_is_noticed() -> None:
    assert strangers("`faults/test_kills.py::test_nothing`, `faults/test_no.py::test_x`") == [
        "faults/test_kills.py::test_nothing",
        "faults/test_no.py::test_x",
    ]


@pytest.mark.parametrize("page", [PAGE, SECURITY], ids=["reliability", "security"])
def test_every_row_names_a_test(page: str) -> None:
    assert len(rows(page)) > 8
    assert not [cells[0] for cells in rows(page) if not NAME.search(cells[-1])]


def test_every_promise_of_the_readme_has_its_row() -> None:
    known = {cells[0] for cells in rows(PAGE)}
    assert len(promises_of_the_readme()) > 5
    assert not [promise for promise in promises_of_the_readme() if promise not in known]
