"""What a user can do with the server: connect, start, stop."""

from __future__ import annotations

from pathlib import Path

import bpy

from . import runtime
from .preferences import preferences
from .server import CannotStart, find_command


class INBETWEEN_OT_connect(bpy.types.Operator):
    """Connect to the server that is running, or connect anew"""

    bl_idname = "inbetween.connect"
    bl_label = "Connect"

    def execute(self, context: bpy.types.Context) -> set[str]:
        try:
            runtime.connect()
        except runtime.Unavailable as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        return {"FINISHED"}


class INBETWEEN_OT_start_server(bpy.types.Operator):
    """Start the server with the command of the preferences, and connect to it"""

    bl_idname = "inbetween.start_server"
    bl_label = "Start Server"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if runtime.server.running:
            cls.poll_message_set("The server is running already")
            return False
        return True

    def execute(self, context: bpy.types.Context) -> set[str]:
        chosen = preferences()
        try:
            log = Path(bpy.utils.extension_path_user(__package__, create=True)) / "server.log"
            environment = bpy.path.abspath(chosen.environment)
            runtime.server.start(find_command(chosen.command, environment), log, chosen.keep_running)
            if runtime.needs_connection():
                runtime.connect()
        except (CannotStart, runtime.Unavailable) as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        except OSError as error:
            self.report({"ERROR"}, f"The server's log cannot be written: {error.strerror}")
            return {"CANCELLED"}
        runtime.wake()
        return {"FINISHED"}


class INBETWEEN_OT_stop_server(bpy.types.Operator):
    """Stop the server that was started here; what it is making waits until it is started again, or is cancelled"""

    bl_idname = "inbetween.stop_server"
    bl_label = "Stop Server"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if not runtime.server.running:
            cls.poll_message_set("No server was started from here")
            return False
        return True

    def execute(self, context: bpy.types.Context) -> set[str]:
        runtime.server.stop()
        runtime.wake()
        return {"FINISHED"}


CLASSES = (INBETWEEN_OT_connect, INBETWEEN_OT_start_server, INBETWEEN_OT_stop_server)
