"""A database from SQL, such as a dump: into an empty one."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import apsw

from rome import driver
from rome.engine.row_numbers import LARGEST_NUMBER
from rome.errors import DataError, NotSupportedError
from rome.schema.catalogue import Schema
from rome.schema.changes import Change, write_of
from rome.schema.dump import ordered
from rome.schema.tables import Table, quote
from rome.schema.verification import row_number
from rome.sqlite import functions
from rome.sqlite.confine import OF_FILES, authorize
from rome.stores.base import Changed, Commit, Duplicate, Portion, SchemaChanged

# What one commit holds, where the store takes as much: rows with their index entries, and bytes of
# rows.  A script that takes as much works for some milliseconds.
_PORTION = Portion(8000, 2**21)
_OBJECTS = (
    "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
)


class Refused(Exception):
    """The SQL or the database isn't fit."""


def load(arguments: dict[str, Any], script: str) -> tuple[int, int]:
    """Run a script in SQLite, and copy what it made; returns tables and rows.

    `arguments` are those of driver.connect.
    """
    source = _run(script)
    connection = driver.connect(**{**arguments, "foreign_keys": False})
    try:
        if connection.catalogue.load(connection.store).tables:
            raise Refused("the database isn't empty: `rome drop` it first")
        if arguments.get("foreign_keys", True):
            for child, row, parent, _ in source.execute("PRAGMA foreign_key_check"):
                raise Refused(
                    f"row {row} of {child} refers to a row that {parent} doesn't have;"
                    " with ?foreign_keys=off it may"
                )
        connection.executescript("".join(f"{sql};\n" for (sql,) in source.execute(_OBJECTS)))
        schema = connection.catalogue.schema
        tables = [table for table in ordered(schema) if not table.is_view]
        return len(tables), _copy(source, connection, schema, tables)
    finally:
        connection.close()
        source.close()


def _run(script: str) -> apsw.Connection:
    database = apsw.Connection(":memory:")
    functions.register(database)
    database.authorizer = _authorized
    try:
        database.execute(script)
        if database.in_transaction:
            raise Refused("the SQL ends within a transaction: is it cut off?")
    except NotSupportedError as error:
        raise Refused(f"the SQL can't be run: {error} is refused") from error
    except apsw.Error as error:
        raise Refused(f"the SQL can't be run: {error}") from error
    return database


def _authorized(action: int, *names: Any) -> int:
    """Return a script has no business with files; it may set anything else."""
    if action == apsw.SQLITE_PRAGMA and (names[0] or "").lower() not in OF_FILES:
        return apsw.SQLITE_OK
    return authorize(action, *names)


def _copy(
    source: apsw.Connection, connection: driver.Connection, schema: Schema, tables: list[Table]
) -> int:
    """Commit all rows; SQLite has seen that they fulfil their constraints."""
    most = Portion(*map(min, _PORTION, connection.store.portion))
    count = entries = size = 0
    writes: list[dict[str, Any]] = []
    used: dict[int, int] = {}

    def commit() -> None:
        nonlocal entries, size
        token = uuid.uuid4().hex
        numbers = [[table, number] for table, number in used.items()]
        try:
            connection.store.commit(Commit(schema.version, token, list(writes), used=numbers))
        except (Changed, Duplicate, SchemaChanged) as error:
            raise Refused("others write into the database: `rome drop` it first") from error
        writes.clear()
        used.clear()
        entries = size = 0

    for table in tables:
        weight = 1 + len(table.all_indexes)
        for number, values in _rows(source, table):
            write = write_of(Change(table, number, None, values), None, set())
            if write is None:
                continue
            if writes and (
                entries + weight > most.entries or size + len(write["row"]) > most.bytes
            ):
                commit()
            writes.append(write)
            used[table.number] = max(used.get(table.number, 0), number)
            count += 1
            entries += weight
            size += len(write["row"])
    if writes:
        commit()
    return count


def _rows(source: apsw.Connection, table: Table) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Yield the rows of a table with the numbers that they get."""
    names = ", ".join(quote(column.name) for column in table.columns)
    key = None if table.key is None else quote(table.names([table.key])[0])
    order = key or row_number(table)
    rows = source.execute(f"SELECT {order}, {names} FROM {quote(table.name)} ORDER BY {order}")
    for place, (number, *values) in enumerate(rows, 1):
        if key is None:
            number = place
        elif abs(number) > LARGEST_NUMBER:
            raise DataError(
                f"{table.name}: {number} is too large a key; the largest is {LARGEST_NUMBER}"
            )
        yield number, tuple(values)
