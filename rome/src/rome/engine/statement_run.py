"""One run of a statement that writes, and the rows that it turns out to need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rome.schema.changes import Key
from rome.stores.wire import KeyLookup, Step


class RowsNeeded(Exception):
    """A running statement needs rows that it hasn't read: it is undone, and run again over these
    and its others, read together, so that it sees one moment."""

    def __init__(self, steps: list[Step]) -> None:
        super().__init__(steps)
        self.steps = steps


@dataclass(slots=True)
class StatementRun:
    """What is known while a statement runs.

    mark: where its changes begin.  missing: rows of the store that it collides with, by table.
    fetches: whether it reads rows of the store; read_now: whether it has done so by now.
    covered: the look-ups whose rows are here as of the statement's moment.  touched: rows that it
    has written, and whether their numbers came from ROME.
    """

    mark: int = 0
    fetches: bool = False
    read_now: bool = False
    missing: list[tuple[int, list[bytes]]] = field(default_factory=list)
    covered: set[Any] = field(default_factory=set)
    touched: dict[Key, bool] = field(default_factory=dict)

    def uncovered(self, steps: Sequence[Step]) -> list[Step]:
        """Return the steps whose rows aren't here as of the statement's moment."""
        return [step for step in steps if look_up_of(step) not in self.covered]

    def cover(self, steps: Sequence[Step]) -> None:
        """Note that the rows of these steps will be here."""
        self.covered.update(map(look_up_of, steps))

    def require(self, steps: Sequence[Step]) -> None:
        """Have the rows of these steps as of the statement's moment; raises RowsNeeded."""
        missing = self.uncovered(steps)
        if missing:
            self.cover(missing)
            raise RowsNeeded(missing)


def look_up_of(step: Step) -> Any:
    """Return what a step with one look-up of one key, or without any, asks for."""
    lookup = _key_lookup(step)
    if lookup is None:
        return step.table
    return step.table, lookup.kind, lookup.index, lookup.keys[0]


def merged(steps: list[Step]) -> list[Step]:
    """Return look-ups in one index as one step."""
    scans: dict[int, Step] = {}
    lookups: dict[tuple[int, str, int], KeyLookup] = {}
    for step in steps:
        lookup = _key_lookup(step)
        if lookup is None:
            scans[step.table] = step
            continue
        place = (step.table, lookup.kind, lookup.index)
        if place in lookups:
            lookups[place].keys.extend(lookup.keys)
        else:
            lookups[place] = KeyLookup(lookup.kind, lookup.index, list(lookup.keys))
    return [*scans.values(), *(Step(table, [one]) for (table, _, _), one in lookups.items())]


def _key_lookup(step: Step) -> KeyLookup | None:
    """Return the one look-up of a step; None: it scans its table."""
    lookup = step.lookups[0] if step.lookups else None
    return lookup if isinstance(lookup, KeyLookup) else None
