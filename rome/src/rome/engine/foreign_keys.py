"""Foreign keys: parents that must be there, children that follow.

The work area holds only some rows, so SQLite's own checks would not do: parents and
children are looked up in the store as well, and again at commit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rome.engine.reads import Reads
from rome.engine.session import Session
from rome.errors import IntegrityError, ProgrammingError
from rome.schema.catalogue import Schema
from rome.schema.changes import Change, Row
from rome.schema.tables import ForeignKey, Table, fold, quote
from rome.stores.base import Request
from rome.stores.rows import pack_value
from rome.stores.values import UNKNOWN, canonical
from rome.stores.wire import IndexKey, KeyLookup, Kind, Step

FAILED = "FOREIGN KEY constraint failed"


# Has the rows of steps in the work area, or raises what makes the statement run again with them.
Require = Callable[[Sequence[Step]], None]


class ForeignKeys:
    """The foreign keys of the tables that a transaction writes."""

    def __init__(self, session: Session, reads: Reads) -> None:
        self._session = session
        self._reads = reads
        self._parents: dict[ForeignKey, tuple[Table, tuple[int, ...]]] = {}
        self._parents_in: Schema | None = None

    # ------------------------------------------------------------ parents

    def new_by_parent(self, table: Table, slots: Sequence[int], row: Row) -> bool:
        """Tell whether these columns hold the key of a parent that this transaction made.

        No other transaction can have a child of it, so no row with these values either.
        """
        if not self._session.check_foreign_keys:
            return False
        for foreign in table.foreign_keys:
            if set(foreign.slots) <= set(slots):
                values = values_at(table, row, foreign.slots)
                if None not in values and self._made_here(foreign, values):
                    return True
        return False

    def parent(self, foreign: ForeignKey) -> tuple[Table, tuple[int, ...]]:
        schema = self._session.schema
        if schema is not self._parents_in:
            self._parents.clear()
            self._parents_in = schema
        parent = self._parents.get(foreign)
        if parent is None:
            parent = self._parents[foreign] = self._find_parent(schema, foreign)
        return parent

    @staticmethod
    def _find_parent(schema: Schema, foreign: ForeignKey) -> tuple[Table, tuple[int, ...]]:
        parent = schema.tables.get(fold(foreign.parent))
        if parent is None:
            raise ProgrammingError(f"no such table: {foreign.parent}")
        names = foreign.parent_columns
        if not names[0]:  # the parent's primary key
            if not parent.primary:
                raise ProgrammingError(f"foreign key mismatch: {parent.name} has no primary key")
            return parent, parent.primary
        columns = [parent.column(name) for name in names]
        if None in columns:
            raise ProgrammingError(f"foreign key mismatch: {parent.name} has no such column")
        return parent, tuple(column.slot for column in columns if column)

    def _as_parent_has(self, foreign: ForeignKey, values: list[Any]) -> list[Any]:
        """Return a child's values as the parent's columns keep them: '1' as 1 in an integer one."""
        parent, slots = self.parent(foreign)
        affinities = {column.slot: column.affinity for column in parent.columns}
        fitting = [
            canonical(value, affinities[slot]) for slot, value in zip(slots, values, strict=True)
        ]
        return [
            value if fitting_value is UNKNOWN else fitting_value
            for value, fitting_value in zip(values, fitting, strict=True)
        ]

    def _made_here(self, foreign: ForeignKey, values: list[Any]) -> bool:
        parent, slots = self.parent(foreign)
        values = self._as_parent_has(foreign, values)
        return any(
            change.table is parent
            and change.base is None
            and change.row is not None
            and values_at(parent, change.row, slots) == values
            for change in self._session.overlay.changes.values()
        )

    def _keyed_here(self, foreign: ForeignKey, values: list[Any]) -> bool:
        """Tell whether this transaction has made the parent, or given it this key."""
        parent, slots = self.parent(foreign)
        values = self._as_parent_has(foreign, values)
        for change in self._session.overlay.changes.values():
            if change.table is parent and change.row is not None:
                before = change.values_before
                if values_at(parent, change.row, slots) == values and (
                    not before or [before[slot] for slot in slots] != values
                ):
                    return True
        return False

    def _number_here(self, foreign: ForeignKey, values: list[Any]) -> int | None:
        """Return the number of a parent in the work area."""
        parent, slots = self.parent(foreign)
        work = self._session.work
        work.ensure([parent], clean=False)
        tests = " AND ".join(f"{quote(name)} = ?" for name in parent.names(slots))
        number = work.row_number(parent)
        sql = f"SELECT {number} FROM {quote(parent.name)} WHERE {tests} LIMIT 1"
        numbers: Any = work.database.execute(sql, values).fetchall()
        return int(numbers[0][0]) if numbers else None

    def lookup(self, table: Table, slots: tuple[int, ...], values: list[Any]) -> KeyLookup | None:
        """Return the look-up of rows with these values; None: no index has them."""
        columns = {column.slot: column for column in table.columns}
        fitting = [
            canonical(value, columns[slot].affinity)
            for slot, value in zip(slots, values, strict=True)
        ]
        if UNKNOWN in fitting:
            return None
        if slots == (table.key,):
            return KeyLookup("row", 0, [str(fitting[0])]) if isinstance(fitting[0], int) else None
        index = table.find_index(slots, unique=True) or table.find_index(slots)
        if index is None or not index.ready:
            return None
        kind: Kind = "unique" if index.unique else "set"
        return KeyLookup(kind, index.number, [b"".join(map(pack_value, fitting))])

    def step(self, table: Table, slots: tuple[int, ...], values: list[Any]) -> Step:
        lookup = self.lookup(table, slots, values)
        # Without one SQLite finds them among all rows.
        lookups = [] if lookup is None else [lookup]
        return Step(table.number, lookups, defaults=table.packed_defaults)

    def parent_steps(
        self, changed: Iterable[Change], require: Require, read_now: bool
    ) -> list[Step]:
        """Return what to read, for the rows that a statement wrote: each step must find a row.

        read_now: the rows of the store that are here are those of the statement's moment, not of
        an earlier one.
        """
        steps: list[Step] = []
        for change in changed:
            for foreign, values in self._needed(change):
                if self._made_here(foreign, values):
                    continue
                parent, slots = self.parent(foreign)
                step = self.step(parent, slots, values)
                number = self._number_here(foreign, values)
                key = (parent.number, number)
                if not read_now and key not in self._session.overlay.changes:
                    number = None
                if not step.lookups:
                    if number is None:
                        require([step])
                        raise IntegrityError(FAILED)
                    # No look-up tells the commit that this parent is still there: its row has to.
                    self._session.overlay.lock(parent, number)
                elif number is None and step not in steps:
                    steps.append(step)
        return steps

    def _needed(self, change: Change) -> Iterable[tuple[ForeignKey, list[Any]]]:
        """Yield the parents that a written row has, where it didn't have them before."""
        if change.row is None or not change.table.foreign_keys:
            return
        before = change.before
        for foreign in change.table.foreign_keys:
            values = values_at(change.table, change.row, foreign.slots)
            if None in values:
                continue
            if (
                before is not None
                and all(
                    pack_value(value) == before[slot]
                    for slot, value in zip(foreign.slots, values, strict=True)
                )
                and not self._gone_here(foreign, values)
            ):
                continue
            yield foreign, values

    def _gone_here(self, foreign: ForeignKey, values: list[Any]) -> bool:
        """Tell whether this transaction has deleted the parent, or given it another key."""
        parent, slots = self.parent(foreign)
        values = self._as_parent_has(foreign, values)
        for change in self._session.overlay.changes.values():
            if change.base is None or change.table is not parent:
                continue
            before = change.values_before
            if [before[slot] for slot in slots] == values and (
                change.row is None or values_at(parent, change.row, slots) != values
            ):
                return True
        return False

    def parents_lacking(self, steps: Sequence[Step], answer: Sequence[list[bytes]]) -> list[Step]:
        """Return the steps that found no row which is still there."""
        lacking = []
        for step, rows in zip(steps, answer, strict=True):
            # Perhaps an earlier step has given that row: then it isn't given again.
            if not self._there(step, rows) and not self._there(step, self._read_again(step)):
                lacking.append(step)
        return lacking

    def _read_again(self, step: Step) -> list[bytes]:
        """Return the rows of a step alone."""
        answer = self._reads.check(Request([step])).rows
        return answer[0] if answer else []

    def _there(self, step: Step, rows: list[bytes]) -> bool:
        """Tell whether there is a row that this transaction hasn't changed: what it has changed
        was looked at before."""
        changes = self._session.overlay.changes
        return any((step.table, int(number)) not in changes for number in rows[::2])

    def exists(self, changes: Iterable[Change]) -> list[list[Any]]:
        """Return parents that a commit must find: those that this transaction didn't make."""
        parents: dict[tuple[Kind, int, int, IndexKey], None] = {}
        for change in changes:
            for foreign, values in self._needed(change):
                if not self._keyed_here(foreign, values):
                    parent, slots = self.parent(foreign)
                    lookup = self.lookup(parent, slots, values)
                    if lookup is not None:
                        parents[lookup.kind, parent.number, lookup.index, lookup.keys[0]] = None
        return [list(key) for key in parents]


def values_at(table: Table, row: Row, slots: Sequence[int]) -> list[Any]:
    by_slot = row if table.plain else table.row(row)
    return [by_slot[slot] for slot in slots]
