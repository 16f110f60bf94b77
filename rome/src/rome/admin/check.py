"""Whether what a database in Redis keeps beside the rows agrees with the rows.

Index entries, constraints, the counter of row numbers, and keys that belong to nothing.
Pages of rows or entries are looked at by a script each, so that writers may go on; what
can be repaired from the rows is repaired within the same script.  Scripts of several tables
are sent together.
"""

from __future__ import annotations

import re
import uuid
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from rome.admin.findings import Finding, Findings, index_name
from rome.errors import IntegrityError
from rome.schema.catalogue import Catalogue, Schema
from rome.schema.change import complete, finish
from rome.schema.tables import ForeignKey, Index, OrderedIndex, Table, fold, parent_key
from rome.schema.verification import Definition
from rome.stores import rows
from rome.stores.redis.store import RedisStore

# One script looks at so many sets, and at so many members of each.
_SETS_AT_ONCE = 20
# Scripts that are sent in one round trip: so many if all have a whole page of rows to look at,
# more of tables that have few.
_SCRIPTS_AT_ONCE = 40
_PAGE = 500
_LEAST = 50  # what a script costs that looks at nothing, in rows
_STRICT = re.compile(r"\)[^)]*\bSTRICT\b[^)]*\Z", re.I)
_KEY = re.compile(
    rb"(?:(meta|schema|ids|writes|leases?)|[ts]:[0-9a-f]+|(?:scan|log|h)\d+"
    rb"|([ruio])(\d+)(?:\.(\d+)(:)?)?)",
    re.S,
)


# A script (check.lua, ordered.lua), and what it is asked.
_Request = tuple[str, dict[str, Any]]
# Yields requests, gets what each answers.
_Task = Generator[_Request, list[Any], None]


class _Job(NamedTuple):
    """A task, where its findings go, and about how many rows each of its scripts looks at."""

    findings: list[Finding]
    task: _Task
    rows: int


def check(store: RedisStore, catalogue: Catalogue, repair: bool = False) -> Iterator[Finding]:
    """Yield all findings.  Raises SchemaChanged when the schema is changed meanwhile."""
    catalogue.load(store)
    yield from _lacking(store, catalogue, repair)
    yield from _unready(store, catalogue, repair)
    schema = catalogue.schema
    checker = _Checker(store, catalogue, schema, repair)
    tables = [table for table in schema.tables.values() if not table.is_view]
    yield from checker.tables(sorted(tables, key=lambda table: table.number))
    yield from checker.keys()


def _lacking(store: RedisStore, catalogue: Catalogue, repair: bool) -> Iterator[Finding]:
    """Yield ordered indexes that an older version hasn't made."""
    lacking = [f"{table.name}: its key has no ordered index" for table in catalogue.incomplete()]
    if lacking and repair:
        complete(store, catalogue)
    for text in lacking:
        yield Finding(text, repaired=repair)


def _unready(store: RedisStore, catalogue: Catalogue, repair: bool) -> Iterator[Finding]:
    """Yield indexes that are being built, or whose builder has died."""
    waiting = [
        f"{index_name(table, index)}: the index isn't ready"
        for table in catalogue.schema.tables.values()
        for index in table.all_indexes
        if not index.ready
    ]
    problem = ""
    if waiting and repair:
        try:
            finish(store, catalogue)
        except IntegrityError as error:
            problem = f": {error}"
    for text in waiting:
        yield Finding(text + problem, repaired=repair and not problem)


