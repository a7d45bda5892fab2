"""A client finds a server that is somewhere else now, and outlives one that is stopped on purpose."""

from __future__ import annotations

from sfwire import limits as L
from sfwire import messages as m
from sfwire.errors import ErrorCode, NoConnectionFile, RequestError, ServerSilent
from sfwire.request import Ended, Interrupted, Request
from sfwire.session import Action, Notify, Phase, Reopen, Send, Session

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


def ended(actions: list[Action]) -> list[Ended]:
    return [a.event for a in actions if isinstance(a, Notify) and isinstance(a.event, Ended)]


def test_a_request_ends_in_time_where_there_never_was_a_server():
    session = Session("test", give_up_after_s=5.0)
    session.nowhere = "no server is running; start one"
    session.submit(REQUEST, 0.0)
    early = [action for tenth in range(50) for action in session.tick(tenth / 10)]
    (end,) = ended([action for tenth in range(50, 60) for action in session.tick(tenth / 10)])
    assert not ended(early)
    assert isinstance(end.error, NoConnectionFile)
    assert "start one" in str(end.error)


def test_the_patience_of_a_request_begins_when_it_is_made():
    session = Session("test", give_up_after_s=5.0)
    for second in range(100):
        session.tick(float(second))
    session.submit(REQUEST, 100.0)
    assert not ended(session.tick(104.0))
    assert ended(session.tick(106.0))


class Host:
    """Answers for a server whose connections break before each frame."""

    def __init__(self, give_up_after_s: float) -> None:
        self.session = Session("test", give_up_after_s=give_up_after_s)
        self.session.tick(0.0)
        self.session.receive(WELCOME, [], 0.0)
        _, actions = self.session.submit(REQUEST, 0.0)
        self.id = self.asked(actions)

    def asked(self, actions: list[Action]) -> str:
        return next((a.message.id for a in actions if isinstance(a, Send) and isinstance(a.message, m.Generate)), "")

    def breaks(self, now: float) -> list[Action]:
        """The request was accepted, and the next Pong does not know it."""
        self.session.receive(m.Accepted(self.id, 0), [], now)
        pong = m.Pong(10**6 + int(now), "first", 0, 0, (), ())
        actions = self.session.receive(pong, [], now)
        for tick in range(30):
            actions += self.session.tick(now + tick / 10)
        self.id = self.asked(actions) or self.id
        return actions


def test_connections_that_break_do_not_end_a_request_before_its_time():
    host = Host(give_up_after_s=60.0)
    actions = [action for loss in range(1, 15) for action in host.breaks(4.0 * loss)]
    assert not ended(actions)
    assert sum(bool(isinstance(a, Notify) and isinstance(a.event, Interrupted)) for a in actions) >= 14


def test_connections_that_break_for_ever_end_it():
    host = Host(give_up_after_s=60.0)
    (end,) = ended([action for loss in range(1, 30) for action in host.breaks(4.0 * loss)])
    assert isinstance(end.error, ServerSilent)
    assert "brought no new frame" in str(end.error)


def test_one_break_in_a_long_silence_ends_nothing():
    host = Host(give_up_after_s=5.0)
    assert not ended(host.breaks(1.0))
    assert not ended(host.breaks(100.0))


def test_a_worker_that_dies_five_times_ends_it_at_once():
    host = Host(give_up_after_s=60.0)
    actions: list[Action] = []
    for second in range(1, 20):
        actions += host.session.receive(m.Failed(host.id, ErrorCode.WORKER_DIED, "died", "", True), [], float(second))
        actions += host.session.tick(second + 0.9)
        host.id = host.asked(actions[-3:]) or host.id
    (end,) = ended(actions)
    assert isinstance(end.error, RequestError)
