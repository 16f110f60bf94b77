"""Look-ups by ordered indexes: ranges of a key, and walks along it for the first rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rome.planner.predicates import COMPARISONS, Predicate
from rome.schema.tables import OrderedIndex, Table
from rome.stores.sort_bytes import AFTER, NULL, sort_bytes
from rome.stores.values import sort_key
from rome.stores.wire import Lookup, RangeLookup, Walk

# Give the values of a predicate; None: not known.
ValuesOf = Callable[[Predicate], list[Any] | None]
Order = Sequence[tuple[int, bool]]  # slots, and whether descending


@dataclass(frozen=True)
class Bound:
    """One end of a range: the value itself belongs to it unless `strict`.

    filter: the place of the filter that says just this; -1: there is none.
    """

    value: Any
    strict: bool
    filter: int = -1


@dataclass
class Range:
    """What the conditions say of one column: it equals a value, or lies between bounds."""

    equal: list[Bound] = field(default_factory=list)
    low: list[Bound] = field(default_factory=list)
    high: list[Bound] = field(default_factory=list)


class Ranges:
    """The ranges of one table's columns, by slot, as its predicates are noted."""

    def __init__(self) -> None:
        self._by_slot: dict[int, Range] = {}

    def of(self, slot: int) -> Range:
        """Give the range of a column."""
        return self._by_slot.setdefault(slot, Range())

    def note(self, predicate: Predicate, values_of: ValuesOf, place: int) -> None:
        """Take in a predicate that the store tests by the filter at `place`."""
        op = predicate.op
        if op == "any":
            self._note_any(predicate.branches, values_of)
        elif op == "null":
            self.of(predicate.slot).equal.append(Bound(None, False, place))
        elif op == "some":
            self.of(predicate.slot).low.append(Bound(None, True, place))
        elif op == "in":
            values = values_of(predicate) or []
            if len(values) == 1:
                self.of(predicate.slot).equal.append(Bound(values[0], False, place))
        elif op in COMPARISONS:
            bound = Bound((values_of(predicate) or [None])[0], len(op) == 1, place)
            column_range = self.of(predicate.slot)
            if op[0] == ">":
                column_range.low.append(bound)
            else:
                column_range.low.append(Bound(None, True))  # NULL is less than nothing
                column_range.high.append(bound)

    def _note_any(self, branches: Iterable[Iterable[Predicate]], values_of: ValuesOf) -> None:
        """Take in what follows from each branch: `a > 1 OR (a = 1 AND b > 2)` means `a >= 1`."""
        lows: list[dict[int, Any]] = []
        highs: list[dict[int, Any]] = []
        for branch in branches:
            low: dict[int, Any] = {}
            high: dict[int, Any] = {}
            for predicate in branch:
                values = sorted(values_of(predicate) or (), key=sort_key)
                if values and predicate.op in ("in", ">", ">="):
                    low[predicate.slot] = values[0]
                if values and predicate.op in ("in", "<", "<="):
                    high[predicate.slot] = values[-1]
            lows.append(low)
            highs.append(high)
        for sides, best, is_low in ((lows, min, True), (highs, max, False)):
            for slot in set.intersection(*map(set, sides)) if sides else ():
                value = best((side[slot] for side in sides), key=sort_key)
                column_range = self.of(slot)
                column_range.low.append(Bound(value, False) if is_low else Bound(None, True))
                if not is_low:
                    column_range.high.append(Bound(value, False))


def may_help(table: Table, predicates: Iterable[Predicate], limited: bool) -> bool:
    """Tell whether a table's ordered indexes may find rows by these predicates.

    limited: only the first rows in an order are wanted.
    """
    ready = [index for index in table.ordered if index.ready]
    slots = {slot for index in ready for slot in index.slots}
    fixed = {predicate.slot for predicate in predicates if predicate.op == "in"}
    return bool(ready) and (
        limited
        or any(p.op == "any" or (p.op in COMPARISONS and p.slot in slots) for p in predicates)
        # A part of a key's columns, that no other index has.
        or any(1 < len(fixed.intersection(index.slots)) < len(index.slots) for index in ready)
    )


