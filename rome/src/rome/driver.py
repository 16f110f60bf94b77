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

from rome.engine.calls import Result
from rome.engine.questions import Pragma, about_schema, speaks_of_schema
from rome.engine.shared import Options, Shared
from rome.engine.transaction import Transaction
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
from rome.planner.plan import Layout, Plan, TextPlan
from rome.schema.ddl import PendingDDL
from rome.sqlite.statements import bare, first_word, single, split_script
from rome.stores.base import Store

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
    "commit_observers",
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
    """Return the time of day of a number of seconds since the epoch."""
    return datetime.datetime.fromtimestamp(ticks).time()


STRING, BINARY, NUMBER, DATETIME, ROWID = str, bytes, float, str, int

# Each is called after a statement, and after a commit that has something to write, with: its
# kind, statements (1), round trips, bytes sent, bytes received, seconds.
observers: list[Callable[[str, int, int, int, int, float], None]] = []
# Each is called after a commit of something to write, and after a statement that ends its
# transaction for those of others, with: commits (1 or 0), conflicts (1 or 0), and how often the
# transaction's statements were run again meanwhile.
commit_observers: list[Callable[[int, int, int], None]] = []


_SAVEPOINT = re.compile(
    r"(SAVEPOINT|RELEASE(?:\s+SAVEPOINT)?|ROLLBACK(?:\s+TRANSACTION)?\s+TO(?:\s+SAVEPOINT)?)"
    r"\s+\"?([^\s\";]+)\"?\s*;?\s*\Z",
    re.I,
)
_EXPLAIN = re.compile(r"\s*EXPLAIN\s+(?:QUERY\s+PLAN\s+)?", re.I)
_E = ("E", "e")
_EXPLAINED = ("SELECT", "WITH", "VALUES", "INSERT", "REPLACE", "UPDATE", "DELETE")
_NOTHING = Result([], None, -1, None)
_KINDS = {"SELECT": "SELECT", "WITH": "SELECT", "VALUES": "SELECT", "REPLACE": "INSERT"}


