"""The server's half of the conversation, sans I/O: messages of clients and workers go in, actions come out.

Between clients, which may say anything, and workers, which may die at any moment, it keeps three promises: an accepted
request gets exactly one terminal message; nothing one client does reaches another's stream; and it never waits.
`front.py` carries out the actions; `sfwire/session.py` is the other half.
"""

from __future__ import annotations

import structlog
from attrs import evolve
from sfwire import limits as L
from sfwire import messages as m
from sfwire.codec import Buffer
from sfwire.errors import BadMessage, ErrorCode, RequestError

from . import answers, credit, steering
from .actions import Action, Note, Refuse, Replace, ToClient, ToWorker
from .answers import failed, field_of_ours, refusal, welcome_in
from .clients import Client, Clients
from .crew import Crew
from .jobs import Job, Jobs, State, Terminal
from .kept import Claimed, Entered, Entry, Fact, Kept, Left, Past, Paused, Taken, content_of, entry_of

NOTED_EVERY_S = 1.0
"""How far frames were taken is written down this often."""
CANCEL_TIMEOUT_S = 15.0
"""A worker stops within one forward pass of the request that it was told to stop; then nobody waits for it any more."""

log = structlog.get_logger("broker")


class Broker:
    """One run of the server. `now` is an argument everywhere: seconds of any monotonic clock."""

    def __init__(
        self,
        boot: str,
        server: str,
        workers: int,
        beat_timeout_s: float,
        now: float,
        *,
        counts: bool = False,
        places: int = 0,
        operator: str = "",
        past: Past | None = None,
    ) -> None:
        """`counts`: `on_waiting` will say what is on its way to each client. `places`: for workers that dial in.
        `operator`: what who steers must know.
        `past`: what a journal holds; there is one, and what happens is to be written into it."""
        self.boot = boot
        self._counts = counts
        self._server = server
        self._started_at = now
        self._jobs = Jobs()
        self._operator = operator
        self._notes = past is not None
        self._noted_at = now
        past = past or Past()
        self._kept = Kept.of(past, now)
        self._paused = past.is_paused
        for owner, how in past.ends:
            self._jobs.remember(owner, how)
        self._clients = Clients()
        self._hoped_for: list[str] = []
        """Jobs that wait for somebody who may come back."""
        self._crew = Crew(workers, places, beat_timeout_s, now)
        self._ready: m.Welcome | None = None
        """What clients are told once a worker has said which engines there are."""

    @property
    def ready(self) -> bool:
        """A worker has said which engines there are."""
        return self._ready is not None

    # Clients

    def on_client(
        self, peer: bytes, message: m.ToServer, buffers: list[Buffer], now: float, content: str = ""
    ) -> list[Action]:
        """React to one message of a client. `content`: what a request is known by, where that was worked out before."""
        client = self._clients.heard(peer, now)
        match message:
            case m.Hello():
                return self._on_hello(peer, message, now)
            case m.Ping():
                its = self._jobs.of(client.session) if client else []
                return [ToClient(peer, answers.pong(message.nonce, self.boot, self._jobs, its, self._crew))]
            case m.Status():
                return [ToClient(peer, self._report(client, now))]
            case m.Bye():
                return self._forget_client(peer, now, keeps=False)
            case m.Steer():
                return self._on_steer(peer, message, now)
            case m.Generate():
                if client is None:
                    error = RequestError(ErrorCode.HELLO_FIRST, "say Hello before Generate")
                    return [ToClient(peer, failed(message.id, error))]
                return self._on_generate(client, message, tuple(buffers), now, content)
            case m.Credit() | m.Cancel():
                job = client and self._jobs.find(client.session, message.id)
                if not job:
                    return []  # it has ended, or belongs to somebody else
                return self._stop(job, now) if isinstance(message, m.Cancel) else self._on_credit(job, message)

    def _report(self, client: Client | None, now: float) -> m.Report:
        uptime_s, is_old = now - self._started_at, client is not None and client.protocol != L.PROTOCOL
        return answers.report(self.boot, uptime_s, len(self._clients), self._jobs, self._crew, names_devices=not is_old)

    def on_mistake(self, peer: bytes, now: float) -> list[Action]:
        """We failed over something that this connection said: it is told, and costs nobody else anything."""
        sentence = "the server failed over this message; its log has the details"
        return [refusal(peer, ErrorCode.INTERNAL, sentence), *self.on_client_gone(peer, now)]

    def on_bad_message(self, peer: bytes, error: BadMessage, now: float) -> list[Action]:
        """Answer bytes that are no message; the connection and its other streams go on."""
        client = self._clients.heard(peer, now)
        # Not what was said: a client's mistake may have put a prompt anywhere.
        log.info("bad message", client=client.name if client else "?", field=field_of_ours(error.field))
        live = client and error.id and self._jobs.find(client.session, error.id)
        blamed = None if live else error.id  # a Failed with the id of a live request would be its end
        failed = m.Failed(blamed, ErrorCode.BAD_MESSAGE, m.fit(error.message), m.fit(error.field, L.MAX_NAME_CHARS))
        return [ToClient(peer, failed)]

    def on_sign_of_life(self, peer: bytes, now: float) -> list[Action]:
        """What it said is heard later."""
        self._clients.heard(peer, now)
        return []

    def on_client_gone(self, peer: bytes, now: float) -> list[Action]:
        """The connection is dead: forget it and stop its requests. Who comes back finds their places kept."""
        return self._forget_client(peer, now, keeps=True)

    def _forget_client(self, peer: bytes, now: float, keeps: bool) -> list[Action]:
        client = self._clients.leave(peer)
        if client is None:
            return []
        log.info("client gone", client=client.name)
        return [a for job in self._jobs.of(client.session) for a in self._stop(job, now, keeps)]

    def on_waiting(self, peer: bytes, waiting_bytes: int) -> list[Action]:
        """So much of what was sent to this connection is still on its way: frames may follow what has arrived."""
        self._clients.waiting_bytes[peer] = waiting_bytes
        if not waiting_bytes:
            del self._clients.waiting_bytes[peer]
        client = self._clients.at(peer)
        return [a for job in self._jobs.of(client.session) for a in self._grant(job)] if client else []

    def _on_hello(self, peer: bytes, hello: m.Hello, now: float) -> list[Action]:
        if not L.OLDEST_PROTOCOL <= hello.protocol <= L.PROTOCOL:
            return [refusal(peer, ErrorCode.PROTOCOL_VERSION, f"the server speaks protocol {L.PROTOCOL}")]
        actions = [a for other in self._clients.left_by(peer, hello) for a in self.on_client_gone(other, now)]
        if self._clients.at(peer) is None and len(self._clients) >= L.MAX_CLIENTS:
            return [*actions, refusal(peer, ErrorCode.QUEUE_FULL, f"{L.MAX_CLIENTS} clients are connected already")]
        self._clients.enter(peer, hello, now)
        log.info("client", client=hello.client)
        if self._ready is not None:
            return [*actions, ToClient(peer, welcome_in(hello.protocol, self._ready))]
        if why := self._crew.why_nobody():
            return [*actions, refusal(peer, ErrorCode.ENGINE_UNAVAILABLE, why)]
        self._clients.waiting_hellos[peer] = hello
        return actions

    def _on_generate(
        self, client: Client, request: m.Generate, buffers: tuple[Buffer, ...], now: float, content: str
    ) -> list[Action]:
        job = self._jobs.find(client.session, request.id)
        if job is not None:
            return [ToClient(client.peer, m.Accepted(request.id, job.position))]
        ended = self._jobs.how_ended(client.session, request.id)
        if ended is not None:
            return [ToClient(client.peer, ended)]
        try:
            if why := self._crew.why_nobody():
                raise RequestError(ErrorCode.ENGINE_UNAVAILABLE, why)
            if refused := self._crew.refusal(request, now):
                raise refused
            content = content or content_of(request, buffers)
            stood = self._kept.find(content, client.session)
            job = self._jobs.admit(client.session, request, buffers, now, stood.round if stood else None)
        except RequestError as error:
            return [ToClient(client.peer, failed(request.id, error))]
        job.content, job.client = content, client.name
        notes = [*self._drop(stood.key if stood else ""), *self._note(Entered(entry_of(job)))]
        log.info("request", job=job.key, engine=request.engine, frames=request.num_frames, resume=request.resume_from)
        log.debug("prompt", job=job.key, prompt=request.prompt, negative=request.negative_prompt)
        dispatched = self._dispatch(now)
        return [*notes, ToClient(client.peer, m.Accepted(request.id, job.position)), *dispatched, *self._hope(job, now)]

    def _hope(self, job: Job, now: float) -> list[Action]:
        """If nobody here can do it, somebody may come back who can: it waits, and its client is told what for."""
        if not self._crew.gathers(now) or self._crew.can(job.request):
            return []
        self._hoped_for.append(job.key)
        return self._to_owner(job, m.Progress(job.request.id, self._crew.reasons()(job.request), 0, 1))

    def _give_up_hope(self, now: float) -> list[Action]:
        """Who would come back has done so: what nobody can do is refused now."""
        actions: list[Action] = []
        for job in map(self._jobs.get, self._hoped_for):
            if job is not None and job.state is State.QUEUED and (refused := self._crew.refusal(job.request, now)):
                actions += self._end(job, failed(job.key, refused), now)
        self._hoped_for.clear()
        return actions

    def _on_steer(self, peer: bytes, wish: m.Steer, now: float) -> list[Action]:
        """Show the queue, after it was changed as somebody who may do so wished."""
        refused = steering.refusal_of(wish, self._operator, self._jobs, self._kept)
        actions = [] if refused else self._steer(wish, now)
        return [*actions, ToClient(peer, steering.queue(self._jobs, self._kept, self._paused, refused))]

    def _steer(self, wish: m.Steer, now: float) -> list[Action]:
        job = self._jobs.get(wish.job)
        match wish.action:
            case "pause" | "resume":
                self._paused = wish.action == "pause"
                stopped = [a for j in self._jobs.in_hand() if self._paused for a in self._stop(j, now, keeps=True)]
                return [*self._note(Paused(self._paused)), *stopped, *self._dispatch(now)]
            case "cancel" if job is not None:
                owner = self._clients.of(job.owner)
                job.verdict = steering.taken_out(job, owner.protocol if owner else L.PROTOCOL)
                return self._stop(job, now)
            case "cancel":
                return self._drop(wish.job)
            case "move" if job is not None:
                self._jobs.move(job, wish.to)
                return [*self._note(Entered(entry_of(job))), *self._dispatch(now)]
            case _:
                return []

    def _on_credit(self, job: Job, message: m.Credit) -> list[Action]:
        job.credit = max(job.credit, message.total)
        return self._grant(job)

    def _grant(self, job: Job) -> list[Action]:
        """Tell its worker of further frames that the client may be sent, if there are any."""
        if job.state is not State.RUNNING or job.worker is None:
            return []
        total = self._may_send(job)
        if total == job.given:
            return []
        job.given = total
        return [ToWorker(job.worker, m.Credit(job.key, total))]

    def _may_send(self, job: Job) -> int:
        client = self._clients.of(job.owner)
        waiting_bytes = self._clients.waiting_bytes.get(client.peer, 0) if client else 0
        return credit.total(job, self._jobs.of(job.owner), waiting_bytes)

    # Workers

    def on_worker(self, index: int, message: m.ToClient, buffers: list[Buffer], now: float) -> list[Action]:
        """React to one message of a worker; any message is a beat."""
        self._crew.beat(index, now)
        if isinstance(message, m.Welcome):
            is_starting = self._crew.workers[index].state == "starting"
            return self._on_worker_ready(index, message, now) if is_starting else []
        job = (
            self._jobs.get(message.id or "") if isinstance(message, m.Progress | m.Frame | m.Done | m.Failed) else None
        )
        if job is None or job.worker != index:
            return []
        match message:
            case m.Progress() if job.state is State.RUNNING:
                return self._to_owner(job, evolve(message, id=job.request.id))
            case m.Frame() if job.state is State.RUNNING and job.sent >= job.request.num_frames:
                return self.on_worker_gone(index, "it sent more frames than the clip has", now)
            case m.Frame() if job.state is State.RUNNING:
                job.sent, job.moved_at = job.sent + 1, now
                frame = self._to_owner(job, evolve(message, id=job.request.id), tuple(buffers))
                return [*frame, *self._grant(job)]
            case m.Done() | m.Failed():
                self._crew.rest(index, now, ran=message.engine if isinstance(message, m.Done) else "")
                return [*self._end(job, message, now), *self._dispatch(now)]
            case _:
                return []

    def on_worker_started(self, index: int, pid: int, device: str = "") -> None:
        """A process runs in this place; it says Welcome once it can work."""
        self._crew.started(index, pid, device)

    def on_worker_came(self, index: int, pid: int, device: str, now: float) -> None:
        """A worker has dialled in; it says Welcome next."""
        self._crew.came(index, pid, device, now)

    def on_worker_gone(self, index: int, why: str, now: float, was_ended: bool = False) -> list[Action]:
        """The process has ended; `was_ended`: not by itself, which says nothing about the next one."""
        log.warning("worker died", worker=index, pid=self._crew.workers[index].pid, why=why)
        return self._replace(index, ErrorCode.WORKER_DIED, f"the worker died ({why})", now, was_ended)

    def _on_worker_ready(self, index: int, welcome: m.Welcome, now: float) -> list[Action]:
        if why := self._crew.welcome(index, welcome, now):
            return [Refuse(index, why)]
        assert self._crew.said is not None
        ready = self._ready = evolve(self._crew.said, boot=self.boot, server=self._server)
        hellos: list[Action] = [
            ToClient(peer, welcome_in(hello.protocol, ready)) for peer, hello in self._clients.waiting_hellos.items()
        ]
        self._clients.waiting_hellos.clear()
        return [*hellos, *self._dispatch(now)]

    def _replace(self, index: int, code: ErrorCode, why: str, now: float, was_ended: bool = False) -> list[Action]:
        """Another process for this place; the job it had in hand gets its terminal message now."""
        job = self._jobs.on(index)
        actions: list[Action] = [Replace(index)] if self._crew.lose(index, why, now, was_ended) else []
        if job is not None:
            actions += self._end(job, failed(job.key, RequestError(code, why)), now)
        if self._crew.workers[index].state == "dead":
            actions += self._refuse_all(now)
        return actions

    def _refuse_all(self, now: float) -> list[Action]:
        """If the last worker is dead for now, nobody shall wait for it."""
        why = self._crew.why_nobody()
        if why is None:
            return []
        hellos = self._clients.waiting_hellos
        actions: list[Action] = [refusal(peer, ErrorCode.ENGINE_UNAVAILABLE, why) for peer in hellos]
        hellos.clear()
        for job in self._jobs:
            actions += self._end(job, failed(job.key, RequestError(ErrorCode.ENGINE_UNAVAILABLE, why)), now)
        return actions

    # Time

    def tick(self, now: float) -> list[Action]:
        """Call it several times a second: who is silent, who hangs?"""
        actions = [a for client in self._clients.lost(now) for a in self.on_client_gone(client.peer, now)]
        actions += [Replace(index) for index in self._crew.due(now)]
        for job in self._jobs.in_hand():
            if job.worker is not None and job.state is State.STOPPING and now - job.since > CANCEL_TIMEOUT_S:
                actions += self._replace(job.worker, ErrorCode.WORKER_HUNG, "it did not stop when told to", now)
        for index, why in self._crew.hanging(now):
            actions += self._replace(index, ErrorCode.WORKER_HUNG, why, now)
        if self._hoped_for and not self._crew.gathers(now):
            actions += self._give_up_hope(now)
        for job in self._jobs.in_hand():
            if self._holds_up_others(job, now):
                log.info("no frame taken", job=job.key, frames=job.sent)
                actions += self._stop(job, now)
        return [*actions, *self._notice(now)]

    def _notice(self, now: float) -> list[Action]:
        """Once in a while: how far those in hand were taken, and which places were kept for long enough."""
        if now - self._noted_at < NOTED_EVERY_S:
            return []
        self._noted_at = now
        actions = self._given_up(self._kept.expire(now))
        for job in self._jobs.in_hand():
            if job.taken != job.noted:
                job.noted = job.taken
                actions += self._note(Taken(job.owner, job.request.id, job.first_untaken))
        return actions

    def _holds_up_others(self, job: Job, now: float) -> bool:
        """Whether its worker waits for a client that takes nothing, and another client for a worker."""
        stands_still = job.state is State.RUNNING and job.sent == job.given and now - job.moved_at > L.MAX_UNTAKEN_S
        return stands_still and any(other.state is State.QUEUED and other.owner != job.owner for other in self._jobs)

    def shut_down(self, now: float) -> list[Action]:
        """Tell everybody whose request will not be finished."""
        error = RequestError(ErrorCode.SHUTTING_DOWN, "the server is shutting down")
        for job in self._jobs:
            job.keeps = job.state is not State.STOPPING
        return [a for job in self._jobs for a in self._end(job, failed(job.key, error), now)]

    # Steps that the above share

    def _dispatch(self, now: float) -> list[Action]:
        """Hand waiting requests to idle workers, and tell the others how many come before them now."""
        actions: list[Action] = []
        passed_over = 0
        while self._crew.has_idle and not self._paused and (waiting := self._jobs.waiting(passed_over)):
            index = self._crew.take(waiting.request, now)
            if index is None:  # who could do it is at work, and others need not wait for that
                passed_over += 1
                continue
            job = self._jobs.start(passed_over, index, now)
            job.given, job.moved_at = self._may_send(job), now
            actions.append(ToWorker(index, evolve(job.request, id=job.key, credit=job.given), job.buffers))
            job.buffers = ()
        for job in self._jobs.moved():
            actions += self._to_owner(job, m.Accepted(job.request.id, job.position))
        return actions

    def _stop(self, job: Job, now: float, keeps: bool = False) -> list[Action]:
        """`keeps`: whoever asks for the same again takes its place."""
        if job.state is State.STOPPING:
            return []
        job.keeps = keeps
        kept = self._given_up(self._kept.keep(entry_of(job), now)) if keeps else []
        if job.state is State.QUEUED:
            return [*kept, *self._end(job, self._cancelled(job), now), *self._dispatch(now)]
        assert job.worker is not None
        job.move(State.STOPPING, now)
        return [*kept, ToWorker(job.worker, m.Cancel(job.key))]

    def _end(self, job: Job, how: Terminal, now: float) -> list[Action]:
        """The one terminal message. A job that was being cancelled ends as cancelled, whatever happened to it then."""
        if job.verdict is not None:
            how = job.verdict
        elif job.state is State.STOPPING:
            how = self._cancelled(job)
        log.info("ended", job=job.key, how=how.outcome if isinstance(how, m.Done) else how.code, frames=job.sent)
        if isinstance(how, m.Done):
            how = evolve(how, frames=job.sent)
        terminal = self._jobs.end(job, how, now)
        return [*self._note(Left(job.owner, job.request.id, terminal, job.keeps)), *self._to_owner(job, terminal)]

    def _note(self, fact: Fact) -> list[Action]:
        return [Note(fact)] if self._notes else []

    def _given_up(self, entries: list[Entry]) -> list[Action]:
        """Places that are not kept any more."""
        return [a for entry in entries for a in self._note(Claimed(entry.owner, entry.id))]

    def _drop(self, key: str) -> list[Action]:
        dropped = self._kept.drop(key)
        return self._given_up([dropped] if dropped else [])

    def _cancelled(self, job: Job) -> m.Done:
        info = self._crew.engines.get(job.request.engine)
        version = info.version if info else ""
        return m.Done(job.key, "cancelled", job.sent, job.request.seed, job.request.engine, version)

    def _to_owner(self, job: Job, message: m.ToClient, buffers: tuple[Buffer, ...] = ()) -> list[Action]:
        owner = self._clients.of(job.owner)
        if owner is None:
            return []
        if self._counts and buffers:
            waiting = self._clients.waiting_bytes
            waiting[owner.peer] = waiting.get(owner.peer, 0) + sum(map(len, buffers))
        return [ToClient(owner.peer, message, buffers)]
