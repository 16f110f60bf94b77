"""A store in this process's memory: what base.py says, in its plainest form; for tests."""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rome.stores import rows, sort_bytes
from rome.stores.base import (
    Answer,
    Changed,
    Commit,
    Dropped,
    Duplicate,
    Head,
    NotEmpty,
    Request,
    Rows,
    SchemaChanged,
    Traffic,
    Written,
)
from rome.stores.memory.order import Order, as_bytes
from rome.stores.steps import Defaults, Found, column, join_keys, part
from rome.stores.values import sort_key
from rome.stores.wire import Aggregation, AnyFilter, IndexKey, JoinLookup, RangeLookup, Step, Test


class Database:
    """What all connections to one database share."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.version = 0
        self.schema: dict[str, bytes] = {}
        self.rows: dict[int, dict[bytes, bytes]] = {}
        self.unique: dict[tuple[int, int], dict[bytes, bytes]] = {}
        self.sets: dict[tuple[int, int], dict[bytes, set[bytes]]] = {}
        self.ordered: dict[tuple[int, int], Order] = {}
        self.ids: dict[str, int] = {}
        self.writes: dict[int, str] = {}
        self.tokens: set[str] = set()


_databases: dict[str, Database] = {}


def forget(name: str) -> None:
    """Drop a database."""
    _databases.pop(name, None)


def _passes(row: bytes, filters: Sequence[Test], defaults: Defaults) -> bool:
    for test in filters:
        if isinstance(test, AnyFilter):
            if not any(_passes(row, branch, defaults) for branch in test.branches):
                return False
            continue
        op, values = test.op, test.values
        data = column(row, test.slot, defaults)
        if op == "in":
            good = data in values
        elif op == "out":
            good = data != rows.NULL and data not in values
        elif op == "not":
            good = data not in values
        elif op in ("null", "some"):
            good = (data == rows.NULL) == (op == "null")
        elif data == rows.NULL:
            good = False
        else:
            mine, bound = sort_key(rows.unpack_value(data)), sort_key(rows.unpack_value(values[0]))
            good = {
                "<": mine < bound,
                "<=": mine <= bound,
                ">": mine > bound,
                ">=": mine >= bound,
            }[op]
        if not good:
            return False
    return True


class MemoryStore:
    """A connection to a database in memory, by name."""

    def __init__(self, name: str) -> None:
        self.database = _databases.setdefault(name, Database())
        self.traffic = Traffic()

    def _trip(self) -> None:
        self.traffic.round_trips += 1

    def _entries(self, kind: str, table: int, index: int) -> int:
        """How many rows a table has, or entries an index (`complete` of base.py)."""
        base = self.database
        if kind == "row":
            return len(base.rows.get(table, {}))
        if kind == "unique":
            return len(base.unique.get((table, index), {}))
        return len(base.ordered.get((table, index), Order()).members())

    def _check(self, version: str) -> None:
        if str(self.database.version) != version:
            raise SchemaChanged

    def schema(self) -> tuple[str, Mapping[str, bytes]]:
        self._trip()
        with self.database.lock:
            return str(self.database.version), dict(self.database.schema)

    def schema_unless(self, version: str) -> tuple[str, Mapping[str, bytes]] | None:
        now, entries = self.schema()
        return None if now == version else (now, entries)

    def change_schema(
        self,
        version: str,
        puts: Mapping[str, bytes],
        drops: Sequence[str],
        empty: Sequence[int],
        unwritten: Sequence[tuple[int, str]] = (),
        complete: Sequence[tuple[str, int, int, int]] = (),
    ) -> str:
        self._trip()
        base = self.database
        with base.lock:
            self._check(version)
            if any(base.rows.get(table) for table in empty):
                raise NotEmpty
            if any(base.writes.get(table, "0") != write for table, write in unwritten):
                raise Written
            for kind, table, index, count in complete:
                if self._entries(kind, table, index) != count:
                    raise Written
            for name in drops:
                base.schema.pop(name, None)
            base.schema.update(puts)
            base.version += 1
            return str(base.version)

    def read(self, version: str, requests: Sequence[Request]) -> list[Answer]:
        self._trip()
        with self.database.lock:
            self._check(version)
            answers = []
            for request in requests:
                commits = [self.database.writes.get(table, "0") for table in request.watched]
                same = request.unless and commits == list(request.unless)
                answers.append(Answer(None if same else self._rows(request.steps), commits))
            return answers

    def _rows(self, steps: Sequence[Step]) -> list[Rows]:
        found: list[Found] = []
        numbers: list[list[bytes]] = []
        for step in steps:
            own, kept, defaults = self._step(step, found)
            numbers.append(own)
            found.append((kept, defaults))
            _reduce(steps, found, numbers, len(found) - 1)
        taken: dict[int, set[bytes]] = {}
        answer = []
        for step, (kept, defaults), own in zip(steps, found, numbers, strict=True):
            if step.aggregation is not None:
                answer.append(_aggregated(kept, defaults, step.aggregation))
                continue
            had = taken.setdefault(step.table, set())
            out: Rows = []
            for number, row in zip(own, kept, strict=True):
                if number not in had:
                    had.add(number)
                    if step.columns:
                        row = part(row, step.columns, defaults)
                    out += (number, row)
            answer.append(out)
        return answer

    def _step(self, step: Step, found: list[Found]) -> tuple[list[bytes], list[bytes], Defaults]:
        table, filters, limit = step.table, step.filters, step.limit
        defaults: Defaults = dict(step.defaults)
        stored = self.database.rows.get(table, {})
        best = None
        walk: list[bytes] | None = None
        ties: Sequence[int] = ()
        for lookup in step.lookups:
            if isinstance(lookup, RangeLookup):
                numbers = self.database.ordered.get((table, lookup.index), Order()).span(lookup)
                if lookup.walk and limit:
                    walk, ties = numbers[:: lookup.walk], lookup.ties
            else:
                keys = lookup.keys
                if isinstance(lookup, JoinLookup):
                    keys = join_keys(lookup, found)
                numbers = self._numbers(table, lookup.kind, lookup.index, keys)
            if best is None or len(numbers) < len(best):
                best = numbers
        if walk is not None:
            best = self._first_in(stored, walk, ties, filters, defaults, limit)
        pairs = [
            (number, stored[number])
            for number in (stored if best is None else best)
            if number in stored and _passes(stored[number], filters, defaults)
        ]
        if limit and len(pairs) > limit:
            pairs = _first(pairs, step.order, limit, defaults)
        return [number for number, _ in pairs], [row for _, row in pairs], defaults

    def _numbers(self, table: int, kind: str, index: int, keys: Sequence[IndexKey]) -> list[bytes]:
        if kind == "row":
            found = list(map(as_bytes, keys))
        elif kind == "unique":
            entries = self.database.unique.get((table, index), {})
            found = [entries[key] for key in map(as_bytes, keys) if key in entries]
        else:
            sets = self.database.sets.get((table, index), {})
            found = [number for key in map(as_bytes, keys) for number in sorted(sets.get(key, ()))]
        return list(dict.fromkeys(found))

    @staticmethod
    def _first_in(
        stored: Mapping[bytes, bytes],
        walk: Sequence[bytes],
        ties: Sequence[int],
        filters: Sequence[Test],
        defaults: Defaults,
        limit: int,
    ) -> list[bytes]:
        """The first rows of a walk that pass, and those equal to the last in the tie slots."""
        found: list[bytes] = []
        last: list[Any] = []
        for number in walk:
            row = stored.get(number)
            if row is None or not _passes(row, filters, defaults):
                continue
            key = [sort_key(rows.unpack_value(column(row, slot, defaults))) for slot in ties]
            if len(found) >= limit and (not ties or key != last):
                break
            found.append(number)
            last = key
        return found

    def commit(self, commit: Commit) -> None:
        self._trip()
        base = self.database
        with base.lock:
            if commit.token in base.tokens:
                return
            self._check(commit.version)
            new_rows = self._verify(commit)
            for write in commit.writes:
                self._take_entries(write)
            for write, row in zip(commit.writes, new_rows, strict=True):
                table, number = write["t"], write["n"].encode()
                stored = base.rows.setdefault(table, {})
                if row is None:
                    stored.pop(number, None)
                else:
                    stored[number] = row
                for index, data in write["unique_add"]:
                    base.unique.setdefault((table, index), {})[data] = number
                for index, data in write["set_add"]:
                    sets = base.sets.setdefault((table, index), {})
                    sets.setdefault(data, set()).add(number)
                for index, score, member in write["order_add"]:
                    base.ordered.setdefault((table, index), Order()).add(score, member)
            for table in {write["t"] for write in commit.writes}:
                base.writes[table] = commit.token
            for table, number in commit.used:
                base.ids[str(table)] = max(base.ids.get(str(table), 0), number)
            base.tokens.add(commit.token)

    def _take_entries(self, write: dict[str, Any]) -> None:
        base, number = self.database, write["n"].encode()
        for index, data in write["unique_del"]:
            entries = base.unique.setdefault((write["t"], index), {})
            if entries.get(data) == number:
                del entries[data]
        for index, data in write["set_del"]:
            sets = base.sets.setdefault((write["t"], index), {})
            sets.get(data, set()).discard(number)
            if not sets.get(data):
                sets.pop(data, None)
        for index, member in write["order_del"]:
            base.ordered.setdefault((write["t"], index), Order()).remove(member)

    def _verify(self, commit: Commit) -> list[bytes | None]:
        """The rows as they will be; raises where a check fails."""
        base = self.database
        freed = {
            (write["t"], index, data): write["n"].encode()
            for write in commit.writes
            for index, data in write["unique_del"]
        }
        new_rows: list[bytes | None] = []
        for write in commit.writes:
            table, number = write["t"], write["n"].encode()
            stored = base.rows.get(table, {})
            if write["op"] == "insert":
                if number in stored:
                    raise Duplicate(table, -1, number)
                new_rows.append(write["row"])
            else:
                if number not in stored:
                    raise Changed(table, number)
                parts = rows.split(stored[number])
                defaults = dict(write["defaults"])
                for slot, data in write["checks"]:
                    now = parts[slot] if slot < len(parts) else defaults.get(slot, rows.NULL)
                    if now != data:
                        raise Changed(table, number)
                if write["op"] == "update":
                    for slot in range(len(parts), write["width"]):
                        parts.append(defaults.get(slot, rows.NULL))
                    for slot, data in write["deltas"]:
                        parts[slot] = data
                    new_rows.append(rows.join(parts))
                else:
                    new_rows.append(None)
            for index, data in write["unique_add"]:
                holder = base.unique.get((table, index), {}).get(data)
                if holder not in (None, number, freed.get((table, index, data))):
                    raise Duplicate(table, index, holder or b"")
        for kind, table, index, key in commit.exists:
            if not self._numbers(table, kind, index, [key]) or (
                kind == "row" and key.encode() not in base.rows.get(table, {})
            ):
                raise Changed(table, key)
        for kind, table, index, known, key in commit.childless:
            holders = self._numbers(table, kind, index, [key])
            if kind == "row":
                holders = [number for number in holders if number in base.rows.get(table, {})]
            if not set(holders) <= {number.encode() for number in known}:
                raise Changed(table, key)
        for table, count in commit.reads:
            if base.writes.get(table, "0") != count:
                raise Changed(table, count)
        return new_rows

    def reserve(self, name: str, count: int) -> int:
        self._trip()
        with self.database.lock:
            last = self.database.ids.get(name, 0)
            self.database.ids[name] = last + count
            return last + 1

    def build_index(
        self, table: int, index: int, slots: Sequence[int], unique: bool, defaults: list[list[Any]]
    ) -> None:
        self._trip()
        base, by_slot = self.database, dict(map(tuple, defaults))
        with base.lock:
            for number, row in base.rows.get(table, {}).items():
                parts = [column(row, slot, by_slot) for slot in slots]
                data = b"".join(parts)
                if not unique:
                    sets = base.sets.setdefault((table, index), {})
                    sets.setdefault(data, set()).add(number)
                elif rows.NULL not in parts:
                    entries = base.unique.setdefault((table, index), {})
                    if entries.setdefault(data, number) != number:
                        raise Duplicate(table, index, entries[data])

    def build_ordered(
        self,
        table: int,
        index: int,
        slots: Sequence[int],
        key: int | None,
        defaults: list[list[Any]],
    ) -> None:
        self._trip()
        base, by_slot = self.database, dict(map(tuple, defaults))
        with base.lock:
            order = base.ordered.setdefault((table, index), Order())
            for number, row in base.rows.get(table, {}).items():
                if tuple(slots) == (key,):
                    order.add(number, number)
                    continue
                values = [rows.unpack_value(column(row, slot, by_slot)) for slot in slots]
                order.add(b"0", sort_bytes.entry(values, int(number)))

    def remove(self, version: str, dropped: Sequence[Dropped]) -> None:
        self._trip()
        base = self.database
        with base.lock:
            self._check(version)
            for table, sets, unique, ordered, _, whole in dropped:
                for index, _ in sets:
                    base.sets.pop((table, index), None)
                for index in unique:
                    base.unique.pop((table, index), None)
                for index in ordered:
                    base.ordered.pop((table, index), None)
                if whole:
                    base.rows.pop(table, None)
                    base.ids.pop(str(table), None)

    def heads(self, tables: Sequence[int]) -> list[Head]:
        self._trip()
        base = self.database
        with base.lock:
            return [
                Head(len(base.rows.get(table, {})), base.writes.get(table, "0")) for table in tables
            ]

    def snapshot(self, table: int) -> tuple[str, list[tuple[int, bytes]]] | None:
        with self.database.lock:
            return self.database.writes.get(table, "0"), list(self.scan(table))

    def scan_all(self, tables: Sequence[int]) -> Iterator[tuple[int, list[tuple[int, bytes]]]]:
        for table in tables:
            if rows_there := list(self.scan(table)):
                yield table, rows_there

    def scan(self, table: int) -> Iterator[tuple[int, bytes]]:
        self._trip()
        with self.database.lock:
            pairs = [(int(n), row) for n, row in self.database.rows.get(table, {}).items()]
        yield from pairs

    def entries(self, table: int, index: int, unique: bool) -> Iterator[tuple[bytes, int]]:
        self._trip()
        base = self.database
        with base.lock:
            if unique:
                pairs = [(k, int(n)) for k, n in base.unique.get((table, index), {}).items()]
            else:
                pairs = [
                    (k, int(n)) for k, ns in base.sets.get((table, index), {}).items() for n in ns
                ]
        yield from pairs

    def members(self, table: int, index: int) -> Iterator[bytes]:
        self._trip()
        with self.database.lock:
            yield from self.database.ordered.get((table, index), Order()).members()

    def count(self, table: int) -> int:
        self._trip()
        return len(self.database.rows.get(table, {}))

    def close(self) -> None:
        """Nothing to end."""


def _reduce(
    steps: Sequence[Step], found: list[Found], numbers: list[list[bytes]], place: int
) -> None:
    """Take out of earlier steps the rows that no row of this one matches."""
    rows_here, fills_here = found[place]
    for join in steps[place].semi_joins:
        values = {column(row, join.own_slot, fills_here) for row in rows_here} - {rows.NULL}
        kept, defaults = found[join.step]
        good = [column(row, join.slot, defaults) in values for row in kept]
        if not all(good):
            found[join.step] = list(itertools.compress(kept, good)), defaults
            numbers[join.step] = list(itertools.compress(numbers[join.step], good))
            _reduce(steps, found, numbers, join.step)


def _first(
    pairs: list[tuple[bytes, bytes]],
    order: Sequence[tuple[int, bool]],
    limit: int,
    defaults: Defaults,
) -> list[tuple[bytes, bytes]]:
    keys = {
        number: [sort_key(rows.unpack_value(column(row, slot, defaults))) for slot, _ in order]
        for number, row in pairs
    }

    def compare(a: tuple[bytes, bytes], b: tuple[bytes, bytes]) -> int:
        for mine, other, (_, descending) in zip(keys[a[0]], keys[b[0]], order, strict=True):
            if mine != other:
                return -1 if (mine < other) != bool(descending) else 1
        return 0

    pairs = sorted(pairs, key=functools.cmp_to_key(compare))
    stop = limit
    while stop < len(pairs) and keys[pairs[stop][0]] == keys[pairs[limit - 1][0]]:
        stop += 1
    return pairs[:stop]


def _aggregated(kept: Sequence[bytes], defaults: Defaults, aggregation: Aggregation) -> list[Any]:
    slots, functions = aggregation.groups, aggregation.functions
    groups: dict[bytes, list[bytes]] = {} if slots else {b"": []}
    for row in kept:
        key = b"".join(column(row, slot, defaults) for slot in slots)
        groups.setdefault(key, []).append(row)
    answer = []
    for members in groups.values():
        values: list[Any] = []
        for function, slot in functions:
            found = [
                value
                for row in members
                if slot >= 0
                and (value := rows.unpack_value(column(row, slot, defaults))) is not None
            ]
            if not function:
                values.append(found[0] if found else None)
            elif function == "count":
                values.append(len(members) if slot < 0 else len(found))
            elif not found:
                values.append(None)
            elif function == "sum":
                total = sum(found) if all(isinstance(value, int) for value in found) else None
                if total is None or abs(total) >= 2**53:
                    return [b"no"]
                values.append(total)
            else:
                values.append((min if function == "min" else max)(found, key=sort_key))
        answer.append([rows.pack_value(value) for value in values])
    return answer