def connect(
    store: Callable[[], Store],
    shared: Shared,
    foreign_keys: bool = True,
    serializable: bool = False,
    result_cache: bool = True,
    prefetch: bool = True,
) -> Connection:
    """Return a connection to a database.

    `store` makes its connection to the key/value store; `shared` is the same for all
    connections to one database.  `result_cache`: use results that the process has cached while
    they are right; `prefetch`: read what will follow together with a statement.
    """
    return Connection(store(), shared, Options(foreign_keys, serializable, result_cache, prefetch))


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
        self.ddl = PendingDDL(store, shared.catalogue)

    def cursor(self) -> Cursor:
        """Return a new cursor."""
        self._check()
        return Cursor(self)

    def _check(self) -> None:
        if self.closed:
            raise ProgrammingError("the connection is closed")

    def commit(self) -> None:
        """Make the transaction's writes durable, all or none."""
        self._check()
        self.flush_ddl()
        if self.transaction.has_work:
            commit = self.transaction.commit
            self._observed("COMMIT", 1, lambda: self._judged(commit, commits=1))
        else:
            self.transaction.commit()  # nothing to say to the store

    def rollback(self) -> None:
        """Forget the transaction's writes; asks the store nothing, but to make DDL that waits:
        none is undone."""
        if not self.closed:
            self.transaction.rollback()
            self.flush_ddl()

    def close(self) -> None:
        """End the connection; what isn't committed is forgotten, but for DDL."""
        if not self.closed:
            try:
                self.rollback()
            finally:
                self.transaction.session.work.close()
                self.store.close()
                self.closed = True

    def flush_ddl(self) -> None:
        """Make DDL that waits for other such statements (ddl.py); a transaction's questions
        about the schema are then asked anew."""
        if self.ddl.waiting:
            flush = self.ddl.flush
            self._observed("OTHER", 0, lambda: flush(self.transaction.session.check_foreign_keys))
        else:
            self.ddl.forget_answers()

    def change_schema(self, sql: str) -> None:
        """Run a statement of DDL; as in MySQL, what was written before is committed."""
        self.transaction.commit()
        self.ddl.run(sql, self.transaction.session.check_foreign_keys)

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

    def _judged(self, action: Callable[[], Any], commits: int = 0) -> Any:
        """Return what an action does, and tell `commit_observers` how it ended.

        `commits` is the number of transactions that it commits where it ends well.
        """
        if not commit_observers:
            return action()
        retries, done, conflicts = self.transaction.retries, 0, 0
        try:
            result = action()
            done = commits
        except ConflictError:
            conflicts = 1
            raise
        finally:
            retries = self.transaction.retries - retries
            if done or conflicts or retries:
                for observer in commit_observers:
                    observer(done, conflicts, retries)
        return result

    # ------------------------------------------------------------ as sqlite3 has them

    def create_function(
        self, name: str, narg: int, func: Callable[..., Any], *, deterministic: bool = False
    ) -> None:
        """Add a function of SQL for this connection, which caches no results from then on."""
        self.transaction.reads.result_cache = None
        self.transaction.session.work.database.create_scalar_function(
            name, func, narg, deterministic=deterministic
        )

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Cursor:
        """Return a statement through a new cursor."""
        return self.cursor().execute(sql, parameters)

    def executescript(self, script: str) -> Cursor:
        """Run several statements, after a commit."""
        cursor = self.cursor()
        self.commit()
        for statement in split_script(script):
            if first_word(statement) in ("CREATE", "DROP", "ALTER"):
                self.change_schema(bare(statement))
            elif bare(statement):
                cursor.execute(statement)
        self.flush_ddl()
        return cursor

    def iterdump(self) -> Iterator[str]:
        """Yield the database as SQL, in the form of sqlite3's iterdump."""
        from rome.schema.dump import statements

        self.flush_ddl()
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
        # Whether DDL may wait for more of it (ddl.py); else it is made at once.
        self.gathers_ddl = False

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
        if not (observers or commit_observers):
            result = self._answer(sql, sets, many, plan, layout)
        else:
            result = connection._observed(
                _kind(sql, plan),
                1,
                lambda: connection._judged(lambda: self._answer(sql, sets, many, plan, layout)),
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
        if ";" in sql or not sql[:1].isalpha():
            sql = single(sql)
        if sql[:1] in _E and (match := _EXPLAIN.match(sql)) is not None:
            return self._explain(sql[match.end() :], sets, plan, layout)
        if plan is None:
            return self._text(sql, sets, many)
        connection = self.connection
        if connection.ddl.waiting:
            connection.flush_ddl()
        return connection.transaction.execute(sql, sets, many, plan, layout)

    def _explain(
        self, sql: str, sets: Sequence[Sequence[Any]], plan: Plan | None, layout: Layout
    ) -> Result:
        """Return the plan of the statement behind EXPLAIN."""
        if first_word(sql) not in _EXPLAINED:
            raise NotSupportedError(f"EXPLAIN of the statement {first_word(sql)}")
        connection = self.connection
        connection.flush_ddl()
        if plan is None:
            plan = TextPlan()
        return connection.transaction.explain(sql, sets, plan, layout)

    def _text(self, sql: str, sets: Sequence[Sequence[Any]], many: bool) -> Result:
        """Return a statement that is only known as text, without comments before it."""
        connection = self.connection
        word = first_word(sql)
        if word in ("CREATE", "DROP", "ALTER"):
            connection.change_schema(sql)
            if not self.gathers_ddl:
                connection.flush_ddl()
            return _NOTHING
        if word == "PRAGMA":
            return self._pragma(sql, tuple(sets[0]) if sets else ())
        if speaks_of_schema(sql):
            answer = about_schema(connection.ddl, sql, tuple(sets[0]) if sets else ())
            if answer is not None:
                return _asked(answer)
        if connection.ddl.waiting:
            connection.flush_ddl()
        transaction = connection.transaction
        if word in ("ANALYZE", "REINDEX", "VACUUM"):
            if re.match(r"VACUUM\b.*\bINTO\b", sql, re.I | re.S):
                raise NotSupportedError("VACUUM INTO")
            connection.ddl.parse(sql)
            return _NOTHING
        if word in ("", "BEGIN"):
            return _NOTHING
        if match := _SAVEPOINT.match(sql.strip()):
            verb = match[1].upper().split()[0]
            transaction.savepoint("ROLLBACK TO" if verb == "ROLLBACK" else verb, match[2])
            return _NOTHING
        if word in ("COMMIT", "END"):
            transaction.commit()
            return _NOTHING
        if word == "ROLLBACK":
            transaction.rollback()
            return _NOTHING
        if word in ("ATTACH", "DETACH"):
            raise NotSupportedError(f"the statement {word}")
        texts = connection.shared.texts
        plan = texts.get(sql)
        if plan is None:
            if len(texts) > 1000:
                texts.clear()
            plan = texts[sql] = TextPlan()
        return transaction.execute(sql, sets, many, plan, {})

    def _pragma(self, sql: str, parameters: tuple[Any, ...]) -> Result:
        connection = self.connection
        pragma = Pragma.of(sql)
        if pragma.switch is None:
            answer = pragma.answer(connection.ddl, parameters)
            return _NOTHING if answer is None else _asked(answer)
        holder: Any = connection.transaction.session
        name = "check_foreign_keys"
        if pragma.name == "legacy_alter_table":
            holder, name = connection.ddl, "legacy_alter"
        if pragma.given:
            connection.flush_ddl()
            setattr(holder, name, pragma.switch)
            return _NOTHING
        return _asked(([(int(getattr(holder, name)),)], ((pragma.name,),)))

    def fetchone(self) -> Any:
        """Return the next row, or None."""
        return next(self._rows, None)

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """Return the next rows."""
        count = self.arraysize if size is None else size
        return [row for _, row in zip(range(count), self._rows, strict=False)]

    def fetchall(self) -> list[Any]:
        """Return all rows that are left."""
        return list(self._rows)

    def close(self) -> None:
        """No more statements through this cursor."""
        self._closed = True
        self._rows = iter(())

    def setinputsizes(self, sizes: Any) -> None:
        """Do nothing: there is nothing to set."""

    def setoutputsize(self, size: Any, column: Any = None) -> None:
        """Do nothing: there is nothing to set."""

    def __iter__(self) -> Iterator[Any]:
        return self._rows


def _kind(sql: str, plan: Plan | None) -> str:
    """Return the description of a statement that observers get."""
    if plan is not None and plan.kind:
        return plan.kind.upper()
    word = first_word(sql)
    return _KINDS.get(word, word if word in ("INSERT", "UPDATE", "DELETE") else "OTHER")


def _asked(answer: tuple[list[Any], tuple[Any, ...]]) -> Result:
    """Return the answer to a question about the schema."""
    rows, description = answer
    columns = tuple((name, *[None] * 6) for name, *_ in description or ())
    return Result(rows, columns or None, -1, None)


_PLAIN = (int, float, str, bytes, type(None), bool)


def _adapted(parameters: Any) -> Any:
    """Return values as SQLite takes them; those of other types as sqlite3 writes them."""
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
