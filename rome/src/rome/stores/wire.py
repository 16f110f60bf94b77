"""The steps of a read: access paths, filters, aggregation; and their form on the wire.

A read is a list of steps, one for each place where a table stands in a statement.  The planner
makes them, a store carries them out, and each prints itself as database engines name such things
(`describe`).  `pack_step` alone knows the positional lists that scripts in a store take:

    step      [table, lookups, filters, defaults, order, limit, columns or False,
               aggregation or False, semi-joins]     (the last two only where there are any)
    lookup    [kind, index, keys, filters]                          KeyLookup
              [kind, index, False, step, slots, keys]               JoinLookup
              ["order", index, [low, high, by number, walk, ties], filters]     RangeLookup
    filter    [slot, op, values]    [0, "any", [[filter, ...], ...]]
    aggregation    [slots of GROUP BY, [[function, slot], ...]]
    semi-join      [step, slot, own slot, place of the look-up or -1]
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Kind = Literal["row", "unique", "set"]
# A row number as decimal text, or the bytes of an index's columns.
IndexKey = str | bytes
Walk = Literal[-1, 0, 1]


class Names(Protocol):
    """The names of what steps refer to by number, for printing."""

    def table(self, table: int) -> str:
        """Name a table."""

    def column(self, table: int, slot: int) -> str:
        """Name a column."""

    def index(self, table: int, index: int) -> str:
        """Name the columns of an index, separated by commas."""

    def value(self, data: bytes) -> str:
        """Write a packed value."""

    def bound(self, end: str | bytes) -> str:
        """Write one end of a range."""


@dataclass(slots=True)
class Filter:
    """A predicate on one column that the store tests.

    op: `in`, `out` (not one of, and not NULL), `not` (not one of), `null`, `some` (not NULL), or
    one of `<`, `<=`, `>`, `>=`, which hold for no NULL.  values: packed values (rows.py).
    """

    slot: int
    op: str
    values: list[bytes]

    def describe(self, names: Names, table: int) -> str:
        """Write the predicate in SQL's terms."""
        column = names.column(table, self.slot)
        if self.op in ("null", "some"):
            return f"{column} IS {'NOT ' * (self.op == 'some')}NULL"
        values = [names.value(value) for value in self.values[:3]]
        values += ["..."] * (len(self.values) > 3)
        if self.op in ("in", "out", "not"):
            negated = self.op != "in"
            if len(values) == 1:
                return f"{column} {'<>' if negated else '='} {values[0]}"
            return f"{column} {'NOT ' * negated}IN ({', '.join(values)})"
        return f"{column} {self.op} {values[0]}"


@dataclass(slots=True)
class AnyFilter:
    """A disjunction: all filters of one of the branches hold."""

    branches: list[list[Filter | AnyFilter]]

    def describe(self, names: Names, table: int) -> str:
        """Write the predicate in SQL's terms."""
        return " OR ".join(
            "(" + " AND ".join(part.describe(names, table) for part in branch) + ")"
            for branch in self.branches
        )


Test = Filter | AnyFilter


@dataclass(slots=True)
class KeyLookup:
    """An index lookup by known keys.

    kind: `row` (the index is 0, keys are row numbers), `unique` or `set`.  filters: places of the
    step's filters that say no more than this look-up does.
    """

    kind: Kind
    index: int
    keys: list[IndexKey]
    filters: list[int] = field(default_factory=list)

    def describe(self, names: Names, table: int) -> str:
        """Name the access path."""
        many = f"{len(self.keys)} key{'s' * (len(self.keys) != 1)}"
        if self.kind == "row":
            return f"primary key lookup, {many}"
        unique = "unique " * (self.kind == "unique")
        return f"{unique}index lookup on ({names.index(table, self.index)}), {many}"


@dataclass(slots=True)
class JoinLookup:
    """An index nested-loop join: keys are what the rows of an earlier step have in `slots`.

    keys: further ones, of rows that only the transaction has.
    """

    kind: Kind
    index: int
    step: int
    slots: list[int]
    keys: list[IndexKey] = field(default_factory=list)

    def describe(self, names: Names, table: int) -> str:
        """Name the access path."""
        if self.kind == "row":
            path = "primary key lookup"
        else:
            unique = "unique " * (self.kind == "unique")
            path = f"{unique}index lookup on ({names.index(table, self.index)})"
        return f"{path} for each row of step {self.step + 1} (index nested-loop join)"


@dataclass(slots=True)
class RangeLookup:
    """A range scan of an ordered index, or a walk along it.

    low, high: `-inf`, `(5`, `5`, `+inf` where `by_number`; else `-`, `(` or `[` and bytes, `+`.
    walk: 1 (ascending) or -1: the first rows in the step's order are the first ones in the index's;
    after as many as the step's limit, those follow that are equal to the last in the slots `ties`.
    filters: as in `KeyLookup`.
    """

    index: int
    low: str | bytes
    high: str | bytes
    by_number: bool
    walk: Walk = 0
    ties: list[int] = field(default_factory=list)
    filters: list[int] = field(default_factory=list)

    def describe(self, names: Names, table: int) -> str:
        """Name the access path."""
        columns = names.index(table, self.index)
        ends = f"{names.bound(self.low)} to {names.bound(self.high)}"
        if self.walk:
            direction = "backward " if self.walk < 0 else ""
            return f"ordered index scan on ({columns}), {direction}{ends}, stops at the limit"
        return f"range scan on ({columns}), {ends}"