def ordered_lookups(table: Table, ranges: Ranges, order: Order, limit: int) -> list[Lookup]:
    """Return a step's look-ups by ordered indexes.

    order, limit: of the step; limit 0: all rows are wanted.
    """
    lookups: list[Lookup] = []
    for index in table.ordered:
        if not index.ready:
            continue
        if index.slots == (table.key,):
            lookup = _by_number(index, ranges, order, limit)
        else:
            lookup = _by_bytes(index, ranges, order, limit)
        if lookup is not None:
            lookups.append(lookup)
    return lookups


def _by_number(index: OrderedIndex, ranges: Ranges, order: Order, limit: int) -> RangeLookup | None:
    """Look up by a key that is the row number: scores are numbers."""
    slot = index.slots[0]
    column_range = ranges.of(slot)
    if column_range.equal:
        return None
    low, high = "-inf", "+inf"
    # What isn't a number is above them all, or is NULL and below: the filters tell.
    lows = [bound for bound in column_range.low if isinstance(bound.value, int | float)]
    highs = [bound for bound in column_range.high if isinstance(bound.value, int | float)]
    if lows:
        best = max(lows, key=lambda bound: (bound.value, bound.strict))
        low = _score(best)
    if highs:
        best = min(highs, key=lambda bound: (bound.value, not bound.strict))
        high = _score(best)
    walk: Walk = 0
    if limit and (not order or order[0][0] == slot):
        walk = -1 if order and order[0][1] else 1
    if not lows and not highs and not walk:
        return None
    covered = _filters(lows, highs)
    return RangeLookup(index.number, low, high, True, walk, [], covered)


def _score(bound: Bound) -> str:
    return ("(" if bound.strict else "") + repr(bound.value)


def _by_bytes(index: OrderedIndex, ranges: Ranges, order: Order, limit: int) -> RangeLookup | None:
    """Look up by columns whose bytes have their order, the first of them perhaps fixed."""
    fixed: list[Bound] = []
    for slot in index.slots:
        equal = ranges.of(slot).equal
        if not equal:
            break
        fixed.append(equal[0])
    if len(fixed) == len(index.slots):
        return None  # a unique index finds the row
    rest = index.slots[len(fixed) :]
    column_range = ranges.of(rest[0])
    prefix = b"".join(sort_bytes(bound.value) for bound in fixed)
    low = b"[" + prefix if prefix else b"-"
    high = b"(" + prefix + AFTER if prefix else b"+"
    if column_range.low:
        low = max((_low_end(bound) for bound in column_range.low), key=lambda end: end[1:])
        low = low[:1] + prefix + low[1:]
    if column_range.high:
        high = b"(" + prefix + min(_high_end(bound) for bound in column_range.high)
    walked = _walked(rest, order, index.slots[: len(fixed)]) if limit else []
    useful = any(bound.value is not None for bound in column_range.low) or bool(column_range.high)
    if not useful and not walked and len(fixed) < 2:
        return None
    walk: Walk = (-1 if walked[0][1] else 1) if walked else 0
    covered = _filters(fixed, column_range.low, column_range.high)
    ties = [slot for slot, _ in walked]
    return RangeLookup(index.number, low, high, False, walk, ties, covered)


def _low_end(bound: Bound) -> bytes:
    data = NULL if bound.value is None else sort_bytes(bound.value)
    return b"(" + data + AFTER if bound.strict else b"[" + data


def _high_end(bound: Bound) -> bytes:
    data = sort_bytes(bound.value)
    return data if bound.strict else data + AFTER


def _walked(slots: Sequence[int], order: Order, fixed: Sequence[int]) -> list[tuple[int, bool]]:
    """Give the columns of an order that an index has in this order; fixed ones don't matter."""
    left = [(slot, descending) for slot, descending in order if slot not in fixed]
    count = 0
    for slot, (order_slot, descending) in zip(slots, left, strict=False):
        if slot != order_slot or descending != left[0][1]:
            break
        count += 1
    return left[:count]


def _filters(*bounds: Sequence[Bound]) -> list[int]:
    """Give the places of the filters that say no more than these bounds."""
    return sorted({bound.filter for side in bounds for bound in side if bound.filter >= 0})
