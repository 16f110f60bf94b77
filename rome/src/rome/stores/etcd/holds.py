"""Rows that transactions hold (base.py), in etcd: a key for each row, which names the holder.

The key has a lease of some seconds, and is put on the condition that it isn't there.  A row that is
named by its number is held by the very request that reads it.  Of others the numbers are known once
they were read; then one more request holds them, if they are still as they were read.  Who has
lost looks again: nobody waits in etcd.  Keys that are about to be inserted aren't held here: each
would be one more condition, of which a transaction of etcd has few.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from rome.stores import base
from rome.stores.base import Answer, HeldName, Request
from rome.stores.etcd.connection import LeaseLost, Wire
from rome.stores.etcd.keys import Keys, number_of
from rome.stores.etcd.operations import (
    Compare,
    Delete,
    Json,
    Put,
    Range,
    Txn,
    has_value,
    is_absent,
    is_there,
    is_unchanged,
    unpack_ranges,
)
from rome.stores.etcd.read import Reading
from rome.stores.etcd.seen import Seen
from rome.stores.etcd.view import View, with_a_view
from rome.stores.etcd.writing import Writing
from rome.stores.wire import KeyLookup

# Times that rows are read again as they have changed before they were held.
_TRIES = 5
# Rows that one read holds at most; where there are more, none is held.
_MOST = 16

Row = tuple[int, int]  # table, number


class Holds:
    """The rows that the transactions of one connection hold."""

    def __init__(self, keys: Keys, wire: Wire, writing: Writing, seen: Seen) -> None:
        self._keys, self._wire, self._writing, self._seen = keys, wire, writing, seen
        self._most = min(_MOST, writing.most // 8)
        # Until when a row is surely held, on the monotonic clock, and by whom.
        self._own: dict[bytes, tuple[float, str]] = {}

    @property
    def _hold_s(self) -> float:
        return base.hold_of(self._wire.server.hold)

    def read(self, version: str, requests: Sequence[Request], holder: str) -> list[Answer]:
        """Return the answers to requests, some of which ask for their rows to be held."""
        answers: list[Answer] | None = None
        for _ in range(_TRIES):
            try:
                answers = with_a_view(
                    self._wire, True, lambda view: self._read(view, version, requests, holder)
                )
            except LeaseLost:
                self._wire.server.hints.lease_of_holds = None
                continue
            if answers is not None:
                return answers
        plain = [request._replace(hold=False) for request in requests]
        reading = Reading(self._keys, version, self._seen)
        answers = with_a_view(self._wire, True, lambda view: view.answer(reading.answers(plain)))
        return _not_held(requests, answers)

    def _read(
        self, view: View, version: str, requests: Sequence[Request], holder: str
    ) -> list[Answer] | None:
        """Return the answers; None: rows have changed before they were held."""
        reading = Reading(self._keys, version, self._seen).answers(requests)
        rows = rows_named(requests)
        if rows is not None and sum(map(len, rows.values())) <= self._most:
            attempt = self._attempt(rows, holder)
            view = View(self._wire, True, attempt.transactions(0))
            answers = view.answer(reading)
            return self._judged(attempt, view.opened, requests, answers)
        answers = view.answer(reading)
        rows = _rows_found(requests, answers)
        if sum(map(len, rows.values())) > self._most:
            return _not_held(requests, answers)
        attempt = self._attempt(rows, holder)
        held: list[Json] = []
        if any(rows.values()):
            last = View(self._wire, True, attempt.transactions(view.revision))
            last.ask([Range(self._keys.version)])
            held = last.opened
        return self._judged(attempt, held, requests, answers)

    def _attempt(self, rows: Mapping[int, Sequence[Row]], holder: str) -> Attempt:
        lease, until = self._writing.lease_of_holds(self._hold_s)
        now = time.monotonic()
        own = {key for key, (end, name) in self._own.items() if name == holder and now < end}
        return Attempt(self._keys, rows, holder, lease, until, own)

    def _judged(
        self,
        attempt: Attempt,
        responses: Sequence[Json],
        requests: Sequence[Request],
        answers: Sequence[Answer],
    ) -> list[Answer] | None:
        """Return the answers with what has become of their rows; None: to be read again."""
        first, others = attempt.outcomes(responses)
        if first is None:
            self.forget(attempt.keys)
        self._own.update(dict.fromkeys(attempt.held, (attempt.until, attempt.holder)))
        if first is None:
            return None
        given = []
        for place, (request, answer) in enumerate(zip(requests, answers, strict=False)):
            held, wait = first if place == 0 else others
            if not request.hold or answer.rows is None:
                given.append(answer)
            elif held:
                given.append(answer._replace(held=True))
            elif place == 0 and not wait:
                given.append(answer)
            else:
                given.append(answer._replace(rows=None, wait=self._hold_s if wait else 0.0))
        return given

    # ------------------------------------------------------------ letting go

    def ending(self, holder: str, held: Mapping[int, Sequence[HeldName]]) -> list[bytes]:
        """Return the keys of these rows that the holder still has for sure, and forget them."""
        now = time.monotonic()
        ended = []
        for table, numbers in held.items():
            for number in numbers:
                key = self._keys.hold(table, int(number))
                end, name = self._own.get(key, (0.0, ""))
                if name == holder and now < end:
                    ended.append(key)
        return ended

    def forget(self, keys: Sequence[bytes]) -> None:
        """Note that these are free."""
        for key in keys:
            self._own.pop(key, None)

    def release(self, holder: str, held: Mapping[int, Sequence[HeldName]]) -> None:
        """Let rows go, without waiting for it."""
        keys = self.ending(holder, held)
        self.forget(keys)
        value = holder.encode()
        for start in range(0, len(keys), self._most):
            some = keys[start : start + self._most]
            free = [Txn([has_value(key, value)], [Delete(key)]) for key in some]
            self._wire.post("/v3/kv/txn", Txn(then=free).request())


class Attempt:
    """An attempt to hold rows, given by the place of the request that asks for them.

    Those of the first request are held by themselves.  Those of the others are all held or none,
    and only if the first's are.  own: keys that the holder has already.  held: keys that it has in
    the end.
    """

    def __init__(
        self,
        keys: Keys,
        rows: Mapping[int, Sequence[Row]],
        holder: str,
        lease: int,
        until: float,
        own: set[bytes],
    ) -> None:
        self.holder = holder
        self.until = until
        self.held: list[bytes] = []
        self._keys, self._lease, self._own = keys, lease, own
        self._read_at = 0
        self._first = list(dict.fromkeys(rows.get(0, ())))
        later = (row for place, own_rows in rows.items() if place for row in own_rows)
        self._others = [row for row in dict.fromkeys(later) if row not in self._first]

    @property
    def keys(self) -> list[bytes]:
        """The keys that name the holders."""
        return [self._keys.hold(*row) for row in (*self._first, *self._others)]

    def transactions(self, read_at: int) -> list[Txn]:
        """Return what holds the rows, to be done by one request.

        read_at: the revision at which they were read, and since when nobody may have written them;
        0: they are read by the same request, and those that aren't there are held by nobody.
        """
        self._read_at = read_at
        return [
            self._transaction(self._first, self._first),
            self._transaction([*self._first, *self._others], self._others),
        ]

    def _transaction(self, free: Sequence[Row], wanted: Sequence[Row]) -> Txn:
        conditions: list[Compare] = []
        for row in free:
            key = self._keys.hold(*row)
            own = has_value(key, self.holder.encode())
            conditions.append(own if key in self._own else is_absent(key))
            if self._read_at:
                at = self._keys.row(*row)
                conditions += [is_there(at), is_unchanged(at, self._read_at)]
        value = self.holder.encode()
        puts = [Put(self._keys.hold(*row), value, self._lease) for row in wanted]
        then: list[Put | Delete | Txn] = list(puts)
        if not self._read_at:
            there = [is_there(self._keys.row(*row)) for row in wanted]
            then = [Txn([one], [put]) for one, put in zip(there, puts, strict=True)]
        return Txn(conditions, then, [Range(self._keys.hold(*row)) for row in free])

    def outcomes(
        self, responses: Sequence[Json]
    ) -> tuple[tuple[bool, bool] | None, tuple[bool, bool]]:
        """Return, for the first request and for the others, whether the rows are held, and whether
        another may hold one who is to be waited for: no transaction of the same thread.

        None: the first request's rows have changed since they were read, or are the holder's own.
        """
        if not responses:
            return (True, False), (True, False)
        first, others = responses
        outcome: tuple[bool, bool] | None = self._outcome(first, self._first)
        if outcome == (False, False) and not self._theirs(first):
            outcome = None
        return outcome, self._outcome(others, self._others)

    def _outcome(self, response: Json, rows: Sequence[Row]) -> tuple[bool, bool]:
        if response.get("succeeded"):
            done = [True] * len(rows)
            if not self._read_at:
                inner = response.get("responses", ())
                done = [bool(one.get("response_txn", {}).get("succeeded")) for one in inner]
            pairs = zip(rows, done, strict=True)
            self.held += [self._keys.hold(*row) for row, is_held in pairs if is_held]
            return True, False
        thread = self.holder.rpartition(".")[0]
        return False, any(name.rpartition(".")[0] != thread for name in self._theirs(response))

    def _theirs(self, response: Json) -> list[str]:
        """Return who else holds rows; note which the holder has itself."""
        names = []
        for found in unpack_ranges(response.get("responses", ())):
            for pair in found.pairs:
                if pair.value.decode() == self.holder:
                    self.held.append(pair.key)
                else:
                    names.append(pair.value.decode())
        return names


def rows_named(requests: Sequence[Request]) -> dict[int, list[Row]] | None:
    """Return the rows that requests name by number, by the place of the request; None: they name
    some otherwise."""
    rows: dict[int, list[Row]] = {}
    for place, request in enumerate(requests):
        for step in request.steps if request.hold else ():
            lookup = step.lookups[0] if len(step.lookups) == 1 and not step.filters else None
            if not isinstance(lookup, KeyLookup) or lookup.kind != "row":
                return None
            numbers = [n for n in map(number_of, lookup.keys) if n is not None]
            rows.setdefault(place, []).extend((step.table, n) for n in numbers)
    return rows


def _rows_found(requests: Sequence[Request], answers: Sequence[Answer]) -> dict[int, list[Row]]:
    """Return the rows that requests have found which want to hold them, by the place of each."""
    rows: dict[int, list[Row]] = {}
    for place, (request, answer) in enumerate(zip(requests, answers, strict=False)):
        if request.hold and answer.rows is not None:
            steps = zip(request.steps, answer.rows, strict=True)
            rows[place] = [(step.table, int(n)) for step, found in steps for n in found[::2]]
    return rows


def _not_held(requests: Sequence[Request], answers: Sequence[Answer]) -> list[Answer]:
    """Return answers none of whose rows are held: only the first request's are given then."""
    return [
        answer._replace(rows=None) if place and request.hold else answer
        for place, (request, answer) in enumerate(zip(requests, answers, strict=False))
    ]
