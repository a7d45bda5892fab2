"""`sfserver generate`: from file names to frames on disk. One road, whether the engine runs here or in a server.

order -> keyframes read -> engine chosen -> clip planned and checked -> outputs opened -> frames written as they come
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Protocol

import numpy as np
from attrs import evolve, field, frozen
from sfwire import messages as m
from sfwire.client import Client
from sfwire.errors import ErrorCode, RequestError, ServerUnavailable, WireError
from sfwire.limits import AUTO, MAX_FRAMES, MAX_KEYFRAMES
from sfwire.request import Ended, Interrupted, Picture, Request

from . import recipe as recipes
from .config import ServerConfig
from .engine import base, table, wan
from .engine.choice import Wanted
from .engine.provenance import weights_of
from .errors import UserError
from .media import ClipShape, FitRule, Outputs, check_name, clip_size, fit_all, read_picture
from .media.outputs import USUAL, Keeping
from .recipe import Recipe
from .serve import endpoint

Event = base.Step | base.Frame
"""What a source of frames yields: a sign of life, or one in-between frame."""
UNKNOWN_MEMORY_BYTES = 2**62
"""Of a server's device."""
DISSOLVE_CONFIDENCE = 0.5
"""The draft engine halves its confidence at the difference from which on it dissolves; others may have none."""


class OrderError(UserError):
    """What was asked for cannot be done by any engine; one sentence with the remedy."""


@frozen
class Order:
    """What the user asked for, word for word."""

    start: Path
    end: Path
    out: Path
    further: tuple[tuple[int, Path], ...] = ()
    """Keyframes between start and end: (frame index, picture)."""
    prompt: str = ""
    negative_prompt: str = ""
    prompts: tuple[tuple[int, str], ...] = ()
    """(frame index, prompt) in order of time: it holds from that frame on."""
    num_frames: int = 33
    size: tuple[int, int] | None = None
    """(width, height), or None for the start picture's."""
    fit: FitRule = "crop"
    engine: str = "auto"
    """`auto`, an id, or a folder of converted weights; a server must have it among its own."""
    settings: Mapping[str, str] = field(factory=dict[str, str])
    """Values for the engine's parameters, as typed."""
    seed: int = 0
    fps: Fraction = Fraction(24)
    between_only: bool = False
    connect: bool = False
    keeping: Keeping = USUAL
    """How frames are kept in files."""
    keeps_recipe: bool = True
    """Recipes hold the prompts; some must not leave them in files."""
    again: Recipe | None = None
    """What this order was taken from: it is followed to the byte, or refused with what is another here."""


@frozen(eq=False)
class Plan:
    """The order made exact for one engine: keyframes at the clip's size, parameters complete, everything checked."""

    request: Request
    job: base.Job
    info: m.EngineInfo


@frozen
class Choice:
    """An engine: what it says of itself, and how to get it into this process."""

    info: m.EngineInfo
    load: Callable[[], base.Engine]


@frozen
class Result:
    """How a run ended that was not refused."""

    written: int
    made: int
    """In-between frames; `written` has the keyframes too unless only those between were asked for."""
    wanted: int
    cancelled: bool
    seconds: float
    engine: str


class Notes(Protocol):
    """Who is told what the user should know."""

    def note(self, sentence: str) -> None: ...


class Watcher(Notes, Protocol):
    """Who is told what happens: the command line's progress bar."""

    def planned(self, wanted: int) -> None: ...

    def at(self, stage: str, made: int) -> None: ...


def generate(order: Order, config: ServerConfig, watcher: Watcher) -> Result:
    """Do it all. Ctrl-C keeps the frames made so far and returns a Result that says so.

    Raises OrderError, MediaError and WireError for what the user or the machine can mend.
    """
    _check_order(order)
    positions = {0: order.start, **dict(order.further), order.num_frames - 1: order.end}
    loaded = {at: read_picture(path) for at, path in sorted(positions.items())}
    for one in loaded.values():
        for note in one.notes:
            watcher.note(note)
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(connected(config)) if order.connect else None
        first = order.size or loaded[0].image.shape[1::-1]
        clip = Wanted(first[0], first[1], order.num_frames, len(loaded))
        choice, settings = choose_engine(order, clip, config, client, watcher)
        order = evolve(order, settings={**settings, **order.settings})
        images = {at: one.image for at, one in loaded.items()}
        plan = plan_for(order, images, choice.info, watcher)
        recipe = recipes.recipe_of(order, plan, images, _weights(order, choice, config))
        if order.again:
            recipe = recipes.same(order.again, recipe)
        outputs = Outputs(
            order.out,
            ClipShape(plan.job.width, plan.job.height, order.num_frames, tuple(loaded), order.fps),
            recipe.text() if order.keeps_recipe else "",
            order.keeping,
        )
        source = frames_from_server(client, plan.request) if client else frames_from_here(choice, plan.job)
        return _write_all(order, plan, recipe, source, outputs, watcher)


