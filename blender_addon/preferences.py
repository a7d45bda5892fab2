"""The page in Blender's preferences: install the server, bring models, and for those who have another server where it
is. The user's own choices, on this machine, never in a .blend."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import bpy
from bpy.app.translations import pgettext_iface as iface_

from . import installed, installing, lines, runtime, steps

if TYPE_CHECKING:
    from .installed import State
    from .sfwire.messages import EngineInfo

_BACKENDS = (
    ("auto", "Automatic", "For NVIDIA where its driver is found, else for the processor"),
    ("cpu", "Processor", "The draft engine needs no more"),
    ("nvidia", "NVIDIA GPU", "For models that follow the prompt; 12 GB of its memory or more"),
)


class InbetweenPreferences(bpy.types.AddonPreferences):
    bl_idname = __package__

    backend: bpy.props.EnumProperty(name="Runs On", description="What the server calculates with", items=_BACKENDS)
    source: bpy.props.StringProperty(
        name="Package Source",
        description="A folder with wheels, or the address of a package index; empty takes the Python Package Index "
        "and, where it lacks a build, PyTorch's own",
    )
    command: bpy.props.StringProperty(name="Command", description="What Start Server runs", default="sfserver serve")
    environment: bpy.props.StringProperty(
        name="Environment",
        description="Folder of another Python environment with the server; empty takes the one installed here, or the "
        "one on PATH",
        subtype="DIR_PATH",
    )
    connection_file: bpy.props.StringProperty(
        name="Connection File",
        description="The file in which a server says where it is, with the keys; empty takes the usual place",
        subtype="FILE_PATH",
    )
    keep_running: bpy.props.BoolProperty(
        name="Keep Running", description="Leave the server running when Blender is closed"
    )

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        _draw_server(layout.box(), self, context)
        _draw_models(layout.box(), context)
        box = layout.box()
        box.label(text="Advanced")
        for name in ("keep_running", "source", "environment", "command", "connection_file"):
            box.prop(self, name)


def _draw_server(layout: bpy.types.UILayout, chosen: InbetweenPreferences, context: bpy.types.Context) -> None:
    layout.label(text="Server")
    there, installer = installing.state(), installing.installer()
    if installer.busy:
        draw_progress(layout)
        return
    lines.say(layout, context, _whats_there(there), "CHECKMARK" if there in ("ready", "old") else "INFO")
    if installer.problem:
        lines.say(layout, context, installer.problem, "ERROR")
    elif installer.cancelled:
        lines.say(layout, context, "Cancelled: what was downloaded is kept", "INFO")
    if there in ("absent", "half", "old"):
        _draw_choice(layout, chosen, context, there)
    row = layout.row(align=True)
    row.scale_y = 1.4
    if there in _INSTALL_LABELS:
        row.operator("inbetween.install_server", text=_INSTALL_LABELS[there], icon="IMPORT")
    elif there == "moved":
        row.operator("inbetween.mend_server", icon="LINKED")
    if installing.installer().home.folder.exists():
        lines.say(layout, context, iface_("Folder: {}").format(installing.installer().home.folder))
    row = layout.row(align=True)
    if there != "absent":
        row.operator("inbetween.remove_server", icon="TRASH")
    if installer.problem:
        row.operator("inbetween.open_install_log", icon="TEXT")


_INSTALL_LABELS: dict[State, str] = {"absent": "Install Server", "half": "Continue Installing", "old": "Update Server"}


def _whats_there(there: State) -> str:
    receipt = installed.read_receipt(installing.installer().home)
    if there in ("ready", "old") and receipt is not None:
        sentence = iface_("sfserver {} is installed in its own folder: Fill Gap starts it").format(receipt.version)
        newer = iface_("; this extension brings another, {}").format(installing.installer().payload.version)
        return sentence + (newer if there == "old" else "")
    return {
        "absent": "The server is not installed yet. It goes into a folder of its own, nothing into Blender's Python",
        "half": "The installation was broken off. It begins anew, from what was downloaded",
        "moved": "Blender was moved or updated since: the server must find its Python again, nothing is downloaded",
    }.get(there, "")


def _draw_choice(
    layout: bpy.types.UILayout, chosen: InbetweenPreferences, context: bpy.types.Context, there: State
) -> None:
    """What is chosen, what that costs, and what stands in its way."""
    if sys.platform != "darwin":  # there one build serves all
        layout.prop(chosen, "backend")
    if chosen.backend == "auto" and sys.platform != "darwin":
        found = "NVIDIA's driver was found" if installing.has_nvidia() else "NVIDIA's driver was not found"
        lines.say(layout, context, found)
    backend, home = installing.backend(), installing.installer().home
    costs = iface_("Downloads up to {:.1f} GB and needs up to {:.1f} GB meanwhile; {:.0f} GB are free")
    sizes = (steps.DOWNLOAD_BYTES[backend], steps.DISK_BYTES[backend], installed.free_bytes(home.folder))
    if there != "old":
        lines.say(layout, context, costs.format(*(size / 1e9 for size in sizes)))
    if installing.order().needs_network and not bpy.app.online_access:
        lines.say(
            layout,
            context,
            "Blender may not go online: allow it, or choose a folder of wheels as Package Source",
            "ERROR",
        )
        layout.operator("extensions.userpref_allow_online", text="Allow Online Access", icon="INTERNET")


def draw_progress(layout: bpy.types.UILayout) -> None:
    """Of what the installer is doing, with its cancel button; in the preferences and in the sidebar."""
    installer = installing.installer()
    lines.bar(layout, installer.fraction, iface_(installer.doing), "inbetween.cancel_installing")


def _draw_models(layout: bpy.types.UILayout, context: bpy.types.Context) -> None:
    layout.label(text="Models")
    pump = runtime.running_pump()
    if pump is None or pump.welcome is None or runtime.connection_state() != "ready":
        lines.say(layout, context, "Start the server to see what it has", "INFO")
        return
    for engine in pump.welcome.engines:
        _draw_model(layout, engine)
    fetched = installing.installer().fetched
    if fetched and any(engine.id == fetched and not engine.available for engine in pump.welcome.engines):
        lines.say(layout, context, "Stop and start the server, then it has the new model", "INFO")


def _draw_model(layout: bpy.types.UILayout, engine: EngineInfo) -> None:
    row = layout.split(factor=0.7)
    row.label(text=engine.title, icon="CHECKMARK" if engine.available else "BLANK1", translate=False)
    if engine.available:
        row.label(text="Ready")
    else:
        row.operator("inbetween.fetch_model", icon="IMPORT").engine = engine.id
