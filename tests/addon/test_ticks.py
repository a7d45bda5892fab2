"""What a tick does, for the interface waits for it. Counted and never timed: a busy machine counts the same.

How long ticks take is printed at the end of every run (conftest.py) and judged by nobody here.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import SimpleNamespace

import bpy
import in_blender as b
import pytest

FRAMES = 60
CROWD = 300
MAX_LINES = int(2.5 * CROWD)
"""Of sequencer.py and strips.py in one tick: what it needs to go through the other strips once, two lines for each, and
a little."""


@pytest.fixture
def pump(scene, fake, tmp_path):
    """Two large pictures, many other strips, and a server that sends as fast as credit allows."""
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "edit.blend"))
    fake.behave(frame_s=0.0)
    scene.render.resolution_x, scene.render.resolution_y = 832, 480
    b.two_pictures(scene, tmp_path, gap=FRAMES)
    for i in range(CROWD):
        b.put_image(scene, tmp_path / "A.png", 200 + 6 * i, 3, channel=2, name=f"other {i}")
    b.select(scene, "A", "B")
    return b.connect()


def ticks(pump, count: Callable[[], int]) -> list[int]:
    """What one fill makes of every tick, as `count` says; between two, enough comes for the next to have a choice."""
    b.fill()
    counts = []
    while pump.fills:
        before = count()
        b.turn()
        counts.append(count() - before)
        assert len(counts) < 50 * FRAMES, b.situation()
        time.sleep(0.02)
    return counts


def counted(monkeypatch, owner: object, name: str) -> Callable[[], int]:
    """How often `owner.name` has been called."""
    calls, original = [0], getattr(owner, name)

    def call(*given, **named):
        calls[0] += 1
        return original(*given, **named)

    monkeypatch.setattr(owner, name, call)
    return lambda: calls[0]


def lines_run() -> tuple[Callable[[], int], Callable[[], None]]:
    """A count of the lines that run where strips are looked at, and what ends the counting."""
    pages, lines = {b.module(name).__file__ for name in ("sequencer", "strips")}, [0]

    def inside(_frame, event, _argument):
        lines[0] += event == "line"
        return inside

    sys.settrace(lambda frame, _event, _argument: inside if frame.f_code.co_filename in pages else None)
    return (lambda: lines[0]), (lambda: sys.settrace(None))


def test_a_tick_takes_a_few_pictures_however_many_have_come(scene, pump, monkeypatch):
    most = b.module("making").EVENTS_A_STEP
    counts = ticks(pump, counted(monkeypatch, b.module("making").Making, "_order"))
    assert sum(counts) == FRAMES == len(b.ours(scene)[0].elements)
    assert max(counts) <= most


def test_a_tick_takes_a_few_messages_however_many_have_come(pump, monkeypatch):
    most = b.module("sfwire.client").MESSAGES_A_CALL
    counts = ticks(pump, counted(monkeypatch, b.module("sfwire.client"), "decode_to_client"))
    assert sum(counts) >= FRAMES
    assert max(counts) <= most


def test_the_control_without_the_two_limits_a_tick_takes_more(pump, monkeypatch):
    most = b.module("making").EVENTS_A_STEP
    monkeypatch.setattr(b.module("making"), "EVENTS_A_STEP", 64)
    monkeypatch.setattr(b.module("sfwire.client"), "MESSAGES_A_CALL", 64)
    taken = counted(monkeypatch, b.module("making").Making, "_order")
    b.fill()
    b.turn_until(lambda: taken() > 0)  # keyframes are looked at in ticks of their own
    for pause_s in (0.0, 0.1, 1.0, 5.0, 20.0):  # until as many have come as credit allows
        time.sleep(pause_s)
        before = taken()
        b.turn()
        if taken() - before > most:
            return
    pytest.fail("no tick took more")


def test_a_tick_goes_through_the_timeline_once_at_most(pump):
    count, stop = lines_run()
    try:
        counts = ticks(pump, count)
    finally:
        stop()
    assert max(counts) > CROWD, "it has to look whether there is room"
    assert max(counts) < MAX_LINES


def test_the_control_a_strip_that_is_looked_for_everywhere_costs_more(pump, monkeypatch):
    strips = b.module("strips")
    find = strips._find
    monkeypatch.setattr(strips, "_find", lambda job, place: find(job, strips.Place("", "")))
    count, stop = lines_run()
    try:
        assert max(ticks(pump, count)) > MAX_LINES
    finally:
        stop()


def test_a_tick_waits_for_nothing(pump, monkeypatch):
    waits: list[float] = []
    line = b.module("sfwire.client")._Line
    original = line.wait

    def wait(self, wake, timeout_s):
        waits.append(timeout_s)
        original(self, wake, 0.0)

    monkeypatch.setattr(line, "wait", wait)
    monkeypatch.setattr(b.module("sfwire.stream").Stream, "_wait", lambda self: pytest.fail("it waits for an event"))
    sleep = counted(monkeypatch, b.module("frames").time, "sleep")
    slept_in_ticks = sum(ticks(pump, sleep))
    assert slept_in_ticks == 0
    assert len(waits) > 5
    assert set(waits) == {0.0}


def test_a_writer_whose_time_is_over_leaves_the_rest_for_later(tmp_path, monkeypatch):
    """A clock that goes on by a thousandth of a second with every look; pieces of the size that is written at once."""
    frames = b.module("frames")
    looks = iter(range(10**6))
    monkeypatch.setattr(frames, "time", SimpleNamespace(perf_counter=lambda: next(looks) / 1000))
    writer = frames.Writer()
    for number in range(1, 4):
        writer.put("job", tmp_path / frames.frame_name(number), bytes(4 * frames.PIECE_BYTES))

    def on_disk() -> int:
        return sum(path.stat().st_size for path in tmp_path.iterdir()) // frames.PIECE_BYTES

    steps = []
    while on_disk() < 12:
        before = on_disk()
        assert len(steps) < 100, "it does not go on"
        writer.step(0.0025)
        steps.append(on_disk() - before)
    assert steps == [2] * 6, "two looks at the clock are within 2.5 thousandths"
    assert [p.name for p in sorted(tmp_path.iterdir())] == [frames.frame_name(n) for n in (1, 2, 3)]
