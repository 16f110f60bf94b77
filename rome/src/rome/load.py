"""A database from SQL, such as a dump: into an empty one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import apsw

from rome import driver, functions
from rome.dump import ordered
from rome.plan import Plan
from rome.schema import Table, quote

_ROWS_AT_ONCE = 500
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
        tables = [table for table in ordered(connection.catalogue.schema) if not table.is_view]
        return len(tables), sum(_copy(source, connection, table) for table in tables)
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
    except apsw.Error as error:
        raise Refused(f"the SQL can't be run: {error}") from error
    return database


def _authorized(action: int, *_: Any) -> int:
    """A script has no business with files."""
    return apsw.SQLITE_DENY if action == apsw.SQLITE_ATTACH else apsw.SQLITE_OK


def _copy(source: apsw.Connection, connection: driver.Connection, table: Table) -> int:
    names = ", ".join(quote(column.name) for column in table.columns)
    marks = ", ".join("?" * len(table.columns))
    sql = f"INSERT INTO {quote(table.name)} ({names}) VALUES ({marks})"
    # No rows are needed but those that a key collides with.
    plan = Plan(kind="insert", target=table.name.lower(), relied=frozenset())
    cursor = connection.cursor()
    count = 0
    for rows in _portions(source, f"SELECT {names} FROM {quote(table.name)}"):
        cursor.executemany(sql, rows, plan)
        connection.commit()
        count += len(rows)
    return count


def _portions(source: apsw.Connection, sql: str) -> Iterator[list[Any]]:
    cursor = source.cursor().execute(sql)
    while rows := [row for _, row in zip(range(_ROWS_AT_ONCE), cursor, strict=False)]:
        yield rows
