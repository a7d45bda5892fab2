"""From a gap to a fill: what is asked of which engine, the keyframes, the folder, the strip."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import bpy

from . import capture, frames, keep, plan, runtime, sequencer, settings
from .plan import CannotFill, Gap
from .record import Record, timestamp

if TYPE_CHECKING:
    from .fill import Fill
    from .sfwire.messages import EngineInfo

MAX_TITLE_CHARS = 48


def engine_for(scene: bpy.types.Scene) -> EngineInfo:
    """The engine that the scene's settings choose. Raises CannotFill where the server cannot answer."""
    return find_engine(settings.of(scene).engine_id)


def find_engine(choice: str) -> EngineInfo:
    """What the connected server says of an engine. Raises CannotFill."""
    pump = runtime.running_pump()
    if pump is None or pump.welcome is None:
        raise CannotFill("No server is connected: press Start Server, or Connect if one is running")
    engine = pump.engine(choice)
    if engine is None:
        raise CannotFill(f"The server does not offer the engine {choice}: choose another in Settings")
    plan.check_engine(engine)
    return engine


def find_gap(scene: bpy.types.Scene) -> Gap:
    """The gap that Fill Gap fills. Raises CannotFill."""
    growing = _growing()
    selected, shown = sequencer.selected_spans(scene, growing), sequencer.spans(scene, growing)
    return _not_growing(plan.gap_to_fill(selected, shown, scene.frame_current))


def find_gaps(scene: bpy.types.Scene) -> list[Gap]:
    """The gaps that Fill All Gaps fills. Raises CannotFill."""
    gaps = plan.gaps_between(sequencer.selected_spans(scene, _growing()))
    if not gaps:
        raise CannotFill("Select strips with gaps between them")
    return [_not_growing(gap) for gap in gaps]


def _growing() -> set[str]:
    pump = runtime.running_pump()
    return pump.jobs if pump is not None else set()


def _not_growing(gap: Gap) -> Gap:
    pump = runtime.running_pump()
    for fill in pump.fills if pump is not None else ():
        span = sequencer.bounds(fill.job, fill.place)
        if span is not None and gap.start <= span.left < gap.end:
            raise CannotFill("This gap is being filled: wait for it, or cancel it in the queue")
    return gap


def new_record(scene: bpy.types.Scene, gap: Gap, engine: EngineInfo) -> Record:
    """What the scene's settings ask for in this gap. Raises CannotFill."""
    chosen = settings.of(scene)
    plan.check_length(gap, engine)
    width, height = plan.fitted_size(*capture.frame_size(scene), chosen.scale / 100, engine)
    return Record(
        job=uuid4().hex,
        frames_wanted=gap.frames,
        width=width,
        height=height,
        seed=new_seed() if chosen.new_seed else chosen.seed,
        engine=engine.id,
        version=engine.version,
        prompt=chosen.prompt,
        negative_prompt=chosen.negative_prompt if engine.uses_negative_prompt else "",
        params=settings.chosen_parameters(scene, engine),
        before=gap.before,
        after=gap.after,
        started=timestamp(),
    )


def again(record: Record, seed: int, gap: Gap, engine: EngineInfo) -> Record:
    """The same once more, as far as the engine of today can. Raises CannotFill."""
    plan.check_length(gap, engine)
    known = {parameter.name for parameter in engine.parameters}
    return replace(
        record,
        job=uuid4().hex,
        frames_wanted=gap.frames,
        seed=seed,
        version=engine.version,
        params={name: value for name, value in record.params.items() if name in known},
        started=timestamp(),
        ended="",
        frames=0,
        state="growing",
    )


def new_seed() -> int:
    return random.randrange(2**31)


def begin(
    scene: bpy.types.Scene,
    gap: Gap,
    record: Record,
    replaces: tuple[str, sequencer.Place] | None = None,
    above: int = 0,
) -> Fill:
    """Capture the keyframes, put a strip of one picture on the timeline, queue the request. Raises CannotFill.

    `replaces` is the take that this one stands in for, `above` the channel that the new strip must lie above.
    """
    from .fill import Fill
    from .sfwire.messages import Refused
    from .sfwire.request import Request

    parent = keep.parent()
    try:
        folder = frames.make_folder(parent, record.job)
        size = record.width, record.height
        first = capture.capture(scene, gap.start - 1, *size, keep_as=folder / frames.FIRST_KEYFRAME)
        last = capture.capture(scene, gap.end, *size, keep_as=folder / frames.LAST_KEYFRAME)
        request = Request(
            keyframes=((0, first), (gap.frames + 1, last)),
            width=record.width,
            height=record.height,
            num_frames=gap.frames + 2,
            prompt=record.prompt,
            negative_prompt=record.negative_prompt,
            seed=record.seed,
            engine=record.engine,
            params=record.params,
            encoding="png",
        )
        request.generate("check", record.engine)  # what the wire does not allow is said here, not later
        title = record.prompt.strip().splitlines()[0][:MAX_TITLE_CHARS] if record.prompt.strip() else "In-Between"
        picture = f"{keep.written(folder)}/{frames.FIRST_KEYFRAME}"
        place = sequencer.place_strip(scene, gap, title, picture, record, above)
    except (OSError, RuntimeError, LookupError, Refused) as error:
        frames.delete_folder(parent, record.job)
        raise CannotFill(_why(error, parent)) from None
    fill = Fill(record, place, folder, request, replaces)
    runtime.pump().add(fill)
    runtime.wake()
    return fill


def _why(error: Exception, parent: Path) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"Frames cannot be kept in {parent / frames.FOLDER}: {error.strerror}"
    return str(error)
