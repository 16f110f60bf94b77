"""What plain SQLite answers to a statement over a given state, and the state that follows.

A state is a value: the schema and all rows.  Each row has an identity that lasts from its
insertion to its deletion, whatever its key becomes.  SQLite carries it in a hidden column; answers
over equal rows are remembered, so a judge seldom waits for SQLite.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import apsw

from tests.interleaving.statements import Statement

Identity = tuple[int, int]  # session, count; (-1, n): there from the beginning
Values = tuple[Any, ...]
Row = tuple[Identity, Values]
Answer = tuple[Any, ...]
_HIDDEN = "_id"
_IDENTITY = 900_000  # SQLite's stand-ins for identities begin here


@dataclass(frozen=True)
class SchemaTable:
    """A table: its columns, what those added later hold in older rows, its indexed columns."""

    name: str
    columns: tuple[str, ...]
    defaults: tuple[Any, ...]
    indexed: tuple[frozenset[str], ...]
    unique: tuple[tuple[str, ...], ...]
    primary: tuple[str, ...]
    numbered: bool  # the key is the row's number in ROME: another key, another row


@dataclass(frozen=True, eq=False)
class Schema:
    """One schema: the SQL that makes it, and its tables in order."""

    sql: tuple[str, ...]
    tables: tuple[SchemaTable, ...]

    @cached_property
    def places(self) -> dict[str, int]:
        """Place of each table by name."""
        return {table.name: place for place, table in enumerate(self.tables)}


@dataclass(frozen=True)
class State:
    """All rows of a database at one moment, each table's sorted by values."""

    schema: Schema
    tables: tuple[tuple[Row, ...], ...]

    @cached_property
    def values(self) -> tuple[tuple[Values, ...], ...]:
        """The rows without their identities."""
        return tuple(tuple(values for _, values in rows) for rows in self.tables)

    @cached_property
    def by_identity(self) -> tuple[dict[Identity, Values], ...]:
        """Each table's rows by identity."""
        return tuple(dict(rows) for rows in self.tables)


def state_of(schema: Schema, tables: Sequence[Sequence[Row]]) -> State:
    """A state with its rows in order."""
    return State(schema, tuple(tuple(sorted(rows, key=_order)) for rows in tables))


def _order(row: Row) -> tuple[str, Identity]:
    return repr(row[1]), row[0]


@dataclass(frozen=True)
class Outcome:
    """An answer, the rows after it with the places that they had before (-1: new), and which
    columns the statement set in which of the rows before, by table and place."""

    answer: Answer
    schema: Schema
    tables: tuple[tuple[tuple[int, Values], ...], ...]
    touched: frozenset[tuple[int, int, str]]


