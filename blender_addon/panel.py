"""The sidebar's tab and the menu entries. Shows what will happen, what is happening, and why something cannot."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import bpy

from . import begin, runtime, sequencer, settings
from .capture import frame_size
from .plan import CannotFill, fitted_size
from .server import INSTALL, CannotStart, find_command

if TYPE_CHECKING:
    from .fill import Fill
    from .sfwire.messages import EngineInfo

_PX_PER_CHAR = 6.3
"""Width of a character of Blender's interface font at scale 1, on average."""
_MARGIN_PX = 60


def _say(layout: bpy.types.UILayout, context: bpy.types.Context, text: str, icon: str = "NONE") -> None:
    """A sentence, over as many lines as the sidebar's width asks for."""
    scale = context.preferences.system.ui_scale
    chars = max(20, int((context.region.width - _MARGIN_PX * scale) / (_PX_PER_CHAR * scale)))
    column = layout.column(align=True)
    column.scale_y = 0.8
    for i, line in enumerate(textwrap.wrap(text, chars)):
        column.label(text=line, icon=icon if i == 0 else ("BLANK1" if icon != "NONE" else "NONE"))


def _engine(scene: bpy.types.Scene) -> EngineInfo | None:
    pump = runtime.running_pump()
    return pump.engine(settings.of(scene).engine_id) if pump is not None else None


class INBETWEEN_PT_fill(bpy.types.Panel):
    bl_space_type = "SEQUENCE_EDITOR"
    bl_region_type = "UI"
    bl_category = "In-Between"
    bl_label = "Fill Gap"

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        scene = sequencer.edited_scene(context)
        if scene is None:
            _say(layout, context, "The sequencer edits no scene: choose one in its header", "INFO")
            return
        self._draw_intent(context, scene)
        engine = _engine(scene)
        layout.prop(settings.of(scene), "prompt", text="", placeholder="Prompt")
        if engine is not None and not engine.uses_prompt:
            _say(layout, context, f"{engine.title} does not read the prompt", "INFO")
        row = layout.row(align=True)
        row.scale_y = 1.5
        row.operator("inbetween.fill_gap", icon="PLAY")
        layout.operator("inbetween.fill_all_gaps")
        pump = runtime.running_pump()
        if pump is not None and pump.message:
            _say(layout, context, pump.message, "ERROR")
        if runtime.notice:
            _say(layout, context, runtime.notice, "INFO")

    def _draw_intent(self, context: bpy.types.Context, scene: bpy.types.Scene) -> None:
        """What Fill Gap will do, or why it cannot."""
        try:
            gap = begin.find_gap(scene)
        except CannotFill as error:
            _say(self.layout, context, str(error), "INFO")
            return
        _say(self.layout, context, gap.sentence(sequencer.frames_per_second(scene)), "SNAP_MIDPOINT")
        try:
            begin.new_record(scene, gap, begin.engine_for(scene))
        except CannotFill as error:
            _say(self.layout, context, str(error), "ERROR")
        if not bpy.data.is_saved:
            _say(self.layout, context, "Save the file to have the frames beside it", "INFO")


class INBETWEEN_PT_queue(bpy.types.Panel):
    bl_space_type = "SEQUENCE_EDITOR"
    bl_region_type = "UI"
    bl_category = "In-Between"
    bl_label = "Queue"

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
        for fill in pump.fills[:8]:
            self._draw_one(fill)
        if len(pump.fills) > 8:
            self.layout.label(text=f"and {len(pump.fills) - 8} more")

    def _draw_all(self, fills: list[Fill]) -> None:
        wanted = sum(fill.record.frames_wanted for fill in fills)
        made = sum(len(fill.names) for fill in fills)
        row = self.layout.row(align=True)
        row.progress(factor=made / wanted, text=f"{len(fills)} gaps, {made} of {wanted} frames")
        row.operator("inbetween.cancel", text="", icon="X").job = ""

    def _draw_one(self, fill: Fill) -> None:
        made, wanted = len(fill.names), fill.record.frames_wanted
        column = self.layout.box().column(align=True)
        column.label(text=fill.place.strip, icon="SEQ_STRIP_DUPLICATE")
        row = column.row(align=True)
        row.progress(factor=made / wanted, text=f"{made} of {wanted} frames")
        row.operator("inbetween.cancel", text="", icon="X").job = fill.job
        seconds = fill.seconds_left()
        column.label(text=fill.stage if seconds is None else f"{fill.stage}, {_duration(seconds)} left")


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


