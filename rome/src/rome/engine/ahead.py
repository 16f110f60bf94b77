"""Answers of the store that came before their statements, with an earlier one's."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rome.engine.moments import Moments
from rome.engine.result_cache import CachedResult
from rome.schema.tables import Table
from rome.stores import base
from rome.stores.base import Answer, Request, Store
from rome.stores.wire import IndexKey, KeyLookup, Kind, Step

# Seconds for which rows that came with an earlier statement may be used, and which share of the
# time that rows are held for those that are.  Where that is longer than usual, so are both.
FRESH = 5.0
_HELD = 0.8

# A key that was looked up: table, kind of look-up, index, key.
KeyPlace = tuple[int, Kind, int, IndexKey]


@dataclass(frozen=True, slots=True)
class AheadRows:
    """Rows that came before their statement, and the statement that they came with.

    moment: when they were asked for, in seconds of the monotonic clock: they are not older.
    """

    request: list[Step]
    answer: Answer
    cached: CachedResult | None
    hold: bool
    source: str
    moment: float


@dataclass(frozen=True, slots=True)
class AheadKeys:
    """Keys that were looked up before the statement whose rows have them.

    found: the row that each key leads to, or None.
    """

    found: Mapping[KeyPlace, int | None]
    source: str
    moment: float


class Ahead:
    """What has come ahead in one transaction.

    It may be used as long as the application can't know better: the thread has heard of the store
    through no other connection since, and no thread of the process has committed to the tables.
    """

    def __init__(self, moments: Moments, connection: object, store: Store) -> None:
        self._moments = moments
        self._store = store
        self._connection = connection  # names it to `moments`
        self._rows: dict[str, list[AheadRows]] = {}
        self._keys: list[AheadKeys] = []
        # By source how many reads were prefetched, and how many of these were used.
        self.counts: dict[str, list[int]] = {}

    def forget(self) -> None:
        """Forget the transaction."""
        self.discard()
        self.counts.clear()

    def discard(self) -> None:
        """Drop all: the transaction sees what is newer."""
        self._rows.clear()
        self._keys.clear()

    def put_rows(self, sql: str, rows: AheadRows) -> None:
        """Note rows that have come for a statement."""
        if rows.answer.held or not rows.hold:
            self._rows.setdefault(sql, []).append(rows)

    def put_keys(self, keys: AheadKeys) -> None:
        """Note keys that were looked up."""
        self._keys.append(keys)

    def oldest(self) -> float:
        """Return when the oldest of it was asked for; infinite if there is nothing."""
        rows = (one.moment for waiting in self._rows.values() for one in waiting)
        return min(itertools.chain(rows, (one.moment for one in self._keys)), default=math.inf)

    # ------------------------------------------------------------ using

    def _heard_elsewhere(self) -> bool:
        if (self._rows or self._keys) and not self._moments.heard_last(self._connection):
            self.discard()
            return True
        return False

    def take_rows(
        self, sql: str, request: list[Step], cached: CachedResult | None, hold: bool
    ) -> Answer | None:
        """Return the answer to just this request; None: it isn't here, or may be too old."""
        if self._heard_elsewhere():
            return None
        waiting = self._rows.get(sql, [])
        for place, rows in enumerate(waiting):
            if rows.request != request or (hold and not rows.hold):
                continue
            del waiting[place]
            self.counts[rows.source][1] += 1
            age = time.monotonic() - rows.moment
            tables = {step.table for step in request}
            if age > (_HELD * self._store.hold_s if rows.hold else self._fresh_s):
                return None
            if self._moments.written_since(tables, rows.moment):
                return None
            # Rows that weren't sent are those of the answer that was kept then.
            usable = rows.answer.rows is not None or rows.cached is cached
            return rows.answer if usable else None
        return None

    def has_rows(self, sql: str, request: list[Step]) -> bool:
        """Tell whether `take_rows` would return an answer."""
        oldest = time.monotonic() - self._fresh_s
        return self._moments.heard_last(self._connection) and any(
            rows.request == request and rows.moment >= oldest for rows in self._rows.get(sql, ())
        )

    @property
    def _fresh_s(self) -> float:
        return FRESH * self._store.hold_s / base.HOLD_S

    def keys_hold(
        self, free: Sequence[Step], there: Sequence[Step], changed: Iterable[tuple[int, int]]
    ) -> bool:
        """Tell whether it is known that the store has no row with the keys of `free`, and has rows
        with those of `there` other than `changed`.

        Each step has one look-up of one key.
        """
        if self._heard_elsewhere():
            return False
        oldest = time.monotonic() - self._fresh_s
        used: dict[int, AheadKeys] = {}
        mine = set(changed)
        for steps, wanted in ((free, False), (there, True)):
            for step in steps:
                place = place_of(step)
                keys = next((keys for keys in self._keys if place in keys.found), None)
                if place is None or keys is None or keys.moment < oldest:
                    return False
                number = keys.found[place]
                if (number is not None) != wanted or (step.table, number) in mine:
                    return False
                if self._moments.written_since([step.table], keys.moment):
                    return False
                used[id(keys)] = keys
        for keys in used.values():
            self.counts[keys.source][1] += 1
        return True

    # ------------------------------------------------------------ asking again

    def requests(self) -> list[Request]:
        """Return the requests of all that is here, to be asked again."""
        return [
            *(_again(rows) for waiting in self._rows.values() for rows in waiting),
            *(Request(key_steps(keys.found)) for keys in self._keys),
        ]

    def renew(self, answers: Sequence[Answer], moment: float) -> None:
        """Take the answers to `requests` in the place of what is here."""
        rest = iter(answers)
        waiting = [(sql, rows) for sql, several in self._rows.items() for rows in several]
        keys = list(self._keys)
        self.discard()
        for (sql, rows), answer in zip(waiting, rest, strict=False):
            if answer.rows is None and not rows.hold:  # the same as before
                answer = rows.answer
            self.put_rows(sql, replace(rows, answer=answer, moment=moment))
        for looked_up, answer in zip(keys, rest, strict=False):
            found = found_keys(list(looked_up.found), answer)
            self.put_keys(replace(looked_up, found=found, moment=moment))


