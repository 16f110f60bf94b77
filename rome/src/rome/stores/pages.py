"""Reads that are too large for one script: step by step, and a table page by page.

A script blocks the server while it runs, so it refuses to look at more than so many rows.
The same request is then answered in many round trips, as of many moments: rows that are
changed meanwhile may be seen as they were or as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rome.rows import NULL, split, unpack_value
from rome.stores.base import Rows, Step

# ask(step, cursor or False) -> numbers and rows by turns, and the next cursor; None: too large
Ask = Callable[[Step, bytes | bool], tuple[Rows, bytes] | None]

_KEYS = 2000  # of a join, in one call


def read_in_pages(ask: Ask, steps: Sequence[Step]) -> list[Rows]:
    """The answer of `read` (base.py)."""
    found: list[tuple[list[bytes], dict[int, bytes]]] = []
    taken: dict[int, set[bytes]] = {}
    answer: list[Rows] = []
    for step in steps:
        if len(step) > 7:
            return [[b"no"]]  # sums over so many rows are done from the rows
        table, lookups, filters, fill_list, order, limit, columns = step
        fills = dict(map(tuple, fill_list))
        rows: dict[bytes, bytes] | None = None
        for lookup in lookups:
            keys = lookup[2] if lookup[2] is not False else _joined(lookup, found)
            rows = _looked_up(ask, table, lookup, keys, filters, fill_list)
            if rows is not None:
                break
        if rows is None:
            rows = _scanned(ask, [table, [], filters, fill_list, order, limit, False])
        found.append((list(rows.values()), fills))
        had = taken.setdefault(table, set())
        out: Rows = []
        for number, row in rows.items():
            if number not in had:
                had.add(number)
                out += (number, _part(row, columns, fills) if columns else row)
        answer.append(out)
    return answer


def _looked_up(
    ask: Ask,
    table: int,
    lookup: list[Any],
    keys: Sequence[Any],
    filters: list[Any],
    fills: list[Any],
) -> dict[bytes, bytes] | None:
    rows: dict[bytes, bytes] = {}
    said = lookup[3] if lookup[2] is not False else []
    for start in range(0, len(keys), _KEYS):
        constant = [lookup[0], lookup[1], list(keys[start : start + _KEYS]), []]
        if len(keys) <= _KEYS:
            constant[3] = said
        page = ask([table, [constant], filters, fills, [], 0, False], False)
        if page is None:
            return None
        rows.update(zip(page[0][::2], page[0][1::2], strict=True))
    return rows


def _scanned(ask: Ask, step: Step) -> dict[bytes, bytes]:
    rows: dict[bytes, bytes] = {}
    cursor = b"0"
    while True:
        page = ask(step, cursor)
        if page is None:
            return rows
        rows.update(zip(page[0][::2], page[0][1::2], strict=True))
        cursor = page[1]
        if cursor == b"0":
            return rows


def _slice(row: bytes, slot: int, fills: dict[int, bytes]) -> bytes:
    parts = split(row)
    return parts[slot] if slot < len(parts) else fills.get(slot, NULL)


def _joined(lookup: list[Any], found: list[tuple[list[bytes], dict[int, bytes]]]) -> list[Any]:
    rows, fills = found[lookup[3]]
    keys: dict[Any, None] = {}
    for row in rows:
        parts = [_slice(row, slot, fills) for slot in lookup[4]]
        if NULL in parts:
            continue
        if lookup[0] == "row":
            number = unpack_value(parts[0])
            if isinstance(number, int):
                keys[str(number)] = None
        else:
            keys[b"".join(parts)] = None
    for key in lookup[5] if len(lookup) > 5 else ():
        keys[key] = None
    return list(keys)


def _part(row: bytes, columns: Sequence[int], fills: dict[int, bytes]) -> bytes:
    parts = [_slice(row, slot, fills) for slot in columns]
    return b"\xdc" + len(parts).to_bytes(2, "big") + b"".join(parts)
