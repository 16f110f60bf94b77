"""DDL and questions about the schema, of one connection.

Statements that need no rows may wait for each other: they become one change of the schema when
another kind of statement comes, or the transaction or the connection ends.
"""

from __future__ import annotations

import time
from typing import Any

from rome.errors import OperationalError
from rome.schema.catalogue import Catalogue, ask, tables_of
from rome.schema.change import SchemaChange
from rome.schema.draft import Draft
from rome.stores.base import Store

# Seconds for which a transaction's questions are answered from one schema.
_FRESH_S = 5.0


class PendingDDL:
    """What a connection has asked for of the schema, and the store hasn't heard of.

    waiting: whether there is any.  legacy_alter: SQLite's PRAGMA of this name.
    """

    def __init__(self, store: Store, catalogue: Catalogue) -> None:
        self._store = store
        self._catalogue = catalogue
        self._draft: Draft | None = None
        self._asked: float | None = None
        self.waiting = False
        self.legacy_alter = False

    def run(self, sql: str, check_foreign_keys: bool) -> None:
        """Run a statement of DDL: at once if it needs rows, else with those that follow.

        Raises what is wrong with the statement itself; and, if it is run at once, what `flush`
        raises.
        """
        if not self._catalogue.schema.version:
            self._catalogue.load(self._store)
        alone = self._begun().must_be_alone(sql)
        if alone:
            self.flush(check_foreign_keys)
        self._run(self._begun(), sql)
        self.waiting = True
        if alone:
            self.flush(check_foreign_keys)

    def _begun(self) -> Draft:
        if self._draft is None:
            self._draft = Draft(self._catalogue.snapshot(), self.legacy_alter)
        return self._draft

    def _run(self, draft: Draft, sql: str) -> None:
        try:
            draft.run(sql)
        except OperationalError:
            # Perhaps it speaks of a table that another process has made or dropped.
            if not self._renewed(draft):
                raise
            self._begun().run(sql)

    def _renewed(self, draft: Draft) -> bool:
        """Whether the schema was changed by others; then what waits was run on the new one."""
        if self._catalogue.load(self._store).version == draft.base.version:
            if not self.waiting:
                self._draft = None
            return False
        self._draft, statements = None, draft.statements
        self.waiting = False
        for sql in statements:
            self._begun().run(sql)
            self.waiting = True
        return True

    def flush(self, check_foreign_keys: bool) -> None:
        """Make what waits, all or nothing.  Raises IntegrityError, ConflictError,
        OperationalError (schema_change.py)."""
        draft, self._draft = self._draft, None
        waiting, self.waiting = self.waiting, False
        self._asked = None
        if draft is not None and waiting:
            SchemaChange(self._store, self._catalogue, draft, check_foreign_keys).make()

    def forget_answers(self) -> None:
        """Ask the store anew for the schema at the next question: a transaction has ended."""
        self._asked = None

    def query(
        self, sql: str, parameters: tuple[Any, ...] = ()
    ) -> tuple[list[Any], tuple[Any, ...]]:
        """Return rows and description of a question about the schema, with what waits, as of
        the transaction's first question (at most five seconds ago)."""
        self._refresh()
        if self._draft is not None and self.waiting:
            return ask(self._draft.database, sql, parameters)
        return self._catalogue.query(sql, parameters)

    def _refresh(self) -> None:
        now = time.monotonic()
        if self._asked is not None and now - self._asked < _FRESH_S:
            return
        if self._draft is not None and self.waiting:
            self._renewed(self._draft)
        else:
            self._draft = None
            self._catalogue.load(self._store)
        self._asked = now

    def parse(self, sql: str) -> None:
        """Raise what SQLite says of a statement that has nothing to do here, such as REINDEX of
        a name that it doesn't know."""
        self.query(f"EXPLAIN {sql}")

    def tables_of(self, sql: str) -> set[str]:
        """Return the names of all tables that a statement speaks of (catalogue.tables_of)."""
        self._refresh()
        if self._draft is not None and self.waiting:
            return tables_of(self._draft.database, sql)
        return self._catalogue.tables_of(sql)
