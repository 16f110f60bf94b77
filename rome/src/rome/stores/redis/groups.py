"""Aggregates that are made page by page, or from the rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rome.stores.redis.step_rows import StepRows
from rome.stores.rows import NULL, pack_value, unpack_value
from rome.stores.values import sort_key
from rome.stores.wire import Aggregation

_EXACT = 2**53


class Groups:
    """The groups of an aggregation, whose results are added up.

    countable: whether they are right; not if digits would be lost.
    """

    def __init__(self, aggregation: Aggregation) -> None:
        self.aggregation = aggregation
        self.countable = True
        self._groups: dict[tuple[bytes, ...], list[Any]] = {}

    def add_page(self, results: Sequence[Any]) -> None:
        """Add the results of a page: for each group its own values, then the functions'."""
        if list(results) == [b"no"]:
            self.countable = False
            return
        own = len(self.aggregation.groups)
        for group in results:
            self._add(tuple(group[:own]), group[own:])

    def add_rows(self, rows: StepRows) -> None:
        """Add what whole rows hold."""
        slots, functions = self.aggregation.groups, self.aggregation.functions
        groups, places = [rows.columns.index(slot) for slot in slots], rows.columns
        for row in rows.rows.values():
            values = [pack_value(value) for value in unpack_value(row)]
            one = [
                pack_value(1)
                if function == "count" and (slot < 0 or values[places.index(slot)] != NULL)
                else pack_value(0)
                if function == "count"
                else values[places.index(slot)]
                for function, slot in functions
            ]
            self._add(tuple(values[place] for place in groups), one)

    def results(self) -> list[Any]:
        """Return the packed results of each group, or `["no"]` where digits would be lost."""
        if not self._groups and not self.aggregation.groups:
            functions = self.aggregation.functions
            self._add((), [pack_value(0 if f == "count" else None) for f, _ in functions])
        if not self.countable:
            return [b"no"]
        return [[pack_value(value) for value in group] for group in self._groups.values()]

    def _add(self, key: tuple[bytes, ...], group: Sequence[bytes]) -> None:
        """Add the results of some rows to those of the others in their group."""
        functions = self.aggregation.functions
        values = [unpack_value(data) for data in group]
        have = self._groups.get(key)
        if have is None:
            have = self._groups[key] = [None] * len(values)
        for place, ((function, _), value) in enumerate(zip(functions, values, strict=True)):
            other = have[place]
            if value is None:
                continue
            if function in ("sum", "count"):
                if type(value) is not int:
                    self.countable = False
                    return
                have[place] = value if other is None else other + value
            elif function in ("min", "max"):
                if isinstance(value, int | float) and abs(value) >= _EXACT:
                    self.countable = False
                    return
                less = other is not None and sort_key(value) < sort_key(other)
                if other is None or less == (function == "min"):
                    have[place] = value
            else:
                have[place] = value
            if function == "sum" and abs(have[place]) >= _EXACT:
                self.countable = False
