"""Where the server is and how to start it: the user's own, on this machine, never in a .blend."""

from __future__ import annotations

import bpy


class InbetweenPreferences(bpy.types.AddonPreferences):
    bl_idname = __package__

    command: bpy.props.StringProperty(name="Command", description="What Start Server runs", default="sfserver serve")
    environment: bpy.props.StringProperty(
        name="Environment",
        description="Folder of the Python environment that the server is installed in; empty looks on PATH",
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
        layout.prop(self, "command")
        layout.prop(self, "environment")
        layout.prop(self, "keep_running")
        layout.prop(self, "connection_file")


def preferences() -> InbetweenPreferences:
    return bpy.context.preferences.addons[__package__].preferences