class _Checker:
    def __init__(
        self, store: RedisStore, catalogue: Catalogue, schema: Schema, repair: bool
    ) -> None:
        self._store = store
        self._catalogue = catalogue
        self._schema = schema
        self._repair = repair
        self._token = uuid.uuid4().hex
        self._findings = Findings(schema, repair)
        # Of the store: the highest row numbers handed out, and tables that have a last commit.
        self._counters: dict[str, int] = {}
        self._written: set[str] = set()
        self._counts: Counter[int] = Counter()  # rows of tables

    def _run(self, jobs: Sequence[_Job]) -> Iterator[Finding]:
        """Run tasks beside each other; yield what they find, in their order."""
        waiting = [(job, request) for job in jobs if (request := next(job.task, None))]
        while waiting:
            room = _SCRIPTS_AT_ONCE * _PAGE
            now = []
            for job, request in waiting:
                room -= min(max(job.rows, _LEAST), _PAGE)
                if room < 0:
                    break
                now.append((job, request))
            later = waiting[len(now) :]
            answers = self._examine([request for _, request in now])
            going_on = []
            for (job, _), answer in zip(now, answers, strict=True):
                try:
                    going_on.append((job, job.task.send(answer)))
                except StopIteration:
                    continue
            waiting = going_on + later
        for job in jobs:
            yield from job.findings

    def _examine(self, requests: Sequence[_Request]) -> list[list[Any]]:
        every = {
            "version": self._schema.version,
            "repair": self._repair,
            "token": self._token,
        }
        return self._store.examine([(name, {**every, **request}) for name, request in requests])

    # ------------------------------------------------------------ rows

    def tables(self, tables: Sequence[Table]) -> Iterator[Finding]:
        """Check rows against entries, entries against rows, and counters of numbers."""
        unreadable = self._values(tables)
        counts = self._counts
        tasks: list[_Job] = []
        highest: dict[int, int] = {}
        for table in tables:
            findings: list[Finding] = unreadable.get(table.number, [])
            task = self._rows(table, findings, highest)
            tasks.append(_Job(findings, task, counts[table.number]))
        rows = list(self._run(tasks))
        counters, self._written = self._store.counters()
        self._counters = counters
        findings_of_counters: list[Finding] = []
        for table in tables:
            findings_of_counters += self._counter(table, highest.get(table.number, 0))
        entries = []
        for table in tables:
            for index in table.indexes:
                if index.unique and index.ready:
                    findings = []
                    task = self._unique(table, index, findings)
                    entries.append(_Job(findings, task, counts[table.number]))
            for order in table.ordered:
                for mode in ("rows", "entries") if order.ready else ():
                    findings = []
                    task = self._ordered(table, order, mode, findings)
                    entries.append(_Job(findings, task, counts[table.number]))
        yield from rows
        yield from findings_of_counters
        yield from self._run(entries)

    def _rows(self, table: Table, findings: list[Finding], highest: dict[int, int]) -> _Task:
        parents = [self._parent(table, foreign) for foreign in table.foreign_keys]
        for foreign, parent in zip(table.foreign_keys, parents, strict=True):
            if parent is None:
                text = f"{table.name}: foreign key to {foreign.parent}: it has no such key"
                findings.append(Finding(text))
        checked = [(place, parent) for place, parent in enumerate(parents) if parent is not None]
        request = {
            "mode": "rows",
            "t": table.number,
            "defaults": table.packed_defaults,
            "key": False if table.key is None else table.key,
            "not_null": self._not_null(table),
            "indexes": [[i.number, list(i.slots), i.unique] for i in table.indexes if i.ready],
            "parents": [parent for _, parent in checked],
        }
        cursor = b"0"
        while True:
            page, cursor, last, _ = yield "check", {**request, "cursor": cursor}
            highest[table.number] = max(highest.get(table.number, 0), int(last))
            for kind, number, place, row, data in page:
                if kind == b"orphan":
                    place = checked[place][0]
                findings += self._findings.tell(kind, number, place, row, data)
            if cursor == b"0":
                return

    def _unique(self, table: Table, index: Index, findings: list[Finding]) -> _Task:
        cursor = b"0"
        while True:
            request = {
                "mode": "unique",
                "t": table.number,
                "index": index.number,
                "slots": list(index.slots),
                "defaults": table.packed_defaults,
                "cursor": cursor,
            }
            page, cursor = yield "check", request
            for finding in page:
                findings += self._findings.tell(*finding)
            if cursor == b"0":
                return

    def _ordered(
        self, table: Table, order: OrderedIndex, mode: str, findings: list[Finding]
    ) -> _Task:
        """Return rows against the entries of an ordered index, or entries against rows."""
        request = {
            "mode": mode,
            "t": table.number,
            "index": order.number,
            "slots": list(order.slots),
            "key": -1 if table.key is None else table.key,
            "defaults": table.packed_defaults,
        }
        cursor = b"0"
        while True:
            page, cursor = yield "ordered", {**request, "cursor": cursor}
            for finding in page:
                findings += self._findings.tell(*finding)
            if cursor == b"0":
                return

    def _values(self, tables: Sequence[Table]) -> dict[int, list[Finding]]:
        """Return values that can't be read, or have other bytes than index entries rely on."""
        findings: dict[int, list[Finding]] = {}
        by_number = {table.number: table for table in tables}
        definitions = {
            t.number: Definition(t) for t in tables if t.checked or _STRICT.search(t.sql)
        }
        for number, page in self._store.scan_all(list(by_number)):
            width = by_number[number].full_width
            self._counts[number] += len(page)
            sound: list[tuple[int, bytes]] = []
            for n, row in page:
                try:
                    parts = rows.split(row)
                    good = len(parts) <= width and all(
                        rows.pack_value(rows.unpack_value(part)) == part for part in parts
                    )
                except Exception:  # whatever the bytes may be
                    good = False
                if not good:
                    problems = self._findings.tell(b"unreadable", number, 0, str(n).encode(), b"")
                    findings.setdefault(number, []).extend(problems)
                elif number in definitions:
                    sound.append((n, row))
            for n, words in definitions[number].broken_by(sound) if sound else ():
                if self._findings.is_new(b"check", number, 0, n, words):
                    text = f"{by_number[number].name}: row {n} is against it: {words}"
                    findings.setdefault(number, []).append(Finding(text))
        return findings

    def _counter(self, table: Table, highest: int) -> Iterator[Finding]:
        counter = self._counters.get(str(table.number), 0)
        if counter < highest:
            if self._repair:
                self._amend(highest=[[str(table.number), str(highest)]])
            yield Finding(
                f"{table.name}: row {highest} exists, but numbers were given out to {counter} only",
                repaired=self._repair,
            )

    def _not_null(self, table: Table) -> list[int]:
        sql = 'SELECT name FROM pragma_table_info(?) WHERE "notnull"'
        names, _ = self._catalogue.query(sql, (table.name,))
        columns = [table.column(name) for (name,) in names]
        return [column.slot for column in columns if column is not None]

    def _parent(self, table: Table, foreign: ForeignKey) -> list[Any] | None:
        """Tell how the script finds a row's parent: slots, kind, table, index."""
        parent = self._schema.tables.get(fold(foreign.parent))
        slots = parent_key(parent, foreign) if parent is not None else None
        if parent is None or slots is None:
            return None
        if slots == (parent.key,):
            return [list(foreign.slots), "row", parent.number, 0]
        own = list(foreign.slots)
        index = parent.find_index(slots, unique=True)
        if index is None:
            # The same columns in another order.
            index = next(
                (i for i in parent.indexes if i.unique and sorted(i.slots) == sorted(slots)), None
            )
            if index is not None:
                own = [own[slots.index(slot)] for slot in index.slots]
        if index is None or not index.ready:
            return None
        kind = "unique" if index.unique else "set"
        return [own, kind, parent.number, index.number]

    # ------------------------------------------------------------ keys

    def keys(self) -> Iterator[Finding]:
        """Check sets against rows; find keys and fields that belong to no table."""
        tables = {t.number: t for t in self._schema.tables.values() if not t.is_view}
        sets: list[list[Any]] = []
        left: dict[str, list[bytes]] = {}
        for key in self._store.key_names():
            name = key[len(self._store.prefix) :]
            match = _KEY.match(name)
            if match is None:
                left.setdefault(name.decode(errors="replace")[:40], []).append(key)
                continue
            if match[2] is None:
                continue
            table = tables.get(int(match[3]))
            index = self._index(table, match)
            if table is None or (match[2] != b"r" and index is None):
                group = name[: match.end(4) if match[4] else match.end(3)]
                left.setdefault(group.decode(), []).append(key)
            elif match[2] == b"i" and index is not None and index.ready:
                slots = list(index.slots)
                data = name[match.end() :]
                sets.append([table.number, index.number, slots, table.packed_defaults, data, b"0"])
                if len(sets) >= _SETS_AT_ONCE * _SCRIPTS_AT_ONCE:
                    yield from self._all_sets(sets)
                    sets = []
        yield from self._all_sets(sets)
        yield from self._left(left)
        yield from self._fields(tables)

    def _all_sets(self, sets: list[list[Any]]) -> Iterator[Finding]:
        tasks = []
        for start in range(0, len(sets), _SETS_AT_ONCE):
            findings: list[Finding] = []
            task = self._sets(sets[start : start + _SETS_AT_ONCE], findings)
            tasks.append(_Job(findings, task, _PAGE))
        yield from self._run(tasks)

    @staticmethod
    def _index(table: Table | None, match: re.Match[bytes]) -> Index | OrderedIndex | None:
        if table is None or match[4] is None:
            return None
        if match[2] == b"o":
            return next((i for i in table.ordered if i.number == int(match[4])), None)
        unique = match[2] == b"u"
        return next(
            (i for i in table.indexes if i.number == int(match[4]) and i.unique == unique), None
        )

    def _sets(self, sets: list[list[Any]], findings: list[Finding]) -> _Task:
        while sets:
            page, cursors = yield "check", {"mode": "sets", "sets": sets}
            for finding in page:
                findings += self._findings.tell(*finding)
            for entry, cursor in zip(sets, cursors, strict=True):
                entry[5] = cursor
            sets = [entry for entry in sets if entry[5] != b"0"]

    def _left(self, left: dict[str, list[bytes]]) -> Iterator[Finding]:
        for group, keys in sorted(left.items()):
            for start in range(0, len(keys), 500) if self._repair else ():
                self._amend(keys=keys[start : start + 500])
            many = f"{len(keys)} keys" if len(keys) > 1 else "a key"
            yield Finding(f"{group}: {many} of no table or index", repaired=self._repair)

    def _fields(self, tables: dict[int, Table]) -> Iterator[Finding]:
        numbers = {str(number) for number in tables} | {"tables"}
        for name, fields in (("ids", set(self._counters)), ("writes", self._written)):
            lost = sorted(fields - numbers)
            if lost and self._repair:
                self._amend(fields=[[name, field] for field in lost])
            for field in lost:
                yield Finding(f"{name}: {field} is the number of no table", repaired=self._repair)

    def _amend(
        self,
        highest: Iterable[list[str]] = (),
        keys: Iterable[bytes] = (),
        fields: Iterable[list[str]] = (),
    ) -> None:
        request = {"highest": list(highest), "keys": list(keys), "fields": list(fields)}
        self._examine([("check", {"mode": "amend", **request})])
