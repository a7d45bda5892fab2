"""A client finds a server that is somewhere else now, and outlives one that is stopped on purpose."""

from __future__ import annotations

from sfwire import limits as L
from sfwire import messages as m
from sfwire.errors import ErrorCode
from sfwire.request import Ended, Interrupted, Request
from sfwire.session import Notify, Phase, Reopen, Send, Session

WELCOME = m.Welcome(L.PROTOCOL, "first", "test", (), "draft", "")
REQUEST = Request(keyframes=((0, bytes(16 * 16 * 3)),), width=16, height=16, num_frames=4, engine="draft")


def test_before_the_first_welcome_the_connection_file_is_read_again():
    session = Session("test")
    early = [action for tenth in range(15) for action in session.tick(tenth / 10)]
    late = [action for tenth in range(15, 50) for action in session.tick(tenth / 10)]
    assert not any(isinstance(action, Reopen) for action in early)  # a server that needs a second is left in peace
    assert any(isinstance(action, Reopen) for action in late)


def test_a_request_outlives_a_server_that_is_stopped_and_started_again():
    session = Session("test")
    session.tick(0.0)
    session.receive(WELCOME, [], 0.1)
    _, actions = session.submit(REQUEST, 0.2)
    (ask,) = [a.message for a in actions if isinstance(a, Send) and isinstance(a.message, m.Generate)]
    frame = m.Frame(ask.id, 1, 16, 16, "raw")
    session.receive(frame, [bytes(16 * 16 * 3)], 0.3)
    down = session.receive(m.Failed(ask.id, ErrorCode.SHUTTING_DOWN, "the server is shutting down"), [], 0.4)
    events = [action.event for action in down if isinstance(action, Notify)]
    assert events == [Interrupted("the server is shutting down")]
    assert session.phase is Phase.LOST
    back = session.receive(m.Welcome(L.PROTOCOL, "second", "test", (), "draft", ""), [], 5.0)
    (again,) = [a.message for a in back if isinstance(a, Send) and isinstance(a.message, m.Generate)]
    assert again.resume_from == 2


def test_a_request_ends_with_an_error_when_no_server_comes_back():
    session = Session("test", give_up_after_s=5.0)
    session.tick(0.0)
    session.receive(WELCOME, [], 0.1)
    _, actions = session.submit(REQUEST, 0.2)
    (ask,) = [a.message for a in actions if isinstance(a, Send) and isinstance(a.message, m.Generate)]
    session.receive(m.Failed(ask.id, ErrorCode.SHUTTING_DOWN, "the server is shutting down"), [], 0.4)
    later = [action for second in range(1, 8) for action in session.tick(float(second))]
    assert sum(isinstance(action, Notify) and isinstance(action.event, Ended) for action in later) == 1
