"""A sentence drawn over as many lines as it takes, and a bar of what goes on: for the sidebar and the preferences."""

from __future__ import annotations

import textwrap

import bpy
from bpy.app.translations import pgettext_iface as iface_

_PX_PER_CHAR = 6.3
"""Width of a character of Blender's interface font at scale 1, on average."""
_MARGIN_PX = 60


def say(layout: bpy.types.UILayout, context: bpy.types.Context, text: str, icon: str = "NONE") -> None:
    scale = context.preferences.system.ui_scale
    chars = max(20, int((context.region.width - _MARGIN_PX * scale) / (_PX_PER_CHAR * scale)))
    column = layout.column(align=True)
    column.scale_y = 0.8
    for i, line in enumerate(textwrap.wrap(iface_(text), chars)):
        column.label(text=line, icon=icon if i == 0 else ("BLANK1" if icon != "NONE" else "NONE"), translate=False)


def bar(layout: bpy.types.UILayout, factor: float, text: str, cancels: str) -> bpy.types.OperatorProperties:
    """How far something is, with the button that cancels it; returns what that operator is told."""
    row = layout.row(align=True)
    row.progress(factor=factor, text=text, translate=False)
    return row.operator(cancels, text="", icon="X")