# Planning


def _check_order(order: Order) -> None:
    """What can be said before any file is opened."""
    check_name(order.out, order.keeping, order.fps)
    if order.num_frames < 3:
        raise OrderError(
            f"--frames {order.num_frames}: START and END count, so there is nothing between; 3 is the least"
        )
    if order.num_frames > MAX_FRAMES:
        raise OrderError(f"--frames {order.num_frames}: at most {MAX_FRAMES} are made at once; make it in parts")
    if len(order.further) > MAX_KEYFRAMES - 2:
        raise OrderError(f"--at: {len(order.further)} pictures between START and END; at most {MAX_KEYFRAMES - 2}")
    taken = {0: "START", order.num_frames - 1: "END"}
    for at, path in order.further:
        if at in taken:
            raise OrderError(f"--at {at}:{path}: frame {at} is {taken[at]} already; choose another frame")
        if not 0 < at < order.num_frames - 1:
            raise OrderError(f"--at {at}:{path}: is not between START and END; choose 1 to {order.num_frames - 2}")
        taken[at] = str(path)
    for (at, text), (next_at, _) in pairwise(order.prompts):
        if at == next_at:
            raise OrderError(f"--prompt-at {at}:{text}: another prompt begins at frame {at}; choose another frame")


def connected(config: ServerConfig, name: str = "sfserver generate") -> Client:
    """A client of the running server.

    Raises NoConnectionFile at once where no server runs: whoever types a command wants to know, not to wait."""
    endpoint.require_running(endpoint.connection_path(config))
    return Client(config.connection_file, name=name)


def choose_engine(
    order: Order, clip: Wanted, config: ServerConfig, client: Client | None, watcher: Notes
) -> tuple[Choice, Mapping[str, str]]:
    """The engine that is meant, and what `auto` would set. Raises RequestError where there is none of that name."""
    welcome = client.wait_ready() if client else None
    infos, wanted = welcome.engines if welcome else table.describe_all(config), order.engine
    settings: Mapping[str, str] = {}
    if wanted == AUTO and welcome:  # the server chooses, and says why; until then, whichever could make the clip
        wanted = table.choose_of(infos, UNKNOWN_MEMORY_BYTES, clip).engine
    elif wanted == AUTO:
        chosen = table.choose_for(infos, config, clip)
        wanted, settings = chosen.engine, {name: str(value) for name, value in chosen.settings.items()}
        watcher.note(chosen.reason)
    choice = next((Choice(info, partial(table.load, info.id, config)) for info in infos if info.id == wanted), None)
    if choice is None and Path(wanted).is_dir():
        choice = _engine_of(Path(wanted), config, welcome.engines if welcome else None)
    if choice is None:
        known = ", ".join(info.id for info in infos)
        raise RequestError(ErrorCode.UNKNOWN_ENGINE, f"there is no engine {wanted!r}; there are: {known}", "engine")
    _note_what_is_ignored(order, choice.info, watcher)
    return choice, settings


def _weights(order: Order, choice: Choice, config: ServerConfig) -> Mapping[str, str]:
    """Hashes for the recipe. A server's engine is known where the one of that name here says the same of itself."""
    folder = Path(order.engine) if Path(order.engine).is_dir() else None
    if order.connect and choice.info not in table.describe_all(config):
        return {}
    return weights_of(choice.info.id, config, folder)


def _engine_of(folder: Path, config: ServerConfig, served: Sequence[m.EngineInfo] | None) -> Choice:
    """The engine of a folder of converted weights: in this process, or the server's that has the folder's name."""
    own = wan.describe_folder(folder, config)
    if served is None:
        return Choice(own, partial(wan.load_folder, folder, config))
    info = next((info for info in served if info.id == own.id), None)
    if info is None:
        remedy = f"move {folder} into its models folder and restart it"
        raise RequestError(ErrorCode.UNKNOWN_ENGINE, f"the server has no engine {own.id!r}; {remedy}", "engine")
    return Choice(info, partial(table.load, info.id, config))


