"""A worker beats for as long as its engine is not silent for longer than it said. The clock is a number."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from sfwire import messages as m
from test_boundaries import next_event, start  # noqa: F401  (a fixture)

from sfserver.engine.base import SILENCE_S, Step
from sfserver.serve.pool import Died, Pool, Said
from sfserver.serve.pulse import Pulse


@define
class Watched:
    now: float = 0.0
    beats: int = 0
    ends: list[str] = field(factory=list)

    def pulse(self, patience_s: float = 0.0) -> Pulse:
        def show() -> None:
            self.beats += 1

        return Pulse(show, patience_s, clock=lambda: self.now, give_up=self.ends.append)


def test_it_beats_until_the_engine_is_silent_for_longer_than_it_said() -> None:
    watched = Watched()
    pulse = watched.pulse()
    pulse.work(600.0)
    for watched.now in (2.0, 300.0, 600.0):
        pulse.beat()
    assert (watched.beats, watched.ends) == (3, [])
    watched.now = 601.0
    pulse.beat()
    assert watched.beats == 3
    assert watched.ends == ["the engine showed no sign of life for 600 s"]


def test_each_sign_of_life_begins_a_new_patience_of_its_own_length() -> None:
    watched = Watched()
    pulse = watched.pulse()
    pulse.work(600.0)
    watched.now = 100.0
    pulse.work(10.0)
    watched.now = 111.0
    pulse.beat()
    assert watched.ends == ["the engine showed no sign of life for 10 s"]


def test_what_is_asked_for_counts_more_than_what_the_engine_says() -> None:
    watched = Watched()
    pulse = watched.pulse(patience_s=3.0)
    pulse.work(600.0)
    watched.now = 4.0
    pulse.beat()
    assert len(watched.ends) == 1


def test_while_nothing_is_under_way_it_neither_beats_nor_ends_anything() -> None:
    watched = Watched()
    pulse = watched.pulse()
    pulse.work(1.0)
    pulse.rest()
    watched.now = 100.0
    pulse.beat()
    assert (watched.beats, watched.ends) == (0, [])


def test_an_engine_says_how_long_it_may_be_silent_with_every_event() -> None:
    assert Step("x", 0, 1).silence_s == SILENCE_S
    assert SILENCE_S < 300.0


HANGS = """
from sfserver.engine.base import Step
import time
class Hangs(fake_engines.FakeEngine):
    def open(self, job):
        yield Step("counting", 0, 9, {silence_s})
        time.sleep(600)
fake_engines.load = lambda *_: Hangs()
from sfserver.serve import pulse
pulse.Pulse.__init__.__kwdefaults__["beat_s"] = 0.05
"""


def test_a_worker_whose_engine_hangs_ends_itself_and_says_why(start: Callable[[str], Pool]) -> None:  # noqa: F811
    pool = start(HANGS.format(silence_s=0.3))
    assert isinstance(next_event(pool), Said)
    pool.send(0, m.Generate("job1", "fake", 16, 16, 9, (m.Keyframe(0, 0, 16, 16),), 1), [bytes(768)])
    event = next_event(pool)
    while isinstance(event, Said):
        event = next_event(pool)
    assert isinstance(event, Died)
    assert "no sign of life" in event.why


def test_the_control_one_that_said_it_would_be_silent_goes_on_beating(start: Callable[[str], Pool]) -> None:  # noqa: F811
    pool = start(HANGS.format(silence_s=600.0))
    assert isinstance(next_event(pool), Said)
    pool.send(0, m.Generate("job1", "fake", 16, 16, 9, (m.Keyframe(0, 0, 16, 16),), 1), [bytes(768)])
    for _ in range(12):
        event = next_event(pool)
        assert isinstance(event, Said)
        assert isinstance(event.message, m.Progress)
