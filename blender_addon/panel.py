"""The sidebar's tab and the menu entries: what a press does, what is going on, and why something cannot.

Drawn often, so nothing here grows with the timeline, makes a record or draws a number by chance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import bpy
from bpy.app.translations import pgettext_iface as iface_

from . import alpha, begin, capture, gaps, installing, motion, runtime, sequencer, settings, summon, takes, written
from .lines import bar as _bar
from .lines import say as _say
from .plan import CannotFill
from .preferences import draw_progress
from .record import AUTO
from .server import CannotStart

if TYPE_CHECKING:
    from .fill import Fill
    from .plan import Gap
    from .sfwire.messages import EngineInfo

_MOST_SHOWN = 8
"""Fills that the queue shows one by one, prompts of the timeline that are named."""
_TEXT_CHARS = 24
"""Shown of each of those."""


def _engine(scene: bpy.types.Scene) -> EngineInfo | None:
    pump = runtime.running_pump()
    return pump.engine(settings.of(scene).engine_id) if pump is not None else None


class _Tab(bpy.types.Panel):
    """Where all of them stand. Not a panel by itself."""

    bl_space_type = "SEQUENCE_EDITOR"
    bl_region_type = "UI"
    bl_category = "In-Between"


class INBETWEEN_PT_fill(_Tab):
    bl_label = "Fill Gap"
    bl_order = 0

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        scene = sequencer.edited_scene(context)
        if scene is None:
            _say(layout, context, "The sequencer edits no scene: choose one in its header", "INFO")
            return
        engine = _engine(scene)
        prompt = layout.row()
        prompt.enabled = engine is None or engine.uses_prompt
        prompt.prop(settings.of(scene), "prompt", text="", placeholder="Prompt")
        row = layout.row(align=True)
        row.scale_y = 1.5
        row.operator("inbetween.fill_gap", icon="PLAY")
        row = layout.row(align=True)
        row.operator("inbetween.fill_all_gaps")
        row.operator("inbetween.loop")
        gap = self._draw_intent(context, scene)
        keeps_alpha = engine is None or alpha.kept_by(engine)
        for sentence in capture.what_differs(scene, gap, keeps_alpha) if gap is not None else ():
            _say(layout, context, sentence, "INFO")
        self._draw_messages(context)

    def _draw_intent(self, context: bpy.types.Context, scene: bpy.types.Scene) -> Gap | None:
        """What Fill Gap will do, or why it cannot."""
        try:
            gap = gaps.with_keyframes(scene, gaps.find(scene))
        except CannotFill as error:
            _say(self.layout, context, str(error), "INFO")
            return None
        _say(self.layout, context, gap.sentence(sequencer.frames_per_second(scene)), "SNAP_MIDPOINT")
        if gap.inside and len(each := gaps.between_selected(scene)) > 1:
            text = iface_("Fill All Gaps: {} gaps, {} frames").format(len(each), sum(one.frames for one in each))
            _say(self.layout, context, text, "SNAP_INCREMENT")
        lead, tail = motion.runs(scene, gap, settings.of(scene).step) if settings.of(scene).motion else (1, 1)
        if lead + tail > 2:
            text = iface_("The motion goes on: {} frames before and {} after go along").format(lead, tail)
            _say(self.layout, context, text, "TRACKING")
        if texts := sequencer.texts_over(scene, gap.start, gap.end):
            said = ", ".join(f"'{text[:_TEXT_CHARS]}'" for _, _, text in sorted(texts)[:_MOST_SHOWN])
            _say(self.layout, context, iface_("Prompts on the timeline: {}").format(said), "TEXT")
        self._draw_engine(context, scene, gap, bool(texts))
        return gap

    def _draw_engine(self, context: bpy.types.Context, scene: bpy.types.Scene, gap: Gap, has_texts: bool) -> None:
        """Which engine would be asked, and whether it can; while no server is there, what a press does about that."""
        if not summon.is_there():
            _say(self.layout, context, summon.what_a_press_does(), "INFO")
            return
        chosen = settings.of(scene)
        try:
            engine = begin.engine_of(chosen.engine_id, gap, chosen.step)
            begin.check(scene, gap, engine)
        except CannotFill as error:
            _say(self.layout, context, str(error), "ERROR")
            return
        if (has_texts or chosen.prompt) and not engine.uses_prompt:
            _say(self.layout, context, iface_("{} does not read prompts").format(engine.title), "INFO")
        if reason := begin.why(scene, engine):
            _say(self.layout, context, iface_("Automatic: {}").format(reason), "INFO")

    def _draw_messages(self, context: bpy.types.Context) -> None:
        pump = runtime.running_pump()
        if pump is not None and pump.message:
            _say(self.layout, context, pump.message, "ERROR")
        if runtime.broken_off:
            _say(self.layout, context, iface_("{} strips were not finished").format(runtime.broken_off), "INFO")
            self.layout.operator("inbetween.go_on", text="Continue All", icon="PLAY").everywhere = True
        if runtime.notice:
            _say(self.layout, context, runtime.notice, "INFO")
        if not bpy.data.is_saved:
            _say(self.layout, context, "Save the file to have the frames beside it", "INFO")


class INBETWEEN_PT_queue(_Tab):
    bl_label = "Queue"
    bl_order = 1

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        pump = runtime.running_pump()
        return pump is not None and bool(pump.fills)

    def draw(self, context: bpy.types.Context) -> None:
        pump = runtime.running_pump()
        if pump is None:
            return
        if len(pump.fills) > 1:
            self._draw_all(pump.fills)
        for fill in pump.fills[:_MOST_SHOWN]:
            self._draw_one(context, fill)
        if len(pump.fills) > _MOST_SHOWN:
            more = iface_("and {} more").format(len(pump.fills) - _MOST_SHOWN)
            self.layout.label(text=more, translate=False)

    def _draw_all(self, fills: list[Fill]) -> None:
        wanted = sum(fill.record.frames_wanted for fill in fills)
        made = sum(fill.final_frames for fill in fills)
        text = iface_("{} gaps, {} of {} frames").format(len(fills), made, wanted)
        _bar(self.layout, made / wanted, text, "inbetween.cancel")

    def _draw_one(self, context: bpy.types.Context, fill: Fill) -> None:
        wanted = fill.record.frames_wanted
        column = self.layout.box().column(align=True)
        column.label(text=fill.place.strip, icon="SEQ_STRIP_DUPLICATE", translate=False)
        text = iface_("{} of {} frames").format(fill.final_frames, wanted)
        _bar(column, fill.final_frames / wanted, text, "inbetween.cancel").job = fill.job
        seconds, stage = fill.final.seconds_left(), iface_(fill.stage)
        left = stage if seconds is None else iface_("{}, {} left").format(stage, _duration(seconds))
        column.label(text=left, translate=False)
        if fill.record.chosen:
            _say(column, context, iface_("Automatic: {}").format(fill.record.chosen))


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


class INBETWEEN_PT_strip(_Tab):
    bl_label = "This Strip"
    bl_order = 2

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        scene = sequencer.edited_scene(context)
        return scene is not None and written.active(scene) is not None

    def draw(self, context: bpy.types.Context) -> None:
        scene = sequencer.edited_scene(context)
        name = written.active(scene) if scene is not None else None
        if scene is None or name is None:
            return
        layout, strip = self.layout, scene.sequence_editor.active_strip
        pump = runtime.running_pump()
        made_by = written.note(strip, "engine")
        engine = pump.engine(made_by) if pump is not None and made_by != AUTO else None
        if written.PROMPT in strip and (engine is None or engine.uses_prompt):
            layout.prop(strip, f'["{written.PROMPT}"]', text="Prompt")
        column = layout.column(align=True)
        column.scale_y = 0.8
        for line in self._lines(strip, engine):
            column.label(text=line, translate=False)
        if chosen := written.note(strip, "chosen"):
            _say(layout, context, iface_("Automatic: {}").format(chosen), "INFO")
        if found := written.note(strip, "found"):
            _say(layout, context, iface_("Seen in the keyframes: {}").format(found), "VIEWZOOM")
        number, count = takes.number_of(scene, name)
        row = layout.row(align=True)
        row.operator("inbetween.new_take", icon="ADD").new_seed = True
        if count > 1:
            row.operator("inbetween.show_take", text="", icon="TRIA_LEFT").by = -1
            row.label(text=iface_("Take {} of {}").format(number, count), translate=False)
            row.operator("inbetween.show_take", text="", icon="TRIA_RIGHT").by = 1
        column = layout.column(align=True)
        if written.note(strip, "state") == "stopped":
            column.operator("inbetween.go_on", icon="PLAY").everywhere = False
        column.operator("inbetween.use_settings")
        column.operator("inbetween.open_folder", icon="FILE_FOLDER")
        column.operator("inbetween.discard", icon="TRASH")

    def _lines(self, strip: bpy.types.Strip, engine: EngineInfo | None) -> list[str]:
        """What made it, in three lines at most."""
        note, number = written.note, written.number
        wanted, made, drafts = (number(strip, name) for name in ("frames_wanted", "frames", "draft_frames"))
        if note(strip, "state") == "growing":
            first = iface_("Growing to {} frames").format(wanted)
        elif drafts:
            first = iface_("{} of {} frames, then {} of a draft").format(made - drafts, wanted, drafts)
        elif made == wanted:
            first = iface_("{} frames").format(made)
        else:
            first = iface_("{} of {} frames").format(made, wanted)
        size = f"{first}, {note(strip, 'width')} x {note(strip, 'height')} px"
        disk = iface_("{:.1f} MB on disk").format(number(strip, "kilobytes") / 1e3)
        made_by = engine.title if engine is not None else note(strip, "engine")
        made_by = iface_("Automatic") if made_by == AUTO else made_by
        seed = "" if engine is not None and not engine.uses_prompt else f", {iface_('Seed')} {note(strip, 'seed')}"
        return [size, f"{made_by}{seed}", *([disk] if number(strip, "kilobytes") else [])]


class INBETWEEN_PT_server(_Tab):
    bl_label = "Server"
    bl_order = 3

    def draw(self, context: bpy.types.Context) -> None:
        state = runtime.connection_state()
        if state == "ready":
            self._draw_ready(context)
        else:
            self._draw_absent(context, state)
        if installing.installer().busy:
            draw_progress(self.layout)
        row = self.layout.row(align=True)
        if runtime.server.running:
            row.operator("inbetween.stop_server", icon="CANCEL")
        elif state != "ready" and self._draw_startable(context, row):
            row.operator("inbetween.start_server", icon="PLAY")
        if state not in ("ready", "stopping"):
            row.operator("inbetween.connect", text="Connect" if state == "off" else "Reconnect", icon="LINKED")

    def _draw_ready(self, context: bpy.types.Context) -> None:
        scene = sequencer.edited_scene(context)
        engine = _engine(scene) if scene is not None else None
        self.layout.label(text="Connected", icon="CHECKMARK")
        if engine is not None:
            _say(self.layout, context, iface_("{} answers").format(engine.title))

    def _draw_absent(self, context: bpy.types.Context, state: str) -> None:
        layout, pump = self.layout, runtime.running_pump()
        problem = pump.client.problem if pump is not None and pump.client is not None else None
        if runtime.server.running and state in ("off", "connecting", "reconnecting"):
            layout.label(text="Starting", icon="SORTTIME")
            return
        layout.label(text=_STATES.get(state, "Refused"), icon="UNLINKED")
        if runtime.server.ended_badly:
            _say(layout, context, runtime.server.ended_badly, "ERROR")
            for line in runtime.server.last_words():
                _say(layout, context, line)
        elif state in ("connecting", "refused") and problem:
            _say(layout, context, problem)

    def _draw_startable(self, context: bpy.types.Context, row: bpy.types.UILayout) -> bool:
        """Whether there is a server to start; where not, why, and the way to the page that installs one."""
        try:
            installing.server_command()
        except CannotStart as error:
            if not installing.installer().busy:
                _say(self.layout, context, str(error), "INFO")
                row.operator("inbetween.show_install", icon="IMPORT")
            return False
        return True


_STATES = {
    "off": "Not connected",
    "connecting": "Looking for a server",
    "reconnecting": "Reconnecting",
    "stopping": "Stopping",
}


class INBETWEEN_PT_settings(_Tab):
    bl_label = "Settings"
    bl_order = 4
    bl_options = {"DEFAULT_CLOSED"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return sequencer.edited_scene(context) is not None

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        scene = sequencer.edited_scene(context)
        assert scene is not None  # poll
        chosen = settings.of(scene)
        engine = _engine(scene)
        layout.prop(chosen, "engine")
        layout.prop(chosen, "scale")
        if engine is not None:
            self._draw_size(scene, engine)
        layout.prop(chosen, "step")
        layout.prop(chosen, "motion")
        if engine is None or engine.id != begin.DRAFT:
            layout.prop(chosen, "draft_first")
        if engine is None or engine.uses_prompt:  # an engine that reads no prompt draws nothing by chance either
            column = layout.column()
            column.prop(chosen, "new_seed")
            seed = column.row()
            seed.enabled = not chosen.new_seed
            seed.prop(chosen, "seed")
        if engine is None:
            return
        if engine.uses_negative_prompt:
            layout.prop(chosen, "negative_prompt")
        for parameter in engine.parameters:
            name = settings.key(engine, parameter)
            if name in chosen.parameters:
                layout.prop(chosen.parameters, f'["{name}"]', text=parameter.name.replace("_", " ").title())

    def _draw_size(self, scene: bpy.types.Scene, engine: EngineInfo) -> None:
        try:
            width, height = begin.size_for(scene, engine)
        except CannotFill:
            return  # the main panel says so
        row = self.layout.row()
        row.alignment = "RIGHT"
        row.label(text=f"{width} x {height} px", translate=False)


class INBETWEEN_PT_disk(_Tab):
    bl_label = "Frames on Disk"
    bl_order = 5
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context: bpy.types.Context) -> None:
        column = self.layout.column()
        column.operator("inbetween.clean_unused", icon="BRUSH_DATA").unsaved = False
        column.operator("inbetween.clean_unused", text="Clean Frames of Unsaved Files").unsaved = True


def draw_menu(menu: bpy.types.Menu, context: bpy.types.Context) -> None:
    """Below Add, and in the context menu."""
    menu.layout.separator()
    menu.layout.operator("inbetween.fill_gap", icon="PLAY")
    menu.layout.operator("inbetween.fill_all_gaps")


CLASSES = (
    INBETWEEN_PT_fill,
    INBETWEEN_PT_queue,
    INBETWEEN_PT_strip,
    INBETWEEN_PT_server,
    INBETWEEN_PT_settings,
    INBETWEEN_PT_disk,
)