def _note_what_is_ignored(order: Order, info: m.EngineInfo, watcher: Notes) -> None:
    if (order.prompt or order.prompts) and not info.uses_prompt:
        watcher.note(f"engine {info.id} ignores the prompt")
    if order.negative_prompt and not info.uses_negative_prompt:
        watcher.note(f"engine {info.id} ignores the negative prompt")


def plan_for(order: Order, images: Mapping[int, base.Picture], info: m.EngineInfo, watcher: Notes) -> Plan:
    """Raises RequestError for what this engine cannot do, and messages.Refused for what no request may say."""
    width, height = order.size or clip_size(images[0], info.size_multiple, info.min_side_px, info.max_pixels)
    given = {name: typed(text, name, info) for name, text in order.settings.items()}
    is_servers_choice = order.connect and order.engine == AUTO
    places = [base.Place(at, width, height) for at in images]
    switches = [at for at, _ in order.prompts]
    params = base.check(info, width, height, order.num_frames, places, given, switches=switches)
    fitted, notes = fit_all(list(images.values()), width, height, order.fit)
    for note in notes:
        watcher.note(note)
    request = Request(
        keyframes=tuple((at, np.ascontiguousarray(image).data) for at, image in zip(images, fitted, strict=True)),
        width=width,
        height=height,
        num_frames=order.num_frames,
        prompt=order.prompt,
        negative_prompt=order.negative_prompt,
        seed=order.seed,
        engine=AUTO if is_servers_choice else info.id,
        params=given if is_servers_choice else params,
        prompts=order.prompts,
    )
    request.generate("check", info.id)  # the wire's limits hold here too, so that both roads refuse alike
    job = base.Job(
        width=width,
        height=height,
        num_frames=order.num_frames,
        keyframes=tuple(base.Keyframe(at, image) for at, image in zip(images, fitted, strict=True)),
        prompt=order.prompt,
        negative_prompt=order.negative_prompt,
        seed=order.seed,
        params=params,
        prompts=order.prompts,
    )
    return Plan(request, base.checked(job, info), info)


_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def typed(text: str, name: str, info: m.EngineInfo) -> m.Value:
    """`text` in the type of the parameter; as it is where it has not that form, which `base.check` then refuses."""
    kind = next((p.kind for p in info.parameters if p.name == name), "choice")
    if kind == "bool":
        return _WORDS.get(text.lower(), text)
    try:
        return int(text) if kind == "int" else float(text) if kind == "float" else text
    except ValueError:
        return text


# Frames


def frames_from_here(choice: Choice, job: base.Job) -> Generator[Event, None, None]:
    """Load the engine in this process and run the job. Closing the generator cancels it."""
    yield base.Step("loading", 0, 0)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # torch reads it once: threads that spin starve a busy machine
    engine = choice.load()
    with closing(engine.open(job)) as events:
        for event in events:
            if isinstance(event, base.Chunk):
                yield from event.frames
            else:
                yield event


def frames_from_server(client: Client, request: Request) -> Generator[Event, None, None]:
    """The same from a running server. Closing the generator cancels it."""
    with client.submit(request) as stream:
        for event in stream.events():
            if not isinstance(event, Ended):  # `events` keeps the last one to itself
                yield heard(event)
        if stream.done is not None and stream.done.outcome == "cancelled":
            raise ServerUnavailable("the server cancelled the request, for it is shutting down; start it and try again")


def heard(event: Picture | m.Progress | m.Accepted | Interrupted) -> Event:
    """What a server says, as an engine in this process would say it."""
    match event:
        case Picture():
            pixels = np.frombuffer(event.data, np.uint8).reshape(event.height, event.width, 3)
            return base.Frame(event.index, pixels, event.confidence)
        case m.Progress():
            return base.Step(event.stage, event.step, event.of)
        case m.Accepted():
            return base.Step(f"queued, {event.position} before" if event.position else "starting", 0, 0)
        case Interrupted():
            return base.Step("reconnecting", 0, 0)


