"""Values of parameters as SQLite takes them."""

from __future__ import annotations

from typing import Any

from rome.errors import InterfaceError

_PLAIN = (int, float, str, bytes, type(None), bool)


def adapted(parameters: Any) -> Any:
    """Return values as SQLite takes them; those of other types as sqlite3 writes them."""
    if isinstance(parameters, dict):
        return parameters
    if all(type(value) in _PLAIN for value in parameters):
        return parameters
    return tuple(_adapt(value) for value in parameters)


def _adapt(value: Any) -> Any:
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if hasattr(value, "isoformat"):
        try:
            return value.isoformat(" ")
        except TypeError:
            return value.isoformat()
    raise InterfaceError(f"a value of type {type(value).__name__} can't be bound: {value!r}")
