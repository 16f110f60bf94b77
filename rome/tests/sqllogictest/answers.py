"""The answer of a query as the format writes it: values as text, sorted, perhaps hashed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from tests.sqllogictest.records import Query

_INTEGER = re.compile(r"\s*[+-]?\d+", re.ASCII)
_REAL = re.compile(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def values_of(query: Query, rows: Sequence[Sequence[Any]]) -> list[str]:
    """Return the values of an answer, row by row, in the order that the query asks for."""
    if any(len(row) != len(query.types) for row in rows):
        raise ValueError(f"{len(rows[0])} columns for the types {query.types}")
    written = [
        [_written(value, type_) for value, type_ in zip(row, query.types, strict=True)]
        for row in rows
    ]
    if query.sort == "rowsort":
        written.sort(key=lambda row: [value.encode() for value in row])
    values = [value for row in written for value in row]
    if query.sort == "valuesort":
        values.sort(key=str.encode)
    return values


def digest(values: Sequence[str]) -> str:
    """Return the MD5 of values, each with a line break."""
    text = "".join(f"{value}\n" for value in values)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def is_right(query: Query, values: Sequence[str]) -> bool:
    """Whether these values are the answer that the record gives."""
    if query.hashed is not None:
        return (len(values), digest(values)) == query.hashed
    return tuple(values) == query.values


def _written(value: Any, type_: str) -> str:
    """Write a value as an integer, a text, or a real number of three decimals.

    Values of other types are converted as SQLite's CAST does.
    """
    if value is None:
        return "NULL"
    if type_ == "T":
        text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
        return "".join(c if " " <= c <= "~" else "@" for c in text) if text else "(empty)"
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if type_ == "I":
        if isinstance(value, str):
            match = _INTEGER.match(value)
            value = match[0] if match else 0
        return str(int(value))
    if isinstance(value, str):
        match = _REAL.match(value)
        value = match[0] if match else 0
    # With 16 digits at most, as SQLite's printf() has it.
    return f"{Decimal(f'{float(value):.15e}'):.3f}"
