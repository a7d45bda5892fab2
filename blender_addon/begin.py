"""From a gap to a fill: what is asked of which engine, the folder, the strip. Keyframes are looked at afterwards."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import bpy

from . import capture, frames, gaps, keep, motion, plan, runtime, sequencer, settings, strips, takes, written
from .plan import CannotFill, Gap
from .record import AUTO, Record, text_of, timestamp
from .sheet import Sheet, clip_length
from .words import Words, spoken, to_text

if TYPE_CHECKING:
    from .fill import Fill
    from .sfwire.messages import EngineInfo

MAX_TITLE_CHARS = 48
DRAFT = "draft"
"""Id of the engine that makes frames in seconds, for those that take their time."""


def engine_for(scene: bpy.types.Scene) -> EngineInfo:
    """The engine that the scene's settings choose. Raises CannotFill where the server cannot answer."""
    return find_engine(settings.of(scene).engine_id)


def engine_of(choice: str, gap: Gap, step: int) -> EngineInfo:
    """The engine that a choice means for a gap. Which one `auto` means the server alone knows: its recommendation is
    taken for it, or where that cannot make such a clip the first that can. Raises CannotFill."""
    first = find_engine(choice)
    pump = runtime.running_pump()
    others = pump.welcome.engines if choice == AUTO and pump is not None and pump.welcome is not None else ()
    return next((engine for engine in (first, *others) if engine.available and _makes(engine, gap, step)), first)


def _makes(engine: EngineInfo, gap: Gap, step: int) -> bool:
    """Whether it can make clips of the gap's length."""
    try:
        plan.check_length(gap, *clip_length(gap.frames, gap.inside_counted, step), engine)
    except CannotFill:
        return False
    return True


def why(scene: bpy.types.Scene, engine: EngineInfo) -> str:
    """Why it is this engine where the server chooses, in a sentence; "" where the user has chosen it."""
    pump = runtime.running_pump()
    if settings.of(scene).engine_id != AUTO or pump is None or pump.welcome is None:
        return ""
    if engine.id == pump.welcome.default_engine:
        return pump.welcome.default_reason
    return f"{engine.title}: {find_engine(AUTO).title} makes no clip of this length"


def find_engine(choice: str) -> EngineInfo:
    """What the connected server says of an engine. Raises CannotFill."""
    pump = runtime.running_pump()
    if pump is None or pump.welcome is None or runtime.connection_state() == "off":
        raise CannotFill("No server is connected: press Start Server, or Connect if one is running")
    engine = pump.engine(choice)
    if engine is None:
        raise CannotFill(f"The server does not offer the engine {choice}: choose another in Settings")
    plan.check_engine(engine)
    return engine


def check(scene: bpy.types.Scene, gap: Gap, engine: EngineInfo, step: int | None = None) -> tuple[int, int]:
    """The size of the frames that will be made. Raises CannotFill where the engine cannot fill the gap."""
    step = step or settings.of(scene).step
    plan.check_length(gap, *clip_length(gap.frames, gap.inside_counted, step), engine)
    return size_for(scene, engine)


def size_for(scene: bpy.types.Scene, engine: EngineInfo) -> tuple[int, int]:
    """(width, height) of the frames that an engine makes for the scene. Raises CannotFill."""
    return plan.fitted_size(*capture.frame_size(scene), settings.of(scene).scale / 100, engine)


def new_record(scene: bpy.types.Scene, gap: Gap) -> Record:
    """What the scene's settings ask for in this gap; in a hole of a take what that take asked for, with a new seed.

    Raises CannotFill.
    """
    torn = _torn_take(scene, gap)
    if torn is not None:
        return again(scene, torn, gap, new_seed())
    chosen = settings.of(scene)
    engine = engine_of(chosen.engine_id, gap, chosen.step)
    width, height = check(scene, gap, engine)
    words = words_for(scene, gap, chosen.prompt)
    job = uuid4().hex
    record = Record(
        job=job,
        frames_wanted=gap.frames,
        width=width,
        height=height,
        seed=new_seed() if chosen.new_seed else chosen.seed,
        engine=chosen.engine_id,
        version=_version(chosen.engine_id),
        auto=int(chosen.engine_id == AUTO),
        prompt=words[0][1],
        prompts=to_text(words),
        negative_prompt=chosen.negative_prompt if engine.uses_negative_prompt else "",
        params=settings.chosen_parameters(scene, engine),
        before=gap.before,
        after=gap.after,
        started=timestamp(),
        gap=job,
        step=chosen.step,
        inside=text_of(gap.inside_counted),
        loop=int(gap.closes_at is not None),
        motion=int(chosen.motion),
    )
    return _completed(scene, gap, record, engine)


def _torn_take(scene: bpy.types.Scene, gap: Gap) -> Record | None:
    """The record of a take of which both neighbours of the gap are what was left."""
    before, after = (written.record_of(scene, name) for name in (gap.before, gap.after))
    return before if before is not None and after is not None and before.job == after.job else None


def words_for(scene: bpy.types.Scene, gap: Gap, otherwise: str) -> Words:
    """What the text strips over a gap ask for, and where there is none what is said otherwise."""
    return spoken(sequencer.texts_over(scene, gap.start, gap.end), gap.frames, otherwise)


