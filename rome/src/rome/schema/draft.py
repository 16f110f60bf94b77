"""A change of the schema in the making: statements of DDL, run in a copy of the catalogue.

SQLite runs each statement at once, so errors of the statement itself come at once; what it
made of the schema is told from SQLite's own list of objects.  The store hears of it later
(schema_change.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import apsw

from rome.errors import NotSupportedError, OperationalError
from rome.schema.alter import alteration, altered, altered_table, is_so_already, plain
from rome.schema.catalogue import Schema, Snapshot
from rome.schema.tables import Index, Table, describe, fold, quote, wanted_indexes, with_ordered
from rome.sqlite import errors as sqlite_errors
from rome.sqlite.confine import authorize, confine

_OBJECTS = "SELECT type, name, tbl_name, rootpage, sql FROM sqlite_master WHERE sql IS NOT NULL"
_NAME = r"(\"(?:[^\"]|\"\")*\"|`[^`]*`|\[[^\]]*\]|[^\s(;.]+)"
_REFUSED = re.compile(
    r"CREATE\s+(?:(TEMP|TEMPORARY|VIRTUAL)\s|(?:TEMP\s+|TEMPORARY\s+)?(TRIGGER)\s)", re.I
)
_DROP_TABLE = re.compile(
    rf"DROP\s+TABLE\s+(?:IF\s+EXISTS\s+)?(?:main\s*\.\s*)?{_NAME}\s*;?\s*\Z", re.I
)
_INDEX_ON = re.compile(rf"CREATE\s+(?:UNIQUE\s+)?INDEX\b.*?\sON\s+{_NAME}", re.I | re.S)
# Alterations that no row can be against.
_HARMLESS = re.compile(
    r"(?:RENAME|DROP)\b|ALTER\s+(?:COLUMN\s+)?\S+\s+(?:DROP|SET\s+DEFAULT)\b", re.I
)


class Draft:
    """Statements of one connection, and the schema that they make.

    tables: by folded name, as in Schema; tables that are new have numbers below 0.
    suspects: numbers of tables whose rows may be against their new definition.
    """

    def __init__(self, snapshot: Snapshot, legacy_alter: bool = False) -> None:
        self.legacy_alter = legacy_alter
        self.base: Schema = snapshot.schema
        self.database = snapshot.database
        self.tables: dict[str, Table] = dict(snapshot.schema.tables)
        self.statements: list[str] = []
        self.executed: list[str] = []  # what SQLite was given for them
        self.suspects: set[int] = set()
        # Tables that went although others refer to them, which must have no rows by then.
        self.widowed: list[tuple[Table, str]] = []
        self._made = 0
        self._creating = False
        self.database.config(apsw.SQLITE_DBCONFIG_LEGACY_ALTER_TABLE, int(legacy_alter))
        self.database.authorizer = self._authorize

    def _authorize(self, action: int, *names: Any) -> int:
        if action == apsw.SQLITE_CREATE_TABLE:
            self._creating = True
        elif action == apsw.SQLITE_SELECT and self._creating:
            raise NotSupportedError("CREATE TABLE AS SELECT")
        return authorize(action, *names)

    # ------------------------------------------------------------ what a statement is

    def must_be_alone(self, sql: str) -> bool:
        """Tell whether a statement needs the rows of tables, so that it can't wait for others."""
        if re.match(r"ALTER\b", sql, re.I):
            return True
        if match := _INDEX_ON.match(sql):
            table = self.tables.get(fold(plain(match[1])))
            return table is not None and table.number > 0
        if match := _DROP_TABLE.match(sql):
            name = fold(plain(match[1]))
            return any(not self._leads_to(name, child) for child in self.children(name))
        return False

    def children(self, parent: str) -> list[str]:
        """Return the folded names of other tables that refer to this one."""
        return [
            name
            for name, table in self.tables.items()
            if name != parent and any(fold(f.parent) == parent for f in table.foreign_keys)
        ]

    def _leads_to(self, start: str, end: str) -> bool:
        """Tell whether a table refers to another, if by way of others."""
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            table = self.tables.get(waiting.pop())
            parents = {fold(f.parent) for f in table.foreign_keys} if table else set()
            if end in parents:
                return True
            waiting += parents - seen
            seen |= parents
        return False

    # ------------------------------------------------------------ statements

    def run(self, sql: str) -> None:
        """Run a statement here.  Raises what SQLite says of it, and NotSupportedError."""
        if match := _REFUSED.match(sql):
            raise NotSupportedError(f"CREATE {(match[1] or match[2]).upper()}")
        if is_so_already(sql):
            return
        database = self.database
        before = list(database.execute(_OBJECTS))
        database.execute("SAVEPOINT ddl")
        done = False
        try:
            self._creating = False
            name = altered_table(sql)
            name = name and fold(name)
            statements = [sql] if name is None else self._altering(name, sql)
            for one in statements:
                database.execute(one)
            self._creating = False
            after = list(database.execute(_OBJECTS))
            self._take_over(before, after, name, sql)
            done = True
        except apsw.Error as error:
            raise sqlite_errors.translated(error) from error
        finally:
            self._creating = False
            if not done:
                database.execute("ROLLBACK TO ddl")
            database.execute("RELEASE ddl")
        self.statements.append(sql)
        self.executed += statements

    def _altering(self, name: str, sql: str) -> list[str]:
        """Return the statements that do what SQLite's ALTER TABLE doesn't know."""
        table = self.tables.get(fold(name))
        if table is None or table.is_view:
            raise OperationalError(f"no such table: {name}")
        return [
            f"DROP TABLE {quote(table.name)}",
            altered(table.sql, sql),
            *table.index_sql.values(),
        ]

    def _take_over(self, before: list[Any], after: list[Any], anew: str | None, sql: str) -> None:
        """Note what a statement changed.

        A table keeps its root page when it is renamed, so that page tells which one it was; but
        for `anew`, which was made anew under its name.
        """
        tables = dict(self.tables)
        changed = set(after).difference(before)
        removed = set(before).difference(after)
        # Tables that changed, or whose indexes did.
        names = {row[2] if row[0] == "index" else row[1] for row in changed}
        names |= {row[2] for row in removed if row[0] == "index"}
        page_of = {row[3]: row[1] for row in before if row[0] == "table"}
        index_sql: dict[str, dict[str, str]] = {}
        for row in after:
            if row[0] == "index" and row[2] in names:
                index_sql.setdefault(row[2], {})[row[1]] = row[4]
        for row in removed:
            if row[0] != "index":
                tables.pop(fold(row[1]), None)
        suspects = set(self.suspects)
        for kind, name, _, page, text in after:
            if name not in names or kind not in ("table", "view") or name.startswith("sqlite_"):
                continue
            old_name = page_of.get(page) if kind == "table" and fold(name) != anew else name
            old = self.tables.get(fold(old_name)) if old_name else None
            new = self._changed(old, kind, name, text, index_sql.get(name, {}))
            tables[fold(name)] = new
            if old is not None and old.number > 0 and self._may_break(old, new, sql):
                suspects.add(old.number)
        for name, table in self.tables.items():
            if name not in tables and table.number not in {t.number for t in tables.values()}:
                self.widowed += [(table, child) for child in self.children(name)]
        self.tables, self.suspects = tables, suspects

    def _changed(
        self, old: Table | None, kind: str, name: str, text: str, indexes: dict[str, str]
    ) -> Table:
        database = self.database
        if kind == "view":
            return Table(name, 0, text)
        if old is None:
            self._made += 1
            table = Table(name, -self._made, text, indexes)
        else:
            live = [row[1] for row in database.execute(f"PRAGMA table_xinfo({quote(name)})")]
            table = replace(
                old, name=name, sql=text, index_sql=indexes, slots=_moved(old.slots, live)
            )
        if self._property("wr", name):
            raise NotSupportedError("WITHOUT ROWID")
        there = len(table.slots)
        table = describe(database, table)
        if old is not None:
            if old.key != table.key:
                raise NotSupportedError(f"another kind of primary key for table {old.name}")
            defaults = dict(table.defaults)
            for column in table.columns:
                if column.slot >= there:
                    defaults[column.slot] = self._default(name, column.name)
            table = replace(table, defaults=defaults)
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
        return with_ordered(database, table)

    def _property(self, column: str, table: str) -> bool:
        """Return what PRAGMA table_list says of a table: `wr` (WITHOUT ROWID), `strict`."""
        sql = f"SELECT {column} FROM pragma_table_list(?) WHERE schema = 'main'"
        return bool(self.database.execute(sql, (table,)).get)

    def _may_break(self, old: Table, new: Table, sql: str) -> bool:
        """Tell whether rows that are there may be against the table's new definition."""
        action = alteration(sql)
        if action is None or _HARMLESS.match(action):
            return False
        required = any(
            column.required
            and not getattr(old.column(column.name), "required", False)
            and (column.slot < len(old.slots) or new.defaults.get(column.slot) is None)
            for column in new.columns
        )
        checked = re.search(r"\bCHECK\b", action, re.I) or (
            new.checked and not re.match(r"ADD\b", action, re.I)
        )
        referring = any(key not in old.foreign_keys for key in new.foreign_keys)
        strict = self._property("strict", new.name)
        return bool(required or checked or referring or strict or kept_otherwise(old, new))

    def _default(self, table: str, column: str) -> Any:
        """Return what rows that are there already have in a new column."""
        info = list(self.database.execute(f"PRAGMA table_xinfo({quote(table)})"))
        for _, name, declared, _, default, _, _ in info:
            if name == column and default is not None:
                scratch = apsw.Connection(":memory:")
                try:
                    scratch.execute(f"CREATE TABLE d (a {declared} DEFAULT {default}, b)")
                    scratch.execute("INSERT INTO d (b) VALUES (1)")
                    return scratch.execute("SELECT a FROM d").get
                finally:
                    scratch.close()
        return None

    # ------------------------------------------------------------ as one change

    def finished(self) -> apsw.Connection:
        """Return the database, for a catalogue to hold."""
        self.database.config(apsw.SQLITE_DBCONFIG_LEGACY_ALTER_TABLE, 0)
        confine(self.database)
        return self.database

    def gone(self) -> list[Table]:
        """Return tables of the base that no longer are."""
        numbers = {table.number for table in self.tables.values()}
        return [t for t in self.base.tables.values() if not t.is_view and t.number not in numbers]

    def altered(self) -> list[tuple[Table, Table]]:
        """Return tables of the base that changed: as they were and as they are."""
        before = {t.number: t for t in self.base.tables.values() if not t.is_view}
        return [
            (before[table.number], table)
            for table in self.tables.values()
            if table.number > 0 and before[table.number] is not table
        ]

    def changed(self) -> list[Table]:
        """Return tables and views whose entries are new or others."""
        old = self.base.tables
        return [table for name, table in self.tables.items() if old.get(name) is not table]

    def drops(self) -> list[str]:
        """Return the names of entries that go."""
        names = {table.name for table in self.tables.values()}
        return [t.name for t in self.base.tables.values() if t.name not in names]


def kept_otherwise(old: Table, new: Table) -> bool:
    """Tell whether columns have another affinity, under which SQLite keeps other values."""
    before = {column.slot: column.affinity for column in old.columns}
    return any(
        _storage(column.affinity) not in ("BLOB", _storage(before.get(column.slot, "BLOB")))
        for column in new.columns
        if column.slot in before
    )


def _storage(affinity: str) -> str:
    """Return an affinity by which integers are kept the same under INTEGER and NUMERIC."""
    return "NUMERIC" if affinity == "INTEGER" else affinity


def _moved(slots: tuple[str | None, ...], live: Sequence[str]) -> tuple[str | None, ...]:
    """Return the slots after ALTER TABLE: a dropped column's place stays empty, a renamed one's
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
