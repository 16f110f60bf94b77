"""A draft of the schema made true in the store, all or nothing.

Whatever it depends on is a condition of the change itself: the version of the schema, that a
table has no rows, or that nobody wrote a table since its rows were looked at.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace

from rome.errors import (
    ConflictError,
    IntegrityError,
    OperationalError,
    OutcomeUnknown,
    ProgrammingError,
)
from rome.schema.catalogue import Catalogue, Schema
from rome.schema.changes import Change, index_data, write_of
from rome.schema.draft import Draft, kept_otherwise
from rome.schema.tables import Index, OrderedIndex, Table, fold, to_entry
from rome.schema.verification import Values, Verification
from rome.stores.base import (
    Commit,
    Dropped,
    Duplicate,
    NotEmpty,
    Portion,
    SchemaChanged,
    Store,
    Unbuilt,
    Written,
)
from rome.stores.rows import encode

# How often rows are looked at again, as others wrote them meanwhile: so often in any case, and
# as often as these seconds allow.
_LOOKS = 10
_LOOKING_S = 5.0
# Of a table that is copied: rows, and bytes, in one commit.
_COPIED_ROWS = 2000
_COPIED_BYTES = 2**20
# Times that an index is built whose connection is lost meanwhile.
_BUILDS = 5
# How Alembic's batches begin the name of a table that will take another's place.
_ALEMBIC = "_alembic_tmp_"


class SchemaChange:
    """The way of one draft into the store."""

    def __init__(
        self, store: Store, catalogue: Catalogue, draft: Draft, check_foreign_keys: bool = True
    ) -> None:
        self._store = store
        self._catalogue = catalogue
        self._draft = draft
        self._check_foreign_keys = check_foreign_keys
        self._filled: set[int] = set()  # tables that have rows, as far as is known
        # Indexes (table, index number) that were built before the schema's SQL speaks of them.
        self._built: set[tuple[int, int]] = set()
        self._copies: list[Table] = []
        self._highest = 0  # the highest row number that the table being copied has given out
        # Conditions of the change.
        self._empty: list[int] = []
        self._unwritten: dict[int, str] = {}
        self._complete: list[tuple[str, int, int, int]] = []

    def make(self) -> None:
        """Make the change.

        Raises IntegrityError if rows are against it, OperationalError if it can't be made any
        more (others made the same table), ConflictError if others write all the time,
        OutcomeUnknown if the store doesn't answer whether it was made.
        """
        looks = tries = 0
        until = time.monotonic() + _LOOKING_S
        while tries < 100:
            try:
                self._make_once()
                return
            except SchemaChanged:
                tries += 1
                self._begin_again()
            except Unbuilt:
                tries += 1
                self._built.clear()
                self._begin_again()
            except OutcomeUnknown:
                # A copy may be the table by now: `rome check` finds it if it is none.
                self._copies = []
                raise
            except NotEmpty:
                tries += 1
                heads = self._store.heads(self._empty)
                pairs = zip(self._empty, heads, strict=True)
                self._filled.update(table for table, head in pairs if head.rows)
            except Written:
                looks += 1
                if looks >= _LOOKS and time.monotonic() > until:
                    raise ConflictError(
                        "a table whose rows this change of the schema depends on is written all"
                        " the time; try again"
                    ) from None
            finally:
                self._drop_copies()
        raise ProgrammingError("the schema is changed by others all the time")

    def _begin_again(self) -> None:
        """Run the statements on the schema as it is now."""
        self._catalogue.load(self._store)
        draft = Draft(self._catalogue.snapshot(), self._draft.legacy_alter)
        for sql in self._draft.statements:
            draft.run(sql)
        self._draft = draft

    def _make_once(self) -> None:
        draft, store = self._draft, self._store
        changed, drops = draft.changed(), draft.drops()
        if not changed and not drops:
            # IF EXISTS: right if the schema is still the one that it was said of.
            if self._catalogue.load(store).version != draft.base.version:
                raise SchemaChanged
            return
        self._empty, self._unwritten, self._complete = [], {}, []
        altered, gone = draft.altered(), draft.gone()
        new = {table.name: table for table in changed}
        self._number(new)
        for old, table in altered:
            verified = self._verified(old, table) if old.number in draft.suspects else table
            new[table.name] = verified if verified in self._copies else self._indexed(old, verified)
        self._check_widowed()
        version = store.change_schema(
            draft.base.version,
            {name: to_entry(table) for name, table in new.items()},
            drops,
            self._empty,
            unwritten=list(self._unwritten.items()),
            complete=self._complete,
        )
        copied, self._copies = {table.name for table in self._copies}, []
        tables = {name: new.get(table.name, table) for name, table in draft.tables.items()}
        if not self._catalogue.install(
            draft.base, version, tables, draft.finished(), draft.executed
        ):
            self._catalogue.load(store)
        # The change is made: should the connection break now, `rome check` finds what is left.
        with contextlib.suppress(OperationalError):
            gone += [old for old, table in altered if table.name in copied]
            dropped = [_dropped(table) for table in gone]
            for old, table in altered:
                if table.name not in copied and (lost := _lost(old, table)):
                    dropped.append(_dropped(old, lost))
            _remove(store, self._catalogue, dropped)
            complete(store, self._catalogue)
            finish(store, self._catalogue, {table.name for table in new.values()})

    def _number(self, new: dict[str, Table]) -> None:
        """Give new tables their numbers; they have no rows, so their indexes are ready."""
        fresh = [table for table in new.values() if table.number < 0]
        if fresh:
            numbers = self._catalogue.allocate_numbers(self._store, len(fresh))
            for table, number in zip(fresh, numbers, strict=True):
                new[table.name] = replace(table, number=number).with_ready()

    # ------------------------------------------------------------ rows that are there

    def _look_at(self, *tables: Table | None) -> list[int]:
        """Make it a condition that nobody writes these tables from now on; how many rows each
        has."""
        numbers = [table.number for table in tables if table is not None]
        heads = self._store.heads(numbers)
        self._unwritten.update(
            (number, head.write) for number, head in zip(numbers, heads, strict=True)
        )
        return [head.rows for head in heads]

    def _verified(self, old: Table, table: Table) -> Table:
        """Return the table, if its rows fulfil its new definition; it may be a copy by then."""
        foreign = [key for key in table.foreign_keys if key not in old.foreign_keys]
        if not self._check_foreign_keys:
            foreign = []
        parents = [self._draft.tables.get(fold(key.parent)) for key in foreign]
        if parents:
            self._look_at(*parents)
        converted = kept_otherwise(old, table)
        copy = self._copy_of(old, table) if converted else table
        verification = Verification(self._store, old, table, foreign, parents, self._draft.database)
        # From here to the change nobody may write it, so this is as short as it can be.
        snapshot = self._store.snapshot(old.number)
        if snapshot is None:
            self._look_at(old)
            pages = verification.pages()
        else:
            self._unwritten[old.number] = snapshot[0]
            pages = verification.pages(snapshot[1])
        if converted:
            return self._fill(copy, pages)
        for _ in pages:
            pass
        return table

    def _copy_of(self, old: Table, table: Table) -> Table:
        """Return an empty copy of a table, under a new number, for rows and their indexes."""
        (number,) = self._catalogue.allocate_numbers(self._store, 1)
        # Numbers that were handed out aren't handed out again.
        self._highest = self._store.reserve(str(old.number), 0) - 1
        copy = replace(table, number=number, defaults={}).with_ready()
        return replace(copy, indexes=tuple(index for index in copy.indexes if index.unique))

    def _fill(self, copy: Table, pages: Iterator[dict[int, Values]]) -> Table:
        """Return the copy with rows as SQLite would keep them, and with all its indexes."""
        unique = copy.indexes
        self._copies.append(copy)
        count = 0
        entries = dict.fromkeys((index.number for index in unique), 0)
        weight = 1 + len(copy.all_indexes)
        for portion in _portions(pages, self._store.portion, weight):
            changes = [Change(copy, n, None, tuple(values)) for n, values in portion]
            for index in unique:
                entries[index.number] += sum(
                    index_data(copy, index, change.row or ()) is not None for change in changes
                )
            writes = [write for c in changes if (write := write_of(c, None, set()))]
            count += len(writes)
            used = [[copy.number, max(self._highest, *(n for n, _ in portion))]]
            token = uuid.uuid4().hex
            try:
                self._store.commit(Commit(self._draft.base.version, token, writes, used=used))
            except Duplicate as duplicate:
                index = next(i for i in unique if i.number == duplicate.index)
                raise _not_unique(copy, index) from duplicate
        self._complete += [
            ("row", copy.number, 0, count),
            *(("unique", copy.number, index, of) for index, of in entries.items()),
            *(("order", copy.number, order.number, count) for order in copy.ordered),
        ]
        # Entries of sets can't be counted, so they are made once the copy has its place.
        table = self._draft.tables[fold(copy.name)]
        sets = tuple(replace(i, ready=False) for i in table.indexes if not i.unique)
        self._copies[-1] = replace(copy, indexes=unique + sets)
        return self._copies[-1]

    def _drop_copies(self) -> None:
        copies, self._copies = self._copies, []
        if copies:
            with contextlib.suppress(OperationalError):
                _remove(self._store, self._catalogue, [_dropped(table) for table in copies])

    def _check_widowed(self) -> None:
        """Refuse to drop a table that rows refer to, unless another takes its place."""
        tables, base = self._draft.tables, self._draft.base
        for parent, name in self._draft.widowed if self._check_foreign_keys else ():
            if name not in tables or parent.number < 0 or tables[name].number < 0:
                continue
            child = base.by_number(tables[name].number) or tables[name]
            foreign = [f for f in child.foreign_keys if fold(f.parent) == fold(parent.name)]
            heir = tables.get(fold(parent.name)) or tables.get(fold(_ALEMBIC + parent.name))
            parents, children, *_ = self._look_at(parent, child, heir)
            if parents and children:
                heirs = [heir] * len(foreign)
                database = self._draft.database
                for _ in Verification(self._store, child, child, foreign, heirs, database).pages():
                    pass

    # ------------------------------------------------------------ indexes

    def _indexed(self, old: Table, table: Table) -> Table:
        """Return the table with its new indexes: ready if it has no rows, or if they were built."""
        number = table.number
        if table.is_ready:
            return table
        if number not in self._filled:
            self._empty.append(number)
            return table.with_ready()
        indexes = []
        for index in table.indexes:
            if (number, index.number) in self._built:
                index = replace(index, ready=True)
            elif index.unique and not index.ready:
                self._build(old, index)
                raise SchemaChanged  # to go on from the schema as it is now
            indexes.append(index)
        return replace(table, indexes=tuple(indexes))

    def _build(self, old: Table, index: Index) -> None:
        """Build a unique index that the SQL doesn't speak of yet, so that no statement relies
        on it; writers keep it from now on, and can't write what is against it."""
        store = self._store
        if index not in old.indexes:
            top = max(old.top, index.number)
            hidden = replace(old, indexes=(*old.indexes, index), top=top)
            _put(store, self._catalogue, hidden)
        try:
            store.build_index(
                old.number, index.number, index.slots, index.unique, old.packed_defaults
            )
        except Duplicate as duplicate:
            _withdraw(store, self._catalogue, old.number, index)
            raise _not_unique(old, index) from duplicate
        self._built.add((old.number, index.number))


