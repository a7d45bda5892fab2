"""Limits whose guard was taken away: each of them is what holds, and not something beside it."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import pytest
from sfwire.regular import open_regular

from sfserver.commands import typed
from sfserver.serve import front

unix = pytest.mark.skipif(sys.platform == "win32", reason="limits and pipes of Unix")


# The reading budget: how much of one turn of the loop clients may take


def read_in_a_turn(monkeypatch: pytest.MonkeyPatch, decoding_s: float) -> int:
    """Messages that one turn takes from a client who always has another, if each takes so long to decode."""
    now, read = [0.0], itertools.count()

    def decode(*_: object) -> None:
        now[0] += decoding_s
        next(read)

    monkeypatch.setattr(front, "receive", lambda socket, lines: (b"peer", [b""]))
    monkeypatch.setattr(front, "time", SimpleNamespace(monotonic=lambda: now[0]))
    one = SimpleNamespace(
        _socket=None,
        _lines=None,
        _contents=SimpleNamespace(is_full=False),
        _hear=decode,
        _broker=SimpleNamespace(on_mistake=decode),
        _in_order=SimpleNamespace(do=decode),
    )
    front.Front._read_clients(one)  # type: ignore[arg-type]  # the loop alone
    return next(read)


def test_a_turn_ends_when_its_time_is_over_however_few_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_in_a_turn(monkeypatch, decoding_s=front.READING_A_TURN_S * 0.6) == 3


def test_a_turn_ends_when_it_took_enough_however_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_in_a_turn(monkeypatch, decoding_s=0.0) == front.MESSAGES_A_TURN


def test_the_control_without_the_time_the_others_wait_for_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "READING_A_TURN_S", float("inf"))
    assert read_in_a_turn(monkeypatch, decoding_s=10.0) == front.MESSAGES_A_TURN


# What the system must allow

ASK = (
    "import resource, sys\n"
    "from sfserver.serve import enough\n"
    "resource.setrlimit(getattr(resource, sys.argv[1]), (int(sys.argv[2]),) * 2)\n"
    "enough.LEAST_DESCRIPTORS, enough.LEAST_ADDRESSES = int(sys.argv[3]), int(sys.argv[4])\n"
    "try:\n    enough.require_enough()\n    sys.stdout.write('enough')\n"
    "except enough.ConfigError as error:\n    sys.stdout.write(str(error))\n"
)


def asked(limit: str, value: int, least_descriptors: int, least_bytes: int) -> str:
    words = [limit, str(value), str(least_descriptors), str(least_bytes)]
    done = subprocess.run([sys.executable, "-c", ASK, *words], capture_output=True, text=True, timeout=200, check=True)
    return done.stdout


@unix
@pytest.mark.parametrize(
    ("limit", "value", "word"), [("RLIMIT_NOFILE", 48, "allows 48 open files"), ("RLIMIT_AS", 900 << 20, "900 MiB")]
)
def test_too_little_is_refused_by_the_number_that_is_named(limit: str, value: int, word: str) -> None:
    assert word in asked(limit, value, 64, 1 << 30)
    assert asked(limit, value, 8, 1 << 20) == "enough"  # the control: by nothing else


# Rates


def test_the_control_a_rate_that_only_the_pattern_refuses_is_a_number_to_python(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of 2 million bits here; the one that hung had 332 million."""
    text = "1e600000"
    with pytest.raises(typed.typer.BadParameter, match="is not a rate"):
        typed.fps_of(text)
    assert Fraction(text).numerator.bit_length() > 1_900_000
    monkeypatch.setattr(typed, "_RATE", typed.re.compile(".*"))
    with pytest.raises(typed.typer.BadParameter, match="is outside 1 to 240"):
        typed.fps_of("1e300")


# Pipes and devices


@unix
def test_the_control_what_is_no_plain_file_would_be_read(tmp_path: Path) -> None:
    """A pipe as a file without content, a device for ever: both open without an error."""
    os.mkfifo(tmp_path / "pipe")
    for path, content in ((tmp_path / "pipe", b""), (Path("/dev/zero"), bytes(100))):
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            assert os.read(descriptor, 100) == content
        finally:
            os.close(descriptor)
        with pytest.raises(OSError, match="not a plain file"):
            open_regular(path)