class Oracle:
    """Plain SQLite for one kind of database."""

    def __init__(self, create: Sequence[str]) -> None:
        self._connections: dict[tuple[str, ...], apsw.Connection] = {}
        self._schemas: dict[tuple[str, ...], Schema] = {}
        self._outcomes: dict[Any, Outcome] = {}
        self._valid: dict[Any, bool] = {}
        self.asked = 0  # times that SQLite itself was asked
        self.schema = self._adopt([_with_identity(sql) for sql in create])

    def start(self, rows: Mapping[str, Sequence[Values]]) -> State:
        """The state in which histories begin."""
        tables = []
        count = 0
        for table in self.schema.tables:
            found = []
            for values in rows.get(table.name, ()):
                count += 1
                found.append(((-1, count), tuple(values)))
            tables.append(found)
        return state_of(self.schema, tables)

    def apply(self, state: State, statement: Statement, number: int | None = None) -> Outcome:
        """What a statement answers over a state; `number`: the key that the store chose."""
        key = (id(state.schema), state.values, statement.key, number)
        outcome = self._outcomes.get(key)
        if outcome is None:
            self.asked += 1
            if statement.kind == "ddl":
                outcome = self._ddl(state, statement)
            else:
                outcome = self._apply(state, statement, number)
            self._outcomes[key] = outcome
        return outcome

    def valid(self, state: State) -> bool:
        """Whether rows hold all that the schema demands of them."""
        key = (id(state.schema), state.values)
        known = self._valid.get(key)
        if known is None:
            self.asked += 1
            known = self._valid[key] = self._is_valid(state)
        return known

    def _is_valid(self, state: State) -> bool:
        connection = self._connections[state.schema.sql]
        try:
            self._load(connection, state)
        except apsw.ConstraintError:
            return False
        return not connection.execute("PRAGMA foreign_key_check").fetchall()

    def _load(self, connection: apsw.Connection, state: State) -> None:
        connection.execute("PRAGMA foreign_keys = OFF")
        for table in reversed(state.schema.tables):
            connection.execute(f"DELETE FROM {table.name}")
        for table, rows in zip(state.schema.tables, state.values, strict=True):
            names = ", ".join((_HIDDEN, *table.columns))
            marks = ", ".join("?" * (len(table.columns) + 1))
            connection.executemany(
                f"INSERT INTO {table.name} ({names}) VALUES ({marks})",
                [(_IDENTITY + place, *values) for place, values in enumerate(rows)],
            )
        connection.execute("DELETE FROM _touched")
        connection.execute("PRAGMA foreign_keys = ON")

    def _apply(self, state: State, statement: Statement, number: int | None) -> Outcome:
        connection = self._connections[state.schema.sql]
        self._load(connection, state)
        answer = _run(connection, statement, number)
        tables = []
        for table in state.schema.tables:
            rows = connection.execute(
                f"SELECT {_HIDDEN}, {', '.join(table.columns)} FROM {table.name}"
            )
            tables.append(tuple(
                (-1 if row[0] is None else row[0] - _IDENTITY, tuple(row[1:])) for row in rows
            ))  # fmt: skip
        touched = frozenset(
            (place, identity - _IDENTITY, column)
            for place, identity, column in connection.execute(
                "SELECT place, identity, name FROM _touched WHERE identity IS NOT NULL"
            )
        )
        return Outcome(answer, state.schema, tuple(tables), touched)

    def _ddl(self, state: State, statement: Statement) -> Outcome:
        connection = self._opened(state.schema.sql, triggers=False)
        try:
            self._load(connection, state)
            answer: Answer = ("done",)
            try:
                connection.execute(_with_identity(str(statement.clause)))
            except apsw.Error as error:
                answer = ("error", _name_of(error))
            sql = [row[0] for row in connection.execute(
                "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name != '_touched'"
                " ORDER BY rowid"
            )]  # fmt: skip
            schema = self._adopt(sql) if tuple(sql) != state.schema.sql else state.schema
            tables = []
            for table in schema.tables:
                rows = connection.execute(
                    f"SELECT {_HIDDEN}, {', '.join(table.columns)} FROM {table.name}"
                )
                tables.append(tuple((row[0] - _IDENTITY, tuple(row[1:])) for row in rows))
            return Outcome(answer, schema, tuple(tables), frozenset())
        finally:
            connection.close()

    def _opened(self, sql: Sequence[str], triggers: bool) -> apsw.Connection:
        connection = apsw.Connection(":memory:")
        for one in sql:
            connection.execute(one)
        connection.execute("CREATE TABLE _touched (place, identity, name)")
        if triggers:
            for place, table in enumerate(_tables(connection)):
                for column in table.columns:
                    connection.execute(
                        f"CREATE TEMP TRIGGER _{table.name}_{column} AFTER UPDATE OF {column}"
                        f" ON {table.name} BEGIN INSERT INTO _touched"
                        f" VALUES ({place}, old.{_HIDDEN}, '{column}'); END"
                    )
        return connection

    def _adopt(self, sql: Sequence[str]) -> Schema:
        key = tuple(sql)
        if key not in self._schemas:
            connection = self._connections[key] = self._opened(sql, triggers=True)
            self._schemas[key] = Schema(key, tuple(_tables(connection)))
        return self._schemas[key]


def _with_identity(sql: str) -> str:
    """A CREATE TABLE with the hidden column as the first one."""
    if not sql.lstrip().upper().startswith("CREATE TABLE"):
        return sql
    head, _, rest = sql.partition("(")
    return f"{head}({_HIDDEN}, {rest}"


def _tables(connection: Any) -> list[SchemaTable]:
    names = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name != '_touched' ORDER BY rowid"
    ).fetchall()
    tables = []
    for (name,) in names:
        columns = connection.execute(f"PRAGMA table_info({name})").fetchall()
        shown = [column for column in columns if column[1] != _HIDDEN]
        indexed = []
        unique = []
        for _, index, is_unique, *_ in connection.execute(f"PRAGMA index_list({name})").fetchall():
            info = connection.execute(f"PRAGMA index_info({index})").fetchall()
            indexed.append(frozenset(one[2] for one in info))
            if is_unique:
                unique.append(tuple(one[2] for one in info))
        for foreign in connection.execute(f"PRAGMA foreign_key_list({name})").fetchall():
            indexed.append(frozenset({foreign[3]}))
        primary = tuple(c[1] for c in sorted(shown, key=lambda c: int(c[5])) if c[5])
        if primary and primary not in unique:
            unique.append(primary)
        indexed.append(frozenset(primary))
        defaults = [
            None if column[4] is None else connection.execute(f"SELECT {column[4]}").fetchone()[0]
            for column in shown
        ]
        tables.append(SchemaTable(
            name,
            tuple(column[1] for column in shown),
            tuple(defaults),
            tuple(indexed),
            tuple(unique),
            primary,
            [c[2].upper() for c in shown if c[5]] == ["INTEGER"],
        ))  # fmt: skip
    return tables


def _run(connection: apsw.Connection, statement: Statement, number: int | None) -> Answer:
    sql, sets = statement.sqlite_sql(number)
    many = len(sets) > 1
    shows_rows = statement.kind == "select" or "RETURNING" in sql
    if many:
        connection.execute("SAVEPOINT many")
    try:
        count = 0
        for parameters in sets:
            cursor = connection.execute(sql, parameters)
            rows = cursor.fetchall()
            if shows_rows:
                return ("rows", *sorted(rows, key=repr))
            count += connection.changes()
        return ("count", count)
    except apsw.Error as error:
        if many:
            connection.execute("ROLLBACK TO many")
        return ("error", _name_of(error))
    finally:
        if many:
            connection.execute("RELEASE many")


def _name_of(error: apsw.Error) -> str:
    return "IntegrityError" if isinstance(error, apsw.ConstraintError) else "refused"
