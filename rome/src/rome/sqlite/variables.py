"""Statements with more parameters than SQLite takes: their long lists are written out.

A list is `(?, ?, ...)` with 100 parameters or more, as of IN, or several rows of VALUES.  There
whole numbers, texts, blobs and NULL mean the same as literals: they have no affinity either way.
Elsewhere (`ORDER BY ?`) they don't, so all other parameters stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from rome.errors import NotSupportedError

LIMIT = 32766  # SQLite's own, unless it is built with another

_PART = re.compile(
    r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | `[^`]*` | \[[^\]]*\] | --[^\n]* | /\*.*?\*/
    | (?P<list>\( \s* \? (?: \s* (?: , | \) \s* , \s* \( ) \s* \? ){99,} )
    | (?P<one>\?\d*)""",
    re.VERBOSE | re.DOTALL,
)


def may_exceed(sql: str) -> bool:
    """Whether a statement may have too many parameters, as its length tells."""
    return len(sql) > 2 * LIMIT and sql.count("?") > LIMIT


def without_parameters(sql: str) -> str:
    """Return a statement with NULL in the place of each parameter in a long list: one that
    names the same tables and columns."""
    return _PART.sub(lambda part: part[0].replace("?", "NULL") if part["list"] else part[0], sql)


def fitted(sql: str, parameters: Sequence[Any]) -> tuple[str, Sequence[Any]]:
    """Return a statement and its parameters, with lists written out if there are too many.

    Raises NotSupportedError if too many are left, which can't be written.
    """
    if len(parameters) <= LIMIT:
        return sql, parameters
    values = iter(parameters)
    left: list[Any] = []
    pieces = _PART.sub(lambda part: _written(part, values, left), sql)
    left += values
    if len(left) > LIMIT:
        raise NotSupportedError(
            f"a statement with {len(left)} parameters: SQLite's limit is {LIMIT}"
            " beside integers, texts and blobs in IN (...) and VALUES"
        )
    return pieces, left


def _written(part: re.Match[str], values: Iterator[Any], left: list[Any]) -> str:
    if part["one"]:
        left.append(next(values))
        return part[0]
    if not part["list"]:
        return part[0]
    pieces = part[0].split("?")
    text = [pieces[0]]
    for piece in pieces[1:]:
        value = next(values)
        literal = _literal(value)
        if literal is None:
            left.append(value)
            literal = "?"
        text += (literal, piece)
    return "".join(text)


def _literal(value: Any) -> str | None:
    """A value in SQL; None: it might be read as another one, as doubles are by some versions."""
    if value is None:
        return "NULL"
    if isinstance(value, int) and -(2**63) < value < 2**63:
        return str(int(value))
    if isinstance(value, str) and "\0" not in value:
        return "'" + value.replace("'", "''") + "'"
    return f"x'{value.hex()}'" if isinstance(value, bytes) else None
