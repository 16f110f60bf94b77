"""What the statements of a transaction read from the store, and when.

A statement's request goes to the store unless its rows have come with an earlier statement's;
and requests of statements that will follow go with it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rome.engine.calls import Call
from rome.engine.moments import Moments
from rome.engine.prefetch import PrefetchHistory, StatementRead, memorable
from rome.engine.result_cache import CachedResult, ResultCache, cache_key
from rome.engine.session import Session
from rome.planner.plan import BoundPlan, Layout, TextPlan
from rome.stores.base import Answer, Request
from rome.stores.wire import Step

# Seconds for which rows that came with an earlier statement may be used.
FRESH = 5.0


@dataclass(slots=True)
class ReadRequest:
    """What a statement needs of the store.

    steps: those that give its rows.  sent: those that are sent, with an aggregation where the
    store can do it.  pushed_down: whether the store tests all its conditions.  store_only: whether
    its answer comes from rows of the store only, none of the transaction's.  key, cached: the key
    in the result cache, and the result that is there.
    """

    steps: list[Step]
    sent: list[Step]
    pushed_down: bool
    store_only: bool
    key: Any = None
    cached: CachedResult | None = None


@dataclass(frozen=True, slots=True)
class _PrefetchedAnswer:
    """An answer that came before its statement, and the statement that it came with.

    moment: when it was asked for, in seconds of the monotonic clock: the rows are not older.
    """

    request: list[Step]
    answer: Answer
    cached: CachedResult | None
    source: str
    moment: float


class Reads:
    """The reads of one transaction after another."""

    def __init__(
        self,
        session: Session,
        result_cache: ResultCache | None,
        prefetch_history: PrefetchHistory | None,
        moments: Moments,
    ) -> None:
        self.result_cache = result_cache
        self._moments = moments
        self._me = object()  # names this connection to `moments`
        self._session = session
        self._prefetch_history = prefetch_history
        self._prefetched: dict[str, list[_PrefetchedAnswer]] = {}
        self._prefetch_counts: dict[str, list[int]] = {}  # how many, and how many were used
        self._running: Call | None = None  # the statement, until it has read
        self._statements: set[tuple[str, tuple[Any, ...]]] = set()  # that have read

    def forget(self) -> None:
        """Forget the transaction, which is over, or is run again."""
        self._prefetched.clear()
        self._prefetch_counts.clear()
        self._statements.clear()
        self._running = None

    def discard(self) -> None:
        """Drop prefetched rows, as the transaction sees what is newer than they are:
        from now on it must not see these, or it would go back in time."""
        self._prefetched.clear()

    def begin(self, call: Call) -> None:
        """Note that a statement is run."""
        self._running = call

    def plan_read(
        self, bound: BoundPlan, sql: str, parameters: Sequence[Any], layout: Layout
    ) -> ReadRequest:
        """Return what a SELECT, or an UPDATE or DELETE, needs."""
        changes, serializable = self._session.overlay.changes, self._session.serializable
        steps, pushed_down = bound.steps(parameters, layout, changes)
        untouched = not changes or not any(table in bound.numbers for table, _ in changes)
        read_request = ReadRequest(
            steps, steps, pushed_down, bound.reads_only and not bound.locks and untouched
        )
        if not read_request.store_only:
            return read_request
        aggregation = bound.aggregation(parameters, layout) if pushed_down else None
        if aggregation is not None:
            read_request.sent = [steps[0].aggregated(aggregation)]
        if self.result_cache is not None and bound.repeatable and not serializable:
            read_request.key = cache_key(bound.schema.version, sql, parameters)
            read_request.cached = (
                self.result_cache.get(read_request.key) if read_request.key else None
            )
        return read_request

    # ------------------------------------------------------------ reading

    def read(self, read_request: ReadRequest) -> Answer:
        """Return the answer of the store; its rows are None if the cached result is right."""
        call, self._running = self._running, None
        if call is None:
            self.discard()
        if self._session.serializable:
            return self._ask(
                [Request(read_request.sent, [step.table for step in read_request.sent])]
            )[0]
        others: list[tuple[str, ReadRequest]] = []
        if call is not None and self._prefetch_history is not None and not call.retrying:
            call.read = True
            # Who reads the same again wants to see what has changed.
            statement = call.sql, tuple(call.parameters[0] if call.parameters else ())
            if statement not in self._statements:
                self._statements.add(statement)
                ahead = self._take_prefetched(call.sql, read_request)
                if ahead is not None:
                    return ahead
            call.asked = True
            self.discard()
            if not call.many:
                others = self._prefetch_requests(call, read_request, self._prefetch_history)
        moment = time.monotonic()
        answers = self._ask([_request(read_request), *(_request(other) for _, other in others)])
        if call is not None and others:
            self._prefetch_counts.setdefault(call.sql, [0, 0])[0] += len(others)
            for (sql, other), answer in zip(others, answers[1:], strict=False):
                ahead_of = _PrefetchedAnswer(other.sent, answer, other.cached, call.sql, moment)
                self._prefetched.setdefault(sql, []).append(ahead_of)
        return answers[0]

    def check(self, request: Request) -> Answer:
        """Ask the store beside what the statement has read: for keys, parents, children.

        The answer shows the application a later moment than rows that came ahead of their
        statements, so these are asked for again in the same round trip.
        """
        waiting = [
            (sql, ahead)
            for sql, answers_ahead in self._prefetched.items()
            for ahead in answers_ahead
        ]
        self._prefetched.clear()
        moment = time.monotonic()
        again = [_again(ahead) for _, ahead in waiting]
        answers = self._ask([request, *again])
        for (sql, ahead), answer in zip(waiting, answers[1:], strict=False):
            if answer.rows is None:  # the same as before
                answer = ahead.answer
            self._prefetched.setdefault(sql, []).append(
                replace(ahead, answer=answer, moment=moment)
            )
        return answers[0]

    def committed(self, tables: Iterable[int]) -> None:
        """Note that the transaction's commit, done or perhaps done, has written these tables."""
        self._moments.committed(tables)
        self._moments.heard(self._me)

    def _ask(self, requests: Sequence[Request]) -> list[Answer]:
        session = self._session
        answers = session.store.read(session.schema.version, requests)
        self._moments.heard(self._me)
        return answers

    def _take_prefetched(self, sql: str, read_request: ReadRequest) -> Answer | None:
        """Return the answer to just this request, if it came with an earlier statement.

        None: it didn't, or this thread or a commit of this process has shown the application
        something newer since.
        """
        if self._prefetched and not self._moments.heard_last(self._me):
            self.discard()
        waiting = self._prefetched.get(sql, [])
        for place, ahead in enumerate(waiting):
            if ahead.request != read_request.sent:
                continue
            del waiting[place]
            self._prefetch_counts[ahead.source][1] += 1
            if time.monotonic() - ahead.moment > FRESH:
                return None
            if self._moments.written_since({step.table for step in ahead.request}, ahead.moment):
                return None
            # Rows that weren't sent are those of the answer that was kept then.
            usable = ahead.answer.rows is not None or ahead.cached is read_request.cached
            return ahead.answer if usable else None
        return None

    def _prefetch_requests(
        self, call: Call, read_request: ReadRequest, history: PrefetchHistory
    ) -> list[tuple[str, ReadRequest]]:
        """Return the statements that will follow this one, and what they need."""
        requests: list[tuple[str, ReadRequest]] = []
        schema = self._session.schema
        first = call.parameters[0] if call.parameters else ()
        mine = call.plan.bound
        is_late = mine is not None and not mine.reads_only and mine.compares_and_sets
        for follow_up, parameters in history.follow_ups(call.sql, first):
            bound = follow_up.plan.bound
            if bound is None or bound.schema is not schema:
                continue
            # A row that is compared and set should be read as late as it can be: the longer
            # the way to the commit, the more often another transaction is faster.
            if not bound.reads_only and bound.compares_and_sets and not is_late:
                break
            other = self.plan_read(bound, follow_up.sql, parameters, follow_up.layout)
            # Who reads the same again wants to see what has changed.
            if other.sent and other.sent != read_request.sent:
                requests.append((follow_up.sql, other))
        return requests

    # ------------------------------------------------------------ explaining

    @property
    def prefetches(self) -> bool:
        """Whether statements that will follow are read ahead."""
        return self._prefetch_history is not None and not self._session.serializable

    def is_prefetched(self, call: Call, read_request: ReadRequest) -> bool:
        """Tell whether the rows of a statement have come with an earlier one, and may be used."""
        if not self._moments.heard_last(self._me):
            return False
        if (call.sql, tuple(call.first_parameters)) in self._statements:
            return False
        oldest = time.monotonic() - FRESH
        return any(
            ahead.request == read_request.sent and ahead.moment >= oldest
            for ahead in self._prefetched.get(call.sql, ())
        )

    def prefetch_plan(self, call: Call) -> list[str]:
        """Return the SQL of the statements that would be prefetched with this one."""
        history, bound = self._prefetch_history, call.plan.bound
        if history is None or bound is None:
            return []
        read_request = self.plan_read(bound, call.sql, call.first_parameters, call.layout)
        return [sql for sql, _ in self._prefetch_requests(call, read_request, history)]

    # ------------------------------------------------------------ learning

    def learn(self, calls: Iterable[Call]) -> None:
        """Remember which statements of a transaction have followed which."""
        if self._prefetch_history is None:
            return
        readings: list[tuple[Call, StatementRead]] = []
        for call in calls:
            if not call.read:
                continue
            parameters = call.parameters[0] if call.parameters else ()
            if call.many or isinstance(call.plan, TextPlan) or not memorable(parameters):
                break
            readings.append(
                (call, StatementRead(call.sql, tuple(parameters), call.plan, call.layout))
            )
        later = [reading for _, reading in readings]
        for place, (call, reading) in enumerate(readings, 1):
            if call.asked:
                prefetched, used = self._prefetch_counts.get(call.sql, (0, 0))
                self._prefetch_history.learn(reading, later[place:], prefetched, used)


def _again(ahead: _PrefetchedAnswer) -> Request:
    """Return the request of an answer that came ahead, for its rows if they have changed since."""
    if not ahead.answer.commits:
        return Request(ahead.request)
    tables = list(dict.fromkeys(step.table for step in ahead.request))
    return Request(ahead.request, tables, ahead.answer.commits)


def _request(read_request: ReadRequest) -> Request:
    if read_request.key is None:
        return Request(read_request.sent)
    tables = list(dict.fromkeys(step.table for step in read_request.sent))
    return Request(
        read_request.sent, tables, read_request.cached.commits if read_request.cached else ()
    )