def place_of(step: Step) -> KeyPlace | None:
    """Return the key that a step with one look-up of one key asks for."""
    lookup = step.lookups[0] if len(step.lookups) == 1 else None
    if not isinstance(lookup, KeyLookup) or len(lookup.keys) != 1:
        return None
    return step.table, lookup.kind, lookup.index, lookup.keys[0]


def row_step(table: Table, kind: Kind, index: int, key: IndexKey) -> Step:
    """Return the step that reads a row by a key of its own, whatever else is said of it."""
    return Step(table.number, [KeyLookup(kind, index, [key])], defaults=table.packed_defaults)


def row_name(place: KeyPlace) -> str:
    """Name the reads of rows by a kind of key, whatever statement wants them."""
    return f"row {place[:3]}"


def key_steps(places: Iterable[Any]) -> list[Step]:
    """Return the steps that look keys up; of the rows only a column comes."""
    return [
        Step(table, [KeyLookup(kind, index, [key])], columns=(0,))
        for table, kind, index, key in places
    ]


def found_keys(places: Sequence[KeyPlace], answer: Answer) -> dict[KeyPlace, int | None]:
    """Return the row that each key leads to; what isn't known is left out.

    A row comes once, so a second key that leads to it seems to lead nowhere.
    """
    found: dict[KeyPlace, int | None] = {}
    tables: set[int] = set()
    for place, rows in zip(places, answer.rows or (), strict=False):
        if rows:
            found[place] = int(rows[0])
            tables.add(place[0])
        elif place[0] not in tables:
            found[place] = None
    return found


def _again(rows: AheadRows) -> Request:
    """Return the request of rows that came ahead, for rows if they have changed since."""
    if rows.hold or not rows.answer.commits:
        return Request(rows.request, hold=rows.hold)
    tables = list(dict.fromkeys(step.table for step in rows.request))
    return Request(rows.request, tables, rows.answer.commits)
