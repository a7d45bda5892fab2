"""A request for `auto` that is broken off goes on where the choice is the same, and ends where it might not be."""

from __future__ import annotations

import attrs
import pytest
from sfwire import limits as L
from sfwire import messages as m
from sfwire.errors import RequestError
from sfwire.request import Ended, Request
from sfwire.session import Action, Notify, Send, Session

SIDE = 16
PICTURE = bytes(SIDE * SIDE * 3)
ONE = m.EngineInfo("one", "One", "", "1", "none", False, False, True, can_skip=True)
BETTER = attrs.evolve(ONE, id="better", title="Better")


def welcome(boot: str, *engines: m.EngineInfo) -> m.Welcome:
    return m.Welcome(L.PROTOCOL, boot, "test", engines, engines[0].id, "the first")


def asked(actions: list[Action]) -> list[m.Generate]:
    return [a.message for a in actions if isinstance(a, Send) and isinstance(a.message, m.Generate)]


def restarted(engine: str, *after: m.EngineInfo, frames: int = 1) -> tuple[list[Action], list[m.Generate]]:
    """What a session does whose server came back with these engines after some frames."""
    session = Session("test", new_id=iter(f"id{i}" for i in range(99)).__next__)
    session.receive(welcome("boot1", ONE), [], 0.0)
    request = Request(((0, PICTURE), (5, PICTURE)), SIDE, SIDE, 6, engine=engine)
    _, actions = session.submit(request, 0.0)
    (generate,) = asked(actions)
    assert generate.engine == engine
    for index in range(1, 1 + frames):
        session.receive(m.Frame(generate.id, index, SIDE, SIDE, "raw"), [PICTURE], 0.0)
    actions = session.receive(welcome("boot2", *after), [], 1.0)
    return actions, asked(actions)


def test_auto_is_asked_of_the_server_and_again_where_its_engines_are_the_same() -> None:
    _, (again,) = restarted(L.AUTO, ONE)
    assert (again.engine, again.resume_from) == (L.AUTO, 2)


def test_auto_ends_where_another_engine_might_make_the_rest() -> None:
    actions, again = restarted(L.AUTO, BETTER, ONE)
    assert not again
    (ended,) = (a.event for a in actions if isinstance(a, Notify) and isinstance(a.event, Ended))
    assert isinstance(ended.error, RequestError)
    assert "with the engine's own name" in str(ended.error)


@pytest.mark.parametrize(("engine", "frames"), [("one", 1), (L.AUTO, 0)])
def test_a_name_goes_on_whatever_else_there_is_and_so_does_what_has_not_begun(engine: str, frames: int) -> None:
    _, (again,) = restarted(engine, BETTER, ONE, frames=frames)
    assert again.engine == engine
