"""Values as a column keeps them: SQLite's affinities, for looking them up in an index."""

from __future__ import annotations

import math
import re
from typing import Any

# A number as text, as SQLite takes it for one.
_NUMBER = re.compile(
    r"[ \t\n\v\f\r]*[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?[ \t\n\v\f\r]*\Z"
)
_SMALLEST, _LARGEST = -(2**63), 2**63 - 1


class _Unknown:
    def __repr__(self) -> str:
        return "UNKNOWN"


# Not said here what the column would hold: such a value isn't looked up by its bytes.
UNKNOWN = _Unknown()


def canonical(value: Any, affinity: str) -> Any:
    """What a column holds if it equals `value`, or UNKNOWN."""
    if value is None:
        return None
    kind = type(value)
    if kind is bool:
        value, kind = int(value), int
    if affinity == "TEXT":
        if kind is str:
            return value
        return str(value) if kind is int else UNKNOWN
    if affinity in ("INTEGER", "NUMERIC"):
        # -2^63 may be there as a double too, which SQLite doesn't make an integer of.
        if kind is int:
            return value if _SMALLEST < value <= _LARGEST else UNKNOWN
        if kind is str:
            if _NUMBER.match(value) is None:
                return value
            try:
                whole = int(value)
            except ValueError:
                return _whole(float(value))
            return whole if _SMALLEST < whole <= _LARGEST else UNKNOWN
        return _whole(value) if kind is float else UNKNOWN
    if affinity == "REAL":
        if kind in (int, float) and abs(value) < 2**53 and value != 0:
            return float(value)
        return UNKNOWN
    return value if kind in (str, bytes) else UNKNOWN


def kept(value: Any, affinity: str) -> Any:
    """What a column stores of a value that isn't NULL, or UNKNOWN where SQLite must say."""
    kind = type(value)
    if kind is str:
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                return UNKNOWN
        text = affinity in ("TEXT", "BLOB") or _NUMBER.match(value) is None
        return value if text else UNKNOWN
    if kind is bool:
        value, kind = int(value), int
    if kind is int:
        if affinity == "TEXT":
            return str(value) if _SMALLEST <= value <= _LARGEST else UNKNOWN
        if affinity == "REAL":
            return float(value) if abs(value) < 2**53 else UNKNOWN
        return value if _SMALLEST <= value <= _LARGEST else UNKNOWN
    if kind is float and affinity in ("REAL", "BLOB"):
        # Not NaN, which SQLite keeps as NULL, and neither zero.
        return value if value == value and value != 0 and abs(value) != math.inf else UNKNOWN
    return value if kind is bytes else UNKNOWN


def _whole(value: float) -> Any:
    if value != value or abs(value) >= 2**53:
        return UNKNOWN
    return int(value) if value == int(value) else value


def sort_key(value: Any) -> tuple[int, Any]:
    """SQLite's order of values: NULL, numbers, text, blobs."""
    if value is None:
        return 0, 0
    if isinstance(value, int | float):
        return 1, value
    return (2, value.encode()) if isinstance(value, str) else (3, value)
