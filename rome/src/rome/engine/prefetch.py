"""Prefetching: the rows of statements that have followed one before are read along with it.

An application runs the same statements in the same order over and over, with parameters that
come from the first of them, or from what its thread has read and written just before: an
instance by its uuid, then its metadata, then its system metadata.  So when a statement goes to
the store, the rows of those that have followed it before are asked for in the same round trip,
and the keys that will be looked up for rows they write.  A statement that is then run, and needs
just those, needs no round trip of its own; it reads as of the moment of the earlier one.
Whatever was prefetched wrongly is never looked at.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rome.engine.recent import Executed
from rome.planner.plan import Bind, Layout, Plan
from rome.stores.rows import pack_value, unpack_values
from rome.stores.wire import IndexKey, Kind

# Statements that are prefetched at once.
MOST = 24
# Transactions that are remembered for each statement, and statements.
_REMEMBERED = 4
_STATEMENTS = 2000
# A longer value, or list of values, isn't remembered.
_LONGEST = 200
_PATIENCE = 20
_LESSONS = 16
# A statement that this one is the first in its transaction for.
_ANY = ""


@dataclass(frozen=True, slots=True)
class StatementRead:
    """A statement that needed rows of the store."""

    sql: str
    parameters: Sequence[Any]
    plan: Plan
    layout: Layout

    @property
    def form(self) -> Any:
        """What two such reads have in common."""
        return self.sql

    @property
    def values(self) -> Sequence[Any]:
        """The values that it is made with."""
        return self.parameters

    def needed(self) -> set[int]:
        """Return the places of values without which it would be another read."""
        return _needed(self.plan, self.layout)


# Of a key that is looked up: table, kind of look-up, index, and the key's values.
KeyValues = tuple[int, Kind, int, tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class KeysRead:
    """Keys that were looked up for the rows that a statement wrote.

    version: of the schema that has these tables and indexes.  new: how many of the first keys were
    those of new rows, the others being those of parents.
    """

    sql: str
    version: str
    keys: tuple[KeyValues, ...]
    new: int = 0

    @property
    def form(self) -> Any:
        """What two such reads have in common."""
        forms = tuple((*key[:3], len(key[3])) for key in self.keys)
        return self.sql, self.version, self.new, forms

    @property
    def values(self) -> Sequence[Any]:
        """The values that it is made with."""
        return [value for key in self.keys for value in key[3]]

    def needed(self) -> set[int]:
        """Return the places of values without which it would be another read."""
        return set(range(len(self.values)))

    def filled(self, values: Sequence[Any]) -> list[tuple[int, Kind, int, IndexKey]]:
        """Return the keys to look up, with other values."""
        keys: list[tuple[int, Kind, int, IndexKey]] = []
        start = 0
        for table, kind, index, own in self.keys:
            part = values[start : start + len(own)]
            start += len(own)
            data = str(part[0]) if kind == "row" else b"".join(map(pack_value, part))
            keys.append((table, kind, index, data))
        return keys


def key_values(table: int, kind: Kind, index: int, key: IndexKey) -> KeyValues | None:
    """Return a look-up with its key's values; None: they don't give the same key."""
    if kind == "row":
        return table, kind, index, (int(key),)
    data = key.encode() if isinstance(key, str) else key
    values = unpack_values(data)
    if b"".join(map(pack_value, values)) != data or not memorable(values):
        return None
    return table, kind, index, tuple(values)


@dataclass(frozen=True, slots=True)
class RowRead:
    """A row that a statement wanted to write and named by a key of its own.

    What else the statement says of the row doesn't matter, nor which statement it is.  hold:
    whether it compared what it set.
    """

    version: str
    key: KeyValues
    hold: bool

    @property
    def form(self) -> Any:
        """What two such reads have in common."""
        return self.version, self.key[:3], len(self.key[3])

    @property
    def values(self) -> Sequence[Any]:
        """The values that it is made with."""
        return self.key[3]

    def needed(self) -> set[int]:
        """Return the places of values without which it would be another read."""
        return set(range(len(self.values)))

    def filled(self, values: Sequence[Any]) -> tuple[int, Kind, int, IndexKey]:
        """Return the key to look up, with other values."""
        return KeysRead("", self.version, (self.key,)).filled(values)[0]


Read = StatementRead | KeysRead | RowRead


@dataclass(frozen=True, slots=True)
class FromLog:
    """A value of the thread's latest statement with this SQL: a parameter, or a column of the
    first row of its answer."""

    sql: str
    answered: bool
    place: int

    def value(self, log: Mapping[str, Executed]) -> Any:
        """Return it.  Raises LookupError."""
        executed = log[self.sql]
        return (executed.row if self.answered else executed.parameters)[self.place]


# Where a value comes from: the first statement's parameter at this place, or the log; None: it is
# the same each time.
Source = int | FromLog | None


@dataclass(frozen=True, slots=True)
class FollowUp:
    """A read that will follow, and where each of its values comes from."""

    read: Read
    sources: tuple[Source, ...]

    def values(self, first: Sequence[Any], log: Mapping[str, Executed]) -> list[Any] | None:
        """Return its values after a first statement with these; None: they aren't known."""
        try:
            return [
                value
                if source is None
                else first[source]
                if isinstance(source, int)
                else source.value(log)
                for source, value in zip(self.sources, self.read.values, strict=True)
            ]
        except LookupError:
            return None