Lookup = KeyLookup | JoinLookup | RangeLookup


@dataclass(slots=True)
class Aggregation:
    """An aggregation in the store: not rows come, but one result for each group of them.

    groups: slots of GROUP BY; without any, all rows are one group, also if there are none.
    functions: `count` (slot -1: of rows, else of values that aren't NULL), `sum`, `min`, `max`, or
    an empty one for a slot of the group.
    """

    groups: list[int]
    functions: list[tuple[str, int]]

    def describe(self, names: Names, table: int) -> str:
        """Write the functions and the groups."""
        text = ", ".join(
            f"{function}({names.column(table, slot) if slot >= 0 else '*'})"
            for function, slot in self.functions
            if function
        )
        by = ", ".join(names.column(table, slot) for slot in self.groups)
        return f"{text} grouped by {by}" if by else text


@dataclass(slots=True)
class SemiJoin:
    """A semi-join reduction: rows of an earlier step stay only if this step has a matching one.

    slot, own_slot: the columns, of the earlier step and of this one, that have to be equal and not
    NULL.  lookup: the place of this step's look-up by these columns; -1: there is none.
    """

    step: int
    slot: int
    own_slot: int
    lookup: int = -1


@dataclass(slots=True)
class Step:
    """The access of a statement to one table.

    All look-ups and filters hold for the rows that are wanted: a store takes the look-up that
    promises the fewest rows and may ignore the others; without any it scans the whole table.
    defaults: `[slot, packed value]` of columns that older rows lack.  order, limit: only the first
    rows in this order of slots (and whether descending) are wanted, with those that are equal to
    the last of them; limit 0: all.  columns: slots of the only ones that are wanted; None: all.
    """

    table: int
    lookups: Sequence[Lookup] = ()
    filters: Sequence[Test] = ()
    defaults: Sequence[Any] = ()
    order: Sequence[tuple[int, bool]] = ()
    limit: int = 0
    columns: tuple[int, ...] | None = None
    aggregation: Aggregation | None = None
    semi_joins: Sequence[SemiJoin] = ()

    def describe(self, names: Names) -> list[str]:
        """Write the step in lines: the first names the access paths, the others what is pushed
        down and what comes back."""
        table = self.table
        paths = [lookup.describe(names, table) for lookup in self.lookups]
        lines = [f"{names.table(table)}: {', or '.join(paths) or 'full table scan'}"]
        if self.filters:
            tests = " AND ".join(test.describe(names, table) for test in self.filters)
            lines.append(f"predicate pushdown: {tests}")
        for join in self.semi_joins:
            own = names.column(table, join.own_slot)
            lines.append(f"semi-join reduction: step {join.step + 1} keeps rows that match {own}")
        if self.limit:
            order = ", ".join(
                names.column(table, slot) + " DESC" * descending for slot, descending in self.order
            )
            lines.append(
                f"top-N pushdown: {self.limit} rows" + (f" in the order {order}" if order else "")
            )
        if self.aggregation is not None:
            lines.append(f"aggregate pushdown: {self.aggregation.describe(names, table)}")
        elif self.columns:
            columns = ", ".join(names.column(table, slot) for slot in self.columns)
            lines.append(f"projection pushdown: {columns}")
        return lines


def pack_steps(steps: Iterable[Step]) -> list[list[Any]]:
    """Return steps as the lists that scripts take."""
    return [pack_step(step) for step in steps]


def pack_step(step: Step) -> list[Any]:
    """Return a step as the list that scripts take."""
    packed = [
        step.table,
        [pack_lookup(lookup) for lookup in step.lookups],
        [pack_filter(test) for test in step.filters],
        step.defaults,
        step.order,
        step.limit,
        step.columns or False,
    ]
    aggregation = step.aggregation
    if aggregation is not None:
        packed.append([aggregation.groups, aggregation.functions])
    if step.semi_joins:
        if aggregation is None:
            packed.append(False)
        packed.append(
            [[join.step, join.slot, join.own_slot, join.lookup] for join in step.semi_joins]
        )
    return packed


def pack_lookup(lookup: Lookup) -> list[Any]:
    """Return a look-up as the list that scripts take."""
    if isinstance(lookup, KeyLookup):
        return [lookup.kind, lookup.index, lookup.keys, lookup.filters]
    if isinstance(lookup, JoinLookup):
        return [lookup.kind, lookup.index, False, lookup.step, lookup.slots, lookup.keys]
    return ["order", lookup.index, pack_range(lookup), lookup.filters]


def pack_range(lookup: RangeLookup) -> list[Any]:
    """Return the ends of a range, and how it is walked, as the list that scripts take."""
    return [lookup.low, lookup.high, int(lookup.by_number), lookup.walk, lookup.ties]


def pack_filter(test: Test) -> list[Any]:
    """Return a filter as the list that scripts take."""
    if isinstance(test, Filter):
        return [test.slot, test.op, test.values]
    return [0, "any", [[pack_filter(part) for part in branch] for branch in test.branches]]
