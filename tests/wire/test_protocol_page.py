"""PROTOCOL.md says what the code does: every message, every field, every limit that it quotes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import attrs
import pytest
from sfwire import limits as L
from sfwire import messages as m
from sfwire.errors import RETRYABLE, ErrorCode

PAGE = (Path(__file__).parents[2] / "shared" / "PROTOCOL.md").read_text("utf-8")
ROWS = {match[1]: match[0] for match in re.finditer(r"^\| `(\w+)` \|.*$", PAGE, re.MULTILINE)}
MESSAGES = (*get_args(m.ToServer), *get_args(m.ToClient))


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
def test_every_message_and_every_field_of_it_is_on_the_page(kind: type) -> None:
    row = ROWS[kind.__name__.lower()]
    for field in attrs.fields(kind):
        assert f"`{field.name}`" in row, field.name


def test_no_message_is_on_the_page_that_does_not_exist() -> None:
    tables = PAGE[PAGE.index("## Messages") : PAGE.index("## A conversation")]
    assert set(re.findall(r"^\| `(\w+)` \|", tables, re.MULTILINE)) == {kind.__name__.lower() for kind in MESSAGES}


@pytest.mark.parametrize("kind", [m.EngineInfo, m.Parameter])
def test_what_an_engine_says_of_itself_is_on_the_page(kind: type) -> None:
    paragraph = PAGE[PAGE.index("An *engine* has") : PAGE.index("## A conversation")]
    for field in attrs.fields(kind):
        assert f"`{field.name}`" in paragraph, field.name


def test_every_error_code_is_on_the_page_and_so_is_whether_to_retry() -> None:
    table = PAGE[PAGE.index("## Error codes") :]
    for code in ErrorCode:
        row = next(line for line in table.splitlines() if f"`{code}`" in line)
        assert row.endswith("| yes |") == (code in RETRYABLE), code


def test_the_numbers_on_the_page_are_those_of_the_code() -> None:
    assert f"protocol {L.PROTOCOL}" in PAGE
    for number in (f"{L.MAX_BUFFER_BYTES:,}", f"At most {L.MAX_PARTS} frames", f"{L.MAX_HEADER_BYTES // 1024} KiB"):
        assert number in PAGE, number
    assert f"`num_frames` {L.MIN_FRAMES}–{L.MAX_FRAMES}" in PAGE
    assert f"≤ {L.MAX_PROMPT_CHARS}" in PAGE
    assert f"after {L.LOST_AFTER_PINGS} pings" in PAGE
    assert f"silent for {L.CLIENT_LOST_AFTER_S:.0f} s" in PAGE
