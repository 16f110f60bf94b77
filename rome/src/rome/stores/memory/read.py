"""The steps of a read over the rows in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rome.stores import rows
from rome.stores.base import Rows
from rome.stores.evaluation import answered, first_in_order, passes, reduce_earlier
from rome.stores.memory.database import Database
from rome.stores.memory.order import Order
from rome.stores.steps import Defaults, Found, column, join_keys
from rome.stores.values import sort_key
from rome.stores.wire import JoinLookup, RangeLookup, Step, Test


def read_steps(database: Database, steps: Sequence[Step]) -> list[Rows]:
    """Return the rows of each step, numbers and rows by turns."""
    results: list[Found] = []
    numbers: list[list[bytes]] = []
    for step in steps:
        own, rows, defaults = _step(database, step, results)
        numbers.append(own)
        results.append((rows, defaults))
        reduce_earlier(steps, results, numbers, len(results) - 1)
    return answered(steps, results, numbers)


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
        if number in stored and passes(stored[number], filters, defaults)
    ]
    if limit and len(pairs) > limit:
        pairs = first_in_order(pairs, step.order, limit, defaults)
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
        if row is None or not passes(row, filters, defaults):
            continue
        key = [sort_key(rows.unpack_value(column(row, slot, defaults))) for slot in ties]
        if len(numbers) >= limit and (not ties or key != last):
            break
        numbers.append(number)
        last = key
    return numbers
