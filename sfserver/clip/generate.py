"""`sfserver generate`: from file names to frames on disk. One road, whether the engine runs here or in a server.

order -> plan -> outputs opened -> frames written as they come
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator

from ..config import ServerConfig
from ..media import ClipShape, Outputs
from . import recipe as recipes
from .making import Clip, Result, Watcher, broken_off, follow, note_unsure
from .order import Order, check
from .planning import Plan, Prepared, connected, prepare
from .sources import Event, frames_from_here, frames_from_server


def generate(order: Order, config: ServerConfig, watcher: Watcher) -> Result:
    """Do it all. Ctrl-C keeps the frames made so far and returns a Result that says so.

    Raises OrderError, MediaError and WireError for what the user or the machine can mend.
    """
    check(order)
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(connected(config)) if order.connect else None
        ready = prepare(order, config, client, watcher)
        plan, recipe = ready.plan, ready.recipe
        if order.again:
            recipe = recipes.same(order.again, recipe)
        outputs = Outputs(
            order.out,
            ClipShape(
                plan.job.width,
                plan.job.height,
                order.num_frames,
                [k.at for k in plan.job.keyframes],
                order.fps,
                plan.form,
            ),
            recipe.text() if order.keeps_recipe else "",
            order.keeping,
        )
        source = frames_from_server(client, plan.request) if client else frames_from_here(ready.choice, plan.job)
        return _write_all(ready, recipe, source, outputs, watcher)


def _write_all(
    ready: Prepared,
    recipe: recipes.Recipe,
    source: Generator[Event, None, None],
    outputs: Outputs,
    watcher: Watcher,
) -> Result:
    began, order, plan = time.monotonic(), ready.order, ready.plan
    clip = Clip(plan.job, outputs, order.between_only)
    try:
        cancelled, failure = follow(source, clip, watcher)
        outputs.close(*_captions(order, plan, clip))
        if outputs.written and order.keeps_recipe and order.out.is_dir():
            recipes.write(recipe, order.out / recipes.FILE)
    except BaseException:  # a full disk, a second Ctrl-C or a mistake of ours: no half-written file may stay
        outputs.abort()
        raise
    if failure is not None:
        raise broken_off(failure, clip, outputs.out) from failure
    note_unsure(clip, watcher)
    seconds = time.monotonic() - began
    return Result(outputs.written, clip.made, clip.wanted, cancelled, seconds, plan.info.id)


def _captions(order: Order, plan: Plan, clip: Clip) -> tuple[str, str]:
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
