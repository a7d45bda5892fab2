"""No test is judged by the clock: how long an example takes says more of the machine than of the code."""

from __future__ import annotations

import importlib.util

if importlib.util.find_spec("hypothesis"):  # the Pythons with bpy have none
    from hypothesis import HealthCheck, settings

    settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("any machine")
