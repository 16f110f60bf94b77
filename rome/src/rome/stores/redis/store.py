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
    P h<table>        hash    row number, or u<index>:<bytes> of a unique key -> until when a
                              transaction holds it, and its name
    P leases          hash    table -> until when nobody writes it (leases.lua)
"""

from __future__ import annotations

import itertools
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rome.errors import OperationalError, OutcomeUnknown
from rome.stores import base
from rome.stores.base import (
    UNBOUNDED,
    Answer,
    Area,
    Changed,
    Commit,
    Dropped,
    Duplicate,
    Head,
    HeldName,
    NotEmpty,
    Request,
    SchemaChanged,
    Traffic,
    Usage,
    Written,
)
from rome.stores.redis.commit import by_hash, by_key
from rome.stores.redis.connection import Wire
from rome.stores.redis.link import Server, slot_of
from rome.stores.redis.pages import Lapsed, Send, read_in_pages
from rome.stores.redis.runner import WAIT_MS, Runner
from rome.stores.redis.scans import Scans
from rome.stores.redis.scripts import pack, script
from rome.stores.wire import Step, pack_step

# Seconds for which commits are remembered at least where no patience is given.
_LONG_S = 60

# What a key holds, by the letter that it begins with, and the number of its table.
_AREAS: dict[bytes, Area] = {b"r": "row", b"u": "unique", b"i": "set", b"o": "order"}
_AREA = re.compile(rb"([ruio])(\d+)(?:\.|\Z)")

_ROWS_IN_A_SCRIPT = 2000  # that one script removes, with the entries of one set index each

# Rows that one script may look at without pages: some milliseconds' work.
MOST = 4000
# Milliseconds that a table stays marked after a page of it was read: as long may a client take
# between two pages.  commit.lua keeps what it notes for twice as long.
LEASE_MS = 30000
# Seconds for which a table may be leased: as leases.lua has it.
LONGEST_TABLE_LEASE_S = 5.0
# Milliseconds that pass from the first question for a lease of a table to the first lease: a server
# that takes the master's place after that knows that there may be some.
GUARD_MS = 10000
# Redis runs all commands that it has read from a client before it looks at other clients.  An
# argument of 32 KiB (PROTO_MBULK_BIG_ARG) it reads by itself, to its last byte: a command that
# ends with one stands alone, so others are served before the next, however many were sent.
_ALONE = b" " * 32768


class RedisStore:
    """One connection to a database in Redis; not for two threads at once."""

    def __init__(
        self,
        server: Server,
        database: str,
        tag: str | None = None,
        replicas: int = 0,
        page: int = 20000,
        table_lease: float = 0,
    ) -> None:
        """`replicas` have a commit before it counts as done; one script looks at no more
        than `page` rows; tables are leased for `table_lease` seconds."""
        self.traffic = Traffic()
        self.portion = UNBOUNDED
        self._wire = Wire(server, self.traffic, slot_of(tag or database))
        own = "" if tag in (None, database) else database
        self._runner = Runner(self._wire, f"{{{tag or database}}}{own}:")
        self._scans = Scans(self._runner)
        self._replicas = replicas
        self._page = page
        self._table_lease_ms = int(table_lease * 1000)
        self._hold = server.hold
        # A commit is sent again for as long as `patience`, and each time for one answer.
        self._remember = int(2 * ((server.patience or _LONG_S) + server.timeout)) + 1

    @property
    def hold_s(self) -> float:
        return base.hold_of(self._hold)

    @property
    def prefix(self) -> str:
        """What the keys of the database begin with."""
        return self._runner.prefix

    @prefix.setter
    def prefix(self, prefix: str) -> None:
        self._runner.prefix = prefix

    # ------------------------------------------------------------ schema

    def schema_unless(self, version: str) -> tuple[str, Mapping[str, bytes]] | None:
        now, *entries = self._runner.run("schema_read", version.encode())[0]
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
            answer = self._runner.run_on_master("schema", pack(request), frees=not puts)[0]
            if _waited_for_leases(answer):
                continue
            if answer[0] != b"done" or self._runner.in_time() or self._runner.is_there(token):
                break
        if answer[0] == b"done":
            self._runner.built_on = None
        if answer[0] == b"schema":
            raise SchemaChanged
        if answer[0] == b"filled":
            raise NotEmpty
        if answer[0] == b"written":
            raise Written
        changed: bytes = answer[1]
        return changed.decode()

    # ------------------------------------------------------------ rows

    def read(self, version: str, requests: Sequence[Request], holder: str = "") -> list[Answer]:
        most = min(self._page, MOST)
        leased = any(request.lease for request in requests)
        packed = [
            ([pack_step(step) for step in steps], watched, unless, hold, lease, keys)
            for steps, watched, unless, hold, lease, keys in requests
        ]
        request = [version, packed, most, holder, int(self.hold_s * 1000)]
        if leased:
            answered = self._runner.run_leased(pack([*request, self._table_lease_ms, GUARD_MS]))
        else:
            answered = self._runner.run("read", pack(request))[0]
        word, *answer = answered
        if word == b"schema":
            raise SchemaChanged
        if word == b"large":
            return [read_in_pages(lambda: self._scan(version), requests[0], answer[0])]
        return [_answer(*each) for each in answer[0]]

    def release(self, holder: str, held: Mapping[int, Sequence[HeldName]]) -> None:
        text, _ = script("release", False)
        self._wire.post("EVAL", text, 1, self.prefix, pack([holder, by_hash(held)]))

    def levels(self, steps: Sequence[Step], hold: bool = False) -> int:
        return 1

    def _scan(self, version: str) -> Send:
        """Return a read in pages, as pages.py sends its parts."""
        name = uuid.uuid4().hex
        connection: int | None = None

        def send(commands: Sequence[tuple[int, Any]]) -> list[list[Any]]:
            nonlocal connection
            arguments = []
            for number, task in commands:
                if number == 0:
                    task = [pack(task[0]), *task[1:]]
                request = pack([version, name, number, self._page, LEASE_MS, task])
                arguments.append((request, _ALONE) if len(commands) > 1 else (request,))
            answers: list[list[Any]] = self._runner.run_each("scan", arguments)
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
        request = pack(by_key(commit, max(commit.remember, self._remember)))
        frees = all(write["op"] == "delete" for write in commit.writes)
        self._wire.in_doubt = False
        while True:
            answers = self._runner.run_on_master("commit", request, frees, self._replicas)
            if _waited_for_leases(answers[0]):
                continue
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
                        f" replicas have it after {WAIT_MS / 1000:g} s: whether it outlasts a"
                        " failover is not known"
                    )
                return
            if self._runner.in_time() or self._runner.is_there(commit.token):
                return

    def reserve(self, name: str, count: int) -> int:
        last: int = self._wire.call("HINCRBY", self.prefix + "ids", name, count)
        return last - count + 1

    def snapshot(self, table: int) -> tuple[str, list[tuple[int, bytes]]] | None:
        return self._scans.snapshot(table)

    def scan(self, table: int) -> Iterator[tuple[int, bytes]]:
        return self._scans.scan(table)

    def scan_all(self, tables: Sequence[int]) -> Iterator[tuple[int, list[tuple[int, bytes]]]]:
        return self._scans.scan_all(tables)

    def entries(self, table: int, index: int, unique: bool) -> Iterator[tuple[bytes, int]]:
        return self._scans.entries(table, index, unique)

    def members(self, table: int, index: int) -> Iterator[bytes]:
        return self._scans.members(table, index)

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
            word, rest = self._runner.run("index", pack(request))[0]
            if word == b"duplicate":
                self._runner.built_on = None
                raise Duplicate(table, index, rest)
            if cursor != b"0" and first != self._wire.connections:
                cursor = b"0"  # of another server the cursor means nothing
                continue
            first, cursor = self._wire.connections, rest
            if cursor == b"0":
                break
        if self._runner.built_on is None:
            self._runner.built_on = first

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
            done = self._runner.run("ordered", pack(request))[0][2]
            if cursor != b"0" and first != self._wire.connections:
                cursor = b"0"  # of another server the cursor means nothing
                continue
            first, cursor = self._wire.connections, done
            if cursor == b"0":
                break
        if self._runner.built_on is None:
            self._runner.built_on = first

    def remove(self, version: str, dropped: Sequence[Dropped]) -> None:
        waiting = [[*entry, b"0"] for entry in dropped]
        first = 0
        while waiting:
            request = pack([version, waiting, _ROWS_IN_A_SCRIPT])
            word, *rest = self._runner.run("drop", request)[0]
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

    # ------------------------------------------------------------ the whole

    def examine(self, requests: Sequence[tuple[str, dict[str, Any]]]) -> list[list[Any]]:
        """Pages of a check, in one round trip; a request goes to the script of its name
        (check.lua, ordered.lua).  Raises SchemaChanged."""
        scripts = {name: script(name, frees=True) for name, _ in requests}
        commands: list[Sequence[Any]] = [("SCRIPT", "LOAD", text) for text, _ in scripts.values()]
        for name, request in requests:
            commands.append(("EVALSHA", scripts[name][1], 1, self.prefix, pack(request)))
        answers = self._wire.pipeline(commands)[len(scripts) :]
        if any(answer[0] == b"schema" for answer in answers):
            raise SchemaChanged
        return [answer[1:] for answer in answers]

    def counters(self) -> tuple[dict[str, int], set[str]]:
        """Return the highest row numbers that were handed out, by table, and the tables that have a
        last commit."""
        flat, written = self._wire.pipeline(
            [("HGETALL", self.prefix + "ids"), ("HKEYS", self.prefix + "writes")]
        )
        highest = {
            name.decode(): int(number) for name, number in zip(flat[::2], flat[1::2], strict=True)
        }
        return highest, {name.decode() for name in written}

    def key_names(self) -> Iterator[bytes]:
        """Yield every key of this database."""
        return self._scans.keys(self.prefix.encode())

    def usage(self) -> Iterator[Usage]:
        """Yield every key of this database, with the bytes of memory that it takes."""
        start = len(self.prefix.encode())
        keys = self._scans.keys(self.prefix.encode())
        while page := list(itertools.islice(keys, 5000)):
            sizes = self._wire.pipeline([("MEMORY", "USAGE", key, "SAMPLES", 1000) for key in page])
            for key, size in zip(page, sizes, strict=True):
                match = _AREA.match(key, start)
                if match is None:
                    yield Usage("other", 0, size or 0)
                else:
                    yield Usage(_AREAS[match[1]], int(match[2]), size or 0)

    def drop(self) -> None:
        """Remove the database: first its schema, so that nobody writes into what is left."""
        self._wire.call("UNLINK", self.prefix + "meta", self.prefix + "schema")
        for page in self._scans.key_pages(self.prefix.encode()):
            if page:
                self._wire.pipeline(
                    [("UNLINK", *page[n : n + 500]) for n in range(0, len(page), 500)]
                )

    def close(self) -> None:
        self._wire.close()


def _answer(
    rows: list[Any] | None,
    commits: list[Any] | None,
    state: int | None = None,
    leased: int | None = None,
) -> Answer:
    """Return what the script has found.  state: see `hold_all` of read.lua."""
    tokens = [(commit or b"0").decode() for commit in commits or ()]
    return Answer(rows, tokens, state == 1, max(-(state or 0), 0) / 1000, bool(leased))


def _waited_for_leases(answer: Sequence[Any]) -> bool:
    """Wait if a script has answered that tables are leased; then it has to be run again."""
    if answer[0] == b"unnamed":
        raise OperationalError(
            "tables of the database are leased (table_lease in URLs), and the server refuses"
            " INFO server, without which leases of before a failover can't be told: allow it"
        )
    if answer[0] != b"leased":
        return False
    time.sleep(answer[1] / 1000 + 0.001)
    return True
