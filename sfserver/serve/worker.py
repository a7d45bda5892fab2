"""A worker process: one engine at work, one request at a time. The only module of the server that loads torch.

It reads messages from its standard input and writes them to its standard output (`link.py`), or dials in where it was
told a server (`dialling.py`). It ends when the pipe from its parent ends, so that none is left behind by one that was
killed. Iterating `Engine.open` is all it does with an
engine; closing that generator is how a request is cancelled.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial
from queue import SimpleQueue
from typing import Protocol, cast

import attrs
from sfwire import limits as L
from sfwire import messages as m
from sfwire.codec import Buffer, decode_to_server, encode
from sfwire.errors import RETRYABLE, ErrorCode, RequestError

from .. import __version__
from ..config import ServerConfig, load_config
from ..engine.base import CHOSEN, Engine, Frame, Job, Keyframe, Step, checked
from ..engine.choice import Choice, Wanted
from . import link
from .leash import hold_to_parent, ignore_interrupts
from .link import Link, Pipe
from .pulse import BEAT_S, LOADING_S, Pulse
from .road import PNG_DEPTH, Cancelled, Road, encoders

DEVICE_ERROR = "CUDA error"
"""What torch's words for it begin with. After one, the process can do nothing more with the device."""
PROGRESS_S = 0.05


class Engines(Protocol):
    """What the table of engines offers; tests bring a table of their own."""

    def describe_all(self, config: ServerConfig) -> tuple[m.EngineInfo, ...]: ...
    def load(self, engine_id: str, config: ServerConfig) -> Engine: ...
    def choose(self, infos: Iterable[m.EngineInfo], config: ServerConfig) -> tuple[str, str]: ...
    def choose_for(self, infos: Iterable[m.EngineInfo], config: ServerConfig, clip: Wanted) -> Choice: ...


class Request:
    """What the listening thread and the working thread share about one request."""

    def __init__(self, message: m.Generate, buffers: list[Buffer]) -> None:
        self.message = message
        self.buffers = buffers
        self.sent = 0
        self.stage = ""
        self.told_at = 0.0
        self._credit = message.credit
        self._cancelled = False
        self._changed = threading.Condition()

    def grant(self, total: int) -> None:
        with self._changed:
            self._credit = max(self._credit, total)
            self._changed.notify()

    def cancel(self) -> None:
        with self._changed:
            self._cancelled = True
            self._changed.notify()

    def check(self) -> None:
        """Raises Cancelled if it is."""
        if self._cancelled:
            raise Cancelled

    def wait_for_credit(self, beat: Callable[[], None]) -> None:
        """Stand still until the client can take a frame: this is how back-pressure reaches the GPU."""
        with self._changed:
            while self.sent >= self._credit and not self._cancelled:
                if not self._changed.wait(BEAT_S):
                    beat()
        self.check()


