"""Building indexes of tables that have rows, and removing what the schema no longer has.

Writers keep an index from the moment at which the schema has it, so each row needs an entry only as
long as nobody writes it.  A page of rows is read, and its entries are put on the condition that no
row of the table was written since; where writers are too fast for that, on a condition for each
row.  Whoever builds changes a key of the table's (`build` in keys.py), so that commits which rely
on the table as a whole notice it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Any

from rome.errors import ConflictError
from rome.stores.base import Dropped, Duplicate, SchemaChanged
from rome.stores.etcd.commit import same_version
from rome.stores.etcd.connection import Wire
from rome.stores.etcd.keys import Keys, Span, unpack_number
from rome.stores.etcd.operations import (
    Compare,
    Delete,
    Found,
    KeyValue,
    Put,
    Range,
    Txn,
    is_absent,
    is_as_read,
    unpack_range,
)
from rome.stores.etcd.view import View, with_a_view
from rome.stores.etcd.writing import Writing
from rome.stores.rows import NULL, unpack_value
from rome.stores.sort_bytes import entry
from rome.stores.steps import column

# Rows of a page, and times that a page is tried as a whole.
_PAGE, _TRIES = 500, 3
# Times that the rows of a page are looked at again, each by itself.
_AGAIN = 50

# The key and the value of a row's entry (table, number, row); None: it has none.
Entry = Callable[[int, bytes], tuple[bytes, bytes] | None]


class Indexes:
    """What changes the indexes of one database beside commits."""

    def __init__(self, keys: Keys, wire: Wire, writing: Writing) -> None:
        self._keys = keys
        self._wire = wire
        self._writing = writing

    def build(
        self, table: int, index: int, slots: Sequence[int], unique: bool, defaults: Sequence[Any]
    ) -> None:
        """Enter all rows into a unique or a set index.  Raises Duplicate."""
        keys, by_slot = self._keys, dict(map(tuple, defaults))

        def entry_of(number: int, row: bytes) -> tuple[bytes, bytes] | None:
            parts = [column(row, slot, by_slot) for slot in slots]
            data = b"".join(parts)
            if not unique:
                return keys.member_of_set(table, index, data, number), b""
            if NULL in parts:
                return None
            return keys.unique(table, index, data), b"%d" % number

        self._enter(table, index, entry_of, unique)

    def build_ordered(
        self,
        table: int,
        index: int,
        slots: Sequence[int],
        key: int | None,
        defaults: Sequence[Any],
    ) -> None:
        """Enter all rows into an ordered index; key: the slot that is the row number."""
        keys, by_slot = self._keys, dict(map(tuple, defaults))

        def entry_of(number: int, row: bytes) -> tuple[bytes, bytes] | None:
            if tuple(slots) == (key,):
                return keys.place(table, index, str(number)), b""
            values = [unpack_value(column(row, slot, by_slot)) for slot in slots]
            return keys.place(table, index, entry(values, number)), b""

        self._enter(table, index, entry_of, False)

    # ------------------------------------------------------------ pages

    def _enter(self, table: int, index: int, entry_of: Entry, unique: bool) -> None:
        span = self._keys.rows(table)
        while span.start < span.end:
            for _ in range(_TRIES):
                rows, mark, more = self._page(table, span)
                if self._enter_page(table, index, rows, mark, entry_of, unique):
                    break
            else:
                rows, _, more = self._page(table, span)
                self._enter_singly(table, index, rows, entry_of, unique)
            if not more:
                return
            span = Span(rows[-1].key + b"\0", span.end)

    def _page(self, table: int, span: Span) -> tuple[list[KeyValue], int, bool]:
        """Return the first rows of a span, the revision of the table's last commit then, and
        whether there are more rows."""

        def look(view: View) -> list[Found]:
            return view.ask([Range.of(span, _PAGE), Range(self._keys.last_commit(table))])

        rows, last = with_a_view(self._wire, True, look)
        mark = last.pairs[0].revision if last.pairs else 0
        return rows.pairs, mark, rows.total > len(rows.pairs)

    def _entries(
        self, table: int, rows: Sequence[KeyValue], entry_of: Entry
    ) -> list[tuple[KeyValue, bytes, bytes]]:
        """Return rows that have an entry, each with its key and value."""
        start = len(self._keys.rows(table).start)
        entries = []
        for row in rows:
            made = entry_of(unpack_number(row.key[start:]), row.value)
            if made is not None:
                entries.append((row, *made))
        return entries

    def _enter_page(
        self,
        table: int,
        index: int,
        rows: Sequence[KeyValue],
        mark: int,
        entry_of: Entry,
        unique: bool,
    ) -> bool:
        """Put the entries of a page; False: the table was written since."""
        entries = self._entries(table, rows, entry_of)
        if unique:
            holders: dict[bytes, bytes] = {}
            for _, key, value in entries:
                if holders.setdefault(key, value) != value:
                    raise Duplicate(table, index, holders[key])
            found = with_a_view(
                self._wire, True, lambda view: view.ask([Range(key) for key in holders])
            )
            for value, answer in zip(holders.values(), found, strict=True):
                if answer.pairs and answer.pairs[0].value != value:
                    if self._is_written(table, mark):
                        return False
                    raise Duplicate(table, index, answer.pairs[0].value)
        written = is_as_read(self._keys.last_commit(table), mark)
        puts = [Put(key, value) for _, key, value in entries]
        return self._writing.write([written], [*puts, self._built(table)])

    def _is_written(self, table: int, mark: int) -> bool:
        """Tell whether a table was written since its last commit was that of a revision."""
        (last,) = View(self._wire, True).ask([Range(self._keys.last_commit(table))])
        return (last.pairs[0].revision if last.pairs else 0) != mark

    def _built(self, table: int) -> Put:
        return Put(self._keys.build(table), uuid.uuid4().hex.encode())

    def _enter_singly(
        self, table: int, index: int, rows: Sequence[KeyValue], entry_of: Entry, unique: bool
    ) -> None:
        """Put the entry of each row that nobody has written since; who has, has put it."""
        waiting = list(rows)
        size = self._wire.server.txn_ops // 2 - 1
        for _ in range(_AGAIN):
            left: list[bytes] = []
            entries = self._entries(table, waiting, entry_of)
            for start in range(0, len(entries), size):
                part = entries[start : start + size]
                left += self._enter_some(table, index, part, unique)
            if not left:
                return
            found = View(self._wire, True).ask([Range(key) for key in left])
            waiting = [answer.pairs[0] for answer in found if answer.pairs]
        raise ConflictError("an index is built over rows that are written all the time; try again")

    def _enter_some(
        self,
        table: int,
        index: int,
        entries: Sequence[tuple[KeyValue, bytes, bytes]],
        unique: bool,
    ) -> list[bytes]:
        """Put entries on a condition each; return the keys of rows to be looked at again."""
        inner = []
        for row, key, value in entries:
            conditions: list[Compare] = [is_as_read(row.key, row.revision)]
            if unique:
                conditions.append(is_absent(key))
            asked = [Range(row.key), Range(key)] if unique else []
            inner.append(Txn(conditions, [Put(key, value)], asked))
        answer = self._writing.send(Txn((), [*inner, self._built(table)]))
        again = []
        for (row, _, value), response in zip(
            entries, answer.get("responses", ())[: len(entries)], strict=True
        ):
            done = response.get("response_txn", {})
            if done.get("succeeded") or not unique:
                continue
            now, holder = (
                unpack_range(one.get("response_range", {})) for one in done.get("responses", ())
            )
            if not now.pairs or now.pairs[0].revision != row.revision:
                continue  # whoever has written it keeps its entry
            if holder.pairs and holder.pairs[0].value != value:
                raise Duplicate(table, index, holder.pairs[0].value)
            if not holder.pairs:
                again.append(row.key)
        return again

    # ------------------------------------------------------------ removing

    def remove(self, version: str, dropped: Sequence[Dropped]) -> None:
        """Remove what the schema of a version no longer has.  Raises SchemaChanged."""
        keys = self._keys
        gone: list[Delete] = []
        for one in dropped:
            for kind, indexes in (
                ("set", [index for index, _ in one.sets]),
                ("unique", one.unique),
                ("order", one.ordered),
            ):
                gone += [Delete(*keys.whole(kind, one.table, index)) for index in indexes]
            if one.whole:
                gone.append(Delete(*keys.rows(one.table)))
                gone.append(Delete(keys.counter(str(one.table))))
                gone += [Delete(keys.last_commit(one.table)), Delete(keys.build(one.table))]
        size = self._wire.server.txn_ops - 1
        for start in range(0, len(gone), size):
            if not self._writing.write([same_version(keys, version)], gone[start : start + size]):
                raise SchemaChanged
