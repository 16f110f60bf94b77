"""A database in etcd; keys.py says how it lies there.

Reads are made level by level at one revision (read.py); a commit is one transaction with
conditions (commit.py).  What was done is remembered under its token for some minutes, as in Redis.
"""

from __future__ import annotations

import contextlib
import random
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rome.errors import OperationalError
from rome.stores import base
from rome.stores.base import (
    Answer,
    Area,
    Changed,
    Commit,
    Dropped,
    Duplicate,
    Head,
    HeldName,
    NotEmpty,
    Portion,
    Request,
    SchemaChanged,
    Traffic,
    Usage,
    Written,
)
from rome.stores.etcd.commit import (
    DONE,
    VOID,
    CommitPlan,
    Done,
    Knowledge,
    NotKnown,
    TooManyConditions,
    arranged,
    last_commit_is,
    same_version,
)
from rome.stores.etcd.connection import LeaseLost, Server, Wire
from rome.stores.etcd.holds import Holds, rows_named
from rome.stores.etcd.indexes import Indexes
from rome.stores.etcd.keys import Keys, Span, member_in, pack_number, unpack_number
from rome.stores.etcd.operations import (
    Compare,
    Delete,
    Found,
    KeyValue,
    Put,
    Range,
    Txn,
    is_absent,
    is_as_read,
    unpack_ranges,
)
from rome.stores.etcd.read import Reading, levels_of
from rome.stores.etcd.view import PAGE, View, with_a_view
from rome.stores.etcd.writing import Writing
from rome.stores.wire import Step

# Times that a commit is tried whose conditions others break; then the application's statements are
# run again, as of a conflict.
_TRIES = 30
# Tables that are scanned with one round trip, and the rows of each that come with it.
_TOGETHER, _FIRST = 16, 500
# What commits of many rows hold at most, in bytes: a third of what etcd takes where nothing else is
# said, as rows are packed together with the keys of their entries.
_BYTES = 2**19
_AREAS: dict[bytes, Area] = {b"r": "row", b"u": "unique", b"i": "set", b"o": "order"}
_AREA = re.compile(rb"([ruio])(\d+)[.:]")
# Rows that a snapshot has at most.
_SNAPSHOT = 5000


