"""What the statements of a transaction read from the store, and when.

A statement's request goes to the store unless its rows have come with an earlier statement's;
and requests of statements that will follow go with it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rome.engine import row_locks
from rome.engine.ahead import (
    Ahead,
    AheadKeys,
    AheadRows,
    KeyPlace,
    found_keys,
    key_steps,
    place_of,
    row_name,
    row_step,
)
from rome.engine.calls import Call
from rome.engine.holds import FIRST_PAUSE, LONGEST_PAUSE
from rome.engine.prefetch import (
    KeysRead,
    KeyValues,
    Lesson,
    PrefetchHistory,
    Read,
    RowRead,
    StatementRead,
    key_values,
    memorable,
    shortened,
)
from rome.engine.result_cache import CachedResult, cache_key
from rome.engine.session import Session
from rome.engine.shared import Options, Shared
from rome.engine.table_leases import TableLeases
from rome.planner.plan import BoundPlan, Layout, TextPlan
from rome.stores import base
from rome.stores.base import Answer, Request
from rome.stores.wire import KeyLookup, Step

# Keys of one statement that are looked up ahead of it, at most.
_KEYS = 20


@dataclass(slots=True)
class ReadRequest:
    """What a statement needs of the store.

    steps: those that give its rows.  sent: those that are sent, with an aggregation where the
    store can do it.  pushed_down: whether the store tests all its conditions.  store_only: whether
    its answer comes from rows of the store only, none of the transaction's.  key, cached: the key
    in the result cache, and the result that is there.  hold: whether the rows are compared and
    set, and so are held.  row: the key by which a statement names the one row that it writes.
    """

    steps: list[Step]
    sent: list[Step]
    pushed_down: bool
    store_only: bool
    key: Any = None
    cached: CachedResult | None = None
    hold: bool = False
    row: KeyPlace | None = None


@dataclass(frozen=True, slots=True)
class KeysRequest:
    """Keys that a statement will look up; the first `new` are those of rows that it will write."""

    places: list[KeyPlace]
    new: int


class Reads:
    """The reads of one transaction after another."""

    def __init__(self, session: Session, shared: Shared, options: Options) -> None:
        self.result_cache = shared.result_cache if options.result_cache else None
        self._prefetch_history = shared.prefetch_history if options.prefetch else None
        self._table_leases = shared.table_leases if options.table_lease else None
        self._table_lease_s = options.table_lease
        self._moments = shared.moments
        self._recent = shared.recent
        self._me = object()  # names this connection to `moments`
        self._session = session
        self._ahead = Ahead(shared.moments, self._me, session.store)
        self._running: Call | None = None  # the statement, until it has read
        self._checking: Call | None = None  # the statement, until it has looked keys up
        self._statements: set[tuple[str, tuple[Any, ...]]] = set()  # that have read

    def forget(self) -> None:
        """Forget the transaction, which is over, or is run again."""
        self._ahead.forget()
        self._statements.clear()
        self._running = self._checking = None

    def begin(self, call: Call) -> None:
        """Note that a statement is run."""
        self._running = self._checking = call

    def executed(self, call: Call, row: Sequence[Any]) -> None:
        """Note what a statement has answered."""
        if self._prefetch_history is not None and call.sql:
            self._recent.note(call.sql, call.first_parameters, row)

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
            read_request.hold = compares_keys(bound, steps)
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
            self._ahead.discard()
        if self._session.serializable:
            if read_request.hold:
                self._wait_here(read_request.steps)
            return self._ask(
                [Request(read_request.sent, [step.table for step in read_request.sent])]
            )[0]
        if call is not None and not call.retrying and read_request.cached is not None:
            commits = read_request.cached.commits
            if self._is_leased(read_request.sent, commits):
                return Answer(None, list(commits))
        prefetches = call is not None and self._prefetch_history is not None and not call.retrying
        if call is not None and prefetches:
            call.read = True
            if read_request.row is not None:
                call.row = self._row_read(read_request.row, read_request.hold)
            # Who reads the same again wants to see what has changed.
            statement = call.sql, tuple(call.first_parameters)
            if statement not in self._statements:
                self._statements.add(statement)
                name = row_name(read_request.row) if read_request.row else call.sql
                ahead = self._ahead.take_rows(
                    name, read_request.sent, read_request.cached, read_request.hold
                )
                if ahead is not None:
                    if read_request.hold:
                        self._wait_here(read_request.steps, 0.0)  # no longer than it takes
                    return ahead
            call.asked = True
            self._ahead.discard()
        return self._ask_ahead(
            call if prefetches else None,
            self._request(read_request),
            read_request.sent,
            call.sql if call else "",
        )

    def _is_leased(self, steps: Sequence[Step], commits: Sequence[str]) -> bool:
        """Tell whether these are the last commits of the tables now, without asking; the statement
        then sees this moment."""
        leases = self._table_leases
        since = leases.known_since(_tables(steps), commits) if leases is not None else None
        if since is None:
            return False
        # What has come ahead is right beside it if nothing was committed to the tables since then.
        if not self._moments.heard_last(self._me) or self._ahead.oldest() < since:
            self._ahead.discard()
        self._moments.heard(self._me)
        return True

    def check(self, request: Request, keys: Sequence[Step] = (), new: int = 0) -> Answer:
        """Ask the store beside what the statement has read: for keys, parents, children.

        The answer shows the application a later moment than rows that came ahead of their
        statements, so these are asked for again in the same round trip.  keys: the steps of
        look-ups of one key each that the request consists of, the first `new` of them those of
        rows that the statement writes.
        """
        call, self._checking = self._checking, None
        if call is None or self._prefetch_history is None or call.retrying:
            return self._ask_again([request])[0]
        call.keys = self._keys_read(call, keys, new)
        if call.keys is None or self._session.serializable:
            return self._ask_again([request])[0]
        call.asked_keys = True
        return self._ask_ahead(call, request, [], _keys_of(call.sql))

    def keys_hold(self, free: Sequence[Step], there: Sequence[Step]) -> bool:
        """Tell whether it is known without asking that the store has no rows with the keys of
        `free`, and those of `there`, which this transaction hasn't written."""
        call = self._checking
        if call is None or self._prefetch_history is None or call.retrying:
            return False
        if self._session.serializable:
            return False
        if not self._ahead.keys_hold(free, there, self._session.overlay.changes):
            return False
        self._checking = None
        call.keys = self._keys_read(call, [*free, *there], len(free))
        return True

    def committed(self, tables: Iterable[int]) -> None:
        """Note that the transaction's commit, done or perhaps done, has written these tables."""
        self._moments.committed(tables)
        self._moments.heard(self._me)

    def _ask(self, requests: Sequence[Request]) -> list[Answer]:
        """Ask the store; the first request may have to wait for others who hold what it wants."""
        session = self._session
        holds = any(request.holds for request in requests)
        holder = session.holds.name if holds else ""
        deadline, pause = 0.0, FIRST_PAUSE
        if requests[0].holds:
            deadline = time.monotonic() + self._longest_wait_s
            first = requests[0]
            self._wait_here(first.steps if first.hold else first.steps[: first.keys])
        while True:
            asked = time.monotonic()
            answers = session.store.read(session.schema.version, requests, holder)
            self._moments.heard(self._me)
            if self._table_leases is not None:
                self._note_commits(self._table_leases, requests, answers, asked)
            if holds:
                for request, answer in zip(requests, answers, strict=False):
                    session.holds.note(request, answer)
            if not answers[0].wait:
                return answers
            now = time.monotonic()
            if now >= deadline:
                requests = [requests[0]._replace(hold=False, keys=0), *requests[1:]]
                continue
            time.sleep(min(pause * (0.5 + random.random()), answers[0].wait, deadline - now))
            pause = min(2 * pause, LONGEST_PAUSE)

    def _note_commits(
        self,
        leases: TableLeases,
        requests: Sequence[Request],
        answers: Sequence[Answer],
        asked: float,
    ) -> None:
        """Note the last commits of tables that answers have, and which tables are leased."""
        for request, answer in zip(requests, answers, strict=False):
            if request.watched:
                leases.saw(request.watched, answer.commits)
                if answer.leased:
                    seconds = self._table_lease_s
                    leases.granted(request.watched, answer.commits, asked, seconds)

    def _wait_here(self, steps: Sequence[Step], seconds: float | None = None) -> None:
        """Wait until no other transaction of this process compares and sets the same rows."""
        session = self._session
        keys = {
            (step.table, lookup.kind, lookup.index, key)
            for step in steps
            for lookup in step.lookups
            if isinstance(lookup, KeyLookup) and lookup.kind != "set"
            for key in lookup.keys
        }
        longest_s = self._longest_wait_s if seconds is None else seconds
        hold_s = session.store.hold_s
        session.row_locks.take(session, sorted(keys, key=repr), longest_s, hold_s)
        session.holds_rows = True

    @property
    def _longest_wait_s(self) -> float:
        """Seconds for which others are waited for: more where they hold rows for longer."""
        return row_locks.WAIT * self._session.store.hold_s / base.HOLD_S

    def _ask_again(self, requests: Sequence[Request]) -> list[Answer]:
        """Ask the store, and once more for all that has come ahead."""
        moment = time.monotonic()
        answers = self._ask([*requests, *self._ahead.requests()])
        self._ahead.renew(answers[len(requests) :], moment)
        return answers

    def _ask_ahead(
        self, call: Call | None, request: Request, sent: list[Step], source: str
    ) -> Answer:
        """Ask the store for a statement's rows or keys, and for what will follow it.

        source: what it is called in the history.
        """
        history = self._prefetch_history
        follow_ups: list[tuple[str, ReadRequest | KeysRequest]] = []
        if call is not None and history is not None:
            if not call.before:
                call.before = self._recent.all()
            if not call.many:
                follow_ups = self._follow_ups(call, source, sent, history)
        requests = [
            self._request(other)
            if isinstance(other, ReadRequest)
            else Request(key_steps(other.places), keys=other.new)
            for _, other in follow_ups
        ]
        moment = time.monotonic()
        first, *answers = self._ask_again([request, *requests])
        if follow_ups:
            self._ahead.counts.setdefault(source, [0, 0])[0] += len(follow_ups)
        for (sql, other), answer in zip(follow_ups, answers, strict=False):
            if isinstance(other, ReadRequest):
                rows = AheadRows(other.sent, answer, other.cached, other.hold, source, moment)
                self._ahead.put_rows(sql, rows)
            else:
                self._ahead.put_keys(AheadKeys(found_keys(other.places, answer), source, moment))
        return first

    def _follow_ups(
        self, call: Call, source: str, sent: list[Step], history: PrefetchHistory
    ) -> list[tuple[str, ReadRequest | KeysRequest]]:
        """Return the reads that will follow this one: the rows of statements, or keys."""
        reads: list[tuple[str, ReadRequest | KeysRequest]] = []
        schema = self._session.schema
        follow_ups = history.follow_ups(source, call.first_parameters, call.before)
        for follow_up, values in follow_ups:
            read = follow_up.read
            if isinstance(read, KeysRead):
                if read.version == schema.version:
                    reads.append((read.sql, KeysRequest(read.filled(values), read.new)))
                continue
            if isinstance(read, RowRead):
                place = read.filled(values)
                table = schema.by_number(place[0]) if read.version == schema.version else None
                if table is not None:
                    rows = [row_step(table, *place[1:])]
                    request = ReadRequest(rows, rows, False, False, hold=read.hold, row=place)
                    reads.append((row_name(place), request))
                continue
            bound = read.plan.bound
            if bound is None or bound.schema is not schema:
                continue
            other = self.plan_read(bound, read.sql, values, read.layout)
            if not bound.reads_only and bound.compares_and_sets and not other.hold:
                # What isn't held should be read as late as it can be: the longer the way to the
                # commit, the more often another transaction is faster.
                break
            if other.cached is not None and self._table_leases is not None:
                commits = other.cached.commits
                if self._table_leases.known_since(_tables(other.sent), commits) is not None:
                    continue
            # Who reads the same again wants to see what has changed.
            if other.sent and other.sent != sent:
                reads.append((read.sql, other))
        return reads

    def _request(self, read_request: ReadRequest) -> Request:
        if read_request.key is None:
            return Request(read_request.sent, hold=read_request.hold)
        tables, cached = _tables(read_request.sent), read_request.cached
        leases = self._table_leases
        lease = leases is not None and leases.are_quiet(tables)
        return Request(read_request.sent, tables, cached.commits if cached else (), lease=lease)

    # ------------------------------------------------------------ explaining

    @property
    def prefetches(self) -> bool:
        """Whether statements that will follow are read ahead."""
        return self._prefetch_history is not None and not self._session.serializable

    def is_prefetched(self, call: Call, read_request: ReadRequest) -> bool:
        """Tell whether the rows of a statement have come with an earlier one, and may be used."""
        if (call.sql, tuple(call.first_parameters)) in self._statements:
            return False
        return self._ahead.has_rows(call.sql, read_request.sent)

    def prefetch_plan(self, call: Call) -> list[str]:
        """Return the SQL of the statements that would be prefetched with this one."""
        history, bound = self._prefetch_history, call.plan.bound
        if history is None or bound is None:
            return []
        sent = self.plan_read(bound, call.sql, call.first_parameters, call.layout).sent
        call.before = self._recent.all()
        return [sql for sql, _ in self._follow_ups(call, call.sql, sent, history)]

    # ------------------------------------------------------------ learning

    def _row_read(self, place: KeyPlace, hold: bool) -> RowRead | None:
        """Return the read of a row by its key, for the history."""
        key = key_values(*place)
        return None if key is None else RowRead(self._session.schema.version, key, hold)

    def _keys_read(self, call: Call, steps: Sequence[Step], new: int) -> KeysRead | None:
        """Return what a statement looks up, for the history; None: it isn't to be remembered."""
        keys: list[KeyValues] = []
        for step in steps:
            place = place_of(step)
            values = key_values(*place) if place and len(steps) <= _KEYS else None
            if values is None:
                return None
            keys.append(values)
        return KeysRead(_keys_of(call.sql), self._session.schema.version, tuple(keys), new)

    def learn(self, calls: Iterable[Call]) -> None:
        """Remember which statements of a transaction have followed which."""
        history = self._prefetch_history
        if history is None:
            return
        readings: list[tuple[Call, bool, str, Read]] = []
        for call in calls:
            if not call.read and call.keys is None:
                continue
            if call.many or isinstance(call.plan, TextPlan):
                if call.read:
                    break
                continue
            parameters = call.first_parameters
            if call.read:
                read: Read
                if call.row is not None:
                    read = call.row
                elif memorable(parameters):
                    read = StatementRead(call.sql, tuple(parameters), call.plan, call.layout)
                else:
                    break
                readings.append((call, call.asked, call.sql, read))
            if call.keys is not None:
                readings.append((call, call.asked_keys, _keys_of(call.sql), call.keys))
        later = [read for *_, read in readings]
        for place, (call, asked, name, _) in enumerate(readings, 1):
            if asked:
                prefetched, used = self._ahead.counts.get(name, (0, 0))
                lesson = Lesson(shortened(call.first_parameters), call.before, later[place:])
                history.learn(name, lesson, prefetched, used)


