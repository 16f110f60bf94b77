"""A store in this process's memory: what base.py says, in its plainest form; for tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rome.stores import rows, sort_bytes
from rome.stores.base import (
    UNBOUNDED,
    Answer,
    Commit,
    Dropped,
    Duplicate,
    Head,
    HeldName,
    NotEmpty,
    Request,
    SchemaChanged,
    Traffic,
    Written,
    hold_of,
)
from rome.stores.memory.commit import take_entries, verify
from rome.stores.memory.database import Database, databases, forget
from rome.stores.memory.holds import hold_all, let_go
from rome.stores.memory.order import Order
from rome.stores.memory.read import read_steps
from rome.stores.steps import column
from rome.stores.wire import Step

__all__ = ["MemoryStore", "forget"]


class MemoryStore:
    """A connection to a database in memory, by name."""

    def __init__(self, name: str) -> None:
        self.database = databases.setdefault(name, Database())
        self.traffic = Traffic()
        self.portion = UNBOUNDED

    @property
    def hold_s(self) -> float:
        return hold_of(None)

    def _trip(self) -> None:
        self.traffic.round_trips += 1

    def _entries(self, kind: str, table: int, index: int) -> int:
        """Tell how many rows a table has, or entries an index (`complete` of base.py)."""
        base = self.database
        if kind == "row":
            return len(base.rows.get(table, {}))
        if kind == "unique":
            return len(base.unique.get((table, index), {}))
        return len(base.ordered.get((table, index), Order()).members())

    def _check(self, version: str) -> None:
        if str(self.database.version) != version:
            raise SchemaChanged

    def schema_unless(self, version: str) -> tuple[str, Mapping[str, bytes]] | None:
        self._trip()
        with self.database.lock:
            now, entries = str(self.database.version), dict(self.database.schema)
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

    def read(self, version: str, requests: Sequence[Request], holder: str = "") -> list[Answer]:
        self._trip()
        with self.database.lock:
            self._check(version)
            answers = []
            for request in requests:
                commits = [self.database.writes.get(table, "0") for table in request.watched]
                same = request.unless and commits == list(request.unless)
                found = None if same else read_steps(self.database, request.steps)
                answers.append(Answer(found, commits))
            return hold_all(self.database, requests, answers, holder)

    def release(self, holder: str, held: Mapping[int, Sequence[HeldName]]) -> None:
        with self.database.lock:
            let_go(self.database, holder, held)

    def levels(self, steps: Sequence[Step], hold: bool = False) -> int:
        return 1

    def commit(self, commit: Commit) -> None:
        self._trip()
        base = self.database
        with base.lock:
            if commit.token in base.tokens:
                return
            self._check(commit.version)
            new_rows = verify(self.database, commit)
            for write in commit.writes:
                take_entries(self.database, write)
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
            let_go(base, commit.holder, commit.held)

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
        """Do nothing: there is nothing to end."""