def _write_all(
    order: Order,
    plan: Plan,
    recipe: Recipe,
    source: Generator[Event, None, None],
    outputs: Outputs,
    watcher: Watcher,
) -> Result:
    """Keyframes and in-betweens in order of position, each on disk before the next one is asked for."""
    began = time.monotonic()
    clip = _Clip(plan.job, outputs, order.between_only)
    cancelled, failure = False, None
    watcher.planned(clip.wanted)
    try:
        with Interrupts() as interrupts, closing(source):
            try:
                for event in source:
                    if isinstance(event, base.Frame):
                        with interrupts.deferred():
                            clip.add(event)
                    elif event.stage.startswith(base.CHOSEN):
                        watcher.note(event.stage.removeprefix(base.CHOSEN))
                        continue
                    elif event.stage.startswith(base.FOUND):
                        watcher.note(clip.found(event.stage.removeprefix(base.FOUND)))
                        continue
                    watcher.at("in-betweens" if isinstance(event, base.Frame) else event.stage, clip.made)
            except KeyboardInterrupt:
                cancelled = True
            except WireError as error:
                failure = error
        assert cancelled or failure or clip.made == clip.wanted, "an engine ended early"
        clip.finish()
        outputs.close(*_captions(order, plan, clip))
        if outputs.written and order.keeps_recipe and order.out.is_dir():
            recipes.write(recipe, order.out / recipes.FILE)
    except BaseException:  # a full disk, a second Ctrl-C or a mistake of ours: no half-written file may stay
        outputs.abort()
        raise
    if failure is not None:
        raise _broken_off(failure, clip, outputs.out) from failure
    if clip.unsure:
        watcher.note(f"{clip.unsure} of {clip.made} frames are uncertain: the keyframes have too little in common")
    seconds = time.monotonic() - began
    return Result(outputs.written, clip.made, clip.wanted, cancelled, seconds, plan.info.id)


class _Clip:
    """Puts the keyframes, which are the user's own pictures, between the frames that come."""

    def __init__(self, job: base.Job, outputs: Outputs, between_only: bool) -> None:
        self.made = 0
        self.wanted = len(job.wanted())
        self.unsure = 0
        self.findings: list[str] = []
        """What the engine saw between two keyframes, a line each."""
        self._wanted_at = job.wanted()
        self._gaps = list(pairwise(keyframe.at for keyframe in job.keyframes))
        self._outputs = outputs
        self._keyframes = [] if between_only else list(job.keyframes)

    def add(self, frame: base.Frame) -> None:
        while self._keyframes and self._keyframes[0].at < frame.index:
            self._write_keyframe()
        self._outputs.write(frame.index, frame.image)
        self.made += 1
        self.unsure += frame.confidence is not None and frame.confidence <= DISSOLVE_CONFIDENCE

    def found(self, line: str) -> str:
        """Of the gap that the next frame is in: the line, with its place where there are several gaps."""
        if len(self._gaps) > 1 and self.made < self.wanted:
            at = self._wanted_at[self.made]
            line = next((f"frames {a} to {b}: {line}" for a, b in self._gaps if a < at < b), line)
        self.findings.append(line)
        return line

    def finish(self) -> None:
        """The last keyframes; a clip that broke off ends with its last frame instead of a jump."""
        while self.made == self.wanted and self._keyframes:
            self._write_keyframe()

    def _write_keyframe(self) -> None:
        keyframe = self._keyframes.pop(0)
        self._outputs.write(keyframe.at, keyframe.image)


def _broken_off(failure: WireError, clip: _Clip, out: Path) -> WireError:
    if not clip.made:
        return failure
    return WireError(f"{failure}; the first {clip.made} of {clip.wanted} frames are in {out}")


def _captions(order: Order, plan: Plan, clip: _Clip) -> tuple[str, str]:
    """Title and second line of the contact sheet."""
    title = order.prompt or f"{order.start.stem} to {order.end.stem}"
    length = f"{order.num_frames} frames"
    facts = [
        length if clip.made == clip.wanted else f"{clip.made} of {clip.wanted} in-betweens",
        f"{float(order.fps):g} fps",
        f"{plan.job.width}x{plan.job.height}",
        plan.info.title,
        f"seed {order.seed}",
        *clip.findings,
    ]
    return title, "  ·  ".join(facts)


class Interrupts:
    """Ctrl-C in the block raises KeyboardInterrupt as ever, but not inside `deferred`: there it waits for the end."""

    def __init__(self) -> None:
        self._is_deferred = False
        self._is_pending = False
        self._before: Callable[[int, FrameType | None], object] | int | None = None

    def __enter__(self) -> Interrupts:
        self._before = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self._is_deferred:
            self._is_pending = True
        else:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False
        if self._is_pending:
            self._is_pending = False
            raise KeyboardInterrupt
