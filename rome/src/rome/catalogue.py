"""The schema of a database, shared by this process's connections, and its changes."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import apsw

from rome import functions, sqlite_errors
from rome.alter import altered, altered_table, is_so_already
from rome.errors import (
    IntegrityError,
    NotSupportedError,
    OperationalError,
    OutcomeUnknown,
    ProgrammingError,
)
from rome.ids import Ids
from rome.rows import decode
from rome.schema import (
    ForeignKey,
    Index,
    OrderedIndex,
    Table,
    describe,
    from_entry,
    quote,
    to_entry,
    wanted_indexes,
    wanted_ordered,
)
from rome.stores.base import Duplicate, NotEmpty, SchemaChanged, Store


@dataclass(frozen=True)
class Schema:
    """One version of the schema: tables by name in lower case."""

    version: str
    tables: Mapping[str, Table]
    # For a parent's name in lower case: its children, with the place in their foreign keys.
    children: Mapping[str, tuple[tuple[str, int], ...]]

    def by_number(self, number: int) -> Table | None:
        """The table under which rows are kept with this number."""
        return next((t for t in self.tables.values() if t.number == number), None)


def _schema(version: str, tables: Mapping[str, Table]) -> Schema:
    children: dict[str, list[tuple[str, int]]] = {}
    for name, table in tables.items():
        for place, foreign in enumerate(table.foreign_keys):
            children.setdefault(foreign.parent.lower(), []).append((name, place))
    return Schema(version, tables, {name: tuple(found) for name, found in children.items()})


_NUMBERS = 16  # of tables, reserved in one go
EMPTY = _schema("", {})
_OBJECTS = "SELECT type, name, tbl_name, rootpage, sql FROM sqlite_master WHERE sql IS NOT NULL"
_REFUSED = re.compile(
    r"\s*CREATE\s+(?:(TEMP|TEMPORARY|VIRTUAL)\s|(?:TEMP\s+|TEMPORARY\s+)?(TRIGGER)\s)", re.I
)
_WITHOUT_ROWID = re.compile(r"\)[^)]*\bWITHOUT\s+ROWID\b[^)]*$", re.I)


class Catalogue:
    """The tables of one database."""

    def __init__(self, ids: Ids | None = None) -> None:
        """`ids`: the row numbers that this process has reserved."""
        self._ids = ids
        self.lock = threading.RLock()
        self.schema = EMPTY
        self._entries: dict[str, bytes] = {}
        self._database = apsw.Connection(":memory:")
        functions.register(self._database)
        self._numbers: list[int] = []

    def restart(self) -> None:
        """In a forked child: the parent goes on to use the numbers that it has reserved."""
        self.lock = threading.RLock()
        self._numbers = []

    def load(self, store: Store) -> Schema:
        """The schema as it is in the store now."""
        with self.lock:  # or an older answer might come after a newer one
            version, entries = store.schema()
            if version != self.schema.version:
                self._adopt(version, entries)
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
            known = old.get(name.lower())
            if known is not None and self._entries.get(name) == entry:
                tables[name.lower()] = known
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
            tables[table.name.lower()] = describe(database, table)
        self._entries = dict(entries)
        self.schema = _schema(version, tables)

    def query(
        self, sql: str, parameters: tuple[Any, ...] = ()
    ) -> tuple[list[Any], tuple[Any, ...]]:
        """Rows and description of a question about the schema: PRAGMAs, sqlite_master."""
        with self.lock:
            description: list[Any] = []

            def trace(cursor: apsw.Cursor, _sql: str, _bindings: Any) -> bool:
                description[:] = cursor.get_description() if cursor.has_vdbe else ()
                return True

            cursor = self._database.cursor()
            cursor.exec_trace = trace
            try:
                return list(cursor.execute(sql, parameters)), tuple(description)
            except apsw.Error as error:
                raise sqlite_errors.translated(error) from error

    # ------------------------------------------------------------ changes

    def change(self, store: Store, *statements: str) -> Schema:
        """Run statements of DDL, here and in the store, all as one change.

        Several must not drop or alter what one of them made.
        """
        for sql in statements:
            if match := _REFUSED.match(sql):
                raise NotSupportedError(f"CREATE {(match[1] or match[2]).upper()}")
            if _WITHOUT_ROWID.search(sql):
                raise NotSupportedError("WITHOUT ROWID")
        statements = tuple(sql for sql in statements if not is_so_already(sql))
        if not self.schema.version:
            self.load(store)
        stale = False
        for _ in range(100):
            with self.lock:
                try:
                    return self._change_once(store, statements)
                except SchemaChanged:
                    self.load(store)
                except OutcomeUnknown:
                    raise  # run again, it would find its own work
                except OperationalError:
                    # Perhaps it speaks of a table that another process has made or dropped.
                    known = self.schema.version
                    if stale or self.load(store).version == known:
                        raise
                    stale = True
        raise ProgrammingError("the schema is changed by others all the time")

    def _change_once(self, store: Store, statements: Sequence[str]) -> Schema:
        database = self._database
        before = list(database.execute(_OBJECTS))
        database.execute("SAVEPOINT ddl")
        done = False
        try:
            same: set[str] = set()
            for sql in statements:
                name = altered_table(sql)
                if name is None:
                    database.execute(sql)
                else:
                    same.add(self._alter(name, sql))
            after = list(database.execute(_OBJECTS))
            plan = self._plan(before, after, store, same)
            for name in same:
                self._verify(store, self.schema.tables[name.lower()], plan.new.get(name))
            version = self._put(store, plan, building=False)
            done = True
        except apsw.Error as error:
            raise sqlite_errors.translated(error) from error
        finally:
            if not done:
                database.execute("ROLLBACK TO ddl")
            database.execute("RELEASE ddl")
        self._adopt_plan(version, plan)
        for table in plan.gone:
            self._clean(store, table, table.all_indexes)
            store.drop_rows(table.number)
        for table, indexes in plan.dropped_indexes:
            self._clean(store, table, indexes)
        self.complete(store)
        self.finish(store)
        return self.schema

    def _alter(self, name: str, sql: str) -> str:
        """ALTER TABLE in a way that SQLite doesn't know; the table's name."""
        table = self.schema.tables.get(name.lower())
        if table is None or table.is_view:
            raise OperationalError(f"no such table: {name}")
        database = self._database
        changed = altered(table.sql, sql)
        database.execute(f"DROP TABLE {quote(table.name)}")
        database.execute(changed)
        for index_sql in table.index_sql.values():
            database.execute(index_sql)
        return table.name

    def _verify(self, store: Store, old: Table, new: Table | None) -> None:
        """Whether a table's rows fulfil its new constraints (unique ones: see finish)."""
        if new is None:
            return
        if new.key != old.key:
            raise NotSupportedError(f"another kind of primary key for table {old.name}")
        required = [
            column
            for column in new.columns
            if column.required and not getattr(old.column(column.name), "required", False)
        ]
        parents = [key for key in new.foreign_keys if key not in old.foreign_keys]
        unique = [
            index
            for index in new.indexes
            if index.unique and old.find_index(index.slots, unique=True) is None
        ]
        if not required and not parents and not unique:
            return
        seen: set[tuple[Any, ...]] = set()
        known = [self._keys_of(store, foreign) for foreign in parents]
        for _, row in store.scan(old.number):
            values = new.row(new.values(decode(row)))
            for column in required:
                if values[column.slot] is None:
                    raise IntegrityError(f"NOT NULL constraint failed: {new.name}.{column.name}")
            for foreign, keys in zip(parents, known, strict=True):
                key = tuple(values[slot] for slot in foreign.slots)
                if None not in key and key not in keys:
                    raise IntegrityError("FOREIGN KEY constraint failed")
            for index in unique:
                key = tuple(values[slot] for slot in index.slots)
                if None not in key and (index.slots, key) in seen:
                    columns = ", ".join(f"{new.name}.{name}" for name in new.names(index.slots))
                    raise IntegrityError(f"UNIQUE constraint failed: {columns}")
                seen.add((index.slots, key))

    def _keys_of(self, store: Store, foreign: ForeignKey) -> set[tuple[Any, ...]]:
        """The values that a foreign key may have."""
        parent = self.schema.tables.get(foreign.parent.lower())
        if parent is None:
            return set()
        names = foreign.parent_columns
        columns = [parent.column(name) for name in names if name]
        slots = [column.slot for column in columns if column]
        if not slots:
            unique = next((i for i in parent.indexes if i.unique), None)
            slots = list(unique.slots) if unique else [parent.key or 0]
        keys = set()
        for _, row in store.scan(parent.number):
            values = parent.row(parent.values(decode(row)))
            keys.add(tuple(values[slot] for slot in slots))
        return keys

    def _plan(self, before: list[Any], after: list[Any], store: Store, same: set[str]) -> _Plan:
        """What changed, told from SQLite's own list of objects.

        A table keeps its root page when it is renamed, so that page tells who it is; but
        for those in `same`, which were made anew under their name.
        """
        tables = self.schema.tables
        changed = set(after).difference(before)
        removed = set(before).difference(after)
        # Tables that changed, or whose indexes did.
        names = {row[2] if row[0] == "index" else row[1] for row in changed}
        names |= {row[2] for row in removed if row[0] == "index"}
        page_of = {row[3]: row[1] for row in before if row[0] == "table"}
        gone = {row[1].lower(): tables[row[1].lower()] for row in removed if row[0] != "index"}
        index_sql: dict[str, dict[str, str]] = {}
        for row in after:
            if row[0] == "index" and row[2] in names:
                index_sql.setdefault(row[2], {})[row[1]] = row[4]
        new: dict[str, Table] = {}
        dropped_indexes: list[tuple[Table, list[Index | OrderedIndex]]] = []
        for kind, name, _, page, text in after:
            if name not in names or kind not in ("table", "view") or name.startswith("sqlite_"):
                continue
            old_name = page_of.get(page) if kind == "table" and name not in same else name
            old = tables.get(old_name.lower()) if old_name else None
            if old is not None:
                gone.pop(old.name.lower(), None)
            table = self._changed(store, old, kind, name, text, index_sql.get(name, {}))
            new[name] = table
            if old is not None:
                kept = {index.number for index in table.all_indexes}
                lost = [index for index in old.all_indexes if index.number not in kept]
                if lost:
                    dropped_indexes.append((old, lost))
        drops = [table.name for table in gone.values()]
        numbers = {table.number for table in new.values()} - {0}
        drops += [
            row[1]
            for row in removed
            if row[0] == "table" and row[1] not in new and tables[row[1].lower()].number in numbers
        ]
        return _Plan(new, list(gone.values()), drops, dropped_indexes)

    def _changed(
        self, store: Store, old: Table | None, kind: str, name: str, text: str, indexes: Any
    ) -> Table:
        database = self._database
        if kind == "view":
            return Table(name, 0, text)
        if old is None:
            table = Table(name, self._next_number(store), text, indexes)
        else:
            live = [row[1] for row in database.execute(f"PRAGMA table_xinfo({quote(name)})")]
            table = replace(
                old, name=name, sql=text, index_sql=indexes, slots=_moved(old.slots, live)
            )
        added = set(range(len(table.slots), 10000))
        table = describe(database, table)
        if old is not None:
            fills = dict(table.fills)
            for column in table.columns:
                if column.slot in added:
                    fills[column.slot] = self._default(name, column.name)
            table = replace(table, fills=fills)
        by_kind = {(index.slots, index.unique): index for index in table.indexes}
        number = old.top if old else 0
        indexes_now = []
        for slots, unique in wanted_indexes(database, table):
            index = by_kind.get((slots, unique))
            if index is None:
                number += 1
                index = Index(number, slots, unique, ready=False)
            indexes_now.append(index)
        table = replace(table, indexes=tuple(indexes_now), top=number)
        return self._with_ordered(table)

    def _with_ordered(self, table: Table) -> Table:
        """The table with the ordered indexes that it should have."""
        known = {index.slots: index for index in table.ordered}
        number = table.top
        ordered = []
        for slots in wanted_ordered(self._database, table):
            index = known.get(slots)
            if index is None:
                number += 1
                index = OrderedIndex(number, slots, ready=False)
            ordered.append(index)
        return replace(table, ordered=tuple(ordered), top=number)

    def incomplete(self) -> list[Table]:
        """Tables that lack an ordered index: an older version has made them."""
        return [
            table
            for _, table in sorted(self.schema.tables.items())
            if not table.ordered and wanted_ordered(self._database, table)
        ]

    def complete(self, store: Store) -> None:
        """Enter the ordered indexes that an older version hasn't made; `finish` builds them."""
        lacking = self.incomplete()
        if lacking:
            plan = _Plan({table.name: self._with_ordered(table) for table in lacking}, [], [], [])
            self._adopt_plan(self._put(store, plan, building=True), plan)

    def _next_number(self, store: Store) -> int:
        """A number for a table, which no other had or gets."""
        if not self._numbers:
            first = store.reserve("tables", _NUMBERS)
            self._numbers = list(range(first, first + _NUMBERS))
        return self._numbers.pop(0)

    def _default(self, table: str, column: str) -> Any:
        """What rows that are there already have in a new column."""
        info = list(self._database.execute(f"PRAGMA table_xinfo({quote(table)})"))
        for _, name, declared, _, default, _, _ in info:
            if name == column and default is not None:
                self._database.execute(
                    f"CREATE TEMP TABLE rome_default (a {declared} DEFAULT {default}, b)"
                )
                try:
                    self._database.execute("INSERT INTO rome_default (b) VALUES (1)")
                    return self._database.execute("SELECT a FROM rome_default").get
                finally:
                    self._database.execute("DROP TABLE temp.rome_default")
        return None

    def _put(self, store: Store, plan: _Plan, building: bool) -> str:
        """New indexes of tables without rows are ready at once; others are built."""
        waiting = [t for t in plan.new.values() if not _is_ready(t)]
        if not building:
            ready = {t.name: _ready(t) for t in waiting}
            puts = {name: to_entry(ready.get(name, t)) for name, t in plan.new.items()}
            try:
                version = store.change_schema(
                    self.schema.version, puts, plan.drops, [t.number for t in waiting]
                )
            except NotEmpty:
                return self._put(store, plan, building=True)
            plan.new.update(ready)
            return version
        puts = {name: to_entry(table) for name, table in plan.new.items()}
        return store.change_schema(self.schema.version, puts, plan.drops, [])

    def _adopt_plan(self, version: str, plan: _Plan) -> None:
        tables = dict(self.schema.tables)
        for name in plan.drops:
            tables.pop(name.lower(), None)
            self._entries.pop(name, None)
        for name, table in plan.new.items():
            tables[name.lower()] = table
            self._entries[name] = to_entry(table)
        self.schema = _schema(version, tables)

    def finish(self, store: Store) -> None:
        """Build the indexes that aren't ready: also those that another process left."""
        for table in list(self.schema.tables.values()):
            if _is_ready(table):
                continue
            for order in table.ordered:
                if not order.ready:
                    store.build_ordered(
                        table.number, order.number, order.slots, table.key, table.packed_fills
                    )
            for index in table.indexes:
                if index.ready:
                    continue
                try:
                    store.build_index(
                        table.number, index.number, index.slots, index.unique, table.packed_fills
                    )
                except Duplicate as duplicate:
                    self._give_up(store, table, index)
                    names = ", ".join(f"{table.name}.{n}" for n in table.names(index.slots))
                    raise IntegrityError(f"UNIQUE constraint failed: {names}") from duplicate
            finished = _ready(table)
            plan = _Plan({table.name: finished}, [], [], [])
            version = store.change_schema(
                self.schema.version, {table.name: to_entry(finished)}, [], []
            )
            self._adopt_plan(version, plan)

    def _give_up(self, store: Store, table: Table, index: Index) -> None:
        """Take back a unique index that the rows don't allow."""
        database = self._database
        for name in table.index_sql:
            parts = [
                row[2] for row in database.execute(f"PRAGMA index_xinfo({quote(name)})") if row[5]
            ]
            if parts == table.names(index.slots):
                self.change(store, f"DROP INDEX {quote(name)}")
                return

    def _clean(self, store: Store, table: Table, indexes: list[Index | OrderedIndex]) -> None:
        for index in indexes:
            if isinstance(index, OrderedIndex):
                store.drop_ordered(table.number, index.number)
                continue
            store.drop_index(
                table.number, index.number, index.slots, index.unique, table.packed_fills
            )


@dataclass
class _Plan:
    new: dict[str, Table]
    gone: list[Table]
    drops: list[str]
    dropped_indexes: list[tuple[Table, list[Index | OrderedIndex]]]


def _birth(version: str) -> str:
    """When the database was made, as its versions tell; empty: they don't."""
    born, dot, _ = version.partition(".")
    return born if dot else ""


def _is_ready(table: Table) -> bool:
    return all(index.ready for index in table.all_indexes)


def _ready(table: Table) -> Table:
    return replace(
        table,
        indexes=tuple(replace(index, ready=True) for index in table.indexes),
        ordered=tuple(replace(index, ready=True) for index in table.ordered),
    )


def _moved(slots: tuple[str | None, ...], live: list[str]) -> tuple[str | None, ...]:
    """The slots after ALTER TABLE: a dropped column's place stays empty, a renamed one's
    has the new name."""
    missing = [place for place, name in enumerate(slots) if name and name not in live]
    extra = [name for name in live if name not in slots]
    result = list(slots)
    # One statement either renames one column, drops one or adds one.
    if len(missing) == 1 and len(extra) == 1:
        result[missing[0]] = extra[0]
    else:
        for place in missing:
            result[place] = None
    return tuple(result)
