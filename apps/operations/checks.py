"""System checks: mistakes in the environment that Django's commands warn about."""

import difflib
import os
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Warning, register

# What the client of Python reads; a program may be both.
_OF_THE_CLIENT = ("VECTORDB_URL", "VECTORDB_API_KEY")


@register
def check_unknown_settings(**kwargs: Any) -> list[CheckMessage]:
    """Warn about each `VECTORDB_*` variable that is no setting, and suggest the nearest name that is one."""
    warnings: list[CheckMessage] = []
    for name in sorted(os.environ):
        if name.startswith("VECTORDB_") and name not in (*settings.SETTING_NAMES, *_OF_THE_CLIENT):
            near = difflib.get_close_matches(name, settings.SETTING_NAMES, n=1)
            hint = f"Did you mean {near[0]}?" if near else "docs/settings.md lists all settings."
            warnings.append(Warning(f"{name} is no setting.", hint=hint, id="operations.W001"))
    return warnings