class Worker:
    """Runs requests one after the other until the link ends."""

    def __init__(
        self,
        engines: Engines,
        config: ServerConfig,
        link: Link | None = None,
        warm_up: Callable[[ServerConfig], None] | None = None,
    ) -> None:
        """Without a link it has to be given one with `work_for`, and outlives it. `warm_up` does once what the first
        request would have to wait for, whatever it is."""
        self._engines = engines
        self._config = config
        self._link = link
        self._outlives_link = link is None
        self._infos: dict[str, m.EngineInfo] = {}
        self._loaded: dict[str, Engine] = {}
        self._waiting: SimpleQueue[Request | None] = SimpleQueue()
        self._known: dict[str, Request] = {}
        """Requests that Credit and Cancel may be for."""
        self._encoders = encoders()
        self._device_lost = False
        self._warm_up = warm_up
        self._sending = threading.Lock()
        self._now: m.Progress | None = None
        """What was last told of the request in hand."""
        self._pulse = Pulse(self._beat, config.beat_timeout_s)

    def run(self) -> None:
        """Work until the process ends."""
        self._pulse.start()
        self._work_on(cast(Link, self._link))

    def work_for(self, link: Link) -> None:
        """Work until this link ends, and what it had asked for has stopped; then there may be another.

        Raises RequestError where no engine is complete.
        """
        if self._link is None:
            self._pulse.start()
        self._known, self._waiting, self._link = {}, SimpleQueue(), link
        self._work_on(link)

    def _work_on(self, link: Link) -> None:
        """Say what there is, then work."""
        infos = self._engines.describe_all(self._config)
        self._infos = {info.id: info for info in infos}
        engine, reason = self._engines.choose(infos, self._config)
        self._send(m.Welcome(L.PROTOCOL, "worker", f"sfserver {__version__}", infos, engine, reason))
        threading.Thread(target=self._listen, args=(link,), name="listen", daemon=True).start()
        self._warm()
        while (request := self._waiting.get()) is not None:
            outcome = self._outcome(request)
            self._pulse.rest()
            self._now = None
            self._send(outcome)
            self._known.pop(request.message.id, None)
            if self._device_lost:
                link.close()
                os._exit(1)  # whoever takes this worker's place has a device context of its own

    def _warm(self) -> None:
        """While nothing is asked for. In this thread, the one that uses the device: a request that comes meanwhile
        waits for no more than it would have to do itself."""
        if self._warm_up is None:
            return
        self._pulse.work(LOADING_S)
        try:
            self._warm_up(self._config)
        except Exception:  # whoever asks for something hears of it
            traceback.print_exc()
        self._warm_up = None
        self._pulse.rest()

    def _listen(self, link: Link) -> None:
        try:
            while True:
                self._hear(*decode_to_server(link.receive()))
        except EOFError:
            self._lose()
        except BaseException:  # the boundary of this thread: a worker that hears nothing could not be cancelled
            traceback.print_exc()
            os._exit(1)

    def _lose(self) -> None:
        """The link has ended, and nobody wants what is in hand any more."""
        if not self._outlives_link:
            os._exit(0)  # the front is gone, and a forward pass in the other thread cannot be interrupted politely
        for request in list(self._known.values()):
            request.cancel()
        self._waiting.put(None)

    def _hear(self, message: m.ToServer, buffers: list[Buffer]) -> None:
        match message:
            case m.Generate():
                request = self._known[message.id] = Request(message, buffers)
                if self._warm_up is not None:  # who asks meanwhile is told of it
                    self._say(m.Progress(message.id, "loading", 0, 1))
                self._waiting.put(request)
            case m.Credit():
                if request := self._known.get(message.id):  # the other thread forgets it once it has ended
                    request.grant(message.total)
            case m.Cancel():
                if request := self._known.get(message.id):
                    request.cancel()
            case _:
                pass

    def _outcome(self, request: Request) -> m.Done | m.Failed:
        """Do it, and say how it ended. The boundary where any mistake of an engine becomes a message."""
        message = request.message
        try:
            self._work(request)
        except Cancelled:
            return self._done(request, "cancelled")
        except RequestError as error:
            return m.Failed(message.id, error.code, error.message, error.field, error.code in RETRYABLE)
        except MemoryError:
            return m.Failed(message.id, ErrorCode.OUT_OF_MEMORY, "the computer is out of memory; choose a smaller size")
        except Exception as error:
            traceback.print_exc()
            self._device_lost = DEVICE_ERROR in str(error)
            sentence = f"the engine failed ({type(error).__name__}); the server's log has the details"
            return m.Failed(message.id, ErrorCode.INTERNAL, sentence)
        return self._done(request, "finished")

    def _done(self, request: Request, outcome: m.Outcome) -> m.Done:
        message = request.message
        version = self._infos[message.engine].version
        return m.Done(message.id, outcome, request.sent, message.seed, message.engine, version)

    def _work(self, request: Request) -> None:
        self._settle(request)
        info = self._infos.get(request.message.engine)
        if info is None:
            raise RequestError(ErrorCode.UNKNOWN_ENGINE, f"there is no engine {request.message.engine!r}", "engine")
        job = checked(_job(request), info)
        with self._road(request) as road:
            self._progress(request, Step("loading", 0, 1, LOADING_S), road)
            with closing(self._engine(info).open(job)) as events:
                for event in events:
                    request.check()
                    road.check()
                    if isinstance(event, Step):
                        self._progress(request, event, road)
                        continue
                    for frame in event.frames:
                        if frame.index >= job.resume_from:
                            road.put(frame)
                    self._pulse.work(event.silence_s)

    def _road(self, request: Request) -> Road:
        return Road(partial(self._send_frame, request), self._say, request.message.encoding, self._encoders)

    def _settle(self, request: Request) -> None:
        """`auto` becomes an engine and what it needs for this clip, and why is told; what was asked for stays."""
        message = request.message
        if message.engine != L.AUTO:
            return
        size, keyframes, prompts = (message.width, message.height), len(message.keyframes), 1 + len(message.prompts)
        clip = Wanted(*size, message.num_frames, keyframes, True, prompts, message.params)
        choice = self._engines.choose_for(self._infos.values(), self._config, clip)
        request.message = attrs.evolve(message, engine=choice.engine, params={**choice.settings, **message.params})
        self._send(m.Progress(message.id, m.fit(f"{CHOSEN}{choice.reason}", L.MAX_NAME_CHARS), 0, 1))

    def _engine(self, info: m.EngineInfo) -> Engine:
        """The loaded engine; a large one makes room for another large one."""
        if info.id not in self._loaded:
            if info.memory_bytes:
                self._loaded = {k: e for k, e in self._loaded.items() if not e.info.memory_bytes}
            self._loaded[info.id] = self._engines.load(info.id, self._config)
        return self._loaded[info.id]

    def _progress(self, request: Request, step: Step, road: Road) -> None:
        """Tell how far it is: every change of stage, otherwise no more often than anybody can see."""
        self._pulse.work(step.silence_s)
        now = time.monotonic()
        if step.stage != request.stage or now - request.told_at >= PROGRESS_S:
            request.stage, request.told_at = step.stage, now
            road.tell(m.Progress(request.message.id, step.stage, step.step, step.of))

    def _say(self, progress: m.Progress) -> None:
        self._now = progress
        self._send(progress)

    def _beat(self) -> None:
        """Say once more what was said last: the front counts it as a sign of life."""
        if self._now is not None:
            self._send(self._now)

    def _wait(self, request: Request) -> None:
        """Nobody takes a frame, and the engine may stand still for that: it does not hang."""
        self._pulse.again()
        self._send(m.Progress(request.message.id, "waiting", request.sent, request.message.num_frames))

    def _send_frame(self, request: Request, frame: Frame, picture: Buffer) -> None:
        """Once the client can take it; until then it is told every now and then that this is what is waited for."""
        message = request.message
        request.wait_for_credit(partial(self._wait, request))
        height, width, channels = frame.image.shape
        depth = 8 * frame.image.dtype.itemsize if message.encoding == "raw" else PNG_DEPTH
        self._send(
            m.Frame(message.id, frame.index, width, height, message.encoding, frame.confidence, channels, depth),
            picture,
        )
        request.sent += 1

    def _send(self, message: m.ToClient, *buffers: Buffer) -> None:
        try:
            with self._sending:
                cast(Link, self._link).send(encode(message, buffers))
        except OSError:
            if not self._outlives_link:
                os._exit(0)  # else the listening thread hears of it


