"""The server's half of the conversation, sans I/O: messages of clients and workers go in, actions come out.

Between clients, which may say anything, and workers, which may die at any moment, it keeps three promises: an accepted
request gets exactly one terminal message; nothing one client does reaches another's stream; and it never waits.
`front.py` carries out the actions; `sfwire/session.py` is the other half.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import structlog
from attrs import define, evolve
from sfwire import limits as L
from sfwire import messages as m
from sfwire.codec import Buffer
from sfwire.errors import BadMessage, ErrorCode, RequestError

from . import credit, placing, steering
from .actions import Action, Note, Refuse, Replace, ToClient, ToWorker
from .answers import failed, field_of_ours, welcome_in
from .ends import pause_s
from .jobs import Job, Jobs, State, Terminal
from .kept import Claimed, Entered, Entry, Fact, Kept, Left, Past, Paused, Taken, content_of
from .placing import NO_SKILL, Idle, Skill

START_TIMEOUT_S = 180.0
"""A cold worker imports torch from a slow disk within this."""
MAX_FAILED_STARTS = 3
"""Starts in a row that fail before a worker is left dead for a while."""
DEAD_PAUSE_S = 30.0
PROCESS_PATIENCE_S = 60.0
"""A worker beats every two seconds (`pulse.py`), whatever its engine does: one that is silent was stopped."""
NOTED_EVERY_S = 1.0
"""How far frames were taken is written down this often."""
CANCEL_TIMEOUT_S = 15.0
"""A worker stops within one forward pass of the request that it was told to stop; then nobody waits for it any more."""

log = structlog.get_logger("broker")


@define(eq=False)
class _Client:
    """A connection that has said Hello. `peer` is ZeroMQ's name for it, `session` its own."""

    peer: bytes
    session: str
    name: str
    protocol: int
    heard_at: float