def finish(store: Store, catalogue: Catalogue, names: set[str] | None = None) -> None:
    """Build the indexes that aren't ready, of some tables or of all: also those that another
    process left; take back unique ones that the tables' SQL doesn't speak of.

    Raises IntegrityError if rows are against one.
    """
    lost = 0
    for _ in range(100):
        try:
            for table in list(catalogue.schema.tables.values()):
                if (names is None or table.name in names) and not table.is_ready:
                    _finish(store, catalogue, table)
            return
        except SchemaChanged:
            catalogue.load(store)
        except Unbuilt:
            lost += 1
            if lost == _BUILDS:
                raise OperationalError(
                    "the connection was lost while an index was built, each time; it isn't ready:"
                    " 'rome check --repair' builds it anew"
                ) from None
            catalogue.load(store)
    raise ProgrammingError("the schema is changed by others all the time")


def enter_orders(store: Store, catalogue: Catalogue) -> None:
    """Enter the ordered indexes that an older version hasn't made; they aren't ready.

    Raises SchemaChanged.
    """
    _put(store, catalogue, *catalogue.incomplete())


def complete(store: Store, catalogue: Catalogue) -> None:
    """Build the ordered indexes that aren't ready: those that an older version hasn't made, and
    those whose builder has died."""
    for _ in range(100):
        try:
            enter_orders(store, catalogue)
            tables = [t for t in catalogue.schema.tables.values() if not t.is_ready]
            built = {table.number: _build_orders(store, table) for table in tables}
            now = [t for t in catalogue.schema.tables.values() if built.get(t.number)]
            _put(store, catalogue, *(table.with_ready(built[table.number]) for table in now))
            return
        except (SchemaChanged, Unbuilt):
            catalogue.load(store)
    raise ProgrammingError("the schema is changed by others all the time")


