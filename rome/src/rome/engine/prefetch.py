"""Prefetching: the rows of statements that have followed one before are read along with it.

An application runs the same statements in the same order over and over, with parameters that
come from the first of them: an instance by its uuid, then its metadata, then its system
metadata.  So when a statement goes to the store, the rows of those that have followed it
before are asked for in the same round trip.  A statement that is then run, and needs just
those rows, needs no round trip of its own; it reads as of the moment of the earlier one.
Whatever was prefetched wrongly is never looked at.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rome.planner.plan import Bind, Layout, Plan

# Statements that are prefetched at once.
MOST = 24
# Transactions that are remembered for each statement, and statements.
_REMEMBERED = 4
_STATEMENTS = 1000
# A longer value, or list of values, isn't remembered.
_LONGEST = 200
_PATIENCE = 20
_LESSONS = 16


@dataclass(frozen=True, slots=True)
class StatementRead:
    """A statement that needed rows of the store."""

    sql: str
    parameters: Sequence[Any]
    plan: Plan
    layout: Layout


@dataclass(frozen=True, slots=True)
class FollowUp:
    """A statement that will follow: each of its parameters is one of the first statement's
    (its place), or the same each time."""

    sql: str
    plan: Plan
    layout: Layout
    places: tuple[int, ...]  # -1: not one of the first statement's
    values: Sequence[Any]

    def parameters(self, first: Sequence[Any]) -> list[Any]:
        """Return its parameters after a first statement with these."""
        return [
            value if place < 0 else first[place]
            for place, value in zip(self.places, self.values, strict=True)
        ]


@dataclass(slots=True)
class _Followed:
    """What has followed one statement: its parameters each time, and the statements."""

    times: deque[tuple[Sequence[Any], list[StatementRead]]]
    follow_ups: tuple[FollowUp, ...] = ()
    hits: int = 0
    misses: int = 0
    seen: int = 0  # times that something else followed


class PrefetchHistory:
    """What all connections of a process have seen of one database."""

    def __init__(self) -> None:
        self._by_sql: dict[str, _Followed] = {}

    def follow_ups(
        self, sql: str, parameters: Sequence[Any]
    ) -> Iterator[tuple[FollowUp, list[Any]]]:
        """Yield the statements that will follow this one, with their parameters."""
        followed = self._by_sql.get(sql)
        if followed is None or followed.misses > followed.hits + _PATIENCE:
            return
        for follow_up in followed.follow_ups:
            if all(place < len(parameters) for place in follow_up.places):
                yield follow_up, follow_up.parameters(parameters)

    def learn(
        self,
        first: StatementRead,
        later: Sequence[StatementRead],
        prefetched: int = 0,
        used: int = 0,
    ) -> None:
        """Learn what followed a statement in its transaction.

        prefetched, used: how many statements were prefetched with it, and how many of them came.
        """
        followed = self._by_sql.get(first.sql)
        if followed is None:
            if not later:
                return
            if len(self._by_sql) >= _STATEMENTS:
                self._by_sql.clear()
            followed = self._by_sql[first.sql] = _Followed(deque(maxlen=_REMEMBERED))
        followed.hits += used
        followed.misses += prefetched - used
        if prefetched == used == min(len(later), MOST):
            return  # nothing new
        followed.seen += 1
        if followed.seen > _LESSONS and followed.seen % _LESSONS:
            return  # what follows it varies: to learn seldom is enough
        followed.times.append((first.parameters, list(later[:MOST])))
        followed.follow_ups = _in_common(list(followed.times))


def memorable(parameters: Sequence[Any]) -> bool:
    """Tell whether parameters are few and short enough to be remembered."""
    return len(parameters) <= _LONGEST and not any(
        isinstance(value, str | bytes) and len(value) > _LONGEST for value in parameters
    )


def _in_common(times: list[tuple[Sequence[Any], list[StatementRead]]]) -> tuple[FollowUp, ...]:
    """Return what the latest transaction has in common with one of those before."""
    if len(times) < 2:
        return ()
    now, latest = times[-1]
    longest: list[tuple[StatementRead, StatementRead]] = []
    parameters: Sequence[Any] = ()
    for before, earlier in reversed(times[:-1]):
        pairs = []
        for pair in zip(latest, earlier, strict=False):
            if pair[0].sql != pair[1].sql:
                break
            pairs.append(pair)
        if len(pairs) > len(longest):
            longest, parameters = pairs, before
    follow_ups = [_follow_up(reading, now, other, parameters) for reading, other in longest]
    return tuple(follow_up for follow_up in follow_ups if follow_up is not None)


def _follow_up(
    reading: StatementRead, now: Sequence[Any], other: StatementRead, before: Sequence[Any]
) -> FollowUp | None:
    """Return a statement to prefetch; None: it needs a value that comes from elsewhere."""
    places = []
    needed = _needed(reading.plan, reading.layout)
    pairs = zip(reading.parameters, other.parameters, strict=False)
    for position, (value, earlier) in enumerate(pairs):
        place = -1
        for candidate, (new, old) in enumerate(zip(now, before, strict=False)):
            if _same(value, new) and _same(earlier, old):
                place = candidate
                if new != old:
                    break  # not by chance
        if place < 0 and position in needed and not _same(value, earlier):
            return None
        places.append(place)
    return FollowUp(reading.sql, reading.plan, reading.layout, tuple(places), reading.parameters)


def _needed(plan: Plan, layout: Layout) -> set[int]:
    """Return the places of parameters that say which rows a statement reads."""
    values = [*(count for top in plan.top_n_candidates for count in top.counts)]
    conditions = list(plan.conditions)
    for condition in conditions:
        values += condition.values
        conditions += [part for branch in condition.branches for part in branch]
    names = {value.name for value in values if isinstance(value, Bind)}
    return {place for name in names for place in layout.get(name, ())}


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)
