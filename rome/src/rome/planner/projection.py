"""The answer of a SELECT that only takes columns of one table, from rows as the store has them.

Such a statement needs no work area: the store has tested all its conditions, and what is
left is to choose columns, to put rows in order, and to count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

from rome.schema.tables import Table
from rome.stores.rows import decode, unpack_value
from rome.stores.values import sort_key

Row = tuple[Any, ...]


class Projection:
    """How rows become an answer.

    part: the slots of the only columns that come, or None.  columns: slots of the answer.
    order: slots, and whether descending.  counts: the plan's values of LIMIT and of OFFSET.
    """

    def __init__(
        self,
        table: Table,
        part: tuple[int, ...] | None,
        columns: Sequence[int],
        order: Sequence[tuple[int, bool]],
        counts: tuple[Any, ...],
    ) -> None:
        self.counts = counts
        self.number = table.number
        self._table = table
        self._part = part
        places = {slot: place for place, slot in enumerate(part)} if part else None
        self._order = [(places[slot] if places else slot, down) for slot, down in order]
        self._take = _taker([places[slot] if places else slot for slot in columns])

    def answer(self, encoded: Sequence[bytes], counts: Sequence[int]) -> list[Row]:
        """Return the result of row numbers and rows by turns; counts: LIMIT, OFFSET, if any."""
        rows = [self._decoded(row) for row in encoded[1::2]]
        if len(rows) > 1:
            # Without an ORDER BY as SQLite scans a table: by row number.
            by_number = sorted(zip(map(int, encoded[::2]), rows, strict=True), key=itemgetter(0))
            rows = [row for _, row in by_number]
            for place, descending in reversed(self._order):
                rows.sort(key=lambda row: sort_key(row[place]), reverse=descending)
        if counts:
            first = counts[1] if len(counts) > 1 else 0
            rows = rows[first : first + counts[0]]
        return [self._take(row) for row in rows]

    def _decoded(self, row: bytes) -> list[Any]:
        if self._part:
            values: list[Any] = unpack_value(row)
            return values
        values = decode(row)
        table = self._table
        if len(values) < table.full_width:
            values += [table.defaults.get(slot) for slot in range(len(values), table.full_width)]
        return values


def _taker(places: Sequence[int]) -> Callable[[list[Any]], Row]:
    if len(places) == 1:
        place = places[0]
        return lambda row: (row[place],)
    return itemgetter(*places)