def _build_orders(store: Store, table: Table) -> set[int]:
    """Build a table's ordered indexes that aren't ready; their numbers."""
    orders = [order for order in table.ordered if not order.ready]
    for order in orders:
        store.build_ordered(
            table.number, order.number, order.slots, table.key, table.packed_defaults
        )
    return {order.number for order in orders}


def _finish(store: Store, catalogue: Catalogue, table: Table) -> None:
    index_keys = catalogue.index_keys(table)
    built = _build_orders(store, table)
    for index in table.indexes:
        if index.ready:
            continue
        if (index.slots, index.unique) not in index_keys:
            _withdraw(store, catalogue, table.number, index)
            continue
        try:
            store.build_index(
                table.number, index.number, index.slots, index.unique, table.packed_defaults
            )
        except Duplicate as duplicate:
            raise _not_unique(table, index) from duplicate
        built.add(index.number)
    now = catalogue.schema.by_number(table.number)
    if now is not None and built:
        _put(store, catalogue, now.with_ready(built))


def _withdraw(store: Store, catalogue: Catalogue, number: int, index: Index) -> None:
    """Take an index that isn't ready out of the schema, and remove its entries."""
    for _ in range(100):
        table = catalogue.load(store).by_number(number)
        if table is None or index not in table.indexes:
            return
        others = tuple(other for other in table.indexes if other != index)
        try:
            _put(store, catalogue, replace(table, indexes=others))
        except SchemaChanged:
            continue
        _remove(store, catalogue, [_dropped(table, [index])])
        return


