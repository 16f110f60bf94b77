"""PEP 249's cursors, and what a statement is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

from rome.driver.observing import commit_observers, judged, kind_of, observers
from rome.driver.values import adapted
from rome.engine.calls import Result
from rome.engine.questions import Pragma, about_schema, speaks_of_schema
from rome.errors import NotSupportedError, ProgrammingError
from rome.planner.plan import Layout, Plan, TextPlan
from rome.sqlite.statements import first_word, single

if TYPE_CHECKING:
    from rome.driver.connections import Connection

_SAVEPOINT = re.compile(
    r"(SAVEPOINT|RELEASE(?:\s+SAVEPOINT)?|ROLLBACK(?:\s+TRANSACTION)?\s+TO(?:\s+SAVEPOINT)?)"
    r"\s+\"?([^\s\";]+)\"?\s*;?\s*\Z",
    re.I,
)
_EXPLAIN = re.compile(r"\s*EXPLAIN\s+(?:QUERY\s+PLAN\s+)?", re.I)
_E = ("E", "e")
_EXPLAINED = ("SELECT", "WITH", "VALUES", "INSERT", "REPLACE", "UPDATE", "DELETE")
_NOTHING = Result([], None, -1, None)


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
        sets = (adapted(parameters),)
        return self._run(sql, sets, False, plan, layout or {})

    def executemany(
        self,
        sql: str,
        parameters: Iterable[Sequence[Any]],
        plan: Plan | None = None,
        layout: Layout | None = None,
    ) -> Self:
        """Run a statement for each set of parameters."""
        return self._run(sql, [adapted(p) for p in parameters], True, plan, layout or {})

    def _run(
        self,
        sql: str,
        sets: Sequence[Sequence[Any]],
        many: bool,
        plan: Plan | None,
        layout: Layout,
    ) -> Self:
        connection = self.connection
        connection.check()
        if self._closed:
            raise ProgrammingError("the cursor is closed")
        result: Result
        if not (observers or commit_observers):
            result = self._answer(sql, sets, many, plan, layout)
        else:
            transaction = connection.transaction
            result = connection.observed(
                kind_of(sql, plan),
                1,
                lambda: judged(transaction, lambda: self._answer(sql, sets, many, plan, layout)),
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


def _asked(answer: tuple[list[Any], tuple[Any, ...]]) -> Result:
    """Return the answer to a question about the schema."""
    rows, description = answer
    columns = tuple((name, *[None] * 6) for name, *_ in description or ())
    return Result(rows, columns or None, -1, None)
