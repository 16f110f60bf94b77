"""PEP 249's connections."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rome.driver.cursors import Cursor
from rome.driver.observing import judged, observed
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
from rome.schema.ddl import PendingDDL
from rome.sqlite.statements import bare, first_word, split_script
from rome.stores.base import Store


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
        self.check()
        return Cursor(self)

    def check(self) -> None:
        """Raise ProgrammingError if it is closed."""
        if self.closed:
            raise ProgrammingError("the connection is closed")

    def commit(self) -> None:
        """Make the transaction's writes durable, all or none."""
        self.check()
        self.flush_ddl()
        if self.transaction.has_work:
            commit = self.transaction.commit
            self.observed("COMMIT", 1, lambda: judged(self.transaction, commit, commits=1))
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
            self.observed("OTHER", 0, lambda: flush(self.transaction.session.check_foreign_keys))
        else:
            self.ddl.forget_answers()

    def change_schema(self, sql: str) -> None:
        """Run a statement of DDL; as in MySQL, what was written before is committed."""
        self.transaction.commit()
        self.ddl.run(sql, self.transaction.session.check_foreign_keys)

    def observed(self, kind: str, statements: int, action: Callable[[], Any]) -> Any:
        """Return what an action does, and tell observers of it."""
        return observed(self.store.traffic, kind, statements, action)

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
