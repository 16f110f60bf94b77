"""Conditions of a plan on the columns of one version of the schema, and as a store's filters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rome.planner.conditions import Bind, Condition, Constant, Layout, plain_values
from rome.schema.tables import Column, Table
from rome.stores.rows import NULL, pack_value
from rome.stores.values import UNKNOWN, canonical
from rome.stores.wire import AnyFilter, Filter, Kind, Test

COMPARISONS = ("<", "<=", ">", ">=")
_SMALL = 2**53  # integers that a double holds exactly are below it


@dataclass
class Predicate:
    """A condition whose column is known.

    index: kind of look-up and number of the index over just this column.  source,
    source_slot: of a join, the earlier step and its column.
    """

    slot: int
    affinity: str
    op: str
    values: tuple[Bind | Constant, ...]
    source: int = -1
    source_slot: int = -1
    index: tuple[Kind, int] | None = None
    filter: bool = True  # whether the store can test it
    branches: tuple[tuple[Predicate, ...], ...] = ()


def bind_condition(
    tables: Mapping[int, Table], steps: Mapping[int, int], condition: Condition
) -> Predicate | None:
    """Find a condition's columns and index; None: it can't be used.

    tables: by occurrence.  steps: the steps of those occurrences that are read before.
    """
    table = tables[condition.occurrence]
    if condition.op == "any":
        branches = tuple(
            tuple(bind_condition(tables, steps, part) for part in branch)
            for branch in condition.branches
        )
        if any(part is None for branch in branches for part in branch):
            return None
        parts = tuple(tuple(part for part in branch if part) for branch in branches)
        return Predicate(0, "", "any", (), branches=parts)
    column = table.column(condition.column)
    if column is None or not column.binary:
        return None
    index: tuple[Kind, int] | None = None
    if column.slot == table.key:
        index = ("row", 0)
    else:
        for unique in (True, False):
            candidate = table.find_index((column.slot,), unique)
            if index is None and candidate is not None and candidate.ready:
                index = ("unique" if unique else "set", candidate.number)
    if condition.op != "join":
        return Predicate(column.slot, column.affinity, condition.op, condition.values, index=index)
    if condition.source not in steps or index is None:
        return None
    other = tables[condition.source].column(condition.other)
    if other is None or not same_bytes(column, other):
        return None
    return Predicate(
        column.slot,
        column.affinity,
        "join",
        (),
        source=steps[condition.source],
        source_slot=other.slot,
        index=index,
        filter=False,
    )


def same_bytes(column: Column, other: Column) -> bool:
    """Tell whether equal values have equal bytes in both columns."""
    if not column.binary or not other.binary or "BLOB" in (column.affinity, other.affinity):
        return False
    whole = ("INTEGER", "NUMERIC")
    return column.affinity == other.affinity or (
        column.affinity in whole and other.affinity in whole
    )


def values_of(predicate: Predicate, parameters: Sequence[Any], layout: Layout) -> list[Any] | None:
    """Give a condition's values as its column holds them, without NULLs; None: not known.

    NULL equals nothing, so `in` needs no rows for it; `out` and comparisons with NULL hold
    for no row, and are left to SQLite.
    """
    result: dict[Any, None] = {}
    for value in predicate.values:
        if isinstance(value, Bind) and value.name not in layout:
            return None
        for raw in plain_values(value, parameters, layout):
            fitting = canonical(raw, predicate.affinity)
            if fitting is UNKNOWN:
                return None
            if fitting is not None:
                result[fitting] = None
            elif predicate.op != "in":
                return None
    return list(result)


def filter_of(predicate: Predicate, parameters: Sequence[Any], layout: Layout) -> Test | None:
    """Return a condition as a filter of the store; None: the store can't test it."""
    op = predicate.op
    if op == "any":
        branches: list[list[Test]] = []
        for branch in predicate.branches:
            tests = []
            for part in branch:
                test = filter_of(part, parameters, layout)
                if test is None:
                    return None
                if not excludes_nothing(test):
                    tests.append(test)
            branches.append(tests)
        return _one_filter(branches) or AnyFilter(branches)
    if op in ("null", "some"):
        return Filter(predicate.slot, op, [])
    values = values_of(predicate, parameters, layout)
    if values is None:
        return None
    if op in COMPARISONS:
        if not values or isinstance(values[0], bytes):
            return None
        if isinstance(values[0], int) and abs(values[0]) >= _SMALL:
            return None
    return Filter(predicate.slot, op, [pack_value(value) for value in values])


def excludes_nothing(test: Test) -> bool:
    """Tell whether a filter is `NOT IN ()`, which also NULL fulfils: it must not be tested."""
    return isinstance(test, Filter) and test.op == "out" and not test.values


def is_tested(predicate: Predicate, parameters: Sequence[Any], layout: Layout) -> bool:
    """Tell whether the store can test a condition with these parameters."""
    return predicate.filter and filter_of(predicate, parameters, layout) is not None


def _one_filter(branches: list[list[Test]]) -> Filter | None:
    """Write `x = ? OR x IS NULL`, `x != ? OR x IS NULL` as one test of a column's bytes."""
    if any(len(branch) != 1 for branch in branches):
        return None
    tests = [test for (test,) in branches if isinstance(test, Filter)]
    ops = [test.op for test in tests]
    if len(tests) != len(branches) or len({test.slot for test in tests}) != 1:
        return None
    if not set(ops) <= {"in", "null", "out"}:
        return None
    values = [value for test in tests for value in test.values]
    if "out" not in ops:
        return Filter(tests[0].slot, "in", values + [NULL] * ("null" in ops))
    if sorted(ops) == ["null", "out"]:
        return Filter(tests[0].slot, "not", values)
    return None
