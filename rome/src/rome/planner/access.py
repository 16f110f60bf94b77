"""From predicates to the steps of one read (stores/wire.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rome.planner.conditions import Bind, Constant, Layout, plain_values
from rome.planner.predicates import Predicate, excludes_nothing, filter_of, is_tested, values_of
from rome.planner.ranges import Bound, Ranges, may_help, ordered_lookups
from rome.schema.tables import Table
from rome.stores.rows import NULL, pack_value
from rome.stores.wire import Filter, IndexKey, JoinLookup, KeyLookup, Lookup, SemiJoin, Step, Test

# Rows that the transaction wrote, by table and row number.
Changes = Mapping[Any, Any]
# Of a semi-join reduction: earlier step, its slot, the slot here.
Reduction = tuple[int, int, int]


@dataclass
class TopN:
    """The first rows in an order (top-N), which the store picks if it tests all `predicates`.

    order: slots, and whether descending.  counts: LIMIT and OFFSET.  not_null: a column of
    which rows with NULL are not wanted.
    """

    order: tuple[tuple[int, bool], ...]
    predicates: list[Predicate]
    counts: tuple[Bind | Constant, ...]
    not_null: int | None = None


@dataclass
class Occurrence:
    """A table at one place of a statement, and what bounds its rows.

    ranged: whether an ordered index may find them.
    """

    table: Table
    predicates: list[Predicate] = field(default_factory=list)
    reductions: list[Reduction] = field(default_factory=list)
    top_n: TopN | None = None
    ranged: bool = field(init=False)

    def __post_init__(self) -> None:
        self.limit_to(self.top_n)

    def limit_to(self, top_n: TopN | None) -> None:
        """Want no more than the first rows in an order."""
        self.top_n = top_n
        self.ranged = may_help(self.table, self.predicates, top_n is not None)


@dataclass
class Values:
    """What one execution of a statement brings: its parameters, and the transaction's rows."""

    parameters: Sequence[Any]
    layout: Layout
    changes: Changes


def steps_of(
    occurrences: Sequence[Occurrence],
    parts: Mapping[int, tuple[int, ...]],
    values: Values,
    before: int,
) -> tuple[list[Step], bool]:
    """Say what to read, and whether the store tests every condition.

    parts: by table number, the only columns that come.  before: steps of the same request
    before these.
    """
    steps: list[Step] = []
    all_tested = True
    empty: set[int] = set()
    for place in range(len(occurrences)):
        making = _Step(occurrences, place, values, before, empty)
        step, tested = making.made(parts)
        steps.append(step)
        if making.is_empty:
            empty.add(place)
        all_tested = all_tested and tested
    return steps, all_tested


