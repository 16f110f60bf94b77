"""A database in Redis.

Keys, where P is `{tag}database:` (just `{database}:` without a tag of its own):

    P meta            hash    schema: version of the schema
    P schema          hash    name of a table -> its entry
    P ids             hash    table number -> highest row number handed out
    P writes          hash    table number -> token of the last commit that wrote it
    P r<table>        hash    row number -> row
    P u<table>.<i>    hash    bytes of the columns -> row number     (unique index)
    P i<table>.<i>:<bytes of the columns>     set of row numbers     (set index)
    P t:<token>       string  a commit that was done, for two minutes
    P scan<table>     string  somebody reads the table page by page       (these three expire)
    P log<table>      list    numbers of rows that were changed since then
    P s:<scan>        hash    how far one such read has come
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

import hiredis
import msgpack

from rome.errors import OperationalError
from rome.stores.base import (
    Answer,
    Changed,
    Commit,
    Duplicate,
    NotEmpty,
    Request,
    SchemaChanged,
    Traffic,
)
from rome.stores.pages import Lapsed, Send, read_in_pages
from rome.stores.redis_commit import by_key
from rome.stores.redis_wire import Server, Wire

# Rows that one script may look at without pages: some milliseconds' work.
MOST = 4000
# Milliseconds that a table stays marked after a page of it was read: as long may a client take
# between two pages.  commit.lua keeps what it notes for twice as long.
LEASE_MS = 30000
# Redis runs all commands that it has read from a client before it looks at other clients.  An
# argument of 32 KiB (PROTO_MBULK_BIG_ARG) it reads by itself, to its last byte: a command that
# ends with one stands alone, so others are served before the next, however many were sent.
_ALONE = b" " * 32768


@functools.cache
def _script(name: str, frees: bool) -> tuple[str, str]:
    text = (files("rome.stores") / f"{name}.lua").read_text()
    if name == "scan":
        common = re.findall(
            r"^-- <shared with scan.lua>\n(.*?)^-- </shared>$",
            (files("rome.stores") / "read.lua").read_text(),
            re.M | re.S,
        )
        head = "local P = KEYS[1]\nlocal call, byte, sub = redis.call, string.byte, string.sub\n"
        flags, rest = text.split("\n", 1)
        text = "\n".join([flags, head, *common, rest])
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
        self._page = page
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

    def _run_each(self, name: str, arguments: Sequence[Sequence[bytes]]) -> list[Any]:
        """The answers of one script to several requests, in one round trip."""
        text, digest = _script(name, False)
        commands = [("EVALSHA", digest, 1, self.prefix, *each) for each in arguments]
        answers = self._wire.pipeline(commands)
        if any(isinstance(answer, hiredis.ReplyError) for answer in answers):  # NOSCRIPT
            commands[0] = ("EVAL", text, 1, self.prefix, *arguments[0])
            answers = self._wire.pipeline(commands)
        return answers

    # ------------------------------------------------------------ schema

    def schema(self) -> tuple[str, Mapping[str, bytes]]:
        version, flat = self._run("schema_read")[0]
        names = [name.decode() for name in flat[::2]]
        return version.decode(), dict(zip(names, flat[1::2], strict=True))

    def change_schema(
        self,
        version: str,
        puts: Mapping[str, bytes],
        drops: Sequence[str],
        empty: Sequence[int],
    ) -> str:
        request = [version, [list(put) for put in puts.items()], list(drops), list(empty)]
        answer = self._run("schema", _pack(request), frees=not puts)[0]
        if answer[0] == b"schema":
            raise SchemaChanged
        if answer[0] == b"filled":
            raise NotEmpty
        changed: bytes = answer[1]
        return changed.decode()

    # ------------------------------------------------------------ rows

    def read(self, version: str, requests: Sequence[Request]) -> list[Answer]:
        most = min(self._page, MOST)
        word, *answer = self._run("read", _pack([version, requests, most]))[0]
        if word == b"schema":
            raise SchemaChanged
        if word == b"large":
            return [read_in_pages(lambda: self._scan(version), requests[0], answer[0])]
        return [
            Answer(rows, [(commit or b"0").decode() for commit in commits or ()])
            for rows, commits in answer[0]
        ]

    def _scan(self, version: str) -> Send:
        """A read in pages, as pages.py sends its parts."""
        name = uuid.uuid4().hex
        connection: int | None = None

        def send(commands: Sequence[tuple[int, Any]]) -> list[list[Any]]:
            nonlocal connection
            arguments = []
            for number, task in commands:
                if number == 0:
                    task = [_pack(task[0]), *task[1:]]
                request = _pack([version, name, number, self._page, LEASE_MS, task])
                arguments.append((request, _ALONE) if len(commands) > 1 else (request,))
            answers: list[list[Any]] = self._run_each("scan", arguments)
            words = {answer[0] for answer in answers}
            if b"schema" in words:
                raise SchemaChanged
            # On another connection perhaps another master answers, which may lack commits.
            if connection not in (None, self._wire.connections) or b"lapsed" in words:
                raise Lapsed
            connection = self._wire.connections
            return answers

        return send

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
        for flat in self._parts("HSCAN", self.prefix + key):
            yield from zip(flat[::2], flat[1::2], strict=True)

    def _parts(self, command: str, *key: str | bytes, **more: Any) -> Iterator[list[bytes]]:
        """What HSCAN, SSCAN or SCAN finds, part by part.  Raises OperationalError.

        Another server has another order, in which a cursor would leave out what it doesn't
        name: after a failover a scan can't go on.
        """
        cursor, connection = b"0", None
        options = [part for option in more.items() for part in option]
        while True:
            cursor, found = self._wire.call(command, *key, cursor, *options, "COUNT", 500)
            if connection not in (None, self._wire.connections):
                raise OperationalError("the connection broke during a scan; begin it again")
            connection = self._wire.connections
            yield found
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
        cursor, connection = b"0", self._wire.connections
        while True:
            request = [mode, table, index, list(slots), unique, fills, cursor]
            word, rest = self._run("index", _pack(request), frees=mode == "drop")[0]
            if word == b"duplicate":
                raise Duplicate(table, index, rest)
            cursor = rest
            if connection != self._wire.connections:
                # Perhaps another server, where this cursor would leave rows out.
                cursor, connection = b"0", self._wire.connections
                continue
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

    def entries(self, table: int, index: int, unique: bool) -> Iterator[tuple[bytes, int]]:
        if unique:
            for data, number in self._hash(f"u{table}.{index}"):
                yield data, int(number)
            return
        start = f"{self.prefix}i{table}.{index}:".encode()
        for key in self._keys(start):
            for numbers in self._parts("SSCAN", key):
                for number in numbers:
                    yield key[len(start) :], int(number)

    def _keys(self, start: bytes) -> Iterator[bytes]:
        """Keys of this database that begin so."""
        # SCAN goes to any node: a command with a key finds the right one first.
        self._wire.call("EXISTS", self.prefix + "meta")
        pattern = b"".join(b"\\" + bytes([c]) if c in b"*?[]\\^" else bytes([c]) for c in start)
        for keys in self._parts("SCAN", MATCH=pattern + b"*"):
            yield from keys

    # ------------------------------------------------------------ the whole

    def examine(self, request: dict[str, Any]) -> list[Any]:
        """One page of a check (check.lua).  Raises SchemaChanged."""
        word, *rest = self._run("check", _pack(request))[0]
        if word == b"schema":
            raise SchemaChanged
        return list(rest)

    def highest(self, table: int) -> int:
        """The highest row number that was handed out."""
        return int(self._wire.call("HGET", self.prefix + "ids", table) or 0)

    def fields(self, name: str) -> list[str]:
        """The fields of one of the database's own hashes."""
        return [field.decode() for field in self._wire.call("HKEYS", self.prefix + name)]

    def key_names(self) -> Iterator[bytes]:
        """Every key of this database."""
        return self._keys(self.prefix.encode())

    def memory(self) -> Iterator[tuple[bytes, int]]:
        """Every key of this database, with the bytes of memory that it takes."""
        found = self._keys(self.prefix.encode())
        while page := list(itertools.islice(found, 500)):
            usage = self._wire.pipeline([("MEMORY", "USAGE", key, "SAMPLES", 1000) for key in page])
            yield from ((key, size or 0) for key, size in zip(page, usage, strict=True))

    def drop(self) -> None:
        """Remove the database."""
        for key in self._keys(self.prefix.encode()):
            self._wire.call("UNLINK", key)

    def close(self) -> None:
        self._wire.close()
