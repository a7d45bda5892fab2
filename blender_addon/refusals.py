"""How an operator says no: in its tooltip before it is pressed, as a report after. In the user's language, where the
sentence has no names in it."""

from __future__ import annotations

import bpy
from bpy.app.translations import pgettext_rpt as rpt_


def refuse(cls: type[bpy.types.Operator], sentence: str) -> bool:
    """For a poll: False, with the reason."""
    cls.poll_message_set(rpt_(sentence))
    return False


def fail(operator: bpy.types.Operator, reason: object) -> set[str]:
    """For what was pressed: cancelled, with the reason."""
    operator.report({"ERROR"}, rpt_(str(reason)))
    return {"CANCELLED"}
