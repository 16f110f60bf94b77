"""The work area of one connection: a private SQLite database in memory.

It holds just the rows that the running statement needs, and the rows that the transaction
has written.  SQLite evaluates every statement over them, so that SQL means here what it
means there: NULL logic, ordering, affinities, savepoints, errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import apsw
import apsw.ext

from rome.schema.catalogue import Schema
from rome.schema.tables import Table, create_in, fold, quote
from rome.sqlite import functions, variables
from rome.sqlite.confine import confine
from rome.stores.rows import decode, unpack_value

Row = tuple[Any, ...]
_LONG = 100_000  # characters: statements of so many aren't remembered


class Touch:
    """A row that a statement wrote: its number and its values before and after."""

    __slots__ = ("after", "before", "old", "op", "row", "table")

    def __init__(self, update: apsw.PreUpdate) -> None:
        self.op = update.op
        self.table = update.table_name
        self.before = update.rowid
        self.after = update.rowid_new
        self.old: Row | None = update.old
        self.row: Row | None = update.new


class Workspace:
    """Tables are made when first used and stay, without rows, between transactions."""

    def __init__(self) -> None:
        self.database = apsw.Connection(":memory:", statementcachesize=400)
        self.schema: Schema | None = None
        self._made: dict[str, Table] = {}
        self._made_inside: list[str] = []  # in the open transaction: gone with a rollback
        self._inserts: dict[tuple[int, tuple[int, ...] | None], str] = {}
        self._descriptions: dict[str, tuple[Row, ...] | None] = {}
        self.touches: list[Touch] = []
        self.open = False
        # Without it SQLite compiles a statement anew whenever its parameters change.
        self.database.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
        functions.register(self.database)
        confine(self.database)

    # ------------------------------------------------------------ tables

    def use(self, schema: Schema) -> None:
        """Take another version of the schema; the transaction has no rows here."""
        self.end()
        self._descriptions.clear()
        self._inserts.clear()
        for name, table in list(self._made.items()):
            if schema.tables.get(name) is not table:
                self._unmake(name, table)
        self.schema = schema

    def _unmake(self, name: str, table: Table) -> None:
        kind = "VIEW" if table.is_view else "TABLE"
        self.database.execute(f"DROP {kind} {quote(table.name)}")
        del self._made[name]

    def ensure(self, tables: Iterable[Table], clean: bool) -> None:
        """Make the tables that aren't here; `clean`: the transaction has no rows here."""
        existing = self._made
        missing = {fold(t.name): t for t in tables if fold(t.name) not in existing}
        if not missing:
            return
        if clean:
            self.end()
        for table in missing.values():
            if self.open:
                self._made_inside.append(fold(table.name))
            self._make(table)

    def ensure_all(self, clean: bool) -> None:
        """Make every table, and then the views, which need them."""
        if self.schema is not None:
            tables = self.schema.tables.values()
            self.ensure([t for t in tables if not t.is_view], clean)
            self.ensure([t for t in tables if t.is_view], clean)

    def _make(self, table: Table) -> None:
        create_in(self.database, table)
        if table.key is not None:
            self.database.execute(
                "INSERT INTO sqlite_sequence (name, seq) VALUES (?, 0)", (table.name,)
            )
        self._made[fold(table.name)] = table

    def close(self) -> None:
        """End it."""
        self.database.close()

    # ------------------------------------------------------------ transactions

    def begin(self) -> None:
        """Begin a transaction of SQLite's, before rows come in."""
        if not self.open:
            self.database.execute("BEGIN")
            self.open = True

    def end(self) -> None:
        """Forget all rows."""
        if not self.open:
            return
        self.database.execute("ROLLBACK")
        self.open = False
        if self._made_inside:
            inside, self._made_inside = self._made_inside, []
            tables = [self._made.pop(name) for name in inside if name in self._made]
            for table in tables:
                self._make(table)

    def forget_tables_made_inside(self) -> None:
        """Forget tables that a rollback to a savepoint may have undone."""
        if not self._made_inside:
            return
        inside, self._made_inside = self._made_inside, []
        names = {fold(row[0]) for row in self.database.execute("SELECT name FROM sqlite_master")}
        for name in inside:
            if name in names:
                self._made_inside.append(name)
            else:
                self._made.pop(name, None)

    # ------------------------------------------------------------ rows

    def load(
        self, table: Table, rows: Sequence[tuple[int, bytes]], slots: tuple[int, ...] | None
    ) -> bool:
        """Bring in rows from the store; return whether all found a place.

        A row whose key another one has is left out, as is one that breaks a constraint.
        `slots`: the rows have just these columns.
        """
        values: Iterable[list[Any]]
        if slots is None:
            values = [table.values(decode(row)) for _, row in rows]
        else:
            values = [unpack_value(row) for _, row in rows]
        if table.key is None:
            values = [[*row, number] for row, (number, _) in zip(values, rows, strict=True)]
        return self._bring_in(table, slots, values, len(rows))

    def put(self, table: Table, rows: Sequence[tuple[int, Sequence[Any]]]) -> bool:
        """Bring in the transaction's own rows (numbers, and values by column); return whether
        all found a place."""
        values: Iterable[Sequence[Any]]
        if table.key is None:
            values = [[*row, number] for number, row in rows]
        else:
            values = [row for _, row in rows]
        return self._bring_in(table, None, values, len(rows))

    def _bring_in(
        self,
        table: Table,
        slots: tuple[int, ...] | None,
        values: Iterable[Sequence[Any]],
        count: int,
    ) -> bool:
        sql = self._inserts.get((table.number, slots))
        if sql is None:
            sql = self._inserts[table.number, slots] = self._insert(table, slots)
        before = self.database.total_changes()
        self.database.executemany(sql, values)
        return self.database.total_changes() - before == count

    def why_left_out(self, table: Table, number: int, row: bytes) -> str | None:
        """Return which constraint, other than its keys, a row of the store breaks; None: none."""
        sql = self._insert(table, None).replace("INSERT OR IGNORE", "INSERT", 1)
        values = table.values(decode(row))
        self.database.execute("SAVEPOINT rome_why")
        try:
            self.database.execute(sql, [*values, number] if table.key is None else values)
        except apsw.ConstraintError as error:
            unique = (
                apsw.SQLITE_CONSTRAINT_UNIQUE,
                apsw.SQLITE_CONSTRAINT_PRIMARYKEY,
                apsw.SQLITE_CONSTRAINT_ROWID,
            )
            code: int = error.extendedresult  # type: ignore[attr-defined]
            return None if code in unique else str(error)
        finally:
            self.database.execute("ROLLBACK TO rome_why")
            self.database.execute("RELEASE rome_why")
        return None

    def has(self, table: Table, number: int) -> bool:
        """Tell whether a row with this number is here."""
        sql = f"SELECT 1 FROM {quote(table.name)} WHERE {self.row_number(table)} = ?"
        return bool(self.database.execute(sql, (number,)).fetchall())

    def _insert(self, table: Table, slots: tuple[int, ...] | None) -> str:
        names = table.names(slots) if slots else [column.name for column in table.columns]
        marks = ["?"] * len(names)
        names = [quote(name) for name in names]
        if table.key is None:
            names.append(self.row_number(table))
            marks.append("?")
        if slots is not None:
            # Nobody reads the others, but some of them can't be NULL.
            rest = [c for c in table.columns if c.required and c.slot not in slots]
            names += [quote(column.name) for column in rest]
            marks += ["0"] * len(rest)
        return (
            f"INSERT OR IGNORE INTO {quote(table.name)} ({', '.join(names)})"
            f" VALUES ({', '.join(marks)})"
        )

    @staticmethod
    def row_number(table: Table) -> str:
        """Return the name of the row number that no column hides."""
        for name in ("rowid", "oid", "_rowid_"):
            if table.column(name) is None:
                return name
        return "rowid"

    def unload(self, table: Table, numbers: Iterable[int]) -> None:
        """Take rows out again."""
        sql = f"DELETE FROM {quote(table.name)} WHERE {self.row_number(table)} = ?"
        self.database.executemany(sql, [(number,) for number in numbers])

    def keep_only(self, table: Table, numbers: Sequence[int]) -> None:
        """Take all rows out but these."""
        if fold(table.name) not in self._made:
            return
        listed = ", ".join(map(str, numbers))
        self.database.execute(
            f"DELETE FROM {quote(table.name)} WHERE {self.row_number(table)} NOT IN ({listed})"
        )

    def row(self, table: Table, number: int) -> Row | None:
        """Return a row's values in the order of the columns."""
        names = ", ".join(quote(column.name) for column in table.columns)
        sql = f"SELECT {names} FROM {quote(table.name)} WHERE {self.row_number(table)} = ?"
        rows: list[Row] = self.database.execute(sql, (number,)).fetchall()
        return rows[0] if rows else None

    def renumber(self, table: Table, pairs: Sequence[tuple[int, int]]) -> None:
        """Give rows other numbers, which no row has."""
        name = self.row_number(table)
        sql = f"UPDATE {quote(table.name)} SET {name} = ? WHERE {name} = ?"
        if len(pairs) > 1:
            # By way of negative numbers, as an old number may be another row's new one.
            self.database.executemany(sql, [(-old, old) for old, _ in pairs])
            pairs = [(-old, new) for old, new in pairs]
        self.database.executemany(sql, [(new, old) for old, new in pairs])

    def set_sequence(self, table: Table, last: int) -> None:
        """Let the next row of this table that has no number of its own get last + 1."""
        self.database.execute(
            "UPDATE sqlite_sequence SET seq = ? WHERE name = ?", (last, table.name)
        )

    def highest(self, table: Table) -> int:
        """Return the highest row number here."""
        sql = f"SELECT max({self.row_number(table)}) FROM {quote(table.name)}"
        return self.database.execute(sql).get or 0

    # ------------------------------------------------------------ statements

    def query(
        self, sql: str, parameters: Sequence[Any]
    ) -> tuple[list[Row], tuple[Row, ...] | None]:
        """Return rows and description of a statement."""
        if len(parameters) > variables.LIMIT:
            sql, parameters = variables.fitted(sql, parameters)
        description = self._descriptions.get(sql, False)
        if description is not False:
            return self.database.execute(sql, parameters).fetchall(), description  # type: ignore[return-value]
        cursor = self.database.cursor()
        description_here: list[Any] = [None]

        def trace(cursor: apsw.Cursor, _sql: str, _bindings: Any) -> bool:
            description_here[0] = _described(cursor.get_description())
            return True

        cursor.exec_trace = trace
        rows = cursor.execute(sql, parameters).fetchall()
        self._describe(sql, description_here[0])
        return rows, description_here[0]

    def _describe(self, sql: str, description: tuple[Row, ...] | None) -> None:
        if len(self._descriptions) > 2000:
            self._descriptions.clear()
        if len(sql) < _LONG:
            self._descriptions[sql] = description

    def description(self, sql: str) -> tuple[Row, ...] | None:
        """Return the description of a statement that isn't run."""
        description = self._descriptions.get(sql, False)
        if description is False:
            text = variables.without_parameters(sql) if variables.may_exceed(sql) else sql
            description = _described(apsw.ext.query_info(self.database, text).description)
            self._describe(sql, description)
        return description  # type: ignore[return-value]

    def write(
        self, sql: str, parameters: Sequence[Any]
    ) -> tuple[list[Row], tuple[Row, ...] | None, int, list[Touch]]:
        """Run a statement as `query` does; return the count of rows and what was written, too."""
        touches: list[Touch] = []
        database = self.database

        def touched(update: apsw.PreUpdate) -> None:
            touches.append(Touch(update))

        database.preupdate_hook(touched, id=self)
        try:
            rows, description = self.query(sql, parameters)
        finally:
            database.preupdate_hook(None, id=self)
        return rows, description, database.changes(), touches

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        """Run a statement without an answer, such as a savepoint."""
        self.database.execute(sql, parameters)


def _described(columns: Sequence[Any] | None) -> tuple[Row, ...] | None:
    """Return PEP 249's seven words for each column: only names are known."""
    return tuple((name, *[None] * 6) for name, *_ in columns or ()) or None
