"""A Wan engine says how long it may be silent, by its device: a CPU takes minutes for what a GPU does in seconds."""

from __future__ import annotations

import toy

from sfserver.engine import wan_engine
from sfserver.engine.base import SILENCE_S


def test_on_a_cpu_every_event_asks_for_more_patience_than_the_usual() -> None:
    said = {event.silence_s for event in toy.run(toy.job(13, (0, 12)), toy.engine())}
    assert said == {wan_engine._SLOW_SILENCE_S}
    assert SILENCE_S < wan_engine._SILENCE_S["cuda"] < wan_engine._SLOW_SILENCE_S
