"""The steps of a read over the rows in memory."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from rome.stores import rows
from rome.stores.base import Rows
from rome.stores.memory.database import Database
from rome.stores.memory.order import Order
from rome.stores.steps import Defaults, Found, column, join_keys, part
from rome.stores.values import sort_key
from rome.stores.wire import Aggregation, AnyFilter, JoinLookup, RangeLookup, Step, Test


def read_steps(database: Database, steps: Sequence[Step]) -> list[Rows]:
    """Return the rows of each step, numbers and rows by turns."""
    results: list[Found] = []
    numbers: list[list[bytes]] = []
    for step in steps:
        own, rows, defaults = _step(database, step, results)
        numbers.append(own)
        results.append((rows, defaults))
        _reduce(steps, results, numbers, len(results) - 1)
    returned: dict[int, set[bytes]] = {}
    answer = []
    for step, (rows, defaults), own in zip(steps, results, numbers, strict=True):
        if step.aggregation is not None:
            answer.append(_aggregated(rows, defaults, step.aggregation))
            continue
        had = returned.setdefault(step.table, set())
        out: Rows = []
        for number, row in zip(own, rows, strict=True):
            if number not in had:
                had.add(number)
                if step.columns:
                    row = part(row, step.columns, defaults)
                out += (number, row)
        answer.append(out)
    return answer


def _step(
    database: Database, step: Step, results: list[Found]
) -> tuple[list[bytes], list[bytes], Defaults]:
    table, filters, limit = step.table, step.filters, step.limit
    defaults: Defaults = dict(step.defaults)
    stored = database.rows.get(table, {})
    best = None
    walk: list[bytes] | None = None
    ties: Sequence[int] = ()
    for lookup in step.lookups:
        if isinstance(lookup, RangeLookup):
            numbers = database.ordered.get((table, lookup.index), Order()).span(lookup)
            if lookup.walk and limit:
                walk, ties = numbers[:: lookup.walk], lookup.ties
        else:
            keys = lookup.keys
            if isinstance(lookup, JoinLookup):
                keys = join_keys(lookup, results)
            numbers = database.numbers(table, lookup.kind, lookup.index, keys)
        if best is None or len(numbers) < len(best):
            best = numbers
    if walk is not None:
        best = _first_in(stored, walk, ties, filters, defaults, limit)
    pairs = [
        (number, stored[number])
        for number in (stored if best is None else best)
        if number in stored and _passes(stored[number], filters, defaults)
    ]
    if limit and len(pairs) > limit:
        pairs = _first(pairs, step.order, limit, defaults)
    return [number for number, _ in pairs], [row for _, row in pairs], defaults


def _first_in(
    stored: Mapping[bytes, bytes],
    walk: Sequence[bytes],
    ties: Sequence[int],
    filters: Sequence[Test],
    defaults: Defaults,
    limit: int,
) -> list[bytes]:
    """Return the first rows of a walk that pass, and those equal to the last in the tie slots."""
    numbers: list[bytes] = []
    last: list[Any] = []
    for number in walk:
        row = stored.get(number)
        if row is None or not _passes(row, filters, defaults):
            continue
        key = [sort_key(rows.unpack_value(column(row, slot, defaults))) for slot in ties]
        if len(numbers) >= limit and (not ties or key != last):
            break
        numbers.append(number)
        last = key
    return numbers


def _passes(row: bytes, filters: Sequence[Test], defaults: Defaults) -> bool:
    for test in filters:
        if isinstance(test, AnyFilter):
            if not any(_passes(row, branch, defaults) for branch in test.branches):
                return False
            continue
        op, values = test.op, test.values
        data = column(row, test.slot, defaults)
        if op == "in":
            good = data in values
        elif op == "out":
            good = data != rows.NULL and data not in values
        elif op == "not":
            good = data not in values
        elif op in ("null", "some"):
            good = (data == rows.NULL) == (op == "null")
        elif data == rows.NULL:
            good = False
        else:
            mine, bound = sort_key(rows.unpack_value(data)), sort_key(rows.unpack_value(values[0]))
            good = {
                "<": mine < bound,
                "<=": mine <= bound,
                ">": mine > bound,
                ">=": mine >= bound,
            }[op]
        if not good:
            return False
    return True


def _reduce(
    steps: Sequence[Step], results: list[Found], numbers: list[list[bytes]], place: int
) -> None:
    """Take out of earlier steps the rows that no row of this one matches."""
    rows_here, fills_here = results[place]
    for join in steps[place].semi_joins:
        values = {column(row, join.own_slot, fills_here) for row in rows_here} - {rows.NULL}
        encoded, defaults = results[join.step]
        good = [column(row, join.slot, defaults) in values for row in encoded]
        if not all(good):
            results[join.step] = list(itertools.compress(encoded, good)), defaults
            numbers[join.step] = list(itertools.compress(numbers[join.step], good))
            _reduce(steps, results, numbers, join.step)


def _first(
    pairs: list[tuple[bytes, bytes]],
    order: Sequence[tuple[int, bool]],
    limit: int,
    defaults: Defaults,
) -> list[tuple[bytes, bytes]]:
    keys = {
        number: [sort_key(rows.unpack_value(column(row, slot, defaults))) for slot, _ in order]
        for number, row in pairs
    }

    def compare(a: tuple[bytes, bytes], b: tuple[bytes, bytes]) -> int:
        for mine, other, (_, descending) in zip(keys[a[0]], keys[b[0]], order, strict=True):
            if mine != other:
                return -1 if (mine < other) != bool(descending) else 1
        return 0

    pairs = sorted(pairs, key=functools.cmp_to_key(compare))
    stop = limit
    while stop < len(pairs) and keys[pairs[stop][0]] == keys[pairs[limit - 1][0]]:
        stop += 1
    return pairs[:stop]


def _aggregated(
    encoded: Sequence[bytes], defaults: Defaults, aggregation: Aggregation
) -> list[Any]:
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
                if slot >= 0
                and (value := rows.unpack_value(column(row, slot, defaults))) is not None
            ]
            if not function:
                values.append(decoded[0] if decoded else None)
            elif function == "count":
                values.append(len(members) if slot < 0 else len(decoded))
            elif not decoded:
                values.append(None)
            elif function == "sum":
                total = sum(decoded) if all(isinstance(value, int) for value in decoded) else None
                if total is None or abs(total) >= 2**53:
                    return [b"no"]
                values.append(total)
            else:
                values.append((min if function == "min" else max)(decoded, key=sort_key))
        answer.append([rows.pack_value(value) for value in values])
    return answer
