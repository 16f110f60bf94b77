"""Whether index entries and foreign keys agree with the rows, as of one moment.

For stores that show a whole database as of one moment and run no scripts: what check.py has done
page by page within Redis is done here, table by table.  Nothing is repaired.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from rome.admin.findings import Finding, Findings, index_name
from rome.schema.catalogue import Catalogue, Schema
from rome.schema.changes import order_place, split_with_defaults
from rome.schema.tables import ForeignKey, Index, OrderedIndex, Table, fold, parent_key
from rome.stores.base import ServerStore
from rome.stores.rows import NULL, unpack_value

# The columns of a table's rows, by row number.
_Rows = Mapping[int, list[bytes]]


class SteadyStore(ServerStore, Protocol):
    """A store that can show all of its reads as of one moment."""

    def one_moment(self) -> AbstractContextManager[None]:
        """Show rows and entries as they were when this was entered."""


def check_entries(store: SteadyStore, catalogue: Catalogue) -> Iterator[Finding]:
    """Yield all findings.  Raises ConflictError where it takes longer than the store remembers."""
    with store.one_moment():
        schema = catalogue.load(store)
        findings = Findings(schema, repair=False)
        tables = [table for table in schema.tables.values() if not table.is_view]
        for table in sorted(tables, key=lambda table: table.number):
            rows: dict[int, list[bytes]] = {}
            for number, row in store.scan(table.number):
                try:
                    rows[number] = split_with_defaults(table, row)
                except (ValueError, IndexError):
                    yield from _told(findings, "unreadable", table, 0, number, b"")
            for index in table.indexes:
                if not index.ready:
                    yield Finding(f"{index_name(table, index)}: the index isn't ready")
                    continue
                yield from _entries(store, findings, table, index, rows)
            for order in table.ordered:
                if order.ready:
                    yield from _members(store, findings, table, order, rows)
            for place, foreign in enumerate(table.foreign_keys):
                yield from _parents(store, findings, schema, table, (place, foreign), rows)


def _told(
    findings: Findings, kind: str, table: Table, place: int, number: int, data: bytes
) -> Iterator[Finding]:
    return findings.tell(kind.encode(), table.number, place, str(number).encode(), data)


def _entries(
    store: SteadyStore, findings: Findings, table: Table, index: Index, rows: _Rows
) -> Iterator[Finding]:
    expected = set()
    for number, parts in rows.items():
        own = [parts[slot] for slot in index.slots]
        if not index.unique or NULL not in own:
            expected.add((b"".join(own), number))
    there = set(store.entries(table.number, index.number, index.unique))
    for data, number in sorted(expected - there):
        yield from _told(findings, "missing", table, index.number, number, data)
    for data, number in sorted(there - expected):
        kind = "other" if number in rows else "gone"
        yield from _told(findings, kind, table, index.number, number, data)


def _members(
    store: SteadyStore, findings: Findings, table: Table, order: OrderedIndex, rows: _Rows
) -> Iterator[Finding]:
    expected: dict[bytes, int] = {}
    for number, parts in rows.items():
        values = (unpack_value(parts[slot]) for slot in order.slots)
        member = order_place(table, order, values, number)[1]
        expected[member.encode() if isinstance(member, str) else member] = number
    there = set(store.members(table.number, order.number))
    for member in sorted(expected.keys() - there):
        yield from _told(findings, "missing", table, order.number, expected[member], member)
    for member in sorted(there - expected.keys()):
        number = int(member.rpartition(b"\0")[2])
        kind = "other" if number in rows else "gone"
        yield from _told(findings, kind, table, order.number, number, member)


def _parents(
    store: SteadyStore,
    findings: Findings,
    schema: Schema,
    table: Table,
    foreign: tuple[int, ForeignKey],
    rows: _Rows,
) -> Iterator[Finding]:
    place, key = foreign
    parent = schema.tables.get(fold(key.parent))
    slots = parent_key(parent, key) if parent is not None else None
    if parent is None or slots is None:
        yield Finding(f"{table.name}: foreign key to {key.parent}: it has no such key")
        return
    keys: set[bytes] = set()
    for number, row in store.scan(parent.number):
        if slots == (parent.key,):
            keys.add(b"%d" % number)
        else:
            parts = split_with_defaults(parent, row)
            keys.add(b"".join(parts[slot] for slot in slots))
    for number, parts in rows.items():
        own = [parts[slot] for slot in key.slots]
        if NULL in own:
            continue
        data = b"".join(own)
        wanted = str(unpack_value(data)).encode() if slots == (parent.key,) else data
        if wanted not in keys:
            yield from _told(findings, "orphan", table, place, number, data)
