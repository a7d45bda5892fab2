"""The client's half of a conversation, sans I/O: (message | tick | wish) -> actions.

No socket, no clock, no thread: `now` is an argument in seconds of any monotonic clock, and what is to be done comes
back as a list. What makes streams survive is all here:

- A frame is handed on only when it is the next one. Later ones are held, doubled ones dropped.
- Whatever goes wrong, the request is asked again under a new id from the first frame that is missing; frames that
  still arrive under the old id are nobody's. So a frame comes once, in order, whatever the network or the server does.
- A server that restarted shows another boot id in its next Pong; one that is silent is looked for again.
- Credit is a running total, repeated with every Pong, so that none can get lost.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from uuid import uuid4

from attrs import evolve, frozen

from . import limits as L
from . import messages as m
from .codec import Buffer
from .errors import ErrorCode, NoConnectionFile, RequestError, ServerSilent, ServerUnavailable, WireError, WrongProtocol
from .request import Ended, Event, Interrupted, Picture, Request
from .run import At, Offers, Run

REPEAT_S = 1.0
"""Between two Hellos that get no answer."""
GAP_S = 2.0
"""How long a missing frame may be late before it counts as lost."""
MAX_TRIES = 5
"""Attempts that fail in a row without a single new frame, or Generates without any answer, before a request is given
up. One whose connection broke did not fail."""
MAX_PAUSE_S = 2.0
"""Between two attempts whose connections break."""

OTHER_ENGINES = (
    "the server has other engines now, so auto could mean another one than made the first frames; "
    "ask for the rest with the engine's own name, or for all of it again"
)


@frozen(eq=False)
class Send:
    message: m.ToServer
    buffers: tuple[Buffer, ...] = ()


@frozen
class Reopen:
    """Close the socket, read the connection file again and open a new one."""


@frozen(eq=False)
class Notify:
    ticket: str
    event: Event


Action = Send | Reopen | Notify


class Phase(Enum):
    GREETING = auto()
    """Hello is out, Welcome has not come yet."""
    READY = auto()
    LOST = auto()
    """It was there and is being looked for."""
    REFUSED = auto()
    """It speaks another version: final."""


class Session:
    """One conversation with one server. Every method that can cause something returns what to do."""

    def __init__(
        self,
        client: str,
        *,
        window: int = 8,
        give_up_after_s: float = 60.0,
        max_tries: int = MAX_TRIES,
        new_id: Callable[[], str] = lambda: uuid4().hex,
    ) -> None:
        """`window`: frames that may wait here untaken. `give_up_after_s`: how long streams outlive a server that
        is silent, not there, or lost again and again."""
        self.phase = Phase.GREETING
        self.welcome: m.Welcome | None = None
        self.last_pong: m.Pong | None = None
        self._client = client
        self._window = window
        self._give_up_after_s = give_up_after_s
        self._max_tries = max_tries
        self._new_id = new_id
        self._session_id = new_id()
        self._runs: dict[str, Run] = {}
        self._by_wire_id: dict[str, Run] = {}
        self._cancelling: dict[str, int] = {}
        """Ids cancelled and not yet confirmed, with the nonce of the last Ping before."""
        self._nonce = 0
        self._unanswered = 0
        """Pings since anything was heard."""
        self._greeted_at = self._pinged_at = self._lost_at = float("-inf")
        self.refusal = ""
        """Why the phase is REFUSED."""
        self.complaint: str | None = None
        """Why the server does not say Welcome, in its words."""
        self.nowhere: str | None = None
        """Why there is no connection to speak on, in the words of whoever makes it."""

    # Wishes

    def submit(self, request: Request, now: float) -> tuple[str, list[Action]]:
        """Begin a request that `Request.generate` allows; (its ticket, what to do)."""
        ticket = self._new_id()
        run = Run(ticket, request, request.engine, request.wanted(), submitted_at=now)
        self._runs[ticket] = run
        if self.phase is Phase.REFUSED:
            return ticket, self._end(run, WrongProtocol(self.refusal))
        if run.complete:
            return ticket, self._finish(run)
        return ticket, self._ask(run, now) if self.phase is Phase.READY and self._may_ask else []

    def cancel(self, ticket: str) -> list[Action]:
        """Stop a request. Its stream ends here and now; the server is told until it confirms."""
        run = self._runs.get(ticket)
        if run is None:
            return []
        tell = self._abandon(run)
        done = m.Done(run.wire_id or run.ticket, "cancelled", run.delivered, run.request.seed, self._engine(run), "")
        self._forget(run)
        return [*tell, Notify(ticket, Ended(done=done))]

    def taken(self, ticket: str, count: int = 1) -> list[Action]:
        """The program has taken so many pictures more: the server may send others."""
        run = self._runs.get(ticket)
        if run is None:
            return []
        run.taken += count
        return self._credit(run)

    # What comes in

    def receive(self, message: m.ToClient, buffers: list[Buffer], now: float) -> list[Action]:
        """React to one message of the server."""
        self._unanswered = 0
        match message:
            case m.Welcome():
                return self._on_welcome(message, now)
            case m.Pong():
                return self._on_pong(message, now)
            case m.Failed(id=None) if message.code is ErrorCode.PROTOCOL_VERSION:
                return self._on_refusal(message)
            case m.Failed(id=None):
                self.complaint = message.message
                return []
            case m.Report() | m.Queue():
                return []
            case _:
                return self._on_request_message(message, buffers, now)

    def _on_request_message(
        self, message: m.Accepted | m.Progress | m.Frame | m.Done | m.Failed, buffers: list[Buffer], now: float
    ) -> list[Action]:
        wire_id = message.id or ""
        if isinstance(message, m.Done | m.Failed):
            self._cancelling.pop(wire_id, None)
        run = self._by_wire_id.get(wire_id)
        if run is None:
            return []
        if run.at is At.ASKED and not isinstance(message, m.Failed):
            run.at, run.accepted_nonce = At.ACCEPTED, self._nonce
        match message:
            case m.Accepted() | m.Progress():
                return [Notify(run.ticket, message)]
            case m.Frame():
                picture = Picture(
                    message.index,
                    message.width,
                    message.height,
                    message.encoding,
                    buffers[0],
                    message.confidence,
                    message.channels,
                    message.depth,
                )
                return self._on_picture(run, picture, now)
            case m.Done():
                return self._on_done(run, message, now)
            case m.Failed():
                return self._on_failed(run, message, now)

    def _on_welcome(self, welcome: m.Welcome, now: float) -> list[Action]:
        if welcome.protocol != L.PROTOCOL:
            return self._on_refusal(
                m.Failed(None, ErrorCode.PROTOCOL_VERSION, f"the server speaks protocol {welcome.protocol}")
            )
        if self.phase is Phase.READY and self.welcome is not None and self.welcome.boot == welcome.boot:
            return []
        self.welcome, self.phase, self.complaint = welcome, Phase.READY, None
        actions: list[Action] = []
        for run in list(self._runs.values()):
            actions += self._renew(run, now)
        return actions

    def _on_refusal(self, failed: m.Failed) -> list[Action]:
        self.phase = Phase.REFUSED
        self.refusal = f"{failed.message}; this client speaks protocol {L.PROTOCOL}: update the older of the two"
        return [a for run in list(self._runs.values()) for a in self._end(run, WrongProtocol(self.refusal))]

    def _on_picture(self, run: Run, picture: Picture, now: float) -> list[Action]:
        if run.complete or picture.index < run.next_index or picture.index in run.held:
            return []
        if len(run.held) > L.MAX_CREDIT_AHEAD:  # more than any credit allows
            return []
        run.got += 1
        run.held[picture.index] = picture
        actions: list[Action] = []
        while not run.complete and run.next_index in run.held:
            actions.append(Notify(run.ticket, run.held.pop(run.next_index)))
            run.is_new()
        missing = bool(run.held) or (run.done is not None and not run.complete)
        run.behind_since = (run.behind_since or now) if missing else None
        return actions + (self._finish(run) if run.complete and run.done else [])

    def _on_done(self, run: Run, done: m.Done, now: float) -> list[Action]:
        if done.outcome == "cancelled":  # not by us: the server took us for gone
            return self._on_loss(run, "the server cancelled the request", now)
        run.done = done
        if run.complete:
            return self._finish(run)
        run.behind_since = run.behind_since or now
        return []

    def _on_failed(self, run: Run, failed: m.Failed, now: float) -> list[Action]:
        error = RequestError(failed.code, failed.message, failed.field)
        if failed.code is ErrorCode.SHUTTING_DOWN:  # somebody restarts it; a client that does not want to wait cancels
            return self._lose(now, failed.message, reopen=False)
        if not failed.retryable:
            return self._end(run, error)
        if failed.code is ErrorCode.HELLO_FIRST:
            return self._lose(now, "the server does not know this connection", reopen=False)
        if failed.code is ErrorCode.QUEUE_FULL:  # turned away, as it will be until somebody leaves
            return self._on_loss(run, failed.message, now)
        return self._try_again(run, error, now)

    def _on_pong(self, pong: m.Pong, now: float) -> list[Action]:
        self.last_pong = pong
        if self.phase is not Phase.READY or self.welcome is None:
            return []
        if pong.boot != self.welcome.boot:
            return self._lose(now, "the server has restarted", reopen=False)
        live = {request.id: request.sent for request in pong.yours}
        actions: list[Action] = []
        for wire_id, nonce in list(self._cancelling.items()):
            if wire_id in live:
                actions.append(Send(m.Cancel(wire_id)))
            elif pong.nonce > nonce:
                del self._cancelling[wire_id]
        for run in list(self._runs.values()):
            if run.at is At.ACCEPTED and pong.nonce > run.accepted_nonce:
                actions += self._compare(run, live.get(run.wire_id), now)
        return actions

    def _compare(self, run: Run, sent: int | None, now: float) -> list[Action]:
        """Hold our view of a request against the server's: `sent` frames, or None if it has none by that id."""
        if sent is None:
            if run.complete:
                return self._finish(run)
            return self._on_loss(run, "the server lost the request", now)
        if sent > run.got:
            run.behind_since = run.behind_since or now
        elif not run.held and run.done is None:
            run.behind_since = None
        return self._credit(run)

    # Time

    def tick(self, now: float) -> list[Action]:
        """Call it several times a second: repeats, time-outs, heartbeat."""
        actions: list[Action] = []
        if self.phase in (Phase.GREETING, Phase.LOST) and now - self._greeted_at >= REPEAT_S:
            actions += self._greet(now)
        if self.phase is Phase.READY and now - self._pinged_at >= L.PING_INTERVAL_S:
            actions += self._ping(now)
        for run in list(self._runs.values()):
            actions += self._tick_run(run, now)
        return actions

    def _tick_run(self, run: Run, now: float) -> list[Action]:
        silent_s = now - max(self._lost_at, run.submitted_at)
        if self.phase in (Phase.GREETING, Phase.LOST) and silent_s > self._give_up_after_s:
            return self._end(run, self._nobody(silent_s))
        if self.phase is not Phase.READY:
            return []
        if run.at is At.WAITING and now >= run.not_before and self._may_ask:
            return self._ask(run, now)
        if run.at is At.ASKED and now - run.asked_at >= L.ACCEPT_TIMEOUT_S:
            if run.asks >= self._max_tries:
                return self._end(run, ServerSilent("the server answers, but not to this request; is it too large?"))
            return self._ask(run, now)
        if run.behind_since is not None and now - run.behind_since >= GAP_S:
            return self._on_loss(run, "frames were lost on the way", now)
        return []

    # Steps that the above share

    def _ping(self, now: float) -> list[Action]:
        """Counts pings, not seconds: after a night of sleep the computer asks before it judges."""
        if self._unanswered >= L.LOST_AFTER_PINGS:
            return self._lose(now, "the server does not answer", reopen=True)
        self._pinged_at, self._nonce, self._unanswered = now, self._nonce + 1, self._unanswered + 1
        return [Send(m.Ping(self._nonce))]

    def _greet(self, now: float) -> list[Action]:
        """Hello; on a new socket if nobody answers, since the server may be somewhere else now.

        So also before the first Welcome: the connection file may be what a killed server left behind.
        """
        if self._lost_at == float("-inf"):
            self._lost_at = now
        reopen: list[Action] = [Reopen()] if now - self._lost_at > 2 * REPEAT_S else []
        self._greeted_at = now
        return [*reopen, Send(m.Hello(L.PROTOCOL, self._client, self._session_id))]

    def _lose(self, now: float, reason: str, *, reopen: bool) -> list[Action]:
        self.phase, self._lost_at, self._unanswered = Phase.LOST, now, 0
        self._greeted_at = now
        interrupted: list[Action] = []
        for run in list(self._runs.values()):
            run.at = At.WAITING
            run.lost(now)
            interrupted += self._end_of_losses(run, reason, now) or [Notify(run.ticket, Interrupted(reason))]
        hello = Send(m.Hello(L.PROTOCOL, self._client, self._session_id))
        return [*interrupted, *([Reopen()] if reopen else []), hello]

    def _try_again(self, run: Run, error: RequestError, now: float) -> list[Action]:
        """The attempt failed by itself, as the next ones may."""
        run.tries += 1
        if run.tries >= self._max_tries:
            return [*self._abandon(run), *self._end(run, error)]
        run.not_before = now + 0.1 * 2**run.tries if run.tries > 1 else now
        return [Notify(run.ticket, Interrupted(error.message)), *self._renew(run, now)]

    def _on_loss(self, run: Run, why: str, now: float) -> list[Action]:
        """The attempt was lost on the way, which says nothing about the next one."""
        run.lost(now)
        ended = self._end_of_losses(run, why, now)
        if ended:
            return ended
        run.not_before = now + min(MAX_PAUSE_S, 0.1 * 2**run.losses) if run.losses > 1 else now
        return [Notify(run.ticket, Interrupted(why)), *self._renew(run, now)]

    def _end_of_losses(self, run: Run, why: str, now: float) -> list[Action]:
        """A connection that breaks again and again is given up like one that is silent, and not before: by time.

        By number too, since one break in hours of work that gave no frame yet is none of many.
        """
        lasted_s = now - run.losing_since
        if run.losses < self._max_tries or lasted_s <= self._give_up_after_s:
            return []
        sentence = f"{run.losses} attempts in {lasted_s:.0f} s brought no new frame ({why})"
        return [*self._abandon(run), *self._end(run, ServerSilent(sentence))]

    def _nobody(self, silent_s: float) -> ServerUnavailable:
        if self.nowhere is not None:
            return NoConnectionFile(self.nowhere)
        remedy = "see its log, or start it anew with: sfserver serve"
        return ServerSilent(self.complaint or f"the server has been silent for {silent_s:.0f} s; {remedy}")

    def _renew(self, run: Run, now: float) -> list[Action]:
        """Give up this attempt and begin another from the first missing frame."""
        tell = self._abandon(run)
        run.at, run.asks, run.behind_since, run.done = At.WAITING, 0, None, None
        run.held.clear()
        if run.complete:
            return [*tell, *self._finish(run)]
        return [*tell, *(self._ask(run, now) if now >= run.not_before and self._may_ask else [])]

    @property
    def _may_ask(self) -> bool:
        """Whether the server lets one more of ours wait; those beyond its share wait here."""
        return sum(run.at is not At.WAITING for run in self._runs.values()) < L.MAX_QUEUED_OF_ONE

    def _ask(self, run: Run, now: float) -> list[Action]:
        """Send Generate: under a new id, or again under the same one if that got no answer."""
        if run.at is At.WAITING:
            run.wire_id = self._new_id()
            self._by_wire_id[run.wire_id] = run
            offers = self._offers(run)
            if run.delivered and run.offers != offers:
                return self._end(run, RequestError(ErrorCode.ENGINE_UNAVAILABLE, OTHER_ENGINES, "engine"))
            run.offers, run.got, run.delivered_before = offers, 0, run.delivered
        run.at, run.asked_at, run.asks = At.ASKED, now, run.asks + 1
        resume_from = run.next_index if run.delivered else 0
        message = run.request.generate(run.wire_id, run.engine, resume_from, run.credit(self._window))
        return [Send(message, tuple(picture for _, picture in run.request.keyframes))]

    def _engine(self, run: Run) -> str:
        """For a Done that was lost: what `auto` was is in the server's alone, so this is its recommendation."""
        return self.welcome.default_engine if run.engine == L.AUTO and self.welcome else run.engine

    def _offers(self, run: Run) -> Offers:
        """What `auto` chooses among: the same engines on the same machine are the same choice. Empty for an id."""
        engines = self.welcome.engines if run.engine == L.AUTO and self.welcome else ()
        return tuple((engine.id, engine.version, engine.available) for engine in engines)

    def _credit(self, run: Run) -> list[Action]:
        return [] if run.at is At.WAITING else [Send(m.Credit(run.wire_id, run.credit(self._window)))]

    def _abandon(self, run: Run) -> list[Action]:
        """Nobody listens to the current id any more; tell the server, in case it still works on it."""
        if self._by_wire_id.pop(run.wire_id, None) is None:
            return []
        self._cancelling[run.wire_id] = self._nonce
        return [Send(m.Cancel(run.wire_id))]

    def _finish(self, run: Run) -> list[Action]:
        """All frames are here: the server's Done, or our own word for it where that was lost."""
        engine = self._engine(run)
        version = next((e.version for e in self.welcome.engines if e.id == engine), "") if self.welcome else ""
        done = run.done or m.Done(run.ticket, "finished", run.delivered, run.request.seed, engine, version)
        self._forget(run)
        return [Notify(run.ticket, Ended(done=evolve(done, frames=run.delivered)))]

    def _end(self, run: Run, error: WireError) -> list[Action]:
        self._forget(run)
        return [Notify(run.ticket, Ended(error=error))]

    def _forget(self, run: Run) -> None:
        self._runs.pop(run.ticket, None)
        self._by_wire_id.pop(run.wire_id, None)