def _put(store: Store, catalogue: Catalogue, *tables: Table) -> None:
    """Replace tables' entries by such with other indexes.  Raises SchemaChanged, Unbuilt."""
    if not tables:
        return
    before = catalogue.schema
    entries = {table.name: to_entry(table) for table in tables}
    version = store.change_schema(before.version, entries, [], [])
    if not catalogue.replace(before, version, {fold(table.name): table for table in tables}):
        catalogue.load(store)


def _lost(old: Table, new: Table) -> list[Index | OrderedIndex]:
    numbers = {index.number for index in new.all_indexes}
    return [index for index in old.all_indexes if index.number not in numbers]


def _dropped(table: Table, indexes: Sequence[Index | OrderedIndex] | None = None) -> Dropped:
    """Return a table that goes, or only these indexes of it."""
    gone = table.all_indexes if indexes is None else indexes
    sets = [[i.number, list(i.slots)] for i in gone if isinstance(i, Index) and not i.unique]
    unique = [i.number for i in gone if isinstance(i, Index) and i.unique]
    ordered = [i.number for i in gone if isinstance(i, OrderedIndex)]
    return Dropped(table.number, sets, unique, ordered, table.packed_defaults, indexes is None)


def _remove(store: Store, catalogue: Catalogue, dropped: Sequence[Dropped]) -> None:
    """Remove rows and entries, but for those of tables and indexes that the schema has: a
    failover may have lost the change that took them out of it."""
    for _ in range(100):
        schema = catalogue.schema
        left = [entry for entry in dropped if not _is_in(schema, entry)]
        if not left:
            return
        with contextlib.suppress(SchemaChanged):
            store.remove(schema.version, left)
            return
        catalogue.load(store)
    # Others change the schema all the time; `rome check` finds what is left.


def _is_in(schema: Schema, dropped: Dropped) -> bool:
    table = schema.by_number(dropped.table)
    if table is None or dropped.whole:
        return table is not None
    numbers = {*(index for index, _ in dropped.sets), *dropped.unique, *dropped.ordered}
    return any(index.number in numbers for index in table.all_indexes)


def _not_unique(table: Table, index: Index) -> IntegrityError:
    names = ", ".join(f"{table.name}.{name}" for name in table.names(index.slots))
    return IntegrityError(f"UNIQUE constraint failed: {names}")


def _portions(
    pages: Iterator[dict[int, Values]], most: Portion, weight: int
) -> Iterator[list[tuple[int, Values]]]:
    """Return rows in the portions in which they are committed.

    weight: the keys of a row, with those of its entries.
    """
    rows = max(1, min(_COPIED_ROWS, most.entries // weight))
    portion: list[tuple[int, Values]] = []
    size = 0
    for page in pages:
        for number, values in page.items():
            portion.append((number, values))
            size += len(encode(values))
            if len(portion) == rows or size > min(_COPIED_BYTES, most.bytes):
                yield portion
                portion, size = [], 0
    if portion:
        yield portion
