"""A database in Redis.

Keys, where P is `{tag}database:` (just `{database}:` without a tag of its own):

    P meta            hash    schema: version of the schema
    P schema          hash    name of a table -> its entry
    P ids             hash    table number -> highest row number handed out
    P writes          hash    table number -> token of the last commit that wrote it
    P r<table>        hash    row number -> row
    P u<table>.<i>    hash    bytes of the columns -> row number     (unique index)
    P i<table>.<i>:<bytes of the columns>     set of row numbers     (set index)
    P o<table>.<i>    sorted set   row numbers, or the columns in order with them (ordered index)
    P t:<token>       string  a commit or change of the schema that was done, for two minutes
    P lease           string  in a cluster: until when the master is sure to be it (lease.lua)
    P scan<table>     string  somebody reads the table page by page       (these three expire)
    P log<table>      list    numbers of rows that were changed since then
    P s:<scan>        hash    how far one such read has come
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

import hiredis
import msgpack

from rome.errors import InternalError, OperationalError, OutcomeUnknown
from rome.stores.base import (
    Answer,
    Changed,
    Commit,
    Dropped,
    Duplicate,
    Head,
    NotEmpty,
    Request,
    SchemaChanged,
    Traffic,
    Unbuilt,
    Written,
)
from rome.stores.redis.commit import by_key
from rome.stores.redis.connection import Wire
from rome.stores.redis.link import Node, Server, slot_of
from rome.stores.redis.pages import Lapsed, Send, read_in_pages
from rome.stores.wire import pack_steps

# Scripts that a node runs only while it is sure to be the master.
_FENCED = ("commit", "confirm", "schema")
# What stands at the head of several scripts.
_PARTS = {"lease.lua": _FENCED, "slice.lua": ("check", "drop", "index", "ordered")}
# An answer that took longer than this share of the cluster's node timeout may be of a node that
# was halted after it had looked at its lease, and that is the master no more.
_IN_TIME = 0.3
# Seconds for which commits are remembered at least where no patience is given.
_LONG_S = 60
# Milliseconds that replicas get to confirm a commit.
_WAIT_MS = 2000

_ROWS_IN_A_SCRIPT = 2000  # that one script removes, with the entries of one set index each
# Rows, and bytes, of tables that are scanned with one round trip.
_PAGE_ROWS = 5000
_PAGE_BYTES = 2**22
_KEYS_LOOKED_AT = 10000  # of all databases in the server, by one SCAN: some milliseconds

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
    folder = files("rome.stores.redis")
    text = (folder / f"{name}.lua").read_text()
    flags, _, rest = text.partition("\n")
    for part, users in _PARTS.items():
        if name in users:
            text = f"{flags}\n{(folder / part).read_text()}{rest}"
    if name == "scan":
        common = re.findall(
            r"^-- <shared with scan.lua>\n(.*?)^-- </shared>$",
            (folder / "read.lua").read_text(),
            re.M | re.S,
        )
        head = "local P = KEYS[1]\nlocal call, byte, sub = redis.call, string.byte, string.sub\n"
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
        self._wire = Wire(server, self.traffic, slot_of(tag or database))
        own = "" if tag in (None, database) else database
        self.prefix = f"{{{tag or database}}}{own}:"
        self._replicas = replicas
        self._page = page
        self._built_on: int | None = None  # the connection on which indexes are being built
        # A commit is sent again for as long as `patience`, and each time for one answer.
        self._remember = int(2 * ((server.patience or _LONG_S) + server.timeout)) + 1

    def _run(
        self,
        name: str,
        *arguments: bytes,
        frees: bool = False,
    ) -> Any:
        text, digest = _script(name, frees)
        answers = self._wire.pipeline([("EVALSHA", digest, 1, self.prefix, *arguments)])
        if isinstance(answers[0], hiredis.ReplyError):  # NOSCRIPT
            answers = self._wire.pipeline([("EVAL", text, 1, self.prefix, *arguments)])
        return answers

    def _run_on_master(
        self, name: str, argument: bytes, frees: bool = False, replicas: int = 0
    ) -> list[Any]:
        """The answers of a script of `_FENCED`, and with `replicas` of a WAIT for them.

        Raises OperationalError or Unbuilt if it wasn't done, OutcomeUnknown if that is not known.
        """
        text, digest = _script(name, frees)
        after: list[tuple[Any, ...]] = [("WAIT", replicas, _WAIT_MS)] if replicas else []

        def by_name(node: Node) -> list[tuple[Any, ...]]:
            return [("EVALSHA", digest, 1, *with_lease(node)), *after]

        def by_text(node: Node) -> list[tuple[Any, ...]]:
            return [("EVAL", text, 1, *with_lease(node)), *after]

        def with_lease(node: Node) -> tuple[Any, ...]:
            if self._built_on not in (None, self._wire.connections) and name == "schema":
                self._built_on = None
                raise Unbuilt
            more: tuple[Any, ...] = ()
            if timeout := self._node_timeout_ms(node):
                more = (node.id, timeout)
            if replicas:
                more = (*(more or ("", 0)), replicas)
            return (self.prefix, argument, *more)

        try:
            answers = self._wire.pipeline(by_name, stop=b"replicas")
            if isinstance(answers[0], hiredis.ReplyError):  # NOSCRIPT
                answers = self._wire.pipeline(by_text, stop=b"replicas")
        except (OperationalError, Unbuilt) as error:
            if self._wire.in_doubt:
                kind = "change of the schema" if name == "schema" else "commit"
                why = str(error) or "the connection was lost while the index was built"
                raise OutcomeUnknown(f"{why}; whether the {kind} was done is not known") from error
            raise
        return answers

    def _node_timeout_ms(self, node: Node) -> int:
        """The node timeout of the cluster that a node belongs to; 0: no lease is asked for.

        Raises OperationalError if it is in a cluster, or may be, and doesn't tell.
        """
        given = self._wire.server.node_timeout
        if node.id == "" or given == 0:
            return 0
        timeout = node.timeout_ms if given is None else int(given * 1000)
        if node.id is None or timeout is None:
            refused = "CLUSTER SLOTS" if node.id is None else "CONFIG GET cluster-node-timeout"
            raise OperationalError(
                f"the server refuses {refused}, so whether it is still the master can't be told,"
                " and nothing was written: allow it, or give the option node_timeout (seconds; 0:"
                " write without knowing)"
            )
        return timeout

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
        unwritten: Sequence[tuple[int, str]] = (),
        complete: Sequence[tuple[str, int, int, int]] = (),
    ) -> str:
        token = uuid.uuid4().hex
        request = [
            *(version, [list(put) for put in puts.items()], list(drops), list(empty)),
            *(list(unwritten), list(complete), token, self._remember),
        ]
        self._wire.in_doubt = False
        while True:
            answer = self._run_on_master("schema", _pack(request), frees=not puts)[0]
            if answer[0] != b"done" or self._in_time() or self._is_there(token):
                break
        if answer[0] == b"done":
            self._built_on = None
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
        most = min(self._page, MOST)
        packed = [
            (pack_steps(request.steps), request.watched, request.unless) for request in requests
        ]
        word, *answer = self._run("read", _pack([version, packed, most]))[0]
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
        request = _pack(by_key(commit, max(commit.remember, self._remember)))
        frees = all(write["op"] == "delete" for write in commit.writes)
        self._wire.in_doubt = False
        while True:
            answers = self._run_on_master("commit", request, frees, self._replicas)
            word, *rest = answers[0]
            if word == b"schema":
                raise SchemaChanged
            if word == b"duplicate":
                raise Duplicate(rest[0], rest[1], rest[2])
            if word in (b"changed", b"read"):
                raise Changed(*rest)
            if word == b"replicas":
                raise OperationalError(
                    f"{rest[0]} replicas follow the master, and a commit is to wait for"
                    f" {self._replicas}: it was not done"
                )
            if self._replicas:
                if answers[1] < self._replicas:
                    raise OutcomeUnknown(
                        f"the master has done the commit, but {answers[1]} of {self._replicas}"
                        f" replicas have it after {_WAIT_MS / 1000:g} s: whether it outlasts a"
                        " failover is not known"
                    )
                return
            if self._in_time() or self._is_there(commit.token):
                return

    def _in_time(self) -> bool:
        """Whether the last answer came while the lease that it was given under held."""
        node = self._wire.node
        timeout = self._node_timeout_ms(node) if node else 0
        return not timeout or self._wire.took * 1000 <= _IN_TIME * timeout

    def _is_there(self, token: str) -> bool:
        """Whether the master has what was acknowledged late under this token; False: it is lost."""
        deadline = time.monotonic() + self._wire.server.patience_s
        self._wire.in_doubt = True
        while True:
            word = self._run_on_master("confirm", token.encode())[0][0]
            if self._in_time():
                self._wire.in_doubt = word == b"done"
                return bool(word == b"done")
            if time.monotonic() > deadline:
                raise OutcomeUnknown(
                    "the master answers late; whether the commit lasts is not known"
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

    def _parts(
        self, command: str, *key: str | bytes, count: int = 500, match: bytes | None = None
    ) -> Iterator[list[bytes]]:
        """What HSCAN, SSCAN, ZSCAN or SCAN finds, part by part.  Raises OperationalError."""
        options: list[Any] = ["COUNT", count]
        if match is not None:
            options += ("MATCH", match)
        cursor = b"0"
        first: int | None = None
        while True:
            cursor, found = self._wire.call(command, *key, cursor, *options)
            first = self._same_connection(first)
            yield found
            if cursor == b"0":
                return

    def _same_connection(self, first: int | None) -> int:
        """The connection that a scan began on.

        Raises OperationalError if it is another now, perhaps to another server: there the
        cursor means nothing, and what the rest of the scan leaves out can't be told.
        """
        now = self._wire.connections
        if first not in (None, now):
            raise OperationalError("the connection was lost in the middle of a scan; try again")
        return now

    def count(self, table: int) -> int:
        number: int = self._wire.call("HLEN", f"{self.prefix}r{table}")
        return number

    # ------------------------------------------------------------ indexes

    def build_index(
        self, table: int, index: int, slots: Sequence[int], unique: bool, defaults: list[list[Any]]
    ) -> None:
        cursor = b"0"
        first = 0
        while True:
            request = [table, index, list(slots), unique, defaults, cursor]
            word, rest = self._run("index", _pack(request))[0]
            if word == b"duplicate":
                self._built_on = None
                raise Duplicate(table, index, rest)
            if cursor != b"0" and first != self._wire.connections:
                cursor = b"0"  # of another server the cursor means nothing
                continue
            first, cursor = self._wire.connections, rest
            if cursor == b"0":
                break
        if self._built_on is None:
            self._built_on = first

    def build_ordered(
        self,
        table: int,
        index: int,
        slots: Sequence[int],
        key: int | None,
        defaults: list[list[Any]],
    ) -> None:
        cursor, first = b"0", 0
        while True:
            request = {
                "mode": "build",
                "t": table,
                "index": index,
                "slots": list(slots),
                "key": -1 if key is None else key,
                "defaults": defaults,
                "cursor": cursor,
            }
            done = self._run("ordered", _pack(request))[0][2]
            if cursor != b"0" and first != self._wire.connections:
                cursor = b"0"  # of another server the cursor means nothing
                continue
            first, cursor = self._wire.connections, done
            if cursor == b"0":
                break
        if self._built_on is None:
            self._built_on = first

    def remove(self, version: str, dropped: Sequence[Dropped]) -> None:
        waiting = [[*entry, b"0"] for entry in dropped]
        first = 0
        while waiting:
            request = _pack([version, waiting, _ROWS_IN_A_SCRIPT])
            word, *rest = self._run("drop", request)[0]
            if word == b"schema":
                raise SchemaChanged
            if word == b"done":
                return
            del waiting[: rest[0]]
            # Of another server the cursor means nothing.
            same = first in (0, self._wire.connections)
            first = self._wire.connections
            waiting[0][-1] = rest[1] if same else b"0"

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
        first = self._wire.connections
        for (table, count), (cursor, flat) in zip(tables, answers, strict=True):
            while True:
                yield table, [(int(n), row) for n, row in zip(flat[::2], flat[1::2], strict=True)]
                if cursor == b"0":
                    break
                cursor, flat = self._wire.call(*page(table, count, cursor))
                self._same_connection(first)

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

    def members(self, table: int, index: int) -> Iterator[bytes]:
        for flat in self._parts("ZSCAN", f"{self.prefix}o{table}.{index}"):
            yield from flat[::2]

    def _keys(self, start: bytes) -> Iterator[bytes]:
        """Keys of this database that begin so."""
        for page in self._key_pages(start):
            yield from page

    def _key_pages(self, start: bytes) -> Iterator[list[bytes]]:
        # SCAN goes to any node: a command with a key finds the right one first.
        self._wire.call("EXISTS", self.prefix + "meta")
        pattern = b"".join(b"\\" + bytes([c]) if c in b"*?[]\\^" else bytes([c]) for c in start)
        return self._parts("SCAN", count=_KEYS_LOOKED_AT, match=pattern + b"*")

    # ------------------------------------------------------------ the whole

    def examine(self, requests: Sequence[tuple[str, dict[str, Any]]]) -> list[list[Any]]:
        """Pages of a check, in one round trip; a request goes to the script of its name
        (check.lua, ordered.lua).  Raises SchemaChanged."""
        scripts = {name: _script(name, frees=True) for name, _ in requests}
        commands: list[Sequence[Any]] = [("SCRIPT", "LOAD", text) for text, _ in scripts.values()]
        for name, request in requests:
            commands.append(("EVALSHA", scripts[name][1], 1, self.prefix, _pack(request)))
        answers = self._wire.pipeline(commands)[len(scripts) :]
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
            usage = self._wire.pipeline([("MEMORY", "USAGE", key, "SAMPLES", 1000) for key in page])
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
