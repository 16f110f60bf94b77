"""The PEP 249 driver: connections, cursors, and what a statement is.

Connections may be handed from thread to thread, but serve one at a time.
"""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Self

import apsw

from rome.errors import (
    ConflictError,
    DatabaseError,
    DataError,
    Error,
    IntegrityError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
    OutcomeUnknown,
    ProgrammingError,
    Warning,  # noqa: A004 - the name is PEP 249's
)
from rome.plan import Layout, Plan, TextPlan
from rome.shared import Options, Shared
from rome.state import Result
from rome.stores.base import Store
from rome.transaction import Transaction

__all__ = [
    "BINARY",
    "DATETIME",
    "NUMBER",
    "ROWID",
    "STRING",
    "Binary",
    "ConflictError",
    "Connection",
    "Cursor",
    "DataError",
    "DatabaseError",
    "Date",
    "DateFromTicks",
    "Error",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "NotSupportedError",
    "OperationalError",
    "OutcomeUnknown",
    "ProgrammingError",
    "Time",
    "TimeFromTicks",
    "Timestamp",
    "TimestampFromTicks",
    "Warning",
    "apilevel",
    "connect",
    "observers",
    "paramstyle",
    "threadsafety",
]

apilevel = "2.0"
threadsafety = 1
paramstyle = "qmark"
# SQLAlchemy's SQLite dialect asks which SQL it may write.
sqlite_version = apsw.sqlite_lib_version()
sqlite_version_info = tuple(int(part) for part in sqlite_version.split("."))

# PEP 249's constructors and types of values.
Binary = bytes
Date = datetime.date
Time = datetime.time
Timestamp = datetime.datetime
DateFromTicks = datetime.date.fromtimestamp
TimestampFromTicks = datetime.datetime.fromtimestamp


def TimeFromTicks(ticks: float) -> datetime.time:  # noqa: N802 - the name is PEP 249's
    """The time of day of a number of seconds since the epoch."""
    return datetime.datetime.fromtimestamp(ticks).time()


STRING, BINARY, NUMBER, DATETIME, ROWID = str, bytes, float, str, int

# Each is called after a statement, and after a commit that has something to write, with: its
# kind, statements (1), round trips, bytes sent, bytes received, seconds.
observers: list[Callable[[str, int, int, int, int, float], None]] = []


_COMMENTS = re.compile(r"\A(?:\s|--[^\n]*\n|/\*.*?\*/)*", re.S)
_SAVEPOINT = re.compile(
    r"(SAVEPOINT|RELEASE(?:\s+SAVEPOINT)?|ROLLBACK(?:\s+TRANSACTION)?\s+TO(?:\s+SAVEPOINT)?)"
    r"\s+\"?([^\s\";]+)\"?\s*;?\s*\Z",
    re.I,
)
_SCHEMA_TABLES = re.compile(r"\bsqlite_(?:temp_)?(?:master|schema)\b", re.I)
_KINDS = {"SELECT": "SELECT", "WITH": "SELECT", "VALUES": "SELECT", "REPLACE": "INSERT"}


def connect(
    store: Callable[[], Store],
    shared: Shared,
    foreign_keys: bool = True,
    serializable: bool = False,
    answers: bool = True,
    foresight: bool = True,
) -> Connection:
    """A connection to a database.

    `store` makes its connection to the key/value store; `shared` is the same for all
    connections to one database.  `answers`: use those that the process has again while they
    are right; `foresight`: read what will follow together with a statement.
    """
    return Connection(store(), shared, Options(foreign_keys, serializable, answers, foresight))


