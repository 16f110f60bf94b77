"""The rows in the work area: those of the store that a statement reads, beside those that the
transaction has written."""

from __future__ import annotations

from collections.abc import Sequence

from rome.engine.reads import ReadRequest, Reads, compares_keys, own_row
from rome.engine.session import Session
from rome.errors import ConflictError, InternalError
from rome.planner.plan import BoundPlan
from rome.schema.catalogue import Schema
from rome.schema.changes import Change
from rome.schema.tables import Table
from rome.stores.wire import Step

# Begins the message of a conflict over the number of a new row.
NUMBER_TAKEN = "another transaction has taken the number of a new row"


class InconsistentRead(Exception):
    """Rows of the store don't fit beside those that are here: other moments', or the
    transaction's own.

    table: its number.  rows: the ones that found no place, numbers and rows by turns.
    """

    def __init__(self, table: int, rows: list[bytes]) -> None:
        super().__init__(table)
        self.table = table
        self.rows = rows


class WorkingSet:
    """Brings rows into the work area, and takes them out."""

    def __init__(self, session: Session, reads: Reads) -> None:
        self._session = session
        self._reads = reads

    def use(self, schema: Schema) -> None:
        """Take another version of the schema, where nothing is written."""
        overlay = self._session.overlay
        overlay.used.clear()  # a table's number may be another one now
        self._session.work.use(schema)
        overlay.nothing_loaded()

    def prepare(self, tables: Sequence[Table]) -> None:
        """Take out the rows of the last statement, and make tables for the next one."""
        self.unload()
        self._session.work.ensure(tables, self._session.overlay.clean)

    def fetch(self, steps: Sequence[Step], bound: BoundPlan) -> None:
        """Read the rows of these steps, and have no others but the transaction's own."""
        self.prepare(bound.tables)
        request = ReadRequest(list(steps), list(steps), False, False)
        if not bound.reads_only:
            request.hold = compares_keys(bound, steps)
            request.row = own_row(bound, steps)
        answer = self._reads.read(request)
        if self._session.serializable:
            self._session.overlay.saw_all(steps, answer.commits)
        self.bring_in(steps, answer.rows or [])

    def bring_in(self, steps: Sequence[Step], row_lists: Sequence[list[bytes]]) -> None:
        """Put rows that were read into the work area."""
        self._session.work.begin()
        for step, rows in zip(steps, row_lists, strict=True):
            if rows:
                self.load(step.table, rows, step.columns)

    def flush(self) -> None:
        """Put the rows that were inserted plainly into the work area."""
        session, overlay = self._session, self._session.overlay
        if not overlay.pending:
            return
        session.work.begin()
        by_table: dict[int, list[Change]] = {}
        for change in overlay.pending:
            by_table.setdefault(change.table.number, []).append(change)
        for changes in by_table.values():
            table = changes[0].table
            rows = [(change.number, change.row or ()) for change in changes]
            session.work.ensure([table], clean=False)
            if not session.work.put(table, rows):
                # Rows that an earlier statement has read hold keys that were free since.
                self.unload()
                session.work.put(table, rows)
                if not all(session.work.has(table, number) for number, _ in rows):
                    raise InternalError(f"a new row of table {table.name} finds no place")
        overlay.pending = []

    def load(self, number: int, rows: list[bytes], slots: tuple[int, ...] | None = None) -> None:
        """Put in rows of one table as the store gives them: numbers and rows by turns.

        `slots`: the only columns that came.  Raises ConflictError where another transaction has
        given a number to a row that this one has given to a new row, and InconsistentRead where a
        row finds no place beside those that are here.
        """
        work, overlay = self._session.work, self._session.overlay
        table = self._session.table_of(number)
        here = overlay.loaded.setdefault(number, {})
        new = []
        for key, row in zip(map(int, rows[::2]), rows[1::2], strict=True):
            change = overlay.changes.get((number, key))
            if change is not None:
                if change.base is None:
                    raise ConflictError(f"{NUMBER_TAKEN}: {table.name} {key}; try again")
            elif key not in here:
                new.append((key, row))
        if not new:
            return
        whole = work.load(table, new, slots)
        present = new if whole else [(key, row) for key, row in new if work.has(table, key)]
        here.update(present)
        overlay.ever_loaded.add(number)
        overlay.statement_loaded += [(number, key) for key, _ in present]
        if slots is not None:
            overlay.partial.add(number)
        if not whole:
            self._left_out(table, [(key, row) for key, row in new if key not in here], slots)

    def _left_out(
        self, table: Table, rows: list[tuple[int, bytes]], slots: tuple[int, ...] | None
    ) -> None:
        """Raise the reason for which the work area didn't take rows of the store."""
        for number, row in rows if slots is None else ():
            broken = self._session.work.why_left_out(table, number, row)
            if broken is not None:
                raise InternalError(
                    f"row {number} of table {table.name} is not as the schema demands: {broken}"
                )
        left_out = [part for key, row in rows for part in (str(key).encode(), row)]
        raise InconsistentRead(table.number, left_out)

    def unload(self) -> None:
        """Take out the rows that the transaction hasn't written."""
        session, overlay = self._session, self._session.overlay
        if not overlay.loaded:
            overlay.aside = None
            return
        if overlay.clean:
            session.work.end()
        else:
            for number, rows in overlay.loaded.items():
                gone = [key for key in rows if (number, key) not in overlay.changes]
                if gone:
                    session.work.unload(session.table_of(number), gone)
        overlay.nothing_loaded()
