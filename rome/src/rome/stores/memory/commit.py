"""The checks of a commit over the rows in memory."""

from __future__ import annotations

from typing import Any

from rome.stores.base import Changed, Commit, Duplicate
from rome.stores.memory.database import Database
from rome.stores.memory.order import Order
from rome.stores.steps import changed_row


def verify(base: Database, commit: Commit) -> list[bytes | None]:
    """Return the rows as they will be.  Raises Changed, Duplicate."""
    freed = {
        (write["t"], index, data): write["n"].encode()
        for write in commit.writes
        for index, data in write["unique_del"]
    }
    new_rows: list[bytes | None] = []
    for write in commit.writes:
        table, number = write["t"], write["n"].encode()
        stored = base.rows.get(table, {})
        if write["op"] == "insert":
            if number in stored:
                raise Duplicate(table, -1, number)
            new_rows.append(write["row"])
        else:
            if number not in stored:
                raise Changed(table, number)
            row = changed_row(stored[number], write)
            if row is None:
                raise Changed(table, number)
            new_rows.append(None if write["op"] == "delete" else row)
        for index, data in write["unique_add"]:
            holder = base.unique.get((table, index), {}).get(data)
            if holder not in (None, number, freed.get((table, index, data))):
                raise Duplicate(table, index, holder or b"")
    for kind, table, index, key in commit.exists:
        if not base.numbers(table, kind, index, [key]) or (
            kind == "row" and key.encode() not in base.rows.get(table, {})
        ):
            raise Changed(table, key)
    for kind, table, index, own_numbers, key in commit.childless:
        holders = base.numbers(table, kind, index, [key])
        if kind == "row":
            holders = [number for number in holders if number in base.rows.get(table, {})]
        if not set(holders) <= {number.encode() for number in own_numbers}:
            raise Changed(table, key)
    for table, count in commit.reads:
        if base.writes.get(table, "0") != count:
            raise Changed(table, count)
    return new_rows


def take_entries(base: Database, write: dict[str, Any]) -> None:
    """Take out the index entries that a write gives up."""
    number = write["n"].encode()
    for index, data in write["unique_del"]:
        entries = base.unique.setdefault((write["t"], index), {})
        if entries.get(data) == number:
            del entries[data]
    for index, data in write["set_del"]:
        sets = base.sets.setdefault((write["t"], index), {})
        sets.get(data, set()).discard(number)
        if not sets.get(data):
            sets.pop(data, None)
    for index, member in write["order_del"]:
        base.ordered.setdefault((write["t"], index), Order()).remove(member)