class Connection:
    """PEP 249's connection.  A transaction begins with the first statement."""

    Warning = Warning
    Error = Error
    InterfaceError = InterfaceError
    DatabaseError = DatabaseError
    DataError = DataError
    OperationalError = OperationalError
    IntegrityError = IntegrityError
    InternalError = InternalError
    ProgrammingError = ProgrammingError
    NotSupportedError = NotSupportedError
    ConflictError = ConflictError
    OutcomeUnknown = OutcomeUnknown

    def __init__(
        self,
        store: Store,
        shared: Shared,
        options: Options,
    ) -> None:
        self.store = store
        self.autocommit = False
        self.closed = False
        self.shared = shared
        self.catalogue = shared.catalogue
        self.transaction = Transaction(store, shared, options)

    def cursor(self) -> Cursor:
        """A new cursor."""
        self._check()
        return Cursor(self)

    def _check(self) -> None:
        if self.closed:
            raise ProgrammingError("the connection is closed")

    def commit(self) -> None:
        """Make the transaction's writes durable, all or none."""
        self._check()
        if self.transaction.changes or self.transaction.locked or self.transaction.serializable:
            self._observed("COMMIT", 1, self.transaction.commit)
        else:
            self.transaction.commit()  # nothing to say to the store

    def rollback(self) -> None:
        """Forget the transaction's writes; asks the store nothing."""
        if not self.closed:
            self.transaction.rollback()

    def close(self) -> None:
        """End the connection; what isn't committed is forgotten."""
        if not self.closed:
            self.transaction.rollback()
            self.transaction.work.close()
            self.store.close()
            self.closed = True

    def _observed(self, kind: str, statements: int, action: Callable[[], Any]) -> Any:
        if not observers:
            return action()
        traffic = self.store.traffic
        trips, sent, received = traffic.round_trips, traffic.sent, traffic.received
        started = time.perf_counter()
        try:
            return action()
        finally:
            seconds = time.perf_counter() - started
            for observer in observers:
                observer(
                    kind,
                    statements,
                    traffic.round_trips - trips,
                    traffic.sent - sent,
                    traffic.received - received,
                    seconds,
                )

    # ------------------------------------------------------------ as sqlite3 has them

    def create_function(
        self, name: str, narg: int, func: Callable[..., Any], *, deterministic: bool = False
    ) -> None:
        """A function of SQL for this connection, whose answers are then its own."""
        self.transaction.reads.answers = None
        self.transaction.work.database.create_scalar_function(
            name, func, narg, deterministic=deterministic
        )

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Cursor:
        """A statement through a new cursor."""
        return self.cursor().execute(sql, parameters)

    def executescript(self, script: str) -> Cursor:
        """Several statements, after a commit."""
        cursor = self.cursor()
        self.commit()
        creating: list[str] = []  # made as one change of the schema
        for statement in split_script(script):
            if first_word(statement) == "CREATE":
                creating.append(statement)
                continue
            self._create(creating)
            cursor.execute(statement)
        self._create(creating)
        return cursor

    def _create(self, statements: list[str]) -> None:
        if statements:
            self.transaction.commit()
            self.catalogue.change(self.store, *statements)
            statements.clear()

    def iterdump(self) -> Iterator[str]:
        """The database as SQL, in the form of sqlite3's iterdump."""
        from rome.dump import statements

        yield "BEGIN TRANSACTION;"
        yield from statements(self.store, self.catalogue.load(self.store))
        yield "COMMIT;"