class EtcdStore:
    """One connection to a database in etcd; not for two threads at once."""

    def __init__(self, server: Server, database: str) -> None:
        self.traffic = Traffic()
        self._wire = Wire(server, self.traffic)
        self._keys = Keys(database)
        self._seen, self._counters = server.hints.seen, server.hints.counters
        self._writing = Writing(self._wire, int(2 * (server.patience + server.timeout)) + 1)
        self._holds = Holds(self._keys, self._wire, self._writing, self._seen)
        self._indexes = Indexes(self._keys, self._wire, self._writing)
        self._linearizable = not server.local_reads
        half = server.txn_ops // 2
        self.portion = Portion(max(half * (half - 8), 16), _BYTES)
        self._moment: View | None = None
        # The token of the last commit that was refused after a lost answer, and how often.
        self._refused = ("", 0)

    @property
    def hold_s(self) -> float:
        return base.hold_of(self._wire.server.hold)

    # ------------------------------------------------------------ schema

    def schema_unless(self, version: str) -> tuple[str, Mapping[str, bytes]] | None:
        start = len(self._keys.entry(""))

        def look(view: View) -> tuple[str, Mapping[str, bytes]] | None:
            (found,) = view.ask([Range(self._keys.version)])
            now = found.pairs[0].value.decode() if found.pairs else "0"
            if now == version:
                return None
            entries = self._all(view, self._keys.entries())
            return now, {pair.key[start:].decode(): pair.value for pair in entries}

        if self._moment is not None:
            return look(self._moment)
        return with_a_view(self._wire, True, look)

    def change_schema(
        self,
        version: str,
        puts: Mapping[str, bytes],
        drops: Sequence[str],
        empty: Sequence[int],
        unwritten: Sequence[tuple[int, str]] = (),
        complete: Sequence[tuple[str, int, int, int]] = (),
    ) -> str:
        keys = self._keys
        token = keys.token(uuid.uuid4().hex)
        new = _next_version(version)
        writes: list[Put | Delete] = [Put(keys.entry(name), data) for name, data in puts.items()]
        writes += [Delete(keys.entry(name)) for name in drops if name not in puts]
        writes.append(Put(keys.version, new.encode()))

        def change() -> str:
            while True:
                conditions = [is_absent(token), same_version(keys, version)]
                conditions += [is_absent(*keys.rows(table)) for table in empty]
                conditions += [last_commit_is(keys, table, commit) for table, commit in unwritten]
                conditions += self._check_complete(complete)
                outcome = Put(token, new.encode(), self._writing.lease())
                asked = [Range(token), Range(keys.version)]
                asked += [Range.of(keys.rows(table), 1, keys_only=True) for table in empty]
                try:
                    txn = arranged(conditions, [*writes, outcome], (), asked, self._writing.most)
                    answer = self._writing.send(txn)
                except LeaseLost:
                    continue
                except TooManyConditions:
                    raise OperationalError(
                        f"a change of the schema depends on {len(conditions)} keys, more than etcd"
                        f" compares in one transaction with --max-txn-ops={self._writing.most}:"
                        " change fewer tables at once, or start etcd with a higher one and say it"
                        " in the URL (?txn_ops=)"
                    ) from None
                if answer.get("succeeded"):
                    return new
                if not txn.otherwise:
                    found = View(self._wire, True).ask(asked)
                else:
                    found = unpack_ranges(answer.get("responses", ()))
                if _is_made(found, version):
                    return new

        self._writing.begin()
        try:
            changed: str = self._writing.ended("change of the schema", change)
        except (SchemaChanged, NotEmpty, Written):
            kind = "change of the schema"
            outcome = self._writing.ended(kind, lambda: self._writing.outcome(token))
            if outcome in (None, VOID):
                raise
            return new
        return changed

    def _check_complete(self, complete: Sequence[tuple[str, int, int, int]]) -> list[Compare]:
        """Return conditions that tables have so many rows and entries still.  Raises Written."""
        if not complete:
            return []
        keys = self._keys
        tables = list(dict.fromkeys(table for _, table, _, _ in complete))
        marks = [mark for t in tables for mark in (keys.last_commit(t), keys.build(t))]
        counts = [Range.count(keys.whole(kind, table, i)) for kind, table, i, _ in complete]
        found = View(self._wire, True).ask([*counts, *map(Range, marks)])
        for (*_, count), answer in zip(complete, found, strict=False):
            if answer.total != count:
                raise Written
        revisions = [one.pairs[0].revision if one.pairs else 0 for one in found[len(counts) :]]
        return [is_as_read(*pair) for pair in zip(marks, revisions, strict=True)]

    # ------------------------------------------------------------ rows

    def read(self, version: str, requests: Sequence[Request], holder: str = "") -> list[Answer]:
        if holder and any(request.hold for request in requests):
            return self._holds.read(version, requests, holder)
        reading = Reading(self._keys, version, self._seen)
        return with_a_view(
            self._wire, self._linearizable, lambda view: view.answer(reading.answers(requests))
        )

    def release(self, holder: str, held: Mapping[int, Sequence[HeldName]]) -> None:
        self._holds.release(holder, held)

    def levels(self, steps: Sequence[Step], hold: bool = False) -> int:
        return levels_of(steps) + (hold and rows_named([Request(steps, hold=True)]) is None)

    def commit(self, commit: Commit) -> None:
        token, refusals = self._refused
        held = self._holds.ending(commit.holder, commit.held)
        plan = CommitPlan(self._keys, commit, refusals if token == commit.token else 0, held)
        self._writing.begin()
        try:
            self._writing.ended("commit", lambda: self._commit(plan))
            self._holds.forget(held)
        except (SchemaChanged, Changed, Duplicate):
            outcome = self._writing.ended("commit", lambda: self._writing.outcome(plan.token))
            if outcome == VOID:
                # Run again, the transaction comes with the same token.
                self._refused = commit.token, plan.refusals + 1
            if outcome != DONE:
                raise

    def _commit(self, plan: CommitPlan) -> None:
        known = plan.guess({key: self._seen.get(key) for key in plan.changed_rows})
        coarse = False
        for attempt in range(_TRIES):
            if attempt > 2:
                time.sleep(random.random() * 0.01)
            try:
                lease = self._writing.lease(plan.commit.remember) if plan.writes else 0
                txn = plan.transaction(known, coarse, lease, self._writing.most)
            except Done:
                return
            except NotKnown:
                known = self._look(plan, coarse, certain=False)
                continue
            except TooManyConditions:
                if coarse:
                    raise OperationalError(
                        "a commit depends on more tables than etcd compares in one transaction"
                        f" with --max-txn-ops={self._writing.most}: start etcd with a higher one,"
                        " and say it in the URL (?txn_ops=)"
                    ) from None
                coarse = True
                known = self._look(plan, coarse, certain=False)
                continue
            except (SchemaChanged, Changed, Duplicate):
                if known.certain:
                    raise
                known = self._look(plan, coarse, certain=True)
                continue
            try:
                answer = self._writing.send(txn)
            except LeaseLost:
                continue
            if answer.get("succeeded"):
                self._note(plan, txn, int(answer["header"]["revision"]))
                return
            if txn.otherwise:
                found = unpack_ranges(answer.get("responses", ()))
                known = Knowledge.of(plan.questions(coarse), found, certain=True)
            else:
                known = self._look(plan, coarse, certain=True)
        raise Changed("rows that are written all the time")

    def _look(self, plan: CommitPlan, coarse: bool, certain: bool) -> Knowledge:
        """Look at all keys of a commit; certain: as the cluster has agreed on them."""
        asked = plan.questions(coarse)
        found = with_a_view(self._wire, certain, lambda view: view.ask(asked))
        return Knowledge.of(asked, found, certain)

    def _note(self, plan: CommitPlan, txn: Txn, revision: int) -> None:
        """Remember the rows that a commit has written."""
        own, rows = set(plan.row_keys), []
        for operation in txn.then:
            if isinstance(operation, Put) and operation.key in own:
                rows.append(KeyValue(operation.key, operation.value, revision))
            elif isinstance(operation, Delete):
                self._seen.gone(operation.key)
        self._seen.note(rows)

    def reserve(self, name: str, count: int) -> int:
        key = self._keys.counter(name)
        if not count:
            (found,) = View(self._wire, True).ask([Range(key)])
            return (unpack_number(found.pairs[0].value) if found.pairs else 0) + 1
        # A guess, as for the rows of a commit: what this process has reserved last.
        last, revision = self._counters.get(key, (0, 0))
        while True:
            raised = Put(key, pack_number(last + count))
            answer = self._writing.send(Txn([is_as_read(key, revision)], [raised], [Range(key)]))
            if answer.get("succeeded"):
                self._counters[key] = last + count, int(answer["header"]["revision"])
                return last + 1
            (found,) = unpack_ranges(answer.get("responses", ()))
            last = unpack_number(found.pairs[0].value) if found.pairs else 0
            revision = found.pairs[0].revision if found.pairs else 0

    # ------------------------------------------------------------ indexes

    def build_index(
        self, table: int, index: int, slots: Sequence[int], unique: bool, defaults: list[list[Any]]
    ) -> None:
        self._indexes.build(table, index, slots, unique, defaults)

    def build_ordered(
        self,
        table: int,
        index: int,
        slots: Sequence[int],
        key: int | None,
        defaults: list[list[Any]],
    ) -> None:
        self._indexes.build_ordered(table, index, slots, key, defaults)

    def remove(self, version: str, dropped: Sequence[Dropped]) -> None:
        self._indexes.remove(version, dropped)

    # ------------------------------------------------------------ whole tables

    def heads(self, tables: Sequence[int]) -> list[Head]:
        keys = self._keys
        ranges = [
            one
            for table in tables
            for one in (Range.count(keys.rows(table)), Range(keys.last_commit(table)))
        ]
        if not ranges:
            return []
        found = with_a_view(self._wire, True, lambda view: view.ask(ranges))
        return [
            Head(rows.total, commit.pairs[0].value.decode() if commit.pairs else "0")
            for rows, commit in zip(found[::2], found[1::2], strict=True)
        ]

    def snapshot(self, table: int) -> tuple[str, list[tuple[int, bytes]]] | None:
        ranges = [Range.of(self._keys.rows(table), _SNAPSHOT), Range(self._keys.last_commit(table))]
        rows, commit = with_a_view(self._wire, True, lambda view: view.ask(ranges))
        if rows.total > _SNAPSHOT:
            return None
        token = commit.pairs[0].value.decode() if commit.pairs else "0"
        return token, self._numbered(table, rows.pairs)

    def scan(self, table: int) -> Iterator[tuple[int, bytes]]:
        for _, page in self.scan_all([table]):
            yield from page

    def scan_all(self, tables: Sequence[int]) -> Iterator[tuple[int, list[tuple[int, bytes]]]]:
        for start in range(0, len(tables), _TOGETHER):
            some = tables[start : start + _TOGETHER]
            first = self._view().ask([Range.of(self._keys.rows(table), _FIRST) for table in some])
            for table, found in zip(some, first, strict=True):
                for page in self._pages(self._keys.rows(table), found):
                    yield table, self._numbered(table, page)

    @contextlib.contextmanager
    def one_moment(self) -> Iterator[None]:
        """Show rows and entries, and the schema, as they were when this was entered."""
        self._moment = View(self._wire, True)
        try:
            yield
        finally:
            self._moment = None

    def _view(self) -> View:
        """Return what scans look at: the moment that is shown, or the latest state."""
        return self._moment or View(self._wire, True)

    def _pages(self, span: Span, found: Found | None = None) -> Iterator[list[KeyValue]]:
        """Yield the keys of a span in pages, each as it is then."""
        while True:
            if found is None:
                (found,) = self._view().ask([Range.of(span, PAGE)])
            if found.pairs:
                yield found.pairs
            if found.total <= len(found.pairs):
                return
            span, found = Span(found.pairs[-1].key + b"\0", span.end), None

    def _numbered(self, table: int, rows: Sequence[KeyValue]) -> list[tuple[int, bytes]]:
        start = len(self._keys.rows(table).start)
        return [(unpack_number(row.key[start:]), row.value) for row in rows]

    def _all(self, view: View, span: Span) -> list[KeyValue]:
        """Return all keys of a span as of a view."""
        pairs: list[KeyValue] = []
        while True:
            (found,) = view.ask([Range.of(span, PAGE)])
            pairs += found.pairs
            if found.total <= len(found.pairs):
                return pairs
            span = Span(found.pairs[-1].key + b"\0", span.end)

    def entries(self, table: int, index: int, unique: bool) -> Iterator[tuple[bytes, int]]:
        span = self._keys.whole("unique" if unique else "set", table, index)
        start = len(span.start)
        for page in self._pages(span):
            for pair in page:
                if unique:
                    yield pair.key[start:], int(pair.value)
                else:
                    yield pair.key[start:-8], unpack_number(pair.key[-8:])

    def members(self, table: int, index: int) -> Iterator[bytes]:
        span = self._keys.whole("order", table, index)
        for page in self._pages(span):
            yield from (member_in(pair.key[len(span.start) :]) for pair in page)

    def count(self, table: int) -> int:
        return self.heads([table])[0].rows

    # ------------------------------------------------------------ the whole

    def usage(self) -> Iterator[Usage]:
        """Yield every key of this database, with the bytes of key and value."""
        span = self._keys.all()
        for page in self._pages(span):
            for pair in page:
                match = _AREA.match(pair.key, len(span.start))
                size = len(pair.key) + len(pair.value)
                if match is None:
                    yield Usage("other", 0, size)
                else:
                    yield Usage(_AREAS[match[1]], int(match[2]), size)

    def drop(self) -> None:
        """Remove the database."""
        self._writing.write([], [Delete(*self._keys.all())])

    def close(self) -> None:
        self._wire.close()


def _next_version(version: str) -> str:
    """Return a version that never was before: when the database was made, and when it was changed.

    The time counts on from an earlier version's where a clock goes back.
    """
    born, _, last = version.partition(".")
    now = max(int(last or 0) + 1, time.time_ns() // 1000)
    return f"{born if last else now}.{now}"


def _is_made(found: Sequence[Found], version: str) -> bool:
    """Tell whether a change of the schema that etcd has refused was made before, its answer lost.

    found: the token, the version, and the first row of each table that is to be empty.  Raises
    SchemaChanged, NotEmpty, Written.
    """
    token, now, *rows = found
    if token.pairs:
        return token.pairs[0].value != VOID
    if (now.pairs[0].value.decode() if now.pairs else "0") != version:
        raise SchemaChanged
    if any(one.pairs for one in rows):
        raise NotEmpty
    raise Written
