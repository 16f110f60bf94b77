"""Reads that are too large for one script: step by step, and a table page by page.

A script blocks the server while it runs, so it refuses to look at more than so many rows.
The same request is then answered in many round trips, as of many moments: rows that are
changed meanwhile may be seen as they were or as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rome.stores.base import Rows, Step
from rome.stores.steps import Found, joined, part

# ask(step, cursor or False) -> numbers and rows by turns, and the next cursor; None: too large
Ask = Callable[[Step, bytes | bool], tuple[Rows, bytes] | None]

_KEYS = 2000  # of a join, in one call


def read_in_pages(ask: Ask, steps: Sequence[Step]) -> list[Rows]:
    """The answer of `read` (base.py)."""
    found: list[Found] = []
    taken: dict[int, set[bytes]] = {}
    answer: list[Rows] = []
    for step in steps:
        if len(step) > 7 and step[7]:
            return [[b"no"]]  # sums over so many rows are done from the rows
        table, lookups, filters, fill_list, order, limit, columns = step[:7]
        fills = dict(map(tuple, fill_list))
        rows: dict[bytes, bytes] | None = None
        # Few keys before a range, which is read page by page as well.
        for lookup in sorted(lookups, key=lambda lookup: bool(lookup[0] == "order")):
            if lookup[0] == "order":
                rows = _walked(ask, [table, [lookup], filters, fill_list, order, limit, False])
                break
            keys = lookup[2] if lookup[2] is not False else joined(lookup, found)
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
                out += (number, part(row, columns, fills) if columns else row)
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


def _walked(ask: Ask, step: Step) -> dict[bytes, bytes] | None:
    """The rows of a step with one look-up, by an ordered index: all, or the first ones."""
    rows: dict[bytes, bytes] = {}
    limit, walk = step[5], step[1][0][2][3]
    if not walk:
        step = [*step[:4], [], 0, *step[6:]]
    cursor = b"0"
    while True:
        if walk and limit:
            # Behind the last page may be rows equal to the last one: one more brings them.
            step = [*step[:5], max(limit - len(rows), 1), *step[6:]]
        page = ask(step, cursor)
        if page is None:
            return None
        rows.update(zip(page[0][::2], page[0][1::2], strict=True))
        cursor = page[1]
        if cursor == b"0":
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