def compares_keys(bound: BoundPlan, steps: Sequence[Step]) -> bool:
    """Tell whether a statement compares and sets rows that it names by their own keys."""
    return (
        not bound.reads_only
        and not bound.inserts
        and bound.compares_and_sets
        and bool(steps)
        and all(
            bound.target is not None
            and step.table == bound.target.number
            and any(isinstance(way, KeyLookup) and way.kind != "set" for way in step.lookups)
            for step in steps
        )
    )


def named_by_key(bound: BoundPlan, step: Step) -> Step:
    """Return the step of an UPDATE or DELETE of one table without what else is said of its row,
    where that is named by a key of its own: so it is the same step for all such statements."""
    target = bound.target
    if target is None or bound.inserts or step.table != target.number or step.limit:
        return step
    for lookup in step.lookups:
        if isinstance(lookup, KeyLookup) and lookup.kind != "set" and len(lookup.keys) == 1:
            return row_step(target, lookup.kind, lookup.index, lookup.keys[0])
    return step


def own_row(bound: BoundPlan, steps: Sequence[Step]) -> KeyPlace | None:
    """Return the key of the one row that a statement reads to write it; None: it is another."""
    if len(steps) != 1 or bound.target is None:
        return None
    place = place_of(steps[0])
    if place is None or steps[0] != row_step(bound.target, *place[1:]):
        return None
    return place


def _keys_of(sql: str) -> str:
    """Name the look-up of a statement's keys, apart from the read of its rows."""
    return f"keys of {sql}"


def _tables(steps: Sequence[Step]) -> list[int]:
    """Return the tables that steps read, each once."""
    return list(dict.fromkeys(step.table for step in steps))