def _job(request: Request) -> Job:
    import numpy as np

    g = request.message
    from ..samples import Form

    keyframes: list[Keyframe] = []
    for k in g.keyframes:
        form = Form(k.channels, k.depth)
        samples = np.frombuffer(request.buffers[k.buffer], form.type)
        keyframes.append(Keyframe(k.at, samples.reshape(k.height, k.width, k.channels)))
    return Job(
        width=g.width,
        height=g.height,
        num_frames=g.num_frames,
        keyframes=tuple(keyframes),
        prompt=g.prompt,
        negative_prompt=g.negative_prompt,
        seed=g.seed,
        params=g.params,
        resume_from=g.resume_from,
        prompts=tuple((prompt.at, prompt.text) for prompt in g.prompts),
    )


def pack_config(config: ServerConfig) -> bytes:
    """What the parent sends first; `run` reads it again."""
    plain = {name: value if value is None else str(value) for name, value in attrs.asdict(config).items()}
    return json.dumps(plain).encode()


def run(engines: Engines, worker: type[Worker] = Worker, warm_up: Callable[[ServerConfig], None] | None = None) -> None:
    """Take over standard input and output and work until they end, or for the server that the parent names."""
    hold_to_parent("SIGKILL")
    ignore_interrupts()
    source = os.fdopen(os.dup(0), "rb")
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints goes to the log, not into the pipe
    told, *server = link.read(source)
    config = load_config(flags=json.loads(bytes(told)), environment={})
    if server:
        from . import dialling

        sys.exit(dialling.serve(worker(engines, config, warm_up=warm_up), source, bytes(server[0])))
    worker(engines, config, Pipe(source, sink), warm_up).run()


def main() -> None:
    from ..engine import table

    run(table, warm_up=table.warm_up)


if __name__ == "__main__":
    main()