def again(scene: bpy.types.Scene, record: Record, gap: Gap, seed: int, prompt: str | None = None) -> Record:
    """The same once more, as far as the engine of today can and with the text strips of today. Raises CannotFill."""
    words = words_for(scene, gap, record.prompt if prompt is None else prompt)
    engine = engine_of(record.asked, gap, record.step)
    check(scene, gap, engine, record.step)
    known = {parameter.name for parameter in engine.parameters}
    whole = (gap.before, gap.after) == (record.before, record.after)
    job = uuid4().hex
    take = replace(
        record,
        job=job,
        gap=(record.gap or record.job) if whole else job,
        before=gap.before,
        after=gap.after,
        frames_wanted=gap.frames,
        inside=text_of(gap.inside_counted),
        prompt=words[0][1],
        prompts=to_text(words),
        seed=seed,
        engine=record.asked,
        version=_version(record.asked),
        params={name: value for name, value in record.params.items() if name in known},
        started=timestamp(),
        ended="",
        frames=0,
        state="growing",
        lead=1,
        tail=1,
        draft_frames=0,
        found="",
        chosen="",
    )
    return _completed(scene, gap, take, engine)


def _completed(scene: bpy.types.Scene, gap: Gap, record: Record, engine: EngineInfo) -> Record:
    """The record, with what goes along of the motion around the gap, and whether a draft comes first."""
    if record.motion:
        size, runs = (record.width, record.height), motion.runs(scene, gap, record.step)
        record.lead, record.tail = motion.fitted(*runs, gap, record.step, *size, engine)
    record.draft_engine = _draft_engine(scene, gap, record, engine)
    return record


def _draft_engine(scene: bpy.types.Scene, gap: Gap, record: Record, engine: EngineInfo) -> str:
    """Id of the engine that makes a draft first, "" where none is wanted or none can."""
    pump, sheet = runtime.running_pump(), record.sheet()
    draft = pump.engine(DRAFT) if pump is not None and settings.of(scene).draft_first else None
    if draft is None or draft.id == engine.id:
        return ""
    try:
        plan.check_engine(draft)
        plan.check_length(gap, sheet.clip_frames, len(sheet.keys), draft)
    except CannotFill:
        return ""
    return draft.id if plan.takes_size(record.width, record.height, draft) else ""


def _version(choice: str) -> str:
    pump = runtime.running_pump()
    return pump.version(choice) if pump is not None else ""


def new_seed() -> int:
    return random.randrange(2**31)


def begin(scene: bpy.types.Scene, gap: Gap, record: Record, instead_of: str = "") -> Fill:
    """Put a strip on the timeline, in place of the take that fills the gap or of the one that is named, and queue the
    fill. Raises CannotFill."""
    from .fill import Fill
    from .making import request_for
    from .sfwire.messages import Refused

    parent, sheet = keep.parent(), record.sheet()
    gap = replace(gap, channel=sequencer.channel_of(scene, gap.before, gap.start - 1))
    taken_off = takes.set_aside(scene, gap, instead_of)
    try:
        request_for(record, sheet, [(index, b"") for index, _ in sheet.keys]).generate(
            "check", record.asked
        )  # what the wire does not allow is said here, not later
        folder = frames.make_folder(parent, record.job)
        frames.write_waiting(folder, record.width, record.height)
        title = record.prompt.strip().splitlines()[0][:MAX_TITLE_CHARS] if record.prompt.strip() else "In-Between"
        picture = f"{keep.written(folder)}/{frames.WAITING}"
        record.gap = taken_off[0].gap if taken_off else record.gap
        place = strips.put(scene, gap, title, picture, record)
    except (OSError, RuntimeError, LookupError, Refused) as error:
        frames.delete_folder(parent, record.job)
        takes.bring_back(taken_off)
        raise CannotFill(_why(error, parent)) from None
    return _queue(Fill(record, sheet, place, folder, _where_to_look(gap, sheet), taken_off))


def _where_to_look(gap: Gap, sheet: Sheet) -> list[tuple[int, int]]:
    """(index in the clip, frame of the timeline) of the keyframes."""
    closes = 0 if gap.closes_at is None else gap.closes_at - gap.end
    return [(index, gap.start + frame + (closes if frame >= gap.frames else 0)) for index, frame in sheet.keys]


def _queue(fill: Fill) -> Fill:
    runtime.pump().add(fill)
    runtime.wake()
    return fill


def go_on(scene: bpy.types.Scene, name: str) -> Fill:
    """Make the frames that a strip still lacks, from those on disk on. Raises CannotFill."""
    from .fill import Fill

    record = written.record_of(scene, name)
    if record is None or record.state != "stopped":
        raise CannotFill("Make a strip active that was not finished")
    engine = find_engine(record.asked)
    if _version(record.asked) != record.version:
        what = "What the server chooses from" if record.auto else engine.title
        raise CannotFill(f"{what} has changed since these frames were made: make a new take")
    place = strips.Place(scene.name, name)
    folder = strips.folder_of(record.job, place)
    if folder is None or not folder.is_dir():
        raise CannotFill(f"The frames of '{name}' are not in {folder}: make a new take")
    sheet, gap = record.sheet(), gaps.of_take(scene, name)
    record.state, record.ended = "growing", ""
    strips.grow_on(record.job, place, record)
    fill = Fill(record, sheet, place, folder, _where_to_look(gap, sheet), [])
    fill.go_on()
    if fill.draft is not None and not _offers(record.draft_engine):
        fill.draft.cancel()
    return _queue(fill)


def _offers(engine_id: str) -> bool:
    """Whether the server has an engine that can run."""
    try:
        return bool(find_engine(engine_id))
    except CannotFill:
        return False


def _why(error: Exception, parent: Path) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"Frames cannot be kept in {parent / frames.FOLDER}: {error.strerror}"
    return str(error)