@dataclass(frozen=True, slots=True)
class Lesson:
    """What followed a statement once: its parameters, what its thread had executed before it,
    and what was read after it in its transaction."""

    parameters: Sequence[Any]
    before: Sequence[Executed]
    later: Sequence[Read]

    def kept(self) -> Lesson:
        """Return it without values that are too long to be remembered."""
        before = [Executed(e.sql, shortened(e.parameters), shortened(e.row)) for e in self.before]
        return Lesson(shortened(self.parameters), before, self.later[:MOST])


@dataclass(slots=True)
class _Followed:
    """What has followed one statement."""

    times: deque[Lesson]
    follow_ups: tuple[FollowUp, ...] = ()
    hits: int = 0
    misses: int = 0
    seen: int = 0  # times that something else followed


class PrefetchHistory:
    """What all connections of a process have seen of one database.

    What follows a statement is learnt for those that its thread has executed just before it, each
    by itself, and for any.
    """

    def __init__(self) -> None:
        self._by_sql: dict[tuple[str, str], _Followed] = {}

    def follow_ups(
        self, sql: str, parameters: Sequence[Any], before: Sequence[Executed] = ()
    ) -> Iterator[tuple[FollowUp, list[Any]]]:
        """Yield what will be read after this statement, with its values."""
        followed = None
        if before:
            followed = self._by_sql.get((before[-1].sql, sql))
            if followed is not None and len(followed.times) < 2:
                followed = None
        if followed is None:
            followed = self._by_sql.get((_ANY, sql))
        if followed is None or followed.misses > followed.hits + _PATIENCE:
            return
        log = {executed.sql: executed for executed in before} if followed.follow_ups else {}
        for follow_up in followed.follow_ups:
            values = follow_up.values(parameters, log)
            if values is not None:
                yield follow_up, values

    def learn(self, sql: str, lesson: Lesson, prefetched: int = 0, used: int = 0) -> None:
        """Learn what followed a statement in its transaction.

        prefetched, used: how many reads were prefetched with it, and how many of them came.
        """
        if lesson.before:
            self._learn((lesson.before[-1].sql, sql), lesson, prefetched, used)
        self._learn((_ANY, sql), lesson, prefetched, used)

    def _learn(self, key: tuple[str, str], lesson: Lesson, prefetched: int, used: int) -> None:
        followed = self._by_sql.get(key)
        if followed is None:
            if not lesson.later and key[0] == _ANY:
                return
            if len(self._by_sql) >= _STATEMENTS:
                self._by_sql.clear()
            followed = self._by_sql[key] = _Followed(deque(maxlen=_REMEMBERED))
        followed.hits += used
        followed.misses += prefetched - used
        if prefetched == used == min(len(lesson.later), MOST) and len(followed.times) > 1:
            return  # nothing new
        followed.seen += 1
        if prefetched == used and followed.seen > _LESSONS and followed.seen % _LESSONS:
            return  # what follows it varies: to learn seldom is enough
        followed.times.append(lesson.kept())
        followed.follow_ups = _in_common(list(followed.times))


