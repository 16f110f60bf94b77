"""The schema of a database, shared by this process's connections."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import apsw

from rome import functions, sqlite_errors
from rome.confine import confine
from rome.ids import Ids
from rome.schema import (
    ForeignKey,
    Table,
    describe,
    fold,
    from_entry,
    parent_key,
    quote,
    to_entry,
)
from rome.stores.base import Store


@dataclass(frozen=True)
class Schema:
    """One version of the schema: tables by folded name (schema.fold)."""

    version: str
    tables: Mapping[str, Table]
    # For a parent's folded name: its children, with the place in their foreign keys.
    children: Mapping[str, tuple[tuple[str, int], ...]]

    def by_number(self, number: int) -> Table | None:
        """The table under which rows are kept with this number."""
        return next((t for t in self.tables.values() if t.number == number), None)


def schema_of(version: str, tables: Mapping[str, Table]) -> Schema:
    """Return a schema of these tables."""
    children: dict[str, list[tuple[str, int]]] = {}
    for name, table in tables.items():
        for place, foreign in enumerate(table.foreign_keys):
            children.setdefault(fold(foreign.parent), []).append((name, place))
    return Schema(version, tables, {name: tuple(found) for name, found in children.items()})


_NUMBERS = 16  # of tables, reserved in one go
EMPTY = schema_of("", {})


@dataclass(frozen=True)
class Snapshot:
    """One version of the schema, and a SQLite database of its own that holds its tables."""

    schema: Schema
    database: apsw.Connection


class Catalogue:
    """The tables of one database.

    A SQLite database in memory without rows holds all tables; it answers questions about the
    schema.  Changes are made in copies of it (snapshots).
    """

    def __init__(self, ids: Ids | None = None) -> None:
        """`ids`: the row numbers that this process has reserved."""
        self._ids = ids
        self.lock = threading.RLock()
        self.schema = EMPTY
        self._entries: dict[str, bytes] = {}
        self._database = apsw.Connection(":memory:")
        _prepare(self._database)
        self._numbers: list[int] = []

    def restart(self) -> None:
        """In a forked child: the parent goes on to use the numbers that it has reserved."""
        self.lock = threading.RLock()
        self._numbers = []

    def load(self, store: Store) -> Schema:
        """Return the schema as it is in the store now; one round trip, in which nothing but its
        version comes if the schema is known."""
        with self.lock:  # or an older answer might come after a newer one
            found = store.schema_unless(self.schema.version)
            if found is not None:
                self._adopt(*found)
            return self.schema

    def _adopt(self, version: str, entries: Mapping[str, bytes]) -> None:
        if _birth(version) != _birth(self.schema.version):
            # Another database under the same name: it counts its tables and rows anew.
            self._numbers.clear()
            if self._ids is not None:
                self._ids.forget_all()
        old = self.schema.tables
        tables: dict[str, Table] = {}
        fresh: list[Table] = []
        for name, entry in entries.items():
            known = old.get(fold(name))
            if known is not None and self._entries.get(name) == entry:
                tables[fold(name)] = known
            else:
                fresh.append(from_entry(name, entry))
        gone = [table for name, table in old.items() if name not in tables]
        database = self._database
        with database:
            for table in gone:
                kind = "VIEW" if table.is_view else "TABLE"
                database.execute(f"DROP {kind} IF EXISTS {quote(table.name)}")
            for table in fresh:
                database.execute(table.sql)
                for index_sql in table.index_sql.values():
                    database.execute(index_sql)
        for table in fresh:
            tables[fold(table.name)] = describe(database, table)
        self._entries = dict(entries)
        self.schema = schema_of(version, tables)

    def snapshot(self) -> Snapshot:
        """Return the schema as it is known, with a database for changing it."""
        with self.lock:
            copy = apsw.Connection(":memory:")
            copy.deserialize("main", self._database.serialize("main"))
            _prepare(copy)
            return Snapshot(self.schema, copy)

    def install(
        self, before: Schema, version: str, tables: Mapping[str, Table], database: apsw.Connection
    ) -> bool:
        """Take over a schema that was made from `before`, with its database; False: the schema
        known here is another one by now."""
        with self.lock:
            if self.schema.version != before.version:
                return False
            old = self.schema.tables
            self._entries = {
                table.name: (
                    self._entries[table.name] if old.get(name) is table else to_entry(table)
                )
                for name, table in tables.items()
            }
            self._database = database
            self.schema = schema_of(version, tables)
            return True

    def replace(self, before: Schema, version: str, changed: Mapping[str, Table]) -> bool:
        """Take over tables whose SQL is what it was, as `install` does."""
        with self.lock:
            return self.install(before, version, {**self.schema.tables, **changed}, self._database)

    def take_numbers(self, store: Store, count: int) -> list[int]:
        """Return numbers for tables, which no other had or gets."""
        with self.lock:
            if len(self._numbers) < count:
                size = max(_NUMBERS, count)
                first = store.reserve("tables", size)
                self._numbers = list(range(first, first + size))
            taken, self._numbers = self._numbers[:count], self._numbers[count:]
            return taken

    def key_of(self, parent: Table, foreign: ForeignKey) -> tuple[int, ...] | None:
        """Return the slots of a parent's columns that a foreign key refers to (schema.py)."""
        with self.lock:
            return parent_key(self._database, parent, foreign)

    def query(
        self, sql: str, parameters: tuple[Any, ...] = ()
    ) -> tuple[list[Any], tuple[Any, ...]]:
        """Return rows and description of a question about the schema: PRAGMAs, sqlite_master."""
        with self.lock:
            return ask(self._database, sql, parameters)


def ask(
    database: apsw.Connection, sql: str, parameters: tuple[Any, ...] = ()
) -> tuple[list[Any], tuple[Any, ...]]:
    """Return rows and description of a statement in a database that holds a schema."""
    description: list[Any] = []

    def trace(cursor: apsw.Cursor, _sql: str, _bindings: Any) -> bool:
        description[:] = cursor.get_description() if cursor.has_vdbe else ()
        return True

    cursor = database.cursor()
    cursor.exec_trace = trace
    try:
        return list(cursor.execute(sql, parameters)), tuple(description)
    except apsw.Error as error:
        raise sqlite_errors.translated(error) from error


def _prepare(database: apsw.Connection) -> None:
    functions.register(database)
    confine(database)


def _birth(version: str) -> str:
    """When the database was made, as its versions tell; empty: they don't."""
    born, dot, _ = version.partition(".")
    return born if dot else ""
