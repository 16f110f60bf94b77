"""What ROME adds to SQLite in a work area: functions."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import apsw


def _regexp(pattern: str | None, text: str | None) -> bool | None:
    if pattern is None or text is None:
        return None
    return re.search(str(pattern), str(text)) is not None


def register(database: apsw.Connection) -> None:
    """Functions as SQLAlchemy's SQLite dialect has them."""
    functions: dict[str, tuple[Callable[..., Any], int]] = {
        "regexp": (_regexp, 2),
        "floor": (lambda x: None if x is None else math.floor(x), 1),
    }
    for name, (function, count) in functions.items():
        database.create_scalar_function(name, function, count, deterministic=True)