def memorable(parameters: Sequence[Any]) -> bool:
    """Tell whether parameters are few and short enough to be remembered."""
    return len(parameters) <= _LONGEST and not any(map(_is_long, parameters))


def shortened(parameters: Sequence[Any]) -> list[Any]:
    """Return parameters without those that are too long to be remembered."""
    if not isinstance(parameters, list | tuple):
        return []  # by name
    return [None if _is_long(value) else value for value in parameters[:_LONGEST]]


def _is_long(value: Any) -> bool:
    return isinstance(value, str | bytes) and len(value) > _LONGEST


def _in_common(times: list[Lesson]) -> tuple[FollowUp, ...]:
    """Return what the latest transaction has in common with those before that went on alike."""
    *earlier, latest = times
    alike = [(_alike(latest.later, lesson.later), lesson) for lesson in earlier]
    longest = max((count for count, _ in alike), default=0)
    if not longest:
        return ()
    group = [latest, *(lesson for count, lesson in reversed(alike) if count >= longest)]
    follow_ups = [_follow_up(place, group) for place in range(min(longest, MOST))]
    return tuple(follow_up for follow_up in follow_ups if follow_up is not None)


def _alike(one: Sequence[Read], other: Sequence[Read]) -> int:
    """Return how many reads two transactions begin with in common."""
    count = 0
    for mine, theirs in zip(one, other, strict=False):
        if mine.form != theirs.form or len(mine.values) != len(theirs.values):
            break
        count += 1
    return count


def _follow_up(place: int, group: Sequence[Lesson]) -> FollowUp | None:
    """Return a read to prefetch; None: it needs a value that comes from elsewhere.

    group: lessons that have this read at this place, the latest one first.
    """
    read = group[0].later[place]
    if isinstance(read, RowRead):
        reads = [lesson.later[place] for lesson in group]
        hold = any(isinstance(other, RowRead) and other.hold for other in reads)
        read = replace(read, hold=hold)
    needed = read.needed()
    sources: list[Source] = []
    for position in range(len(read.values)):
        values = [lesson.later[place].values[position] for lesson in group]
        source, known = _source(values, group, logged=position in needed)
        if not known and position in needed:
            return None
        sources.append(source)
    return FollowUp(read, tuple(sources))


def _source(values: Sequence[Any], group: Sequence[Lesson], logged: bool) -> tuple[Source, bool]:
    """Return where a value comes from, and whether that explains it each time.

    logged: whether to look for it in what the threads had executed before.
    """
    same = all(_same(value, values[0]) for value in values)
    chance: Source = None
    for place in range(min(len(lesson.parameters) for lesson in group)):
        own = [lesson.parameters[place] for lesson in group]
        if all(map(_same, values, own)):
            if not same:
                return place, True  # not by chance
            chance = place
    if same or not logged:
        return chance, same
    logs = [{executed.sql: executed for executed in lesson.before} for lesson in group]
    for executed in reversed(group[0].before):
        if logs[0][executed.sql] is not executed:
            continue  # there is a later one
        for answered, found in ((True, executed.row), (False, executed.parameters)):
            for column, value in enumerate(found):
                if not _same(value, values[0]):
                    continue
                source = FromLog(executed.sql, answered, column)
                if _explains(source, values, logs):
                    return source, True
    return None, False


def _explains(
    source: FromLog, values: Sequence[Any], logs: Sequence[Mapping[str, Executed]]
) -> bool:
    """Tell whether the value came from here each time."""
    try:
        return all(_same(source.value(log), value) for log, value in zip(logs, values, strict=True))
    except LookupError:
        return False


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
