"""Scans of whole tables, indexes and keys, with SCAN and its kin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rome.errors import OperationalError
from rome.stores.redis.runner import Runner
from rome.stores.redis.scripts import pack

# Rows, and bytes, of tables that are scanned with one round trip.
PAGE_ROWS = 5000
_PAGE_BYTES = 2**22
_KEYS_LOOKED_AT = 10000  # of all databases in the server, by one SCAN: some milliseconds


class Scans:
    """The scans of one database.  Rows changed meanwhile may be old or new, or come twice."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def scan(self, table: int) -> Iterator[tuple[int, bytes]]:
        for number, row in self._hash(f"r{table}"):
            yield int(number), row

    def _hash(self, key: str) -> Iterator[tuple[bytes, bytes]]:
        for flat in self._parts("HSCAN", self._runner.prefix + key):
            yield from zip(flat[::2], flat[1::2], strict=True)

    def _parts(
        self, command: str, *key: str | bytes, count: int = 500, match: bytes | None = None
    ) -> Iterator[list[bytes]]:
        """Return what HSCAN, SSCAN, ZSCAN or SCAN finds, part by part.  Raises OperationalError."""
        options: list[Any] = ["COUNT", count]
        if match is not None:
            options += ("MATCH", match)
        cursor = b"0"
        first: int | None = None
        while True:
            cursor, part = self._runner.wire.call(command, *key, cursor, *options)
            first = self._same_connection(first)
            yield part
            if cursor == b"0":
                return

    def _same_connection(self, first: int | None) -> int:
        """Return the connection that a scan began on.

        Raises OperationalError if it is another now, perhaps to another server: there the
        cursor means nothing, and what the rest of the scan leaves out can't be told.
        """
        now = self._runner.wire.connections
        if first not in (None, now):
            raise OperationalError("the connection was lost in the middle of a scan; try again")
        return now

    def snapshot(self, table: int) -> tuple[str, list[tuple[int, bytes]]] | None:
        write, *rows = self._runner.run("snapshot", pack([table, PAGE_ROWS]))[0]
        if not rows:
            return None
        flat = rows[0]
        pairs = [(int(n), row) for n, row in zip(flat[::2], flat[1::2], strict=True)]
        return write.decode(), pairs

    def scan_all(self, tables: Sequence[int]) -> Iterator[tuple[int, list[tuple[int, bytes]]]]:
        commands: list[list[Any]] = []
        for table in tables:
            key = f"{self._runner.prefix}r{table}"
            commands += (["HLEN", key], ["MEMORY", "USAGE", key])
        sizes = self._runner.wire.pipeline(commands) if commands else []
        together: list[tuple[int, int]] = []  # tables, and how many rows a page of each has
        rows = size = 0
        for table, count, fetched in zip(tables, sizes[::2], sizes[1::2], strict=True):
            if not count:
                continue
            fetched = fetched or 0
            if together and (rows + count > PAGE_ROWS or size + fetched > _PAGE_BYTES):
                yield from self._together(together)
                together, rows, size = [], 0, 0
            fit = max(10, int(_PAGE_BYTES * count / max(fetched, 1)))
            together.append((table, min(count + 10, PAGE_ROWS, fit)))
            rows, size = rows + count, size + fetched
        if together:
            yield from self._together(together)

    def _together(
        self, tables: Sequence[tuple[int, int]]
    ) -> Iterator[tuple[int, list[tuple[int, bytes]]]]:
        """Yield the rows of tables whose first pages are asked for in one round trip."""

        def page(table: int, count: int, cursor: bytes) -> list[Any]:
            return ["HSCAN", f"{self._runner.prefix}r{table}", cursor, "COUNT", count]

        answers = self._runner.wire.pipeline([page(table, count, b"0") for table, count in tables])
        first = self._runner.wire.connections
        for (table, count), (cursor, flat) in zip(tables, answers, strict=True):
            while True:
                yield table, [(int(n), row) for n, row in zip(flat[::2], flat[1::2], strict=True)]
                if cursor == b"0":
                    break
                cursor, flat = self._runner.wire.call(*page(table, count, cursor))
                self._same_connection(first)

    def entries(self, table: int, index: int, unique: bool) -> Iterator[tuple[bytes, int]]:
        if unique:
            for data, number in self._hash(f"u{table}.{index}"):
                yield data, int(number)
            return
        start = f"{self._runner.prefix}i{table}.{index}:".encode()
        for key in self.keys(start):
            for numbers in self._parts("SSCAN", key):
                for number in numbers:
                    yield key[len(start) :], int(number)

    def members(self, table: int, index: int) -> Iterator[bytes]:
        for flat in self._parts("ZSCAN", f"{self._runner.prefix}o{table}.{index}"):
            yield from flat[::2]

    def keys(self, start: bytes) -> Iterator[bytes]:
        """Yield keys of this database that begin so."""
        for page in self.key_pages(start):
            yield from page

    def key_pages(self, start: bytes) -> Iterator[list[bytes]]:
        # SCAN goes to any node: a command with a key finds the right one first.
        self._runner.wire.call("EXISTS", self._runner.prefix + "meta")
        pattern = b"".join(b"\\" + bytes([c]) if c in b"*?[]\\^" else bytes([c]) for c in start)
        return self._parts("SCAN", count=_KEYS_LOOKED_AT, match=pattern + b"*")