class INBETWEEN_PT_server(bpy.types.Panel):
    bl_space_type = "SEQUENCE_EDITOR"
    bl_region_type = "UI"
    bl_category = "In-Between"
    bl_label = "Server"

    def draw(self, context: bpy.types.Context) -> None:
        pump = runtime.running_pump()
        state = pump.state if pump is not None else "off"
        if state == "ready":
            self._draw_ready(context)
        else:
            self._draw_absent(context, state)
        row = self.layout.row(align=True)
        if runtime.server.running:
            row.operator("inbetween.stop_server", icon="CANCEL")
        elif state != "ready":
            row.operator("inbetween.start_server", icon="PLAY")
        if state != "ready":
            row.operator("inbetween.connect", text="Connect" if state == "off" else "Reconnect", icon="LINKED")

    def _draw_ready(self, context: bpy.types.Context) -> None:
        scene = sequencer.edited_scene(context)
        engine = _engine(scene) if scene is not None else None
        self.layout.label(text="Connected", icon="CHECKMARK")
        if engine is not None:
            _say(self.layout, context, f"{engine.title} answers")

    def _draw_absent(self, context: bpy.types.Context, state: str) -> None:
        layout, pump = self.layout, runtime.running_pump()
        problem = pump.client.problem if pump is not None and pump.client is not None else None
        if runtime.server.running and state in ("off", "connecting", "reconnecting"):
            layout.label(text="Starting", icon="SORTTIME")
            return
        names = {"off": "Not connected", "connecting": "Looking for a server", "reconnecting": "Reconnecting"}
        layout.label(text=names.get(state, "Refused"), icon="UNLINKED")
        if runtime.server.ended_badly:
            _say(layout, context, runtime.server.ended_badly, "ERROR")
            for line in runtime.server.last_words():
                _say(layout, context, line)
        elif problem and not self._draw_missing(context):
            _say(layout, context, problem)
        elif state == "off":
            self._draw_missing(context)

    def _draw_missing(self, context: bpy.types.Context) -> bool:
        """How to install the server, where its program is not there."""
        from .preferences import preferences

        try:
            find_command(preferences().command, bpy.path.abspath(preferences().environment))
        except CannotStart as error:
            _say(self.layout, context, str(error), "ERROR")
            for line in INSTALL:
                _say(self.layout, context, line)
            return True
        return False


class INBETWEEN_PT_settings(bpy.types.Panel):
    bl_space_type = "SEQUENCE_EDITOR"
    bl_region_type = "UI"
    bl_category = "In-Between"
    bl_label = "Settings"
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
            width, height = fitted_size(*frame_size(scene), settings.of(scene).scale / 100, engine)
        except CannotFill:
            return  # the main panel says so
        row = self.layout.row()
        row.alignment = "RIGHT"
        row.label(text=f"{width} x {height} px")


class INBETWEEN_PT_strip(bpy.types.Panel):
    bl_space_type = "SEQUENCE_EDITOR"
    bl_region_type = "UI"
    bl_category = "In-Between"
    bl_label = "This Strip"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        scene = sequencer.edited_scene(context)
        return scene is not None and sequencer.active_record(scene) is not None

    def draw(self, context: bpy.types.Context) -> None:
        scene = sequencer.edited_scene(context)
        active = sequencer.active_record(scene) if scene is not None else None
        if active is None:
            return
        layout, record = self.layout, active[1]
        if record.prompt:
            _say(layout, context, record.prompt)
        made = record.frames if record.state != "growing" else "growing to"
        layout.label(text=f"{made} of {record.frames_wanted} frames" if made != "growing to" else "Growing")
        layout.label(text=f"{record.engine} {record.version}, {record.width} x {record.height}, seed {record.seed}")
        row = layout.row(align=True)
        row.operator("inbetween.redo", text="Redo").new_seed = False
        row.operator("inbetween.redo", text="New Seed").new_seed = True
        layout.operator("inbetween.discard", icon="TRASH")


class INBETWEEN_PT_disk(bpy.types.Panel):
    bl_space_type = "SEQUENCE_EDITOR"
    bl_region_type = "UI"
    bl_category = "In-Between"
    bl_label = "Frames on Disk"
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
    INBETWEEN_PT_server,
    INBETWEEN_PT_settings,
    INBETWEEN_PT_strip,
    INBETWEEN_PT_disk,
)
