"""The schema of a database, shared by this process's connections."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import apsw

from rome.errors import Error
from rome.schema.ids import Ids
from rome.schema.tables import (
    Table,
    describe,
    fold,
    from_entry,
    quote,
    to_entry,
    wanted_indexes,
    with_ordered,
)
from rome.sqlite import errors as sqlite_errors
from rome.sqlite import functions
from rome.sqlite.confine import confine
from rome.stores.base import Store


@dataclass(frozen=True)
class Schema:
    """One version of the schema: tables by folded name (tables.fold)."""

    version: str
    tables: Mapping[str, Table]
    # For a parent's folded name: its children, with the place in their foreign keys.
    children: Mapping[str, tuple[tuple[str, int], ...]]

    def by_number(self, number: int) -> Table | None:
        """Return the table under which rows are kept with this number."""
        return next((t for t in self.tables.values() if t.number == number), None)


def schema_of(version: str, tables: Mapping[str, Table]) -> Schema:
    """Return a schema of these tables."""
    children: dict[str, list[tuple[str, int]]] = {}
    for name, table in tables.items():
        for place, foreign in enumerate(table.foreign_keys):
            children.setdefault(fold(foreign.parent), []).append((name, place))
    return Schema(version, tables, {name: tuple(places) for name, places in children.items()})


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
        """Make an empty one; `ids`: the row numbers that this process has reserved."""
        self._ids = ids
        self.lock = threading.RLock()
        self.schema = EMPTY
        self._entries: dict[str, bytes] = {}
        self._database = apsw.Connection(":memory:")
        _prepare(self._database)
        # A second database with the same tables, of this version, for the next change.
        self._spare: tuple[str, apsw.Connection] | None = None
        self._numbers: list[int] = []

    def restart(self) -> None:
        """Start anew in a forked child: the parent goes on to use the numbers it has reserved."""
        self.lock = threading.RLock()
        self._numbers = []

    def load(self, store: Store) -> Schema:
        """Return the schema as it is in the store now; one round trip, in which nothing but its
        version comes if the schema is known."""
        with self.lock:  # or an older answer might come after a newer one
            change = store.schema_unless(self.schema.version)
            if change is not None:
                self._adopt(*change)
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
            previous = old.get(fold(name))
            if previous is not None and self._entries.get(name) == entry:
                tables[fold(name)] = previous
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
            spare, self._spare = self._spare, None
            if spare is not None and spare[0] == self.schema.version:
                return Snapshot(self.schema, spare[1])
            copy = apsw.Connection(":memory:")
            copy.deserialize("main", self._database.serialize("main"))
            _prepare(copy)
            return Snapshot(self.schema, copy)

    def install(
        self,
        before: Schema,
        version: str,
        tables: Mapping[str, Table],
        database: apsw.Connection | None = None,
        executed: Sequence[str] = (),
    ) -> bool:
        """Take over a schema that was made from `before`; False: the schema known here is another
        one by now.

        `database` holds it, if SQL has changed: by the statements `executed`.
        """
        with self.lock:
            if self.schema.version != before.version:
                return False
            if database is None:
                if self._spare is not None:
                    self._spare = version, self._spare[1]
            else:
                # Copying a database costs more than running the statements once more.
                self._spare = version, self._database
                self._database = database
                try:
                    for sql in executed:
                        self._spare[1].execute(sql)
                except (apsw.Error, Error):
                    self._spare = None
            old = self.schema.tables
            self._entries = {
                table.name: (
                    self._entries[table.name] if old.get(name) is table else to_entry(table)
                )
                for name, table in tables.items()
            }
            self.schema = schema_of(version, tables)
            return True

    def replace(self, before: Schema, version: str, changed: Mapping[str, Table]) -> bool:
        """Take over tables whose SQL is what it was, as `install` does."""
        with self.lock:
            return self.install(before, version, {**self.schema.tables, **changed})

    def allocate_numbers(self, store: Store, count: int) -> list[int]:
        """Return numbers for tables, which no other had or gets."""
        with self.lock:
            if len(self._numbers) < count:
                size = max(_NUMBERS, count)
                first = store.reserve("tables", size)
                self._numbers = list(range(first, first + size))
            numbers, self._numbers = self._numbers[:count], self._numbers[count:]
            return numbers

    def index_keys(self, table: Table) -> list[tuple[tuple[int, ...], bool]]:
        """Return the indexes that a table of this schema should have (tables.py)."""
        with self.lock:
            return wanted_indexes(self._database, table)

    def incomplete(self) -> list[Table]:
        """Return tables that lack an ordered index, as an older version has made them: as they
        should be, with one that isn't ready."""
        with self.lock:
            every = [table for _, table in sorted(self.schema.tables.items())]
            tables = [table for table in every if not table.ordered and not table.is_view]
            return [t for t in (with_ordered(self._database, t) for t in tables) if t.ordered]

    def tables_of(self, sql: str) -> set[str]:
        """Return the names of all tables that a statement speaks of (`tables_of` below)."""
        with self.lock:
            return tables_of(self._database, sql)

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


_OF_TABLES = (
    apsw.SQLITE_READ,
    apsw.SQLITE_INSERT,
    apsw.SQLITE_UPDATE,
    apsw.SQLITE_DELETE,
)


def tables_of(database: apsw.Connection, sql: str) -> set[str]:
    """Return the names of all tables, in lower case, that a statement speaks of, as SQLite's
    parser has it: sqlite_master, and table-valued PRAGMAs, among them; none if it is wrong."""
    names: set[str] = set()
    before = database.authorizer

    def note(action: int, one: str | None, *rest: Any) -> int:
        if action in _OF_TABLES and one:
            names.add(one.lower())
        return before(action, one, *rest) if before else apsw.SQLITE_OK

    database.authorizer = note
    try:
        database.execute(f"EXPLAIN {sql}", can_cache=False)
    except apsw.BindingsError:
        pass  # it was compiled, and isn't run
    except apsw.Error:
        return set()  # who runs it will hear what is wrong
    finally:
        database.authorizer = before
    return names


def _prepare(database: apsw.Connection) -> None:
    functions.register(database)
    confine(database)


def _birth(version: str) -> str:
    """Return when the database was made, as its versions tell; empty: they don't."""
    born, dot, _ = version.partition(".")
    return born if dot else ""
