"""What the steps of a read (wire.py) make of rows, in Python: for stores that run no scripts."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any

from rome.stores.base import Rows
from rome.stores.rows import NULL, pack_value, unpack_value
from rome.stores.steps import Defaults, Found, column, part
from rome.stores.values import sort_key
from rome.stores.wire import Aggregation, AnyFilter, Step, Test

# A row number as text, and the row.
Pair = tuple[bytes, bytes]
# Sums are exact below it: a store may not lose digits (base.py).
_EXACT = 2**53


def passes(row: bytes, filters: Sequence[Test], defaults: Defaults) -> bool:
    """Tell whether a row passes all filters."""
    for test in filters:
        if isinstance(test, AnyFilter):
            if not any(passes(row, branch, defaults) for branch in test.branches):
                return False
            continue
        op, values = test.op, test.values
        data = column(row, test.slot, defaults)
        if op == "in":
            good = data in values
        elif op == "out":
            good = data != NULL and data not in values
        elif op == "not":
            good = data not in values
        elif op in ("null", "some"):
            good = (data == NULL) == (op == "null")
        elif data == NULL:
            good = False
        else:
            mine, bound = sort_key(unpack_value(data)), sort_key(unpack_value(values[0]))
            good = {
                "<": mine < bound,
                "<=": mine <= bound,
                ">": mine > bound,
                ">=": mine >= bound,
            }[op]
        if not good:
            return False
    return True


def first_in_order(
    pairs: Sequence[Pair], order: Sequence[tuple[int, bool]], limit: int, defaults: Defaults
) -> list[Pair]:
    """Return the first rows in an order, and those that are equal to the last of them."""
    keys = {
        number: [sort_key(unpack_value(column(row, slot, defaults))) for slot, _ in order]
        for number, row in pairs
    }

    def compare(a: Pair, b: Pair) -> int:
        for mine, other, (_, descending) in zip(keys[a[0]], keys[b[0]], order, strict=True):
            if mine != other:
                return -1 if (mine < other) != bool(descending) else 1
        return 0

    ordered = sorted(pairs, key=functools.cmp_to_key(compare))
    stop = limit
    while stop < len(ordered) and keys[ordered[stop][0]] == keys[ordered[limit - 1][0]]:
        stop += 1
    return ordered[:stop]


def reduce_earlier(
    steps: Sequence[Step], results: list[Found], numbers: list[list[bytes]], place: int
) -> None:
    """Take out of earlier steps the rows that no row of this one matches (semi-joins)."""
    rows_here, defaults_here = results[place]
    for join in steps[place].semi_joins:
        values = {column(row, join.own_slot, defaults_here) for row in rows_here} - {NULL}
        encoded, defaults = results[join.step]
        good = [column(row, join.slot, defaults) in values for row in encoded]
        if not all(good):
            results[join.step] = list(itertools.compress(encoded, good)), defaults
            numbers[join.step] = list(itertools.compress(numbers[join.step], good))
            reduce_earlier(steps, results, numbers, join.step)


def answered(
    steps: Sequence[Step], results: Sequence[Found], numbers: Sequence[Sequence[bytes]]
) -> list[Rows]:
    """Return the answer of a request: of each step its rows or groups, each row once."""
    returned: dict[int, set[bytes]] = {}
    answer: list[Rows] = []
    for step, (rows, defaults), own in zip(steps, results, numbers, strict=True):
        if step.aggregation is not None:
            answer.append(aggregated(rows, defaults, step.aggregation))
            continue
        had = returned.setdefault(step.table, set())
        out: Rows = []
        for number, row in zip(own, rows, strict=True):
            if number not in had:
                had.add(number)
                out += (number, part(row, step.columns, defaults) if step.columns else row)
        answer.append(out)
    return answer


def aggregated(encoded: Sequence[bytes], defaults: Defaults, aggregation: Aggregation) -> list[Any]:
    """Return the packed results of each group, or `["no"]` where a sum would lose digits."""
    slots, functions = aggregation.groups, aggregation.functions
    groups: dict[bytes, list[bytes]] = {} if slots else {b"": []}
    for row in encoded:
        key = b"".join(column(row, slot, defaults) for slot in slots)
        groups.setdefault(key, []).append(row)
    answer = []
    for members in groups.values():
        values: list[Any] = []
        for function, slot in functions:
            decoded = [
                value
                for row in members
                if slot >= 0 and (value := unpack_value(column(row, slot, defaults))) is not None
            ]
            if not function:
                values.append(decoded[0] if decoded else None)
            elif function == "count":
                values.append(len(members) if slot < 0 else len(decoded))
            elif not decoded:
                values.append(None)
            elif function == "sum":
                total = sum(decoded) if all(isinstance(value, int) for value in decoded) else None
                if total is None or abs(total) >= _EXACT:
                    return [b"no"]
                values.append(total)
            else:
                values.append((min if function == "min" else max)(decoded, key=sort_key))
        answer.append([pack_value(value) for value in values])
    return answer
