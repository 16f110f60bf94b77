"""What an open transaction has: rows in its work area, rows that it has written, and what it
relies on at its commit."""

from __future__ import annotations

import hashlib
import marshal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rome.engine.foreign_keys import ForeignKeys
from rome.engine.overlay import Overlay
from rome.engine.reads import ReadRequest, Reads
from rome.engine.shared import Options, Shared
from rome.errors import ConflictError, Error, InternalError
from rome.planner.plan import BoundPlan, Layout, Plan
from rome.planner.workspace import Workspace
from rome.schema.catalogue import Schema
from rome.schema.changes import Change, Key, Row
from rome.schema.tables import Table
from rome.stores.base import Request, Store
from rome.stores.wire import Step

# Begins the message of a conflict over the number of a new row.
NUMBER_TAKEN = "another transaction has taken the number of a new row"


class Result(NamedTuple):
    """What a statement answered; rowcount -1: it has none."""

    rows: list[Row]
    description: tuple[Row, ...] | None
    rowcount: int
    lastrowid: int | None


class InconsistentRead(Exception):
    """Rows of the store don't fit beside those that are here: other moments', or the
    transaction's own.

    table: its number.  rows: the ones that found no place, numbers and rows by turns.
    """

    def __init__(self, table: int, rows: list[bytes]) -> None:
        super().__init__(table)
        self.table = table
        self.rows = rows


class Digest(NamedTuple):
    """What is kept of a large answer: enough to tell it from another one."""

    rows: bytes
    rowcount: int
    lastrowid: int | None

    @classmethod
    def of(cls, result: Result) -> Digest:
        """Return that of an answer."""
        # Version 2 of the format has no references, so equal rows have equal bytes.
        rows = hashlib.blake2b(marshal.dumps(result.rows, 2), digest_size=16).digest()
        return cls(rows, result.rowcount, result.lastrowid)


@dataclass(slots=True)
class Call:
    """A statement as the application made it, for running it again."""

    sql: str
    parameters: Sequence[Sequence[Any]]  # one set, or many
    many: bool
    plan: Plan
    layout: Layout
    taken: list[tuple[int, int, int]] = field(default_factory=list)  # table, first, count
    retrying: bool = False
    read: bool = False  # whether it needed rows of the store
    asked: bool = False  # whether it had to ask for them itself
    given: int = 0
    savepoint: tuple[str, str] | None = None
    outcome: Result | Digest | type[Error] | None = None

    def answered(self, outcome: Result | type[Error]) -> bool:
        """Whether an outcome is the one that the application has seen."""
        seen = self.outcome
        if isinstance(outcome, Result):
            if isinstance(seen, Digest):
                return Digest.of(outcome) == seen
            if isinstance(seen, Result):
                mine = outcome.rows, outcome.rowcount, outcome.lastrowid
                return mine == (seen.rows, seen.rowcount, seen.lastrowid)
        return outcome is seen


