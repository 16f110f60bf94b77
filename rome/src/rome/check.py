"""Whether what a database in Redis keeps beside the rows agrees with the rows.

Index entries, constraints, the counter of row numbers, and keys that belong to nothing.
Pages of rows or entries are looked at by a script each, so that writers may go on; what
can be repaired from the rows is repaired within the same script.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgpack

from rome import rows
from rome.catalogue import Catalogue, Schema
from rome.errors import IntegrityError
from rome.schema import ForeignKey, Index, Table
from rome.stores.redis_store import RedisStore

_SETS_AT_ONCE = 200
_REPAIRABLE = ("missing", "gone", "other")
_KEY = re.compile(
    rb"(?:(meta|schema|ids|writes)|[ts]:[0-9a-f]+|(?:scan|log)\d+|([rui])(\d+)(?:\.(\d+)(:)?)?)",
    re.S,
)


@dataclass(frozen=True)
class Finding:
    """Something wrong, in one line; `repaired`: it no longer is."""

    text: str
    repaired: bool = False


def check(store: RedisStore, catalogue: Catalogue, repair: bool = False) -> Iterator[Finding]:
    """All findings.  Raises SchemaChanged when the schema is changed meanwhile."""
    catalogue.load(store)
    yield from _unready(store, catalogue, repair)
    schema = catalogue.schema
    checker = _Checker(store, catalogue, schema, repair)
    for table in schema.tables.values():
        if not table.is_view:
            yield from checker.table(table)
    yield from checker.keys()


def _unready(store: RedisStore, catalogue: Catalogue, repair: bool) -> Iterator[Finding]:
    """Indexes that are being built, or whose builder has died."""
    waiting = [
        f"{_index_name(table, index)}: the index isn't ready"
        for table in catalogue.schema.tables.values()
        for index in table.indexes
        if not index.ready
    ]
    problem = ""
    if waiting and repair:
        try:
            catalogue.finish(store)
        except IntegrityError as error:
            problem = f": {error}"
    for text in waiting:
        yield Finding(text + problem, repaired=repair and not problem)


class _Checker:
    def __init__(
        self, store: RedisStore, catalogue: Catalogue, schema: Schema, repair: bool
    ) -> None:
        self._store = store
        self._catalogue = catalogue
        self._schema = schema
        self._repair = repair
        self._token = uuid.uuid4().hex
        self._seen: set[tuple[Any, ...]] = set()

    def _examine(self, mode: str, **more: Any) -> list[Any]:
        request = {"mode": mode, "version": self._schema.version, "repair": self._repair}
        return self._store.examine({**request, "token": self._token, **more})

    # ------------------------------------------------------------ rows

    def table(self, table: Table) -> Iterator[Finding]:
        """Rows against entries, unique entries against rows, the counter of numbers."""
        yield from self._values(table)
        parents = [self._parent(table, foreign) for foreign in table.foreign_keys]
        for foreign, parent in zip(table.foreign_keys, parents, strict=True):
            if parent is None:
                yield Finding(f"{table.name}: foreign key to {foreign.parent}: it has no such key")
        checked = [(place, parent) for place, parent in enumerate(parents) if parent is not None]
        request = {
            "t": table.number,
            "fills": table.packed_fills,
            "key": False if table.key is None else table.key,
            "not_null": self._not_null(table),
            "indexes": [[i.number, list(i.slots), i.unique] for i in table.indexes if i.ready],
            "parents": [parent for _, parent in checked],
        }
        highest = 0
        cursor = b"0"
        while True:
            found, cursor, last, _ = self._examine("rows", cursor=cursor, **request)
            highest = max(highest, int(last))
            for kind, number, place, row, data in found:
                if kind == b"orphan":
                    place = checked[place][0]
                yield from self._told(kind, number, place, row, data)
            if cursor == b"0":
                break
        yield from self._counter(table, highest)
        for index in table.indexes:
            if index.unique and index.ready:
                yield from self._unique(table, index)

    def _unique(self, table: Table, index: Index) -> Iterator[Finding]:
        cursor = b"0"
        while True:
            found, cursor = self._examine(
                "unique",
                t=table.number,
                index=index.number,
                slots=list(index.slots),
                fills=table.packed_fills,
                cursor=cursor,
            )
            for finding in found:
                yield from self._told(*finding)
            if cursor == b"0":
                return

    def _values(self, table: Table) -> Iterator[Finding]:
        """Values that can't be read, or have other bytes than index entries rely on."""
        for number, row in self._store.scan(table.number):
            try:
                parts = rows.split(row)
                good = len(parts) <= table.full_width and all(
                    rows.pack_value(rows.unpack_value(part)) == part for part in parts
                )
            except Exception:  # whatever the bytes may be
                good = False
            if not good:
                yield from self._told(b"unreadable", table.number, 0, str(number).encode(), b"")

    def _counter(self, table: Table, highest: int) -> Iterator[Finding]:
        given = self._store.highest(table.number)
        if given < highest:
            if self._repair:
                self._amend(highest=[[str(table.number), str(highest)]])
            yield Finding(
                f"{table.name}: row {highest} exists, but numbers were given out to {given} only",
                repaired=self._repair,
            )

    def _not_null(self, table: Table) -> list[int]:
        sql = 'SELECT name FROM pragma_table_info(?) WHERE "notnull"'
        names, _ = self._catalogue.query(sql, (table.name,))
        columns = [table.column(name) for (name,) in names]
        return [column.slot for column in columns if column is not None]

    def _parent(self, table: Table, foreign: ForeignKey) -> list[Any] | None:
        """How the script finds a row's parent: slots, kind, table, index."""
        parent = self._schema.tables.get(foreign.parent.lower())
        if parent is None:
            return None
        names = foreign.parent_columns
        slots: tuple[int, ...]
        if names[0]:
            columns = [parent.column(name) for name in names]
            slots = tuple(column.slot for column in columns if column is not None)
        elif parent.key is not None:
            slots = (parent.key,)
        else:
            slots = next((index.slots for index in parent.indexes if index.unique), ())
        if len(slots) != len(foreign.slots):
            return None
        if slots == (parent.key,):
            return [list(foreign.slots), "row", parent.number, 0]
        index = parent.find_index(slots, unique=True) or parent.find_index(slots)
        if index is None or not index.ready:
            return None
        kind = "unique" if index.unique else "set"
        return [list(foreign.slots), kind, parent.number, index.number]

    # ------------------------------------------------------------ keys

    def keys(self) -> Iterator[Finding]:
        """Sets against rows, and keys and fields that belong to no table."""
        tables = {t.number: t for t in self._schema.tables.values() if not t.is_view}
        sets: list[list[Any]] = []
        left: dict[str, list[bytes]] = {}
        for key in self._store.key_names():
            name = key[len(self._store.prefix) :]
            match = _KEY.match(name)
            if match is None:
                left.setdefault(name.decode(errors="replace")[:40], []).append(key)
                continue
            if match[2] is None:
                continue
            table = tables.get(int(match[3]))
            index = self._index(table, match)
            if table is None or (match[2] != b"r" and index is None):
                group = name[: match.end(4) if match[4] else match.end(3)]
                left.setdefault(group.decode(), []).append(key)
            elif match[2] == b"i" and index is not None and index.ready:
                slots = list(index.slots)
                data = name[match.end() :]
                sets.append([table.number, index.number, slots, table.packed_fills, data, b"0"])
                if len(sets) >= _SETS_AT_ONCE:
                    yield from self._sets(sets)
                    sets = []
        yield from self._sets(sets)
        yield from self._left(left)
        yield from self._fields(tables)

    @staticmethod
    def _index(table: Table | None, match: re.Match[bytes]) -> Index | None:
        if table is None or match[4] is None:
            return None
        unique = match[2] == b"u"
        return next(
            (i for i in table.indexes if i.number == int(match[4]) and i.unique == unique), None
        )

    def _sets(self, sets: list[list[Any]]) -> Iterator[Finding]:
        while sets:
            found, cursors = self._examine("sets", sets=sets)
            for finding in found:
                yield from self._told(*finding)
            for entry, cursor in zip(sets, cursors, strict=True):
                entry[5] = cursor
            sets = [entry for entry in sets if entry[5] != b"0"]

    def _left(self, left: dict[str, list[bytes]]) -> Iterator[Finding]:
        for group, keys in sorted(left.items()):
            for start in range(0, len(keys), 500) if self._repair else ():
                self._amend(keys=keys[start : start + 500])
            many = f"{len(keys)} keys" if len(keys) > 1 else "a key"
            yield Finding(f"{group}: {many} of no table or index", repaired=self._repair)

    def _fields(self, tables: dict[int, Table]) -> Iterator[Finding]:
        known = {str(number) for number in tables} | {"tables"}
        for name in ("ids", "writes"):
            lost = sorted(set(self._store.fields(name)) - known)
            if lost and self._repair:
                self._amend(fields=[[name, field] for field in lost])
            for field in lost:
                yield Finding(f"{name}: {field} is the number of no table", repaired=self._repair)

    def _amend(
        self,
        highest: Iterable[list[str]] = (),
        keys: Iterable[bytes] = (),
        fields: Iterable[list[str]] = (),
    ) -> None:
        self._examine("amend", highest=list(highest), keys=list(keys), fields=list(fields))

    # ------------------------------------------------------------ words

    def _told(
        self, kind: bytes, number: int, place: int, row: bytes, data: bytes
    ) -> Iterator[Finding]:
        """A finding of the script, once."""
        if (kind, number, place, row, data) in self._seen:
            return  # HSCAN may come by twice
        self._seen.add((kind, number, place, row, data))
        table = self._schema.by_number(number)
        if table is None:
            return
        what = kind.decode()
        n = row.decode(errors="replace")
        repaired = self._repair and what in _REPAIRABLE
        if what == "unreadable":
            text = f"{table.name}: row {n} can't be read"
        elif what == "number":
            text = f"{table.name}: row {n} holds another number as its key"
        elif what == "null":
            text = f"{table.name}: row {n} has NULL in {table.names([place])[0]}, against NOT NULL"
        elif what == "orphan":
            foreign = table.foreign_keys[place]
            names = ", ".join(table.names(foreign.slots))
            text = (
                f"{table.name} ({names}): row {n} refers to {_shown(data)},"
                f" which {foreign.parent} doesn't have"
            )
        else:
            index = next(i for i in table.indexes if i.number == place)
            name = _index_name(table, index)
            text = {
                "missing": f"{name}: row {n} isn't found by {_shown(data)}",
                "twice": f"{name}: row {n} has {_shown(data)}, as another row has",
                "gone": f"{name}: {_shown(data)} leads to row {n}, which doesn't exist",
                "other": f"{name}: {_shown(data)} leads to row {n}, which has another value",
            }[what]
        yield Finding(text, repaired)


def _index_name(table: Table, index: Index) -> str:
    return f"{table.name} ({', '.join(table.names(index.slots))})"


def _shown(data: bytes) -> str:
    """The values of a key, not too long."""
    try:
        unpacker = msgpack.Unpacker(raw=False)
        unpacker.feed(data)
        text = ", ".join(map(repr, unpacker))
    except Exception:  # whatever the bytes may be
        text = data.hex()
    return text if len(text) <= 60 else text[:57] + "..."
