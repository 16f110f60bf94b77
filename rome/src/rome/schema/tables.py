"""Tables as ROME knows them: the SQL that made them, and what of it the store keeps.

SQLite itself reads the SQL: a database without rows holds all tables, runs DDL, answers
reflection, and is asked for columns, keys and indexes.  An entry of the store's schema has
the SQL of one table and of its indexes, and what is not in the SQL: the number under which
rows are kept, the place (slot) of each column in a row, and the numbers of its indexes in
the store.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import apsw
import msgpack

from rome.errors import InternalError, NotSupportedError
from rome.stores.rows import Value, pack_value


@dataclass(frozen=True)
class Column:
    """A column: `affinity` is SQLite's (INTEGER, REAL, NUMERIC, TEXT, BLOB)."""

    name: str
    affinity: str
    slot: int
    binary: bool  # compared byte by byte, as index entries are
    required: bool  # NOT NULL


@dataclass(frozen=True)
class Index:
    """An index in the store: over the columns at `slots`.  `ready` once all rows are in it."""

    number: int
    slots: tuple[int, ...]
    unique: bool
    ready: bool = True


@dataclass(frozen=True)
class OrderedIndex:
    """An index in the store that has the rows in the order of the columns at `slots`."""

    number: int
    slots: tuple[int, ...]
    ready: bool = True


@dataclass(frozen=True)
class ForeignKey:
    """Columns at `slots` hold the values of columns of a parent."""

    slots: tuple[int, ...]
    parent: str
    parent_columns: tuple[str, ...]
    on_update: str
    on_delete: str