class State:
    """Of one transaction after another of a connection."""

    def __init__(self, store: Store, shared: Shared, options: Options) -> None:
        self.store = store
        self.catalogue = shared.catalogue
        self.ids = shared.ids
        self.check_foreign_keys = options.foreign_keys
        self.serializable = options.serializable
        self.row_locks = shared.row_locks
        self.holds_rows = False
        self.work = Workspace()
        self.foreign = ForeignKeys(self)
        self.reads = Reads(
            self,
            shared.result_cache if options.result_cache else None,
            shared.prefetch_history if options.prefetch else None,
            shared.moments,
        )
        self.forget()

    def forget(self) -> None:
        """Start anew, for the next transaction."""
        self.calls: list[Call] = []
        self.rows_kept = 0  # in the outcomes of these
        self.loaded: dict[int, dict[int, bytes]] = {}
        self.ever_loaded: set[int] = set()
        self.statement_loaded: list[Key] = []  # rows that came in while a statement ran
        self.partial: set[int] = set()  # tables whose loaded rows lack columns
        # What the last statement has read, where the work area doesn't have it.
        self.aside: tuple[Sequence[Step], list[list[bytes]]] | None = None
        # Rows that were inserted and aren't in the work area; their unique keys; and tables
        # whose rows were written in another way.
        self.pending: list[Change] = []
        self.fresh_keys: set[tuple[int, int, bytes]] = set()
        self.reworked: set[int] = set()
        self.overlay = Overlay()
        self.changes = self.overlay.changes  # written by the overlay alone
        self.savepoints: list[tuple[str, int]] = []  # name, mark of the overlay
        self.locked: dict[Key, tuple[Table, bytes]] = {}
        self.used: dict[int, int] = {}
        self.relied: dict[int, set[int] | None] = {}  # None: on every column
        self.assigned: dict[int, set[int]] = {}
        self.seen_writes: dict[int, str] = {}
        # Of a serializable transaction: the last commits of tables whose keys were free then.
        self.free_then: dict[int, str] = {}
        self.reads.forget()
        self.reading_calls = 0

    @property
    def schema(self) -> Schema:
        """The schema that the work area has; loaded when first asked for."""
        schema = self.work.schema
        if schema is None:
            schema = self.catalogue.schema
            if not schema.version:
                schema = self.catalogue.load(self.store)
            self.work.use(schema)
        return schema

    @property
    def clean(self) -> bool:
        """Whether nothing in the work area needs to stay."""
        return not self.changes and not self.savepoints

    def use(self, schema: Schema) -> None:
        """Take another version of the schema, where nothing is written."""
        self.used.clear()  # a table's number may be another one now
        self.work.use(schema)
        self.nothing_loaded()

    def fetch(self, steps: Sequence[Step], bound: BoundPlan) -> None:
        """The rows of these steps, and no others but the transaction's own."""
        self.unload()
        self.work.ensure(bound.tables, self.clean)
        self.fetch_more(steps)

    def fetch_more(self, steps: Sequence[Step]) -> list[list[bytes]]:
        """The rows of these steps, beside those that are here."""
        request = list(steps)
        answer = self.reads.read(ReadRequest(request, request, False, False))
        self.saw_all(request, answer.commits)
        found = answer.rows or []
        self.bring_in(steps, found)
        return found

    def bring_in(self, steps: Sequence[Step], found: Sequence[list[bytes]]) -> None:
        """Put rows that were read into the work area."""
        self.work.begin()
        for step, rows in zip(steps, found, strict=True):
            if rows:
                self.load(step.table, rows, step.columns)

    def flush(self) -> None:
        """Bring the rows that were inserted plainly into the work area."""
        if not self.pending:
            return
        self.work.begin()
        by_table: dict[int, list[Change]] = {}
        for change in self.pending:
            by_table.setdefault(change.table.number, []).append(change)
        for changes in by_table.values():
            table = changes[0].table
            rows = [(change.number, change.row or ()) for change in changes]
            self.work.ensure([table], clean=False)
            if not self.work.put(table, rows):
                # Rows that an earlier statement has read hold keys that were free since.
                self.unload()
                self.work.put(table, rows)
                if not all(self.work.has(table, number) for number, _ in rows):
                    raise InternalError(f"a new row of table {table.name} finds no place")
        self.pending = []

    def load(self, number: int, rows: list[bytes], slots: tuple[int, ...] | None = None) -> None:
        """Bring in rows of one table as the store gives them: numbers and rows by turns.

        `slots`: the only columns that came.  Raises ConflictError where another transaction has
        given a number to a row that this one has given to a new row, and InconsistentRead where a
        row finds no place beside those that are here.
        """
        table = self.table_of(number)
        here = self.loaded.setdefault(number, {})
        new = []
        for key, row in zip(map(int, rows[::2]), rows[1::2], strict=True):
            change = self.changes.get((number, key))
            if change is not None:
                if change.base is None:
                    raise ConflictError(f"{NUMBER_TAKEN}: {table.name} {key}; try again")
            elif key not in here:
                new.append((key, row))
        if not new:
            return
        whole = self.work.load(table, new, slots)
        present = new if whole else [(key, row) for key, row in new if self.work.has(table, key)]
        here.update(present)
        self.ever_loaded.add(number)
        self.statement_loaded += [(number, key) for key, _ in present]
        if slots is not None:
            self.partial.add(number)
        if not whole:
            self._left_out(table, [(key, row) for key, row in new if key not in here], slots)

    def _left_out(
        self, table: Table, rows: list[tuple[int, bytes]], slots: tuple[int, ...] | None
    ) -> None:
        """Raise the reason for which the work area didn't take rows of the store."""
        for number, row in rows if slots is None else ():
            broken = self.work.why_left_out(table, number, row)
            if broken is not None:
                raise InternalError(
                    f"row {number} of table {table.name} is not as the schema demands: {broken}"
                )
        raise InconsistentRead(
            table.number, [part for key, row in rows for part in (str(key).encode(), row)]
        )

    def lock(self, table: Table, number: int) -> None:
        """Let the commit check that a row of the store is as it was read."""
        row = self.loaded.get(table.number, {}).get(number)
        if row is not None:
            self.locked.setdefault((table.number, number), (table, row))

    def table_of(self, number: int) -> Table:
        """By its number."""
        table = self.schema.by_number(number)
        if table is None:
            raise InternalError(f"no table has number {number}")
        return table

    def unload(self) -> None:
        """Take out the rows that the transaction hasn't written."""
        if not self.loaded:
            self.aside = None
            return
        if self.clean:
            self.work.end()
        else:
            for number, rows in self.loaded.items():
                kept = self.changes
                gone = [key for key in rows if (number, key) not in kept]
                if gone:
                    self.work.unload(self.table_of(number), gone)
        self.nothing_loaded()

    def nothing_loaded(self) -> None:
        """No row of the store is in the work area, or aside, any more."""
        self.loaded = {}
        self.partial.clear()
        self.aside = None

    def read_again(self, step: Step) -> list[bytes]:
        """The rows of a step alone."""
        found = self.reads.check(Request([step])).rows
        return found[0] if found else []

    def saw_all(self, steps: Sequence[Step], commits: Sequence[str]) -> None:
        """A serializable transaction has read these tables, as these commits had left them."""
        if self.serializable:
            for step, commit in zip(steps, commits, strict=True):
                self.saw(step.table, commit)

    def keys_given_back(self, tables: Iterable[int]) -> None:
        """Take for read what said that keys of new rows were free: the commit checks that only for
        rows that it inserts."""
        for table in tables:
            if table in self.free_then:
                self.reading_calls += 1
                self.saw(table, self.free_then[table])

    def saw(self, table: int, commit: str) -> None:
        """A serializable transaction has read a table as this commit had left it."""
        if self.seen_writes.setdefault(table, commit) != commit:
            raise ConflictError(
                "a table was changed since this serializable transaction read it; try again"
            )
