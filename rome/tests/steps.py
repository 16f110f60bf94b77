"""Steps of a read from the lists that scripts take for them, as tests write them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rome.stores.wire import (
    Aggregation,
    AnyFilter,
    Filter,
    JoinLookup,
    KeyLookup,
    Lookup,
    RangeLookup,
    SemiJoin,
    Step,
    Test,
    pack_step,
)


def typed(packed: Sequence[Any]) -> Step:
    """Return the step that is packed as this list."""
    table, lookups, filters, defaults, order, limit, columns, *more = packed
    step = Step(
        table,
        [_lookup(lookup) for lookup in lookups],
        [_filter(test) for test in filters],
        defaults,
        [(slot, descending) for slot, descending in order],
        limit,
        tuple(columns) if columns else None,
        Aggregation(more[0][0], [(function, slot) for function, slot in more[0][1]])
        if more and more[0]
        else None,
        [SemiJoin(*join) for join in more[1]] if len(more) > 1 else [],
    )
    assert pack_step(step)[:3] == [table, [_full(lookup) for lookup in lookups], list(filters)]
    return step


def _full(lookup: Sequence[Any]) -> list[Any]:
    """Return a look-up with the list of filters that it covers."""
    return [*lookup, []] if lookup[0] == "order" and len(lookup) == 3 else list(lookup)


def _lookup(packed: Sequence[Any]) -> Lookup:
    kind, index, keys, *rest = packed
    if kind == "order":
        low, high, by_number, walk, ties = keys
        return RangeLookup(index, low, high, bool(by_number), walk, ties, *rest)
    if keys is False:
        return JoinLookup(kind, index, *rest)
    return KeyLookup(kind, index, keys, *rest)


def _filter(packed: Sequence[Any]) -> Test:
    slot, op, values = packed
    if op == "any":
        return AnyFilter([[_filter(part) for part in branch] for branch in values])
    return Filter(slot, op, values)
