"""Whether rows that are there fulfil a table's new definition, and how it keeps their values.

SQLite itself decides: rows are put into an empty table of the new definition, page by page.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apsw

from rome.errors import IntegrityError, OperationalError
from rome.schema.tables import ForeignKey, Table, parent_key, quote
from rome.sqlite import errors as sqlite_errors
from rome.sqlite import functions
from rome.stores.base import Store
from rome.stores.rows import decode

Values = list[Any]


class Definition:
    """A table's definition, for rows that may be against its CHECKs and strict types."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._database = apsw.Connection(":memory:")
        functions.register(self._database)
        self._database.execute(table.sql)
        names = ", ".join(quote(column.name) for column in table.columns)
        marks = ", ".join("?" * len(table.columns))
        self._insert = f"INSERT INTO {quote(table.name)} ({names}) VALUES ({marks})"

    def broken_by(self, rows: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, str]]:
        """Yield the rows that SQLite refuses, with what it says; not those that lack a value, or
        have the key of another."""
        database = self._database
        for number, row in rows:
            try:
                database.execute(self._insert, self._table.values(decode(row)))
                database.execute(f"DELETE FROM {quote(self._table.name)}")
            except apsw.ConstraintError as error:
                if not str(error).startswith("NOT NULL"):
                    yield number, str(error)


class Verification:
    """The rows of one table of the store, under another definition.

    Rows are read as of many moments: whoever acts on the outcome must make sure that nobody
    wrote the table, or a parent, meanwhile.
    """

    def __init__(
        self,
        store: Store,
        old: Table,
        new: Table,
        foreign_keys: Sequence[ForeignKey] = (),
        parents: Sequence[Table | None] = (),
        database: apsw.Connection | None = None,
    ) -> None:
        """`old`: as rows lie in the store.  `foreign_keys`: of the new definition, that rows must
        fulfil; `parents`: the table that each refers to, None if there is none; `database`
        holds these."""
        self._store = store
        self._old = old
        self._new = new
        self._database = apsw.Connection(":memory:")
        functions.register(self._database)
        self._database.execute(new.sql)
        self._checks: list[str] = []
        self._itself = False
        for place, (foreign, parent) in enumerate(zip(foreign_keys, parents, strict=True)):
            self._prepare(f"rome_parent_{place}", foreign, parent, database)

    def pages(
        self, snapshot: Sequence[tuple[int, bytes]] | None = None
    ) -> Iterator[dict[int, Values]]:
        """Yield all rows by number, with the values that the new definition keeps.

        `snapshot`: the rows, if they are here already.  Raises IntegrityError where the
        definition refuses one.
        """
        try:
            if snapshot is None:
                yield from self._pages(page for _, page in self._store.scan_all([self._old.number]))
            else:
                yield from self._pages([snapshot])
        except apsw.Error as error:
            raise sqlite_errors.translated(error) from error
        finally:
            self._database.close()

    def _pages(self, pages: Iterable[Sequence[tuple[int, bytes]]]) -> Iterator[dict[int, Values]]:
        old, new, database = self._old, self._new, self._database
        slots = [column.slot for column in new.columns]
        defaults = [new.defaults.get(slot) for slot in range(len(old.slots), len(new.slots))]
        names = [quote(column.name) for column in new.columns]
        table = quote(new.name)
        number = quote(new.names([new.key])[0]) if new.key is not None else row_number(new)
        hidden = [number] if new.key is None else []
        marks = ", ".join("?" * (len(names) + len(hidden)))
        insert = f"INSERT INTO {table} ({', '.join([*names, *hidden])}) VALUES ({marks})"
        select = f"SELECT {number}, {', '.join(names)} FROM {table}"
        seen: set[int] = set()
        for rows in pages:
            page = {n: row for n, row in dict(rows).items() if n not in seen}
            batches = []
            for n, row in page.items():
                by_slot = [*old.row(old.values(decode(row))), *defaults]
                batches.append([*(by_slot[slot] for slot in slots), *([n] if hidden else [])])
            database.executemany(insert, batches)
            seen.update(page)  # some may come twice
            if self._itself:
                # Any row may be the parent of any other: all have to be there at the end.
                yield {
                    n: list(values)
                    for n in page
                    for _, *values in database.execute(f"{select} WHERE {number} = ?", (n,))
                }
                continue
            self._check_parents()
            yield {n: list(values) for n, *values in database.execute(select)}
            database.execute(f"DELETE FROM {table}")
        if self._itself:
            self._check_parents()

    def _check_parents(self) -> None:
        for sql in self._checks:
            if self._database.execute(sql).get is not None:
                raise IntegrityError("FOREIGN KEY constraint failed")

    def _prepare(
        self,
        name: str,
        foreign: ForeignKey,
        parent: Table | None,
        database: apsw.Connection | None,
    ) -> None:
        """Put the keys of a foreign key's parent into a table of this name."""
        own = [quote(column) for column in self._new.names(foreign.slots)]
        child = quote(self._new.name)
        whole = " AND ".join(f"{child}.{column} IS NOT NULL" for column in own)
        if parent is None or database is None:
            self._checks.append(f"SELECT 1 FROM {child} WHERE {whole} LIMIT 1")
            return
        slots = parent_key(parent, foreign)
        if slots is None:
            raise OperationalError(
                f'foreign key mismatch - "{self._new.name}" referencing "{foreign.parent}"'
            )
        if parent is self._new:
            self._itself = True
            theirs = [quote(column) for column in parent.names(slots)]
            name = child
        else:
            theirs = [f"c{place}" for place in range(len(slots))]
            self._bring(name, parent, slots, theirs, database)
        # As for a foreign key: a child's value is taken as the parent's column would keep it.
        same = " AND ".join(f"rome_p.{p} = +{child}.{c}" for p, c in zip(theirs, own, strict=True))
        self._checks.append(
            f"SELECT 1 FROM {child} WHERE {whole}"
            f" AND NOT EXISTS (SELECT 1 FROM {name} AS rome_p WHERE {same}) LIMIT 1"
        )

    def _bring(
        self,
        name: str,
        parent: Table,
        slots: Sequence[int],
        columns: Sequence[str],
        database: apsw.Connection,
    ) -> None:
        declared = []
        by_slot = {column.slot: column for column in parent.columns}
        for column, slot in zip(columns, slots, strict=True):
            theirs = by_slot[slot]
            collation = database.column_metadata(None, parent.name, theirs.name)[1]
            kind = "" if theirs.affinity == "BLOB" else theirs.affinity
            declared.append(f"{column} {kind} COLLATE {collation}")
        self._database.execute(f"CREATE TABLE {name} ({', '.join(declared)})")
        self._database.execute(f"CREATE INDEX {name}_key ON {name} ({', '.join(columns)})")
        insert = f"INSERT INTO {name} VALUES ({', '.join('?' * len(columns))})"
        for _, rows in self._store.scan_all([parent.number]):
            values = [parent.row(parent.values(decode(row))) for _, row in rows]
            self._database.executemany(insert, [[v[slot] for slot in slots] for v in values])


def row_number(table: Table) -> str:
    """Return the name of the row number that no column hides."""
    for name in ("rowid", "oid", "_rowid_"):
        if table.column(name) is None:
            return name
    raise OperationalError(f"table {table.name} hides its row numbers")
