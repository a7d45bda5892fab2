"""From an order to a plan: the engine that is meant, keyframes at the clip's size, everything checked.

order -> keyframes read -> engine chosen -> clip planned -> its recipe
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from attrs import evolve, frozen
from sfwire import messages as m
from sfwire.client import Client
from sfwire.errors import ErrorCode, RequestError
from sfwire.limits import AUTO
from sfwire.request import Request

from .. import samples
from ..config import ServerConfig
from ..engine import base, table, wan
from ..engine.choice import Wanted
from ..engine.provenance import weights_of
from ..media import clip_size, fit_all, read_picture
from ..serve import endpoint
from . import recipe as recipes
from .order import Order
from .recipe import Recipe

UNKNOWN_MEMORY_BYTES = 2**62
"""Of a server's device."""


@frozen(eq=False)
class Plan:
    """The order made exact for one engine: keyframes at the clip's size, parameters complete, everything checked."""

    request: Request
    job: base.Job
    info: m.EngineInfo

    @property
    def form(self) -> samples.Form:
        """Of its frames, as far as is known here: a server that chooses the engine may keep less."""
        return samples.form_of(self.job.keyframes[0].image)


@frozen
class Choice:
    """An engine: what it says of itself, and how to get it into this process."""

    info: m.EngineInfo
    load: Callable[[], base.Engine]


class Notes(Protocol):
    """Who is told what the user should know."""

    def note(self, sentence: str) -> None: ...


@frozen(eq=False)
class Prepared:
    """All that is known before the first frame."""

    order: Order
    choice: Choice
    plan: Plan
    recipe: Recipe


def prepare(
    order: Order, config: ServerConfig, client: Client | None, watcher: Notes, *, runs_here: bool = True
) -> Prepared:
    """Everything that can be refused is refused here, but what `order.check` says. `runs_here`: the engine must be able
    to.

    Raises MediaError, RecipeError and WireError for what the user or the machine can mend.
    """
    positions = {0: order.start, **dict(order.further), order.num_frames - 1: order.end}
    loaded = {at: read_picture(path) for at, path in sorted(positions.items())}
    for one in loaded.values():
        for note in one.notes:
            watcher.note(note)
    first = order.size or loaded[0].image.shape[1::-1]
    prompts = 1 + len(order.prompts)
    clip = Wanted(first[0], first[1], order.num_frames, len(loaded), prompts=prompts, settings=order.settings)
    choice, settings = choose_engine(order, clip, config, client, watcher)
    if not runs_here:
        choice = evolve(choice, info=evolve(choice.info, available=True, missing=()))
    order = evolve(order, settings={**settings, **order.settings})
    images = {at: one.image for at, one in loaded.items()}
    plan = plan_for(order, images, choice.info, watcher)
    return Prepared(order, choice, plan, recipes.recipe_of(order, plan, images, weights_for(order, choice, config)))


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


def weights_for(order: Order, choice: Choice, config: ServerConfig) -> Mapping[str, str]:
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
    for lost in _lost(images.values(), info):
        watcher.note(lost)
    places = [base.Place(at, width, height) for at in images]
    switches = [at for at, _ in order.prompts]
    params = base.check(info, width, height, order.num_frames, places, given, switches=switches)
    fitted, notes = fit_all(list(images.values()), width, height, order.fit)
    for note in notes:
        watcher.note(note)
    form = samples.common(fitted) if is_servers_choice else samples.common(fitted).kept_by(info)
    fitted = [samples.conformed(image, form) for image in fitted]
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
        channels=form.channels,
        depth=form.depth,
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


def _lost(images: Collection[samples.Picture], info: m.EngineInfo) -> list[str]:
    """What of the keyframes the frames will not have."""
    form, found = samples.common(images), list[str]()
    if form.has_alpha and info.max_channels < form.channels:
        found.append(f"engine {info.id} makes no alpha as draft does: what is transparent was filled with grey")
    if form.depth > info.max_depth:
        depth = "floats" if form.depth == 32 else f"{form.depth} bit"
        found.append(f"engine {info.id} makes {info.max_depth} bit in sRGB, the keyframes are {depth}")
    return found


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
