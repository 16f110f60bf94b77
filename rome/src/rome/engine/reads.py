"""What the statements of a transaction read from the store, and when.

A statement's request goes to the store unless its rows have come with an earlier statement's;
and requests of statements that will follow go with it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from rome.engine.moments import Moments
from rome.engine.prefetch import Foresight, Reading, memorable
from rome.engine.result_cache import Answers, Kept, key_of
from rome.planner.plan import BoundPlan, Layout, Plan, TextPlan
from rome.schema.catalogue import Schema
from rome.schema.changes import Change, Key
from rome.stores.base import Answer, Request, Store
from rome.stores.wire import Step

# Seconds for which rows that came with an earlier statement may be used.
FRESH = 5.0


@dataclass(slots=True)
class Wanted:
    """What a statement needs of the store.

    steps: for its rows.  request: what is asked for; other steps, if only sums of the rows
    are.  told: whether the store tests all its conditions.  plain: whether its answer comes
    from rows of the store only.  key, kept: under which its answer is kept, and the one that
    is.
    """

    steps: list[Step]
    request: list[Step]
    told: bool
    plain: bool
    key: Any = None
    kept: Kept | None = None


@dataclass(frozen=True, slots=True)
class _Ahead:
    """An answer that came before its statement, and the statement that it came with.

    moment: when it was asked for, in seconds of the monotonic clock: the rows are not older.
    """

    request: list[Step]
    answer: Answer
    kept: Kept | None
    source: str
    moment: float


class Calling(Protocol):
    """A statement as the application made it."""

    sql: str
    parameters: Sequence[Sequence[Any]]
    many: bool
    plan: Plan
    layout: Layout
    replaying: bool
    read: bool
    asked: bool


class Holder(Protocol):
    """What reads need of a transaction."""

    changes: dict[Key, Change]
    serializable: bool
    reading_calls: int
    store: Store

    @property
    def schema(self) -> Schema:
        """The tables."""


class Reads:
    """The reads of one transaction after another."""

    def __init__(
        self,
        transaction: Holder,
        answers: Answers | None,
        foresight: Foresight | None,
        moments: Moments,
    ) -> None:
        self.answers = answers
        self._moments = moments
        self._me = object()  # names this connection to `moments`
        self._transaction = transaction
        self._foresight = foresight
        self._ahead: dict[str, list[_Ahead]] = {}
        self._foresaw: dict[str, list[int]] = {}  # how many, and how many were used
        self._running: Calling | None = None  # the statement, until it has read
        self._statements: set[tuple[str, tuple[Any, ...]]] = set()  # that have read

    def forget(self) -> None:
        """The transaction is over, or is run again."""
        self._ahead.clear()
        self._foresaw.clear()
        self._statements.clear()
        self._running = None

    def discard(self) -> None:
        """The transaction sees what is newer than the rows that came before their statements:
        from now on it must not see these, or it would go back in time."""
        self._ahead.clear()

    def begin(self, call: Calling) -> None:
        """A statement is run."""
        self._running = call

    def wanted(
        self, bound: BoundPlan, sql: str, parameters: Sequence[Any], layout: Layout
    ) -> Wanted:
        """What a SELECT, or an UPDATE or DELETE, needs."""
        changes, serializable = self._transaction.changes, self._transaction.serializable
        steps, told = bound.steps(parameters, layout, changes)
        untouched = not changes or not any(table in bound.numbers for table, _ in changes)
        wanted = Wanted(steps, steps, told, bound.reads_only and not bound.locks and untouched)
        if not wanted.plain:
            return wanted
        aggregation = bound.aggregation(parameters, layout) if told else None
        if aggregation is not None:
            wanted.request = [replace(steps[0], columns=None, aggregation=aggregation)]
        if self.answers is not None and bound.repeatable and not serializable:
            wanted.key = key_of(bound.schema.version, sql, parameters)
            wanted.kept = self.answers.get(wanted.key) if wanted.key else None
        return wanted

    # ------------------------------------------------------------ reading

    def read(self, wanted: Wanted) -> Answer:
        """The answer of the store; its rows are None if the one that is kept is right."""
        call, self._running = self._running, None
        if call is None:
            self.discard()
        if self._transaction.serializable:
            return self._ask([Request(wanted.request, [step.table for step in wanted.request])])[0]
        others: list[tuple[str, Wanted]] = []
        if call is not None and self._foresight is not None and not call.replaying:
            call.read = True
            # Who reads the same again wants to see what has changed.
            statement = call.sql, tuple(call.parameters[0] if call.parameters else ())
            if statement not in self._statements:
                self._statements.add(statement)
                ahead = self._taken(call.sql, wanted)
                if ahead is not None:
                    return ahead
            call.asked = True
            self.discard()
            if not call.many:
                others = self._following(call, wanted, self._foresight)
        moment = time.monotonic()
        answers = self._ask([_request(wanted), *(_request(other) for _, other in others)])
        if call is not None and others:
            self._foresaw.setdefault(call.sql, [0, 0])[0] += len(others)
            for (sql, other), answer in zip(others, answers[1:], strict=False):
                ahead_of = _Ahead(other.request, answer, other.kept, call.sql, moment)
                self._ahead.setdefault(sql, []).append(ahead_of)
        return answers[0]

    def check(self, request: Request) -> Answer:
        """Ask the store beside what the statement has read: for keys, parents, children.

        The answer shows the application a later moment than rows that came ahead of their
        statements, so these are asked for again in the same round trip.
        """
        waiting = [(sql, ahead) for sql, found in self._ahead.items() for ahead in found]
        self._ahead.clear()
        moment = time.monotonic()
        again = [_again(ahead) for _, ahead in waiting]
        answers = self._ask([request, *again])
        for (sql, ahead), answer in zip(waiting, answers[1:], strict=False):
            if answer.rows is None:  # the same as before
                answer = ahead.answer
            self._ahead.setdefault(sql, []).append(replace(ahead, answer=answer, moment=moment))
        return answers[0]

    def committed(self, tables: Iterable[int]) -> None:
        """Note that the transaction's commit, done or perhaps done, has written these tables."""
        self._moments.committed(tables)
        self._moments.heard(self._me)

    def _ask(self, requests: Sequence[Request]) -> list[Answer]:
        transaction = self._transaction
        answers = transaction.store.read(transaction.schema.version, requests)
        self._moments.heard(self._me)
        return answers

    def _taken(self, sql: str, wanted: Wanted) -> Answer | None:
        """The answer to just this request, if it came with an earlier statement and this thread,
        or a commit of this process, shows the application nothing newer since."""
        if self._ahead and not self._moments.heard_last(self._me):
            self.discard()
        waiting = self._ahead.get(sql, [])
        for place, ahead in enumerate(waiting):
            if ahead.request != wanted.request:
                continue
            del waiting[place]
            self._foresaw[ahead.source][1] += 1
            if time.monotonic() - ahead.moment > FRESH:
                return None
            if self._moments.written_since({step.table for step in ahead.request}, ahead.moment):
                return None
            # Rows that weren't sent are those of the answer that was kept then.
            usable = ahead.answer.rows is not None or ahead.kept is wanted.kept
            return ahead.answer if usable else None
        return None

    def _following(
        self, call: Calling, wanted: Wanted, foresight: Foresight
    ) -> list[tuple[str, Wanted]]:
        """Statements that will follow this one, and what they need."""
        found: list[tuple[str, Wanted]] = []
        schema = self._transaction.schema
        first = call.parameters[0] if call.parameters else ()
        mine = call.plan.bound
        is_late = mine is not None and not mine.reads_only and mine.compares_and_sets
        for expected, parameters in foresight.expected(call.sql, first):
            bound = expected.plan.bound
            if bound is None or bound.schema is not schema:
                continue
            # A row that is compared and set should be read as late as it can be: the longer
            # the way to the commit, the more often another transaction is faster.
            if not bound.reads_only and bound.compares_and_sets and not is_late:
                break
            other = self.wanted(bound, expected.sql, parameters, expected.layout)
            # Who reads the same again wants to see what has changed.
            if other.request and other.request != wanted.request:
                found.append((expected.sql, other))
        return found

    # ------------------------------------------------------------ learning

    def learn(self, calls: Iterable[Calling]) -> None:
        """Remember which statements of a transaction have followed which."""
        if self._foresight is None:
            return
        readings: list[tuple[Calling, Reading]] = []
        for call in calls:
            if not call.read:
                continue
            given = call.parameters[0] if call.parameters else ()
            if call.many or isinstance(call.plan, TextPlan) or not memorable(given):
                break
            readings.append((call, Reading(call.sql, tuple(given), call.plan, call.layout)))
        later = [reading for _, reading in readings]
        for place, (call, reading) in enumerate(readings, 1):
            if call.asked:
                foreseen, used = self._foresaw.get(call.sql, (0, 0))
                self._foresight.learn(reading, later[place:], foreseen, used)


def _again(ahead: _Ahead) -> Request:
    """The request of an answer that came ahead, for its rows if they have changed since."""
    if not ahead.answer.commits:
        return Request(ahead.request)
    tables = list(dict.fromkeys(step.table for step in ahead.request))
    return Request(ahead.request, tables, ahead.answer.commits)


def _request(wanted: Wanted) -> Request:
    if wanted.key is None:
        return Request(wanted.request)
    tables = list(dict.fromkeys(step.table for step in wanted.request))
    return Request(wanted.request, tables, wanted.kept.commits if wanted.kept else ())
