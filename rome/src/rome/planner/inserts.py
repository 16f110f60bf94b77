"""Plain INSERTs: `INSERT INTO t (a, b) VALUES (?, ?), (?, ?) [RETURNING c]`.

Their rows are computed without SQLite, as long as every value is kept as it is given (or
changed in a way that is plain to see).  Anything else is left to the work area.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import apsw

from rome.schema.alter import plain
from rome.schema.tables import Table, quote
from rome.stores.values import UNKNOWN, kept

Row = tuple[Any, ...]

_MARKS = r"\(\?(?:, \?)*\)"
_PLAIN = re.compile(
    r"INSERT INTO (?:\"[^\"]+\"|\w+) \((?P<columns>[^()]+)\)"
    rf" VALUES (?P<first>{_MARKS})(?P<others>(?:, {_MARKS})*)"
    r"(?: RETURNING (?P<returning>[^()]+))?\s*\Z"
)
_RETURNED = re.compile(r"(\"[^\"]+\"|\w+)(?: AS (?:\"[^\"]+\"|\w+))?\Z")
# Rules of a table that only SQLite carries out.
_RULES = re.compile(r"\bON\s+CONFLICT\b|\)\s*STRICT\b", re.IGNORECASE)


@dataclass(frozen=True)
class PlainInsert:
    """How parameters become rows.

    fields: for each column of the table the place of its value among a row's (None: it is
    NULL), its affinity, and whether it must have a value.  returning: places of columns.
    """

    table: Table
    width: int
    count: int  # of rows
    fields: tuple[tuple[int | None, str, bool], ...]
    key_place: int | None
    returning: tuple[int, ...]

    def rows(self, parameters: Sequence[Any]) -> list[list[Any]] | None:
        """Return rows in the order of the columns, without numbers; None: SQLite must see them."""
        if len(parameters) != self.width * self.count:
            return None
        rows = []
        for start in range(0, len(parameters), self.width):
            row = []
            for place, affinity, required in self.fields:
                value = None if place is None else parameters[start + place]
                if value is not None:
                    value = kept(value, affinity)
                    if value is UNKNOWN:
                        return None
                elif required:
                    return None
                row.append(value)
            rows.append(row)
        return rows

    def returned(self, row: Sequence[Any]) -> Row:
        """Return what RETURNING gives of a row."""
        return tuple(row[place] for place in self.returning)


def plain_insert(sql: str, table: Table, database: apsw.Connection) -> PlainInsert | None:
    """Return how a statement's parameters become rows; None: it is another kind of INSERT."""
    match = _PLAIN.match(sql)
    if match is None or table.checked or table.is_view or _RULES.search(table.sql):
        return None
    places = _places(table, match["columns"].split(","))
    if (
        places is None
        or len(places) != match["first"].count("?")
        or len(set(places)) != len(places)
    ):
        return None
    others = match["others"].count("(") * len(places)
    if match["others"].count("?") != others:
        return None
    returning: list[int] | None = []
    if match["returning"]:
        names = [_RETURNED.match(part.strip()) for part in match["returning"].split(",")]
        returning = _places(table, [name[1] if name else "" for name in names])
    key_place = None
    fields: list[tuple[int | None, str, bool]] = []
    defaults = [
        row[4] for row in database.execute(f"PRAGMA table_xinfo({quote(table.name)})").fetchall()
    ]
    for place, (column, default) in enumerate(zip(table.columns, defaults, strict=True)):
        if column.slot == table.key:
            if place in places:
                return None
            key_place = place
            fields.append((None, column.affinity, False))
            continue
        if place not in places and default is not None:
            return None
        source = places.index(place) if place in places else None
        fields.append((source, column.affinity, column.required))
    if returning is None:
        return None
    count = 1 + match["others"].count("(")
    return PlainInsert(table, len(places), count, tuple(fields), key_place, tuple(returning))


def _places(table: Table, names: Sequence[str]) -> list[int] | None:
    """Tell where these columns are among the table's."""
    columns = [table.column(plain(name.strip())) for name in names]
    if None in columns:
        return None
    return [table.columns.index(column) for column in columns if column]
