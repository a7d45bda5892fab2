"""What a user can do with the server: connect, start, stop."""

from __future__ import annotations

import bpy

from . import runtime
from .server import CannotStart


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
    """Start the server that was installed here, or the one that is chosen in the preferences, and connect to it"""

    bl_idname = "inbetween.start_server"
    bl_label = "Start Server"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if runtime.server.running:
            cls.poll_message_set("The server is running already")
            return False
        return True

    def execute(self, context: bpy.types.Context) -> set[str]:
        try:
            runtime.start_server()
        except (CannotStart, runtime.Unavailable) as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
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
        runtime.wishes.clear()
        runtime.server.stop()
        runtime.wake()
        return {"FINISHED"}


CLASSES = (INBETWEEN_OT_connect, INBETWEEN_OT_start_server, INBETWEEN_OT_stop_server)
