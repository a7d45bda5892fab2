"""In-Between: fill the gap between two strips of the Video Sequencer with frames from a generation server."""

import bpy

from . import install_operators, operators, overlay, panel, runtime, server_operators, settings, summon, take_operators
from .preferences import InbetweenPreferences
from .settings import InbetweenParameters, InbetweenSettings

_CLASSES = (
    InbetweenPreferences,
    InbetweenParameters,
    InbetweenSettings,
    *operators.CLASSES,
    *take_operators.CLASSES,
    *server_operators.CLASSES,
    *install_operators.CLASSES,
    *panel.CLASSES,
)


def register() -> None:
    for cls in _CLASSES:
        bpy.utils.register_class(cls)
    bpy.types.Scene.inbetween = bpy.props.PointerProperty(type=InbetweenSettings)
    bpy.types.SEQUENCER_MT_add.append(panel.draw_menu)
    bpy.types.SEQUENCER_MT_context_menu.append(panel.draw_menu)
    runtime.register(settings.follow, summon.follow)
    overlay.register()


def unregister() -> None:
    overlay.unregister()
    runtime.unregister()
    bpy.types.SEQUENCER_MT_context_menu.remove(panel.draw_menu)
    bpy.types.SEQUENCER_MT_add.remove(panel.draw_menu)
    del bpy.types.Scene.inbetween
    for cls in reversed(_CLASSES):
        bpy.utils.unregister_class(cls)
