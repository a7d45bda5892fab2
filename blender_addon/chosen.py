"""What the user chose in the preferences, for those who do not draw them."""

from __future__ import annotations

import bpy


def preferences() -> bpy.types.AddonPreferences:
    return bpy.context.preferences.addons[__package__].preferences
