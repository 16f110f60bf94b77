"""A database in Redis.

Keys, where P is `{tag}database:` (just `{database}:` without a tag of its own):

    P meta            hash    schema: version of the schema
    P schema          hash    name of a table -> its entry
    P ids             hash    table number -> highest row number handed out
    P writes          hash    table number -> token of the last commit that wrote it
    P r<table>        hash    row number -> row
    P u<table>.<i>    hash    bytes of the columns -> row number     (unique index)
    P i<table>.<i>:<bytes of the columns>     set of row numbers     (set index)
    P t:<token>       string  a commit or change of the schema that was done, for two minutes
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

import hiredis
import msgpack

from rome.errors import InternalError, OperationalError
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
    Step,
    Traffic,
    Written,
)
from rome.stores.pages import read_in_pages
from rome.stores.redis_commit import by_key
from rome.stores.redis_wire import Server, Wire

_ROWS_IN_A_SCRIPT = 2000  # that one script removes, with the entries of one set index each
# Rows, and bytes, of tables that are scanned with one round trip.
_PAGE_ROWS = 5000
_PAGE_BYTES = 2**22
_KEYS_LOOKED_AT = 10000  # of all databases in the server, by one SCAN: some milliseconds


@functools.cache
def _script(name: str, frees: bool) -> tuple[str, str]:
    text = (files("rome.stores") / f"{name}.lua").read_text()
    if frees:
        # Redis runs it even when its memory is full.
        text = text.replace("#!lua\n", "#!lua flags=allow-oom\n", 1)
    return text, hashlib.sha1(text.encode()).hexdigest()


def _pack(request: Any) -> bytes:
    # The scripts' msgpack knows no type of its own for bytes.
    data: bytes = msgpack.packb(request, use_bin_type=False)
    return data


class RedisStore:
    """One connection to a database in Redis; not for two threads at once."""

    def __init__(
        self,
        server: Server,
        database: str,
        tag: str | None = None,
        replicas: int = 0,
        page: int = 20000,
    ) -> None:
        """`replicas` have a commit before it counts as done; one script looks at no more
        than `page` rows."""
        self.traffic = Traffic()
        self._wire = Wire(server, self.traffic)
        own = "" if tag in (None, database) else database
        self.prefix = f"{{{tag or database}}}{own}:"
        self._replicas = replicas
        self._most = page
        # A commit is sent again for as long as `patience`, and each time for one answer.
        self._remember = int(2 * (server.patience + server.timeout)) + 1

    def _run(
        self,
        name: str,
        *arguments: bytes,
        after: Sequence[Sequence[Any]] = (),
        frees: bool = False,
    ) -> Any:
        text, digest = _script(name, frees)
        commands = [("EVALSHA", digest, 1, self.prefix, *arguments), *after]
        answers = self._wire.pipeline(commands)
        if isinstance(answers[0], hiredis.ReplyError):  # NOSCRIPT
            commands[0] = ("EVAL", text, 1, self.prefix, *arguments)
            answers = self._wire.pipeline(commands)
        return answers

    # ------------------------------------------------------------ schema

    def schema(self) -> tuple[str, Mapping[str, bytes]]:
        found = self.schema_unless("")
        if found is None:
            raise InternalError("the version of the schema is empty")
        return found

    def schema_unless(self, version: str) -> tuple[str, Mapping[str, bytes]] | None:
        now, *entries = self._run("schema_read", version.encode())[0]
        if not entries:
            return None
        flat = entries[0]
        names = [name.decode() for name in flat[::2]]
        return now.decode(), dict(zip(names, flat[1::2], strict=True))

    def change_schema(
        self,
        version: str,
        puts: Mapping[str, bytes],
        drops: Sequence[str],
        empty: Sequence[int],
        token: str = "",
        unwritten: Sequence[tuple[int, str]] = (),
        complete: Sequence[tuple[int, int, int]] = (),
    ) -> str:
        request = [
            *(version, [list(put) for put in puts.items()], list(drops), list(empty)),
            *(token, self._remember, list(unwritten), list(complete)),
        ]
        self._wire.in_doubt = False
        try:
            answer = self._run("schema", _pack(request), frees=not puts)[0]
        except OperationalError as error:
            if self._wire.in_doubt:
                raise OperationalError(
                    f"{error}; whether the schema was changed is not known"
                ) from error
            raise
        if answer[0] == b"schema":
            raise SchemaChanged
        if answer[0] == b"filled":
            raise NotEmpty
        if answer[0] == b"written":
            raise Written
        changed: bytes = answer[1]
        return changed.decode()

    # ------------------------------------------------------------ rows

    def read(self, version: str, requests: Sequence[Request]) -> list[Answer]:
        answers, _ = self._read(version, requests)
        if answers is None:
            return [self._in_pages(version, requests[0])]
        return answers

    def _read(
        self, version: str, requests: Sequence[Request], cursor: bytes | bool = False
    ) -> tuple[list[Answer] | None, bytes]:
        """Answers, and the cursor of the next page; None: the script would have to look at
        too many rows."""
        word, *answer = self._run("read", _pack([version, requests, self._most, cursor]))[0]
        if word == b"schema":
            raise SchemaChanged
        if word == b"large":
            return None, b""
        answers = [
            Answer(rows, [(commit or b"0").decode() for commit in commits or ()])
            for rows, commits in answer[0]
        ]
        return answers, answer[1]

    def _in_pages(self, version: str, request: Request) -> Answer:
        # The last commits as they are before the first page: whatever is written while the
        # pages come is a later one.
        commits: list[str] = []
        if request.watched:
            first, _ = self._read(version, [Request([], request.watched)])
            commits = first[0].commits if first else []

        def ask(step: Step, cursor: bytes | bool) -> tuple[Rows, bytes] | None:
            answers, more = self._read(version, [Request([step])], cursor)
            if answers is None or answers[0].rows is None:
                return None
            return answers[0].rows[0], more if cursor else b"0"

        return Answer(read_in_pages(ask, request.steps), commits)

    def commit(self, commit: Commit) -> None:
        request = by_key(commit, max(commit.remember, self._remember))
        wait = [("WAIT", self._replicas, 2000)] if self._replicas else []
        frees = all(write["op"] == "delete" for write in commit.writes)
        self._wire.in_doubt = False
        try:
            answers = self._run("commit", _pack(request), after=wait, frees=frees)
        except OperationalError as error:
            if self._wire.in_doubt:
                raise OperationalError(
                    f"{error}; whether the commit was done is not known"
                ) from error
            raise
        word, *rest = answers[0]
        if word == b"schema":
            raise SchemaChanged
        if word == b"duplicate":
            raise Duplicate(rest[0], rest[1], rest[2])
        if word in (b"changed", b"read"):
            raise Changed(*rest)
        if wait and answers[1] < self._replicas:
            raise OperationalError(
                f"the commit is done, but only {answers[1]} of {self._replicas} replicas have it"
            )

    def reserve(self, name: str, count: int) -> int:
        last: int = self._wire.call("HINCRBY", self.prefix + "ids", name, count)
        return last - count + 1

    def scan(self, table: int) -> Iterator[tuple[int, bytes]]:
        for number, row in self._hash(f"r{table}"):
            yield int(number), row

    def _hash(self, key: str) -> Iterator[tuple[bytes, bytes]]:
        cursor = b"0"
        while True:
            cursor, flat = self._wire.call("HSCAN", self.prefix + key, cursor, "COUNT", 500)
            yield from zip(flat[::2], flat[1::2], strict=True)
            if cursor == b"0":
                return

    def count(self, table: int) -> int:
        number: int = self._wire.call("HLEN", f"{self.prefix}r{table}")
        return number

    # ------------------------------------------------------------ indexes

    def build_index(
        self, table: int, index: int, slots: Sequence[int], unique: bool, fills: list[list[Any]]
    ) -> None:
        self._pages("build", table, index, slots, unique, fills)

    def drop_index(
        self, table: int, index: int, slots: Sequence[int], unique: bool, fills: list[list[Any]]
    ) -> None:
        if unique:
            self._wire.call("UNLINK", f"{self.prefix}u{table}.{index}")
        else:
            self._pages("drop", table, index, slots, unique, fills)

    def _pages(
        self,
        mode: str,
        table: int,
        index: int,
        slots: Sequence[int],
        unique: bool,
        fills: list[list[Any]],
    ) -> None:
        cursor = b"0"
        while True:
            request = [mode, table, index, list(slots), unique, fills, cursor]
            word, rest = self._run("index", _pack(request), frees=mode == "drop")[0]
            if word == b"duplicate":
                raise Duplicate(table, index, rest)
            cursor = rest
            if cursor == b"0":
                return

    def drop_rows(self, table: int) -> None:
        self._wire.pipeline(
            [
                ("UNLINK", f"{self.prefix}r{table}"),
                ("HDEL", self.prefix + "ids", table),
                ("HDEL", self.prefix + "writes", table),
            ]
        )

    def drop_tables(self, dropped: Sequence[Dropped]) -> None:
        waiting = [[*entry, b"0"] for entry in dropped]
        while waiting:
            word, *rest = self._run("drop", _pack([waiting, _ROWS_IN_A_SCRIPT]))[0]
            if word == b"done":
                return
            del waiting[: rest[0]]
            waiting[0][4] = rest[1]

    def heads(self, tables: Sequence[int]) -> list[Head]:
        if not tables:
            return []
        commands: list[list[Any]] = [["HLEN", f"{self.prefix}r{table}"] for table in tables]
        commands.append(["HMGET", self.prefix + "writes", *tables])
        *counts, writes = self._wire.pipeline(commands)
        return [
            Head(rows, (write or b"0").decode()) for rows, write in zip(counts, writes, strict=True)
        ]

    def snapshot(self, table: int) -> tuple[str, list[tuple[int, bytes]]] | None:
        write, *rows = self._run("snapshot", _pack([table, _PAGE_ROWS]))[0]
        if not rows:
            return None
        flat = rows[0]
        pairs = [(int(n), row) for n, row in zip(flat[::2], flat[1::2], strict=True)]
        return write.decode(), pairs

    def scan_all(self, tables: Sequence[int]) -> Iterator[tuple[int, list[tuple[int, bytes]]]]:
        commands: list[list[Any]] = []
        for table in tables:
            key = f"{self.prefix}r{table}"
            commands += (["HLEN", key], ["MEMORY", "USAGE", key])
        sizes = self._wire.pipeline(commands) if commands else []
        together: list[tuple[int, int]] = []  # tables, and how many rows a page of each has
        rows = size = 0
        for table, count, taken in zip(tables, sizes[::2], sizes[1::2], strict=True):
            if not count:
                continue
            taken = taken or 0
            if together and (rows + count > _PAGE_ROWS or size + taken > _PAGE_BYTES):
                yield from self._together(together)
                together, rows, size = [], 0, 0
            fit = max(10, int(_PAGE_BYTES * count / max(taken, 1)))
            together.append((table, min(count + 10, _PAGE_ROWS, fit)))
            rows, size = rows + count, size + taken
        if together:
            yield from self._together(together)

    def _together(
        self, tables: Sequence[tuple[int, int]]
    ) -> Iterator[tuple[int, list[tuple[int, bytes]]]]:
        """The rows of tables whose first pages are asked for in one round trip."""

        def page(table: int, count: int, cursor: bytes) -> list[Any]:
            return ["HSCAN", f"{self.prefix}r{table}", cursor, "COUNT", count]

        answers = self._wire.pipeline([page(table, count, b"0") for table, count in tables])
        for (table, count), (cursor, flat) in zip(tables, answers, strict=True):
            while True:
                yield table, [(int(n), row) for n, row in zip(flat[::2], flat[1::2], strict=True)]
                if cursor == b"0":
                    break
                cursor, flat = self._wire.call(*page(table, count, cursor))

    def entries(self, table: int, index: int, unique: bool) -> Iterator[tuple[bytes, int]]:
        if unique:
            for data, number in self._hash(f"u{table}.{index}"):
                yield data, int(number)
            return
        start = f"{self.prefix}i{table}.{index}:".encode()
        for key in self._keys(start):
            for number in self._wire.call("SMEMBERS", key):
                yield key[len(start) :], int(number)

    def _keys(self, start: bytes) -> Iterator[bytes]:
        """Keys of this database that begin so."""
        for page in self._key_pages(start):
            yield from page

    def _key_pages(self, start: bytes) -> Iterator[list[bytes]]:
        # SCAN goes to any node: a command with a key finds the right one first.
        self._wire.call("EXISTS", self.prefix + "meta")
        pattern = b"".join(b"\\" + bytes([c]) if c in b"*?[]\\^" else bytes([c]) for c in start)
        cursor = b"0"
        while True:
            cursor, keys = self._wire.call(
                *("SCAN", cursor, "MATCH", pattern + b"*", "COUNT", _KEYS_LOOKED_AT)
            )
            yield keys
            if cursor == b"0":
                return

    # ------------------------------------------------------------ the whole

    def examine(self, requests: Sequence[dict[str, Any]]) -> list[list[Any]]:
        """Pages of a check (check.lua), a script each, in one round trip.  Raises
        SchemaChanged."""
        text, digest = _script("check", False)
        commands: list[Sequence[Any]] = [("SCRIPT", "LOAD", text)]
        commands += [("EVALSHA", digest, 1, self.prefix, _pack(request)) for request in requests]
        answers = self._wire.pipeline(commands)[1:]
        if any(answer[0] == b"schema" for answer in answers):
            raise SchemaChanged
        return [answer[1:] for answer in answers]

    def counters(self) -> tuple[dict[str, int], set[str]]:
        """The highest row numbers that were handed out, by table, and the tables that have a
        last commit."""
        flat, written = self._wire.pipeline(
            [("HGETALL", self.prefix + "ids"), ("HKEYS", self.prefix + "writes")]
        )
        highest = {
            name.decode(): int(number) for name, number in zip(flat[::2], flat[1::2], strict=True)
        }
        return highest, {name.decode() for name in written}

    def key_names(self) -> Iterator[bytes]:
        """Every key of this database."""
        return self._keys(self.prefix.encode())

    def memory(self) -> Iterator[tuple[bytes, int]]:
        """Every key of this database, with the bytes of memory that it takes."""
        found = self._keys(self.prefix.encode())
        while page := list(itertools.islice(found, 5000)):
            usage = self._wire.pipeline([("MEMORY", "USAGE", key, "SAMPLES", 0) for key in page])
            yield from ((key, size or 0) for key, size in zip(page, usage, strict=True))

    def drop(self) -> None:
        """Remove the database: first its schema, so that nobody writes into what is left."""
        self._wire.call("UNLINK", self.prefix + "meta", self.prefix + "schema")
        for page in self._key_pages(self.prefix.encode()):
            if page:
                self._wire.pipeline(
                    [("UNLINK", *page[n : n + 500]) for n in range(0, len(page), 500)]
                )

    def close(self) -> None:
        self._wire.close()
