"""What a user can do with the private server: install, continue, update, mend, remove it, and bring it models."""

from __future__ import annotations

from collections.abc import Callable

import bpy
from bpy.app.translations import pgettext_iface as iface_

from . import installing, runtime
from .installed import CannotInstall
from .refusals import fail, refuse

_FETCH_GB = 18
"""Of the largest model with all it shares with others; what is there already is not downloaded again."""


def _is_idle(cls: type[bpy.types.Operator]) -> bool:
    if installing.installer().busy:
        return refuse(cls, "Something is being installed: wait for it, or cancel it")
    return True


def _is_free(cls: type[bpy.types.Operator]) -> bool:
    """Nothing runs from what would be changed."""
    if runtime.server.running:
        return refuse(cls, "Stop the server first")
    return _is_idle(cls)


def _may_go_online(cls: type[bpy.types.Operator]) -> bool:
    if not bpy.app.online_access:
        return refuse(cls, "Blender may not go online: allow it in Preferences, System")
    return True


class INBETWEEN_OT_show_install(bpy.types.Operator):
    """Open the preferences where the server is installed"""

    bl_idname = "inbetween.show_install"
    bl_label = "Install Server"

    def execute(self, context: bpy.types.Context) -> set[str]:
        return bpy.ops.preferences.addon_show(module=__package__)


class INBETWEEN_OT_install_server(bpy.types.Operator):
    """Download the server and what it needs into a folder of its own. Goes on where it was broken off"""

    bl_idname = "inbetween.install_server"
    bl_label = "Install Server"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return _is_free(cls) and (not installing.order().needs_network or _may_go_online(cls))

    def execute(self, context: bpy.types.Context) -> set[str]:
        return _undertake(self, lambda: installing.installer().install(installing.order()))


class INBETWEEN_OT_mend_server(bpy.types.Operator):
    """Lead the installed server to the Python of this Blender"""

    bl_idname = "inbetween.mend_server"
    bl_label = "Mend Server"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return _is_free(cls)

    def execute(self, context: bpy.types.Context) -> set[str]:
        return _undertake(self, lambda: installing.installer().mend(installing.python()))


class INBETWEEN_OT_remove_server(bpy.types.Operator):
    """Delete the installed server, with what was downloaded for it. Models stay"""

    bl_idname = "inbetween.remove_server"
    bl_label = "Remove Server"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return _is_free(cls)

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        return context.window_manager.invoke_confirm(self, event)

    def execute(self, context: bpy.types.Context) -> set[str]:
        return _undertake(self, lambda: installing.installer().remove(installing.python()))


class INBETWEEN_OT_cancel_installing(bpy.types.Operator):
    """Stop; what was downloaded is kept, and the next press goes on from it"""

    bl_idname = "inbetween.cancel_installing"
    bl_label = "Cancel"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if not installing.installer().busy:
            return refuse(cls, "Nothing is being installed")
        return True

    def execute(self, context: bpy.types.Context) -> set[str]:
        installing.installer().cancel()
        runtime.wake()
        return {"FINISHED"}


class INBETWEEN_OT_open_install_log(bpy.types.Operator):
    """Show what was printed while installing"""

    bl_idname = "inbetween.open_install_log"
    bl_label = "Open Log"

    def execute(self, context: bpy.types.Context) -> set[str]:
        log = installing.installer().home.log
        if not log.is_file():
            return fail(self, iface_("{} is not there").format(log))
        return bpy.ops.wm.path_open(filepath=str(log))


class INBETWEEN_OT_fetch_model(bpy.types.Operator):
    """Show the licence of this model, then download its weights"""

    bl_idname = "inbetween.fetch_model"
    bl_label = "Download"

    engine: bpy.props.StringProperty(options={"HIDDEN", "SKIP_SAVE"})

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if not _is_idle(cls) or not _may_go_online(cls):
            return False
        if installing.state() not in ("ready", "old"):
            return refuse(cls, "Install the server here first, or run sfserver fetch where yours is")
        return True

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        confirm = iface_("Accept and Download")
        return context.window_manager.invoke_props_dialog(self, width=480, confirm_text=confirm)

    def draw(self, context: bpy.types.Context) -> None:
        pump = runtime.running_pump()
        engine = pump.engine(self.engine) if pump is not None else None
        column = self.layout.column(align=True)
        if engine is not None:
            column.label(text=engine.title, translate=False)
            column.label(text=iface_("Licence: {}").format(engine.licence), translate=False)
        column.label(text=iface_("Downloads up to {} GB").format(_FETCH_GB), translate=False)
        column.label(text="By going on you say that the licence suits your use")

    def execute(self, context: bpy.types.Context) -> set[str]:
        return _undertake(self, lambda: installing.installer().fetch(self.engine))


def _undertake(operator: bpy.types.Operator, begin: Callable[[], None]) -> set[str]:
    try:
        begin()
    except CannotInstall as error:
        return fail(operator, error)
    runtime.wake()
    return {"FINISHED"}


CLASSES = (
    INBETWEEN_OT_show_install,
    INBETWEEN_OT_install_server,
    INBETWEEN_OT_mend_server,
    INBETWEEN_OT_remove_server,
    INBETWEEN_OT_cancel_installing,
    INBETWEEN_OT_open_install_log,
    INBETWEEN_OT_fetch_model,
)
