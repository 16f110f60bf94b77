"""Rows that a transaction has written, and what a commit says of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rome.schema.tables import Index, OrderedIndex, Table
from rome.stores.rows import NULL, encode, pack_value, split, unpack_value
from rome.stores.sort_bytes import entry

Row = tuple[Any, ...]
Key = tuple[int, int]  # table number, row number


@dataclass(slots=True)
class Change:
    """A row that the transaction has written: as it was in the store, and as it is.

    base: its bytes in the store when they were read; None: it is a new one.  row: its values by
    column; None: it is gone.  replaced: the row of the store was deleted and another one has got
    its number, so no column of the former may stay.  moved: its values went on under another
    number, so none of them may have been changed meanwhile.

    A later state of the row is another `Change`: no one alters this one.
    """

    table: Table
    number: int
    base: bytes | None
    row: Row | None
    replaced: bool = False
    moved: bool = False
    _before: list[bytes] | None = None

    def followed_by(self, row: Row | None, moved: bool = False) -> Change:
        """Return the row's next state."""
        replaced = self.replaced or (self.row is None and row is not None)
        return Change(
            self.table, self.number, self.base, row, replaced, self.moved or moved, self._before
        )

    @property
    def values(self) -> Row | None:
        """The row as SQLite reads it."""
        return None if self.row is None else _clean_row(self.table, self.row)

    @property
    def before(self) -> list[bytes] | None:
        """The bytes of each column in the store."""
        if self._before is None and self.base is not None:
            self._before = split_with_defaults(self.table, self.base)
        return self._before

    @property
    def values_before(self) -> list[Any]:
        """The values by slot in the store."""
        return [unpack_value(data) for data in self.before or ()]


def write_of(change: Change, relied: set[int] | None, assigned: set[int]) -> dict[str, Any] | None:
    """Return what a commit does about a row; None: nothing.

    relied: slots whose old values the statements used (None: all); assigned: those that
    they set.
    """
    table, base = change.table, change.base
    row = change.values
    if base is None:
        if row is None:
            return None
        write = blank_write("insert", table, change.number, [])
        write["row"] = encode(table.row(row))
        for index in table.indexes:
            data = index_data(table, index, row)
            if data is not None:
                write["unique_add" if index.unique else "set_add"].append([index.number, data])
        by_slot = row if table.plain else table.row(row)
        for order in table.ordered:
            values = (by_slot[slot] for slot in order.slots)
            place = order_place(table, order, values, change.number)
            write["order_add"].append([order.number, *place])
        return write
    before = change.before or []
    if relied is None or change.moved:
        relied = set(range(len(before)))
    if row is None:
        write = blank_write("delete", table, change.number, [])
        checked = set(relied)
        for index in table.indexes:
            checked.update(index.slots)
            data = b"".join(before[slot] for slot in index.slots)
            if index.unique:
                if all(before[slot] != NULL for slot in index.slots):
                    write["unique_del"].append([index.number, data])
            else:
                write["set_del"].append([index.number, data])
        for order in table.ordered:
            checked.update(order.slots)
            values = (unpack_value(before[slot]) for slot in order.slots)
            place = order_place(table, order, values, change.number)
            write["order_del"].append([order.number, place[1]])
        write["checks"] = [[slot, before[slot]] for slot in sorted(checked)]
        return write
    after = [pack_value(value) for value in table.row(row)]
    live = [slot for slot in range(len(after)) if table.slots[slot] is not None]
    changed = {slot for slot in live if after[slot] != before[slot]}
    write = blank_write("update", table, change.number, [])
    write["deltas"] = [[slot, after[slot]] for slot in live if change.replaced or slot in changed]
    # A column that was set to what it was: another's value in it must not stay.
    checked = relied | (assigned - changed)
    for index in table.indexes:
        if change.replaced:
            # Its entries follow from the former row, as those of a deleted row do.
            checked.update(index.slots)
        if changed.isdisjoint(index.slots):
            continue
        checked.update(index.slots)
        old = b"".join(before[slot] for slot in index.slots)
        new = b"".join(after[slot] for slot in index.slots)
        if not index.unique:
            write["set_del"].append([index.number, old])
            write["set_add"].append([index.number, new])
            continue
        if all(before[slot] != NULL for slot in index.slots):
            write["unique_del"].append([index.number, old])
        if all(after[slot] != NULL for slot in index.slots):
            write["unique_add"].append([index.number, new])
    for order in table.ordered:
        if change.replaced:
            checked.update(order.slots)
        if changed.isdisjoint(order.slots) or order.slots == (table.key,):
            continue
        checked.update(order.slots)
        values = (unpack_value(before[slot]) for slot in order.slots)
        place = order_place(table, order, values, change.number)
        write["order_del"].append([order.number, place[1]])
        values = (unpack_value(after[slot]) for slot in order.slots)
        place = order_place(table, order, values, change.number)
        write["order_add"].append([order.number, *place])
    write["checks"] = [[slot, before[slot]] for slot in sorted(checked)]
    return write


def blank_write(op: str, table: Table, number: int, checks: list[list[Any]]) -> dict[str, Any]:
    """Return a write of `Commit` (stores/base.py) without any entries."""
    return {
        "op": op,
        "t": table.number,
        "n": str(number),
        "checks": checks,
        "defaults": table.packed_defaults,
        "width": table.full_width,
        "deltas": [],
        "unique_add": [],
        "unique_del": [],
        "set_add": [],
        "set_del": [],
        "order_add": [],
        "order_del": [],
    }


def whole_row(row: bytes) -> list[list[Any]]:
    """Return checks that a row is just this one."""
    return [[slot, data] for slot, data in enumerate(split(row))]


def _clean_row(table: Table, row: Row) -> Row:
    """Return a row as SQLite reads it: its hook shows whole numbers in REAL columns as integers."""
    if table.has_reals:
        return tuple(
            float(value) if column.affinity == "REAL" and type(value) is int else value
            for column, value in zip(table.columns, row, strict=True)
        )
    return row


def index_data(table: Table, index: Index, row: Row) -> bytes | None:
    """Return the bytes of an index's columns; None: a unique index doesn't hold a row with NULL."""
    by_slot = row if table.plain else table.row(row)
    values = [by_slot[slot] for slot in index.slots]
    if index.unique and None in values:
        return None
    return b"".join(map(pack_value, values))


def order_place(
    table: Table, order: OrderedIndex, values: Iterable[Any], number: int
) -> tuple[str, str | bytes]:
    """Give a row's place in an ordered index: score and member (stores/base.py).

    values: of the index's columns.
    """
    if order.slots == (table.key,):
        return str(number), str(number)
    return "0", entry(values, number)


def split_with_defaults(table: Table, row: bytes) -> list[bytes]:
    """Return the bytes of each column, also of those that are younger than the row."""
    parts = split(row)
    if len(parts) < table.full_width:
        defaults = dict(map(tuple, table.packed_defaults))
        parts += [defaults.get(slot, NULL) for slot in range(len(parts), table.full_width)]
    return parts