class _Step:
    """A step in the making: look-ups, and filters.

    empty: the earlier steps of which no row is wanted, neither of the store's nor of the
    transaction's own.  is_empty: whether this one is such a step.
    """

    def __init__(
        self,
        occurrences: Sequence[Occurrence],
        place: int,
        values: Values,
        before: int,
        empty: set[int],
    ) -> None:
        self._occurrences = occurrences
        self._occurrence = occurrences[place]
        self._values = values
        self._before = before
        self._lookups: list[Lookup] = []
        self._filters: list[Test] = []
        self._single: dict[int, list[bytes]] = {}
        self._joins: dict[Reduction, int] = {}  # columns -> place of the look-up
        self._ranges = Ranges()
        self._tested = True
        self._empty = empty
        self.is_empty = False

    def made(self, parts: Mapping[int, tuple[int, ...]]) -> tuple[Step, bool]:
        """Give the step, and whether the store tests all its conditions."""
        occurrence, table = self._occurrence, self._occurrence.table
        for predicate in occurrence.predicates:
            if predicate.op == "join":
                self._tested = False
                self._join(predicate)
            else:
                self._test(predicate)
        for index in table.indexes:
            if index.unique and index.ready and len(index.slots) > 1:
                key = self._unique_key(index.slots)
                if key is not None:
                    self._lookups.append(KeyLookup("unique", index.number, [key]))
        order, limit = self._limit()
        if occurrence.ranged and not self._keyed():
            self._lookups += ordered_lookups(table, self._ranges, order, limit)
        reductions = self._reductions()
        semi_joins: Sequence[SemiJoin] = ()
        if reductions:
            semi_joins = self._semi_joins(reductions)
        step = Step(
            table.number,
            self._lookups,
            self._filters,
            table.packed_defaults,
            order,
            limit,
            parts.get(table.number),
            None,
            semi_joins,
        )
        return step, self._tested

    def _test(self, predicate: Predicate) -> None:
        values = self._values
        test = filter_of(predicate, values.parameters, values.layout)
        if test is None:
            self._tested = False
            return
        places: list[int] = []
        if not excludes_nothing(test):
            places = [len(self._filters)]
            self._filters.append(test)
            if self._occurrence.ranged:
                self._ranges.note(predicate, self._values_of, places[0])
        if predicate.op == "any" or not isinstance(test, Filter):
            return
        op, data = test.op, test.values
        self.is_empty |= op == "in" and not data
        if op == "in":
            self._single.setdefault(predicate.slot, data)
        if predicate.index is None:
            return
        kind, number = predicate.index
        if op == "in":
            keys: list[IndexKey] = [*data]
            if kind == "row":
                numbers = values_of(predicate, values.parameters, values.layout) or ()
                keys = [str(value) for value in numbers if type(value) is int]
            self._lookups.append(KeyLookup(kind, number, keys, places))
        elif op == "null" and kind == "set":
            self._lookups.append(KeyLookup("set", number, [NULL], places))

    def _keyed(self) -> bool:
        """Tell whether a look-up names each row by a key of its own."""
        return any(
            isinstance(lookup, KeyLookup) and lookup.kind != "set" for lookup in self._lookups
        )

    def _values_of(self, predicate: Predicate) -> list[Any] | None:
        return values_of(predicate, self._values.parameters, self._values.layout)

    def _unique_key(self, slots: tuple[int, ...]) -> bytes | None:
        parts: list[list[bytes]] = [self._single.get(slot, []) for slot in slots]
        return b"".join(part[0] for part in parts) if all(len(p) == 1 for p in parts) else None

    def _join(self, predicate: Predicate) -> None:
        """Look up by an earlier step, and by the rows that only the transaction has."""
        if predicate.index is None:
            return
        kind, number = predicate.index
        no_source = predicate.source in self._empty
        self.is_empty |= no_source
        columns = (predicate.source, predicate.source_slot, predicate.slot)
        self._joins[columns] = len(self._lookups)
        source = self._occurrences[predicate.source].table
        extra: list[IndexKey] = []
        for change in () if no_source else self._values.changes.values():
            if change.table is source and change.row is not None:
                value = source.row(change.row)[predicate.source_slot]
                if value is not None:
                    extra.append(str(value) if kind == "row" else pack_value(value))
        place = self._before + predicate.source
        self._lookups.append(JoinLookup(kind, number, place, [predicate.source_slot], extra))

    def _semi_joins(self, reductions: Sequence[Reduction]) -> Sequence[SemiJoin]:
        before, joins = self._before, self._joins
        return [SemiJoin(before + r[0], r[1], r[2], joins.get(r, -1)) for r in reductions]

    def _reductions(self) -> list[Reduction]:
        """Give those that hold for the store's rows: a row of the transaction's own may match
        what no other does."""
        reductions, changes = self._occurrence.reductions, self._values.changes
        if not reductions or not changes:
            return reductions
        changed = {change.table.number for change in changes.values()}
        if self._occurrence.table.number in changed:
            return []
        return [r for r in reductions if self._occurrences[r[0]].table.number not in changed]

    def _limit(self) -> tuple[Sequence[tuple[int, bool]], int]:
        """Order, and how many rows are wanted; 0: all.

        Rows that the transaction has changed are not the store's any more: so many more of
        them come that enough others are among them.
        """
        first, values = self._occurrence.top_n, self._values
        if first is None:
            return [], 0
        if not all(is_tested(p, values.parameters, values.layout) for p in first.predicates):
            return [], 0
        total = 0
        for count in first.counts:
            counts = plain_values(count, values.parameters, values.layout)
            if len(counts) != 1 or not isinstance(counts[0], int) or counts[0] < 0:
                return [], 0
            total += counts[0]
        table = self._occurrence.table
        total += sum(change.table is table for change in values.changes.values())
        if first.not_null is not None:
            self._filters.append(Filter(first.not_null, "some", []))
            self._ranges.of(first.not_null).low.append(Bound(None, True, len(self._filters) - 1))
        return first.order, max(total, 1)
