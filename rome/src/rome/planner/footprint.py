"""What a statement reads and writes, as SQLite's own parser has it."""

from __future__ import annotations

from typing import NamedTuple

import apsw
import apsw.ext

from rome.errors import NotSupportedError
from rome.schema.tables import fold
from rome.sqlite import variables

# Bits of the authoriser's words.
_READ, _INSERT, _UPDATE, _DELETE = (
    apsw.SQLITE_READ,
    apsw.SQLITE_INSERT,
    apsw.SQLITE_UPDATE,
    apsw.SQLITE_DELETE,
)


class Footprint(NamedTuple):
    """What a statement reads and writes; all names are folded.

    columns: the tables and views that it reads or writes, with their columns that it reads.
    read: those of them whose rows it reads.  assigned: columns that it assigns.
    """

    columns: dict[str, set[str]]
    read: set[str]
    assigned: set[str]
    reads_only: bool


def footprint(database: apsw.Connection, sql: str) -> Footprint:
    """Return what a statement reads and writes, as SQLite's own parser has it."""
    if variables.may_exceed(sql):
        sql = variables.without_parameters(sql)
    info = apsw.ext.query_info(database, sql, actions=True)
    names: dict[str, set[str]] = {}
    assigned: set[str] = set()
    read: set[str] = set()
    for action in info.actions or ():
        if action.action == _UPDATE and action.column_name:
            assigned.add(fold(action.column_name))
        if action.action in (_READ, _INSERT, _UPDATE, _DELETE) and action.table_name:
            columns = names.setdefault(fold(action.table_name), set())
            if action.action == _READ:
                read.add(fold(action.table_name))
                if action.column_name:  # count(*) reads none
                    columns.add(fold(action.column_name))
    hidden = [name for name in names if name.startswith(("sqlite_", "pragma_"))]
    if hidden:
        # What the work area's own would say is not what the database has.
        raise NotSupportedError(f"{hidden[0]} in a statement other than a SELECT given as text")
    return Footprint(names, read, assigned, info.is_readonly)
