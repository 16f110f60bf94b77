"""The numbers of rows that a transaction writes: given by ROME, or chosen by the application."""

from __future__ import annotations

import apsw

from rome.engine.calls import Call
from rome.engine.session import Session
from rome.engine.working_set import NUMBER_TAKEN
from rome.errors import ConflictError, DataError
from rome.schema.changes import Change, Key, Row
from rome.schema.tables import Table

# Row numbers go through doubles in the store's scripts.
LARGEST_NUMBER = 2**53


class RowNumbers:
    """Gives numbers to new rows; a retried statement gets those that it had."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def take(self, call: Call, table: Table, count: int, above: int = 0) -> int:
        """Return the first of `count` numbers in a row, all greater than `above`."""
        session = self._session
        if call.given < len(call.taken):
            _, first, had = call.taken[call.given]
            if had < count:
                raise ConflictError("a retried statement inserts more rows; try again")
        else:
            first = session.ids.take(table.number, count, above, session.store.reserve)
            call.taken.append((table.number, first, count))
        call.given += 1
        return first

    def steer(self, call: Call, table: Table, count: int) -> int:
        """Make SQLite number new rows with numbers of ROME's, and return the first of them."""
        work = self._session.work
        is_retry = call.given < len(call.taken)
        first = self.take(call, table, count, 0 if is_retry else work.highest(table))
        work.set_sequence(table, first - 1)
        return first

    def renumber(
        self, call: Call, table: Table, rows: dict[int, Row | None], touched: dict[Key, bool]
    ) -> None:
        """Give new rows, by SQLite's numbers, numbers that no other row has or had."""
        session, overlay = self._session, self._session.overlay
        overlay.reworked.add(table.number)
        first = self.take(call, table, len(rows))
        numbers = list(range(first, first + len(rows)))
        try:
            session.work.renumber(table, list(zip(rows, numbers, strict=True)))
        except apsw.ConstraintError:
            session.ids.forget(table.number)
            raise ConflictError(f"{NUMBER_TAKEN} of table {table.name}; try again") from None
        for number, row in zip(numbers, rows.values(), strict=True):
            overlay.put(Change(table, number, None, row))
            touched[table.number, number] = True

    def choose(self, table: Table, number: int) -> None:
        """Note a number that the application chose itself."""
        if abs(number) > LARGEST_NUMBER:
            raise DataError(
                f"{table.name}.{table.names([table.key or 0])[0]}: {number} is too large a key;"
                f" the largest is {LARGEST_NUMBER}"
            )
        used = self._session.overlay.used
        used[table.number] = max(used.get(table.number, 0), number)
        self._session.ids.passed(table.number, number)