class Cursor:
    """PEP 249's cursor.  All rows are there once a statement is executed."""

    arraysize = 1

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.description: tuple[Any, ...] | None = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        self._rows: Iterator[Any] = iter(())
        self._closed = False

    def execute(
        self,
        sql: str,
        parameters: Sequence[Any] | Any = (),
        plan: Plan | None = None,
        layout: Layout | None = None,
    ) -> Self:
        """Run a statement; `plan` says which rows it may need, else whole tables are read."""
        sets = (_adapted(parameters),)
        return self._run(sql, sets, False, plan, layout or {})

    def executemany(
        self,
        sql: str,
        parameters: Iterable[Sequence[Any]],
        plan: Plan | None = None,
        layout: Layout | None = None,
    ) -> Self:
        """Run a statement for each set of parameters."""
        return self._run(sql, [_adapted(p) for p in parameters], True, plan, layout or {})

    def _run(
        self,
        sql: str,
        sets: Sequence[Sequence[Any]],
        many: bool,
        plan: Plan | None,
        layout: Layout,
    ) -> Self:
        connection = self.connection
        connection._check()
        if self._closed:
            raise ProgrammingError("the cursor is closed")
        result: Result
        if not observers:
            result = self._answer(sql, sets, many, plan, layout)
        else:
            result = connection._observed(
                _kind(sql, plan), 1, lambda: self._answer(sql, sets, many, plan, layout)
            )
        if connection.autocommit:
            connection.commit()
        self.description = result.description
        self.rowcount = result.rowcount
        self.lastrowid = result.lastrowid
        self._rows = iter(result.rows)
        return self

    def _answer(
        self,
        sql: str,
        sets: Sequence[Sequence[Any]],
        many: bool,
        plan: Plan | None,
        layout: Layout,
    ) -> Result:
        if plan is None:
            return self._text(sql, sets, many)
        return self.connection.transaction.execute(sql, sets, many, plan, layout)

    def _text(self, sql: str, sets: Sequence[Sequence[Any]], many: bool) -> Result:
        """A statement that is only known as text."""
        connection = self.connection
        transaction = connection.transaction
        word = first_word(sql)
        nothing = Result([], None, -1, None)
        if word in ("", "BEGIN", "ANALYZE", "VACUUM"):
            return nothing
        if word == "REINDEX":
            # The store's indexes are always right, but the name must be one of the schema.
            return self._about_schema(word, sql, ())
        if match := _SAVEPOINT.match(sql.strip()):
            what = match[1].upper().split()[0]
            transaction.savepoint("ROLLBACK TO" if what == "ROLLBACK" else what, match[2])
            return nothing
        if word in ("COMMIT", "END"):
            transaction.commit()
            return nothing
        if word == "ROLLBACK":
            transaction.rollback()
            return nothing
        if word in ("CREATE", "DROP", "ALTER"):
            # As in MySQL: what was written before is committed, and DDL takes effect at once.
            transaction.commit()
            connection.catalogue.change(connection.store, sql)
            return nothing
        if word == "PRAGMA" or (word == "SELECT" and _SCHEMA_TABLES.search(sql)):
            return self._about_schema(word, sql, tuple(sets[0]) if sets else ())
        if word == "EXPLAIN" or word in ("ATTACH", "DETACH"):
            raise NotSupportedError(f"the statement {word}")
        texts = connection.shared.texts
        plan = texts.get(sql)
        if plan is None:
            if len(texts) > 1000:
                texts.clear()
            plan = texts[sql] = TextPlan()
        return transaction.execute(sql, sets, many, plan, {})

    def _about_schema(self, word: str, sql: str, parameters: tuple[Any, ...]) -> Result:
        transaction = self.connection.transaction
        if word == "PRAGMA":
            match = re.match(
                r"PRAGMA\s+(?:\w+\.)?(\w+)\s*(?:=\s*(\w+)|\(\s*(\w+)\s*\))?", sql, re.I
            )
            name = match[1].lower() if match else ""
            given = (match[2] or match[3] if name == "foreign_keys" else match[2]) if match else ""
            if name == "foreign_keys":
                if given:
                    transaction.check_foreign_keys = given.lower() in ("1", "on", "true", "yes")
                    return Result([], None, -1, None)
                return Result(
                    [(int(transaction.check_foreign_keys),)],
                    (("foreign_keys", *[None] * 6),),
                    -1,
                    None,
                )
            if given and name not in ("legacy_alter_table",):
                return Result([], None, -1, None)  # settings of files: none here
        self.connection.catalogue.load(self.connection.store)
        rows, description = self.connection.catalogue.query(sql, parameters)
        columns = tuple((name, *[None] * 6) for name, *_ in description or ())
        return Result(rows, columns or None, -1, None)

    def fetchone(self) -> Any:
        """The next row, or None."""
        return next(self._rows, None)

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """The next rows."""
        count = self.arraysize if size is None else size
        return [row for _, row in zip(range(count), self._rows, strict=False)]

    def fetchall(self) -> list[Any]:
        """All rows that are left."""
        return list(self._rows)

    def close(self) -> None:
        """No more statements through this cursor."""
        self._closed = True
        self._rows = iter(())

    def setinputsizes(self, sizes: Any) -> None:
        """Nothing to set."""

    def setoutputsize(self, size: Any, column: Any = None) -> None:
        """Nothing to set."""

    def __iter__(self) -> Iterator[Any]:
        return self._rows


def first_word(sql: str) -> str:
    """The first keyword of a statement, in capitals."""
    text = _COMMENTS.sub("", sql, count=1)
    match = re.match(r"[A-Za-z]+", text)
    return match[0].upper() if match else ""


def _kind(sql: str, plan: Plan | None) -> str:
    """What observers are told of a statement."""
    if plan is not None and plan.kind:
        return plan.kind.upper()
    word = first_word(sql)
    return _KINDS.get(word, word if word in ("INSERT", "UPDATE", "DELETE") else "OTHER")


def split_script(script: str) -> Iterator[str]:
    """The statements of a script, as SQLite tells where each ends."""
    rest = script
    while rest.strip():
        stop = -1
        while True:
            stop = rest.find(";", stop + 1)
            if stop < 0:
                yield rest
                return
            if apsw.complete(rest[: stop + 1]):
                break
        yield rest[: stop + 1].strip().rstrip(";")
        rest = rest[stop + 1 :]


_PLAIN = (int, float, str, bytes, type(None), bool)


def _adapted(parameters: Any) -> Any:
    """Values as SQLite takes them; those of other types as sqlite3 writes them."""
    if isinstance(parameters, dict):
        return parameters
    if all(type(value) in _PLAIN for value in parameters):
        return parameters
    return tuple(_adapt(value) for value in parameters)


def _adapt(value: Any) -> Any:
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if hasattr(value, "isoformat"):
        try:
            return value.isoformat(" ")
        except TypeError:
            return value.isoformat()
    raise InterfaceError(f"a value of type {type(value).__name__} can't be bound: {value!r}")