@dataclass(frozen=True)
class Table:
    """One table (or a view: number 0, no columns)."""

    name: str
    number: int
    sql: str
    index_sql: Mapping[str, str] = field(default_factory=dict)
    slots: tuple[str | None, ...] = ()  # the column at each place; None: it was dropped
    defaults: Mapping[int, Value] = field(default_factory=dict)  # for rows older than a column
    columns: tuple[Column, ...] = ()
    key: int | None = None  # slot of the INTEGER PRIMARY KEY, which is the row number
    primary: tuple[int, ...] = ()  # slots of the primary key, of whatever kind
    indexes: tuple[Index, ...] = ()
    ordered: tuple[OrderedIndex, ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()
    top: int = 0  # the highest number that an index ever had: none is used again

    @property
    def all_indexes(self) -> list[Index | OrderedIndex]:
        """Those for values, and those for order."""
        return [*self.indexes, *self.ordered]

    @property
    def is_ready(self) -> bool:
        """Whether all rows are in each of its indexes."""
        return all(index.ready for index in self.all_indexes)

    def with_ready(self, numbers: Container[int] | None = None) -> Table:
        """Return the table with its indexes, or those of these numbers, noted as ready."""

        def is_one(index: Index | OrderedIndex) -> bool:
            return numbers is None or index.number in numbers

        return replace(
            self,
            indexes=tuple(replace(i, ready=True) if is_one(i) else i for i in self.indexes),
            ordered=tuple(replace(i, ready=True) if is_one(i) else i for i in self.ordered),
        )

    @property
    def is_view(self) -> bool:
        """Whether it has no rows of its own."""
        return self.number == 0

    def column(self, name: str) -> Column | None:
        """Return a column by name, as SQL compares names."""
        return self._by_name.get(fold(name))

    def __post_init__(self) -> None:
        by_name = {fold(column.name): column for column in self.columns}
        object.__setattr__(self, "_by_name", by_name)
        object.__setattr__(self, "column_slots", tuple(column.slot for column in self.columns))
        defaults = [[slot, pack_value(value)] for slot, value in self.defaults.items()]
        object.__setattr__(self, "packed_defaults", defaults)
        object.__setattr__(self, "plain", self.column_slots == tuple(range(len(self.slots))))
        object.__setattr__(self, "full_width", len(self.slots))
        checked = re.search(r"\bCHECK\b", self.sql, re.IGNORECASE) is not None
        object.__setattr__(self, "checked", checked)
        reals = any(column.affinity == "REAL" for column in self.columns)
        object.__setattr__(self, "has_reals", reals)

    # Set once, as they are asked for at each statement.
    _by_name: dict[str, Column] = field(init=False, repr=False, compare=False)
    column_slots: tuple[int, ...] = field(init=False, repr=False, compare=False)
    packed_defaults: list[list[Any]] = field(init=False, repr=False, compare=False)
    plain: bool = field(init=False, repr=False, compare=False)
    full_width: int = field(init=False, repr=False, compare=False)
    has_reals: bool = field(init=False, repr=False, compare=False)
    checked: bool = field(init=False, repr=False, compare=False)  # it may have CHECKs

    def names(self, slots: Iterable[int]) -> list[str]:
        """Return names of the columns at these places."""
        return [self.slots[slot] or "" for slot in slots]

    def values(self, decoded: list[Any]) -> list[Any]:
        """Return the columns' values in the order of the columns, of a decoded row."""
        if len(decoded) < self.full_width:
            defaults = self.defaults
            decoded += [defaults.get(slot) for slot in range(len(decoded), self.full_width)]
        return decoded if self.plain else [decoded[slot] for slot in self.column_slots]

    def row(self, values: Iterable[Value]) -> list[Value]:
        """Return the values by slot, of those in the order of the columns."""
        if self.plain:
            return list(values)
        by_slot: list[Value] = [None] * self.full_width
        for slot, value in zip(self.column_slots, values, strict=True):
            by_slot[slot] = value
        return by_slot

    def find_index(self, slots: tuple[int, ...], unique: bool | None = None) -> Index | None:
        """Return the index over just these columns."""
        for index in self.indexes:
            if index.slots == slots and unique in (None, index.unique):
                return index
        return None


_ASCII = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")


def fold(name: str) -> str:
    """Return a name in the form under which SQLite compares it: ASCII letters in lower case,
    all others as they are."""
    return name.lower() if name.isascii() else name.translate(_ASCII)


def quote(name: str) -> str:
    """Return an identifier in SQL."""
    return '"' + name.replace('"', '""') + '"'


def affinity(declared: str) -> str:
    """Return the affinity of a declared type, by SQLite's rule."""
    declared = declared.upper()
    if "INT" in declared:
        return "INTEGER"
    if any(word in declared for word in ("CHAR", "CLOB", "TEXT")):
        return "TEXT"
    if not declared or "BLOB" in declared:
        return "BLOB"
    if any(word in declared for word in ("REAL", "FLOA", "DOUB")):
        return "REAL"
    return "NUMERIC"


# ---------------------------------------------------------------- entries


def to_entry(table: Table) -> bytes:
    """Return the bytes under which the store keeps a table's schema."""
    data: bytes = msgpack.packb(
        {
            "number": table.number,
            "sql": table.sql,
            "index_sql": dict(table.index_sql),
            "slots": list(table.slots),
            "fills": list(table.defaults.items()),
            "top": table.top,
            "indexes": [
                *([i.number, list(i.slots), i.unique, i.ready] for i in table.indexes),
                # Five parts: who doesn't know ordered indexes must not write, and can't read it.
                *([i.number, list(i.slots), False, i.ready, "ordered"] for i in table.ordered),
            ],
        },
        use_bin_type=True,
    )
    return data


def from_entry(name: str, entry: bytes) -> Table:
    """Return a table whose columns are still to be described."""
    try:
        raw = msgpack.unpackb(entry, raw=False)
        return Table(
            name=name,
            number=raw["number"],
            sql=raw["sql"],
            index_sql=raw["index_sql"],
            slots=tuple(raw["slots"]),
            defaults=dict(map(tuple, raw["fills"])),
            top=raw["top"],
            indexes=tuple(
                Index(number, tuple(slots), unique, ready)
                for number, slots, unique, ready, *order in raw["indexes"]
                if not order
            ),
            ordered=tuple(
                OrderedIndex(number, tuple(slots), ready)
                for number, slots, _, ready, *order in raw["indexes"]
                if order == ["ordered"]
            ),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InternalError(f"the schema entry of table {name} can't be read: {error}") from error


# ---------------------------------------------------------------- what SQLite knows


def describe(database: apsw.Connection, table: Table) -> Table:
    """Return a table with columns, keys and foreign keys, as SQLite has it in `database`.

    Columns that the slots don't name yet get the next ones.
    """
    if table.is_view:
        return table
    info = list(database.execute(f"PRAGMA table_xinfo({quote(table.name)})"))
    for _, name, _, _, _, _, hidden in info:
        if hidden:
            raise NotSupportedError(f"generated column {table.name}.{name}")
    slots = list(table.slots)
    columns = []
    for _, name, declared, required, _, _, _ in info:
        if name not in slots:
            slots.append(name)
        collation = database.column_metadata(None, table.name, name)[1]
        binary = collation.upper() == "BINARY"
        columns.append(Column(name, affinity(declared), slots.index(name), binary, bool(required)))
    # With one column of declared type INTEGER as its key, that key is SQLite's row number.
    keys = [(name, declared) for _, name, declared, _, _, place, _ in info if place]
    in_order = sorted((place, name) for _, name, _, _, _, place, _ in info if place)
    key = None
    if len(keys) == 1 and keys[0][1].upper() == "INTEGER":
        key = slots.index(keys[0][0])
    return replace(
        table,
        slots=tuple(slots),
        columns=tuple(columns),
        key=key,
        primary=tuple(slots.index(name) for _, name in in_order),
        foreign_keys=tuple(_foreign_keys(database, table.name, slots)),
    )


def _foreign_keys(
    database: apsw.Connection, name: str, slots: list[str | None]
) -> Iterable[ForeignKey]:
    by_id: dict[int, list[tuple[Any, ...]]] = {}
    for row in database.execute(f"PRAGMA foreign_key_list({quote(name)})"):
        by_id.setdefault(row[0], []).append(row)
    folded = [fold(slot) if slot else None for slot in slots]
    for parts in by_id.values():
        parts.sort(key=lambda row: row[1])
        yield ForeignKey(
            slots=tuple(folded.index(fold(row[3])) for row in parts),
            parent=parts[0][2],
            parent_columns=tuple(row[4] or "" for row in parts),
            on_update=parts[0][5],
            on_delete=parts[0][6],
        )


def parent_key(parent: Table, foreign: ForeignKey) -> tuple[int, ...] | None:
    """Return the slots of the columns that a foreign key refers to, its primary key if it names
    none; None: they are no key of the parent, which SQLite calls a mismatch."""
    slots = parent.primary
    if foreign.parent_columns[0]:
        columns = [parent.column(name) for name in foreign.parent_columns]
        slots = tuple(column.slot for column in columns if column is not None)
    if len(slots) != len(foreign.slots) or parent.is_view:
        return None
    keys = [index.slots for index in parent.indexes if index.unique]
    if slots == (parent.key,) or any(sorted(key) == sorted(slots) for key in keys):
        return slots
    return None


def wanted_indexes(database: apsw.Connection, table: Table) -> list[tuple[tuple[int, ...], bool]]:
    """Return what the store should have for a table: columns, and whether they are unique.

    Unique constraints, as they are; for reading, sets over the first column of each index
    and over foreign keys.  A second column of an index gets none: a statement that names
    both has its rows filtered in the store.
    """
    if table.is_view:
        return []
    index_keys: dict[tuple[tuple[int, ...], bool], None] = {}
    firsts: list[tuple[int, ...]] = []
    for _, name, unique, _, partial in list(
        database.execute(f"PRAGMA index_list({quote(table.name)})")
    ):
        parts = [row for row in database.execute(f"PRAGMA index_xinfo({quote(name)})") if row[5]]
        if any(row[1] < 0 for row in parts) or partial:
            if unique:
                raise NotSupportedError(
                    f"unique index {name} over an expression or a part of the rows"
                )
            continue
        columns = [table.column(row[2]) for row in parts]
        slots = tuple(column.slot for column in columns if column)
        binary = all(row[4].upper() == "BINARY" for row in parts)
        if unique:
            if not binary:
                raise NotSupportedError(f"unique index {name} with a collation other than BINARY")
            index_keys[slots, True] = None
        if binary:
            firsts.append(slots[:1])
    firsts += [foreign.slots for foreign in table.foreign_keys]
    for slots in firsts:
        if slots != (table.key,) and (slots, True) not in index_keys:
            index_keys[slots, False] = None
    return list(index_keys)


def wanted_ordered(database: apsw.Connection, table: Table) -> list[tuple[int, ...]]:
    """Say which columns' order the store should keep for a table: its primary key's."""
    if table.is_view:
        return []
    if table.key is not None:
        return [(table.key,)]
    info = database.execute(f"PRAGMA table_xinfo({quote(table.name)})")
    names = dict(sorted((row[5], row[1]) for row in info if row[5])).values()
    columns = [table.column(str(name)) for name in names]
    if not columns or not all(column and column.binary for column in columns):
        return []
    return [tuple(column.slot for column in columns if column)]


def with_ordered(database: apsw.Connection, table: Table) -> Table:
    """Return a table with the ordered indexes that it should have; new ones aren't ready."""
    by_slots = {index.slots: index for index in table.ordered}
    number = table.top
    ordered = []
    for slots in wanted_ordered(database, table):
        index = by_slots.get(slots)
        if index is None:
            number += 1
            index = OrderedIndex(number, slots, ready=False)
        ordered.append(index)
    return replace(table, ordered=tuple(ordered), top=number)


# ---------------------------------------------------------------- work areas

_KEY_CONSTRAINT = re.compile(r"PRIMARY\s+KEY\s*\(([^(),]+?)\s*(?:ASC\s*)?\)", re.IGNORECASE)
_KEY_COLUMN = re.compile(
    r"(\bINTEGER\b[^,()]*?\bPRIMARY\s+KEY\b(?:\s+ASC\b)?)(?!\s+AUTOINCREMENT)", re.IGNORECASE
)


def with_autoincrement(sql: str) -> str:
    """Return the SQL of a table with an INTEGER PRIMARY KEY, so that SQLite takes new row numbers
    from its table of sequences, where they can be set."""
    if re.search(r"\bAUTOINCREMENT\b", sql, re.IGNORECASE):
        return sql
    changed, count = _KEY_CONSTRAINT.subn(r"PRIMARY KEY (\1 AUTOINCREMENT)", sql, count=1)
    if not count:
        changed, count = _KEY_COLUMN.subn(r"\1 AUTOINCREMENT", sql, count=1)
    return changed


def create_in(database: apsw.Connection, table: Table) -> None:
    """Make a table in a work area: its constraints and unique indexes, no others."""
    sql = table.sql if table.key is None else with_autoincrement(table.sql)
    database.execute(sql)
    if table.key is not None:
        name = table.names([table.key])[0]
        if not database.column_metadata(None, table.name, name)[4]:
            raise NotSupportedError(f"the form of the primary key of table {table.name}")
    for index_sql in table.index_sql.values():
        if re.match(r"\s*CREATE\s+UNIQUE\b", index_sql, re.IGNORECASE):
            database.execute(index_sql)