@define(eq=False)
class _Worker:
    state: m.WorkerState | Literal["absent"] = "starting"
    """A place for workers that dial in is absent while nobody has it."""
    dials_in: bool = False
    device: str = ""
    skill: Skill = NO_SKILL
    loaded: frozenset[str] = frozenset()
    since: float = 0.0
    beat_at: float = 0.0
    pid: int = 0
    restarts: int = 0
    starts: int = 0
    """That came to nothing, in a row."""
    failed_starts: int = 0
    """Those of them that ended by themselves."""
    due_at: float = 0.0
    """When the next process is started, where that waits."""
    last_words: str = ""
    """What it said before it died, for the one who asks why."""


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
        operator: str = "",
        past: Past | None = None,
        places: int = 0,
    ) -> None:
        """`counts`: `on_waiting` will say what is on its way to each client. `operator`: what who steers must know.
        `past`: what a journal holds; there is one, and what happens is to be written into it. `places`: for workers
        that dial in."""
        self.boot = boot
        self._counts = counts
        self._server = server
        self._beat_timeout_s = beat_timeout_s or PROCESS_PATIENCE_S
        self._started_at = now
        self._jobs = Jobs()
        self._operator = operator
        self._notes = past is not None
        self._noted_at = now
        self._kept = Kept()
        self._paused = past is not None and past.is_paused
        for number, entry in enumerate(past.entries if past else ()):
            self._kept.keep(evolve(entry, key=f"past{number + 1}"), now)
        for owner, how in past.ends if past else ():
            self._jobs.remember(owner, how)
        self._clients: dict[bytes, _Client] = {}
        """Who was silent longest comes first."""
        self._peers: dict[str, bytes] = {}
        """By session."""
        self._waiting_hellos: dict[bytes, m.Hello] = {}
        self._waiting_bytes: dict[bytes, int] = {}
        """Sent to a connection and not taken by its computer yet, where that is counted."""
        self._workers = [_Worker(since=now, beat_at=now) for _ in range(workers)]
        self._workers += [_Worker("absent", dials_in=True) for _ in range(places)]
        self._idle = Idle()
        self._skills: dict[Skill, Skill] = {}
        """Of every kind of worker that was here, the first one first: what one could do that is away just now is waited
        for. Workers that are alike share one."""
        self._ready: m.Welcome | None = None
        """What clients are told of all workers' engines."""
        self._engines: Mapping[str, m.EngineInfo] = {}

    @property
    def ready(self) -> bool:
        """A worker has said which engines there are."""
        return self._ready is not None

    # Clients

    def on_client(self, peer: bytes, message: m.ToServer, buffers: list[Buffer], now: float) -> list[Action]:
        """React to one message of a client."""
        client = self._heard(peer, now)
        match message:
            case m.Hello():
                return self._on_hello(peer, message, now)
            case m.Ping():
                return [ToClient(peer, self._pong(client, message.nonce))]
            case m.Status():
                return [ToClient(peer, self._report(now, names_devices=not client or client.protocol == L.PROTOCOL))]
            case m.Bye():
                return self._forget_client(peer, now, keeps=False)
            case m.Steer():
                return self._on_steer(peer, message, now)
            case m.Generate():
                if client is None:
                    error = RequestError(ErrorCode.HELLO_FIRST, "say Hello before Generate")
                    return [ToClient(peer, failed(message.id, error))]
                return self._on_generate(client, message, tuple(buffers), now)
            case m.Credit() | m.Cancel():
                job = client and self._jobs.find(client.session, message.id)
                if not job:
                    return []  # it has ended, or belongs to somebody else
                return self._stop(job, now) if isinstance(message, m.Cancel) else self._on_credit(job, message)

    def on_mistake(self, peer: bytes, now: float) -> list[Action]:
        """We failed over something that this connection said: it is told, and costs nobody else anything."""
        sentence = "the server failed over this message; its log has the details"
        return [_refusal(peer, ErrorCode.INTERNAL, sentence), *self.on_client_gone(peer, now)]

    def on_bad_message(self, peer: bytes, error: BadMessage, now: float) -> list[Action]:
        """Answer bytes that are no message; the connection and its other streams go on."""
        client = self._heard(peer, now)
        # Not what was said: a client's mistake may have put a prompt anywhere.
        log.info("bad message", client=client.name if client else "?", field=field_of_ours(error.field))
        live = client and error.id and self._jobs.find(client.session, error.id)
        blamed = None if live else error.id  # a Failed with the id of a live request would be its end
        failed = m.Failed(blamed, ErrorCode.BAD_MESSAGE, m.fit(error.message), m.fit(error.field, L.MAX_NAME_CHARS))
        return [ToClient(peer, failed)]

    def _heard(self, peer: bytes, now: float) -> _Client | None:
        client = self._clients.pop(peer, None)
        if client is not None:
            client.heard_at = now
            self._clients[peer] = client
        return client

    def on_client_gone(self, peer: bytes, now: float) -> list[Action]:
        """The connection is dead: forget it and stop its requests. Who comes back finds their places kept."""
        return self._forget_client(peer, now, keeps=True)

    def _forget_client(self, peer: bytes, now: float, keeps: bool) -> list[Action]:
        self._waiting_hellos.pop(peer, None)
        client = self._clients.pop(peer, None)
        if client is None:
            return []
        del self._peers[client.session]
        log.info("client gone", client=client.name)
        return [a for job in self._jobs.of(client.session) for a in self._stop(job, now, keeps)]

    def on_waiting(self, peer: bytes, waiting_bytes: int) -> list[Action]:
        """So much of what was sent to this connection is still on its way: frames may follow what has arrived."""
        self._waiting_bytes[peer] = waiting_bytes
        if not waiting_bytes:
            del self._waiting_bytes[peer]
        client = self._clients.get(peer)
        return [a for job in self._jobs.of(client.session) for a in self._grant(job)] if client else []

    def _on_hello(self, peer: bytes, hello: m.Hello, now: float) -> list[Action]:
        if not L.OLDEST_PROTOCOL <= hello.protocol <= L.PROTOCOL:
            return [_refusal(peer, ErrorCode.PROTOCOL_VERSION, f"the server speaks protocol {L.PROTOCOL}")]
        actions: list[Action] = []
        # A session that comes from elsewhere leaves its old connection, and a connection that names another session
        # leaves its old one: what either had asked for would be nobody's.
        for other in (peer, self._peers.get(hello.session, peer)):
            known = self._clients.get(other)
            if known is not None and (known.session == hello.session) != (other == peer):
                actions += self.on_client_gone(other, now)
        if peer not in self._clients and len(self._clients) >= L.MAX_CLIENTS:
            return [*actions, _refusal(peer, ErrorCode.QUEUE_FULL, f"{L.MAX_CLIENTS} clients are connected already")]
        self._clients.pop(peer, None)  # so that it comes last
        self._clients[peer] = _Client(peer, hello.session, hello.client, hello.protocol, now)
        self._peers[hello.session] = peer
        log.info("client", client=hello.client)
        if self._ready is not None:
            return [*actions, ToClient(peer, welcome_in(hello.protocol, self._ready))]
        if why := self._why_no_worker():
            return [*actions, _refusal(peer, ErrorCode.ENGINE_UNAVAILABLE, why)]
        self._waiting_hellos[peer] = hello
        return actions

    def _on_generate(
        self, client: _Client, request: m.Generate, buffers: tuple[Buffer, ...], now: float
    ) -> list[Action]:
        job = self._jobs.find(client.session, request.id)
        if job is not None:
            return [ToClient(client.peer, m.Accepted(request.id, job.position))]
        ended = self._jobs.how_ended(client.session, request.id)
        if ended is not None:
            return [ToClient(client.peer, ended)]
        try:
            self._check(request)
            content = content_of(request, buffers)
            stood = self._kept.find(content, client.session)
            job = self._jobs.admit(client.session, request, buffers, now, stood.round if stood else None)
        except RequestError as error:
            return [ToClient(client.peer, failed(request.id, error))]
        job.content, job.client = content, client.name
        notes = [*self._drop(stood.key if stood else ""), *self._note(Entered(_entry(job)))]
        log.info("request", job=job.key, engine=request.engine, frames=request.num_frames, resume=request.resume_from)
        log.debug("prompt", job=job.key, prompt=request.prompt, negative=request.negative_prompt)
        dispatched = self._dispatch(now)
        return [*notes, ToClient(client.peer, m.Accepted(request.id, job.position)), *dispatched]

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
                owner = self._owner(job)
                job.verdict = steering.taken_out(job, owner.protocol if owner else L.PROTOCOL)
                return self._stop(job, now)
            case "cancel":
                return self._drop(wish.job)
            case "move" if job is not None:
                self._jobs.move(job, wish.to)
                return [*self._note(Entered(_entry(job))), *self._dispatch(now)]
            case _:
                return []

    def _check(self, request: m.Generate) -> None:
        """Raises RequestError for what is well-formed and cannot be done."""
        if why := self._why_no_worker():
            raise RequestError(ErrorCode.ENGINE_UNAVAILABLE, why)
        refused = placing.refusal_of_all(self._skills, request)
        if refused is not None:
            raise refused

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
        client = self._owner(job)
        waiting_bytes = self._waiting_bytes.get(client.peer, 0) if client else 0
        return credit.total(job, self._jobs.of(job.owner), waiting_bytes)

    # Workers

    def on_worker(self, index: int, message: m.ToClient, buffers: list[Buffer], now: float) -> list[Action]:
        """React to one message of a worker; any message is a beat."""
        worker = self._workers[index]
        worker.beat_at = now
        if isinstance(message, m.Welcome):
            return self._on_worker_ready(index, message, now) if worker.state == "starting" else []
        job = (
            self._jobs.get(message.id or "") if isinstance(message, m.Progress | m.Frame | m.Done | m.Failed) else None
        )
        if job is None or job.worker != index:
            return []
        match message:
            case m.Progress() if job.state is State.RUNNING:
                return self._to_owner(job, evolve(message, id=job.request.id))
            case m.Frame() if job.state is State.RUNNING:
                job.sent, job.moved_at = job.sent + 1, now
                frame = self._to_owner(job, evolve(message, id=job.request.id), tuple(buffers))
                return [*frame, *self._grant(job)]
            case m.Done() | m.Failed():
                if isinstance(message, m.Done):
                    worker.loaded = placing.loaded_after(worker.loaded, message.engine, worker.skill)
                self._rest(index, now)
                return [*self._end(job, message, now), *self._dispatch(now)]
            case _:
                return []

    def on_worker_started(self, index: int, pid: int, device: str = "") -> None:
        """A process runs in this place; it says Welcome once it can work."""
        self._workers[index].pid, self._workers[index].device = pid, device

    def on_worker_came(self, index: int, pid: int, device: str, now: float) -> None:
        """A worker has dialled in; it says Welcome next."""
        worker = self._workers[index]
        worker.state, worker.since, worker.beat_at = "starting", now, now
        self.on_worker_started(index, pid, device)

    def on_worker_gone(self, index: int, why: str, now: float, was_ended: bool = False) -> list[Action]:
        """The process has ended; `was_ended`: not by itself, which says nothing about the next one."""
        worker = self._workers[index]
        log.warning("worker died", worker=index, pid=worker.pid, why=why)
        return self._replace(index, ErrorCode.WORKER_DIED, f"the worker died ({why})", now, was_ended)

    def _on_worker_ready(self, index: int, welcome: m.Welcome, now: float) -> list[Action]:
        worker, skill = self._workers[index], Skill(welcome.engines, welcome.default_engine)
        others = [w.skill for i, w in enumerate(self._workers) if i != index and w.state != "absent"]
        if worker.dials_in and (why := placing.other_version(skill, others)):
            log.warning("worker refused", worker=index, device=worker.device, why=why)
            worker.state = "absent"
            return [Refuse(index, why)]
        if worker.skill != skill and not worker.dials_in and worker.skill not in others:
            self._skills.pop(worker.skill, None)  # its weights are others than when it was started before
        worker.skill, worker.starts, worker.failed_starts = self._skills.setdefault(skill, skill), 0, 0
        self._rest(index, now)
        ready = self._tell_of_engines(welcome)
        hellos: list[Action] = [
            ToClient(peer, welcome_in(hello.protocol, ready)) for peer, hello in self._waiting_hellos.items()
        ]
        self._waiting_hellos.clear()
        return [*hellos, *self._dispatch(now)]

    def _tell_of_engines(self, welcome: m.Welcome) -> m.Welcome:
        """What clients will hear: the engines of all workers, and for `auto` what the first kind of them says."""
        engines = placing.all_engines(self._skills)
        self._engines = {info.id: info for info in engines}
        is_first = next(iter(self._skills)).default == welcome.default_engine
        said = welcome if is_first or self._ready is None else self._ready
        self._ready = evolve(said, engines=engines, boot=self.boot, server=self._server)
        return self._ready

    def _replace(self, index: int, code: ErrorCode, why: str, now: float, was_ended: bool = False) -> list[Action]:
        """Another process for this place; the job it had in hand gets its terminal message now."""
        worker = self._workers[index]
        job = self._jobs.on(index)
        self._idle.remove(index)
        worker.loaded = frozenset()
        worker.last_words = m.fit(why)
        worker.starts += worker.state == "starting"
        worker.failed_starts += worker.state == "starting" and not was_ended
        worker.restarts += 1
        worker.beat_at = worker.since = now
        dead = worker.failed_starts >= MAX_FAILED_STARTS and not worker.dials_in
        worker.state = "absent" if worker.dials_in else "dead" if dead else "starting"
        worker.due_at = now + pause_s(worker.starts) if worker.starts and not worker.dials_in else now
        actions: list[Action] = [Replace(index)] if worker.due_at == now and not dead else []
        if job is not None:
            actions += self._end(job, failed(job.key, RequestError(code, why)), now)
        if dead:
            actions += self._refuse_all(now)
        return actions

    def _why_no_worker(self) -> str | None:
        """The sentence for those who ask while all workers are dead for now; None while one is not."""
        dead = [w for w in self._workers if w.state == "dead"]
        if not dead or any(w.state not in ("dead", "absent") for w in self._workers):
            return None
        words = dead[0].last_words or "see the server's log"
        return f"no worker can be started: {words}"

    def _refuse_all(self, now: float) -> list[Action]:
        """If the last worker is dead for now, nobody shall wait for it."""
        why = self._why_no_worker()
        if why is None:
            return []
        actions: list[Action] = [_refusal(peer, ErrorCode.ENGINE_UNAVAILABLE, why) for peer in self._waiting_hellos]
        self._waiting_hellos.clear()
        for job in self._jobs:
            actions += self._end(job, failed(job.key, RequestError(ErrorCode.ENGINE_UNAVAILABLE, why)), now)
        return actions

    # Time

    def tick(self, now: float) -> list[Action]:
        """Call it several times a second: who is silent, who hangs?"""
        actions: list[Action] = []
        while self._clients:
            client = next(iter(self._clients.values()))
            if now - client.heard_at <= L.CLIENT_LOST_AFTER_S:
                break
            actions += self.on_client_gone(client.peer, now)
        for index, worker in enumerate(self._workers):
            if worker.state == "absent":
                continue
            silent = now - worker.beat_at
            is_due = worker.state == "starting" and worker.since < worker.due_at <= now
            if is_due or (worker.state == "dead" and now - worker.since > DEAD_PAUSE_S):
                worker.state, worker.since, worker.beat_at = "starting", now, now
                actions.append(Replace(index))
            elif worker.state == "starting" and silent > START_TIMEOUT_S:
                actions += self._replace(index, ErrorCode.WORKER_HUNG, f"it did not start in {silent:.0f} s", now)
            elif self._ignores_cancel(index, now):
                actions += self._replace(index, ErrorCode.WORKER_HUNG, "it did not stop when told to", now)
            elif worker.state == "busy" and silent > self._beat_timeout_s:
                log.warning("worker hangs", worker=index, pid=worker.pid, silent_s=round(silent))
                why = f"the worker showed no sign of life for {silent:.0f} s and was replaced"
                actions += self._replace(index, ErrorCode.WORKER_HUNG, why, now)
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

    def _ignores_cancel(self, index: int, now: float) -> bool:
        job = self._jobs.on(index)
        return job is not None and job.state is State.STOPPING and now - job.since > CANCEL_TIMEOUT_S

    def shut_down(self, now: float) -> list[Action]:
        """Tell everybody whose request will not be finished."""
        error = RequestError(ErrorCode.SHUTTING_DOWN, "the server is shutting down")
        for job in self._jobs:
            job.keeps = job.state is not State.STOPPING
        return [a for job in self._jobs for a in self._end(job, failed(job.key, error), now)]

    # Steps that the above share

    def _rest(self, index: int, now: float) -> None:
        """This worker has nothing in hand."""
        worker = self._workers[index]
        worker.state, worker.since = "idle", now
        self._idle.add(index, worker.skill, worker.loaded)

    def _dispatch(self, now: float) -> list[Action]:
        """Hand waiting requests to idle workers, and tell the others how many come before them now."""
        actions: list[Action] = []
        passed_over = 0
        while self._idle and not self._paused and (waiting := self._jobs.waiting(passed_over)):
            index = self._idle.take(waiting.request)
            if index is None:  # who could do it is at work, and others need not wait for that
                passed_over += 1
                continue
            worker, job = self._workers[index], self._jobs.start(passed_over, index, now)
            worker.state, worker.since, worker.beat_at = "busy", now, now
            worker.loaded = placing.loaded_after(worker.loaded, job.request.engine, worker.skill)
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
        kept = self._given_up(self._kept.keep(_entry(job), now)) if keeps else []
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
        version = self._engines[job.request.engine].version if job.request.engine in self._engines else ""
        return m.Done(job.key, "cancelled", job.sent, job.request.seed, job.request.engine, version)

    def _to_owner(self, job: Job, message: m.ToClient, buffers: tuple[Buffer, ...] = ()) -> list[Action]:
        owner = self._owner(job)
        if owner is None:
            return []
        if self._counts and buffers:
            self._waiting_bytes[owner.peer] = self._waiting_bytes.get(owner.peer, 0) + sum(map(len, buffers))
        return [ToClient(owner.peer, message, buffers)]

    def _owner(self, job: Job) -> _Client | None:
        peer = self._peers.get(job.owner)
        return None if peer is None else self._clients[peer]

    def _pong(self, client: _Client | None, nonce: int) -> m.Pong:
        jobs = self._jobs.of(client.session) if client else []
        return m.Pong(
            nonce=nonce,
            boot=self.boot,
            running=self._jobs.running,
            queued=self._jobs.queued,
            workers=tuple(state for w in self._workers if (state := w.state) != "absent")[: L.MAX_WORKERS],
            yours=tuple(m.LiveRequest(job.request.id, job.sent) for job in jobs if job.state is not State.STOPPING),
        )

    def _report(self, now: float, names_devices: bool) -> m.Report:
        busy = [w.skill for w in self._workers if w.state == "busy"]
        starting = sum(w.state == "starting" for w in self._workers)

        def state_of(job: Job) -> str:
            waits = job.state is State.QUEUED
            return placing.why_it_waits(job.request, busy, starting) if waits else job.state.name.lower()

        return m.Report(
            boot=self.boot,
            uptime_s=now - self._started_at,
            clients=len(self._clients),
            served=self._jobs.served,
            jobs=tuple(m.JobStatus(j.request.id, j.request.engine, state_of(j), j.sent, j.worker) for j in self._jobs),
            workers=tuple(
                m.WorkerStatus(i, w.pid, state, w.restarts, w.device if names_devices else "")
                for i, w in enumerate(self._workers)
                if (state := w.state) != "absent"
            ),
        )


def _entry(job: Job) -> Entry:
    request = job.request
    facts = (request.engine, request.num_frames, job.first_untaken, job.round, request.priority)
    return Entry(job.key, job.owner, request.id, job.content, job.client, *facts)


def _refusal(peer: bytes, code: ErrorCode, why: str) -> ToClient:
    return ToClient(peer, m.Failed(None, code, m.fit(why)))
