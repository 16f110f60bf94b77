"""An example: tables in ROME, connections that take different ways, and SQLite beside them."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

import apsw
from rome.sqlite import functions
from sqlalchemy import Connection, Table, create_engine, insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateTable

from tests.metamorphic.tables import row, schema

Rows = list[tuple[Any, ...]]


class Differs(AssertionError):
    """Two answers that must be equal aren't."""


class World:
    """Tables that are the same in ROME and in SQLite.

    urls: of one database, with options that choose the way of an answer but not the answer.
    """

    def __init__(self, rng: Random, urls: Sequence[str]) -> None:
        self.rng = rng
        self.log: list[str] = []
        self.counts: Counter[str] = Counter()
        self._engines = [create_engine(url) for url in urls]
        self.tables: list[Table] = schema(rng)
        self.tables[0].metadata.create_all(self._engines[0])
        self.plain = apsw.Connection(":memory:")
        functions.register(self.plain)
        for table in self.tables:
            self.plain.execute(str(CreateTable(table).compile(self._engines[0])))
            self.log.append(" ".join(str(CreateTable(table).compile(self._engines[0])).split()))
        self.ways: list[Connection] = [engine.connect() for engine in self._engines]
        self._fill()

    def close(self) -> None:
        """End all connections."""
        for way in self.ways:
            way.close()
        for engine in self._engines:
            engine.dispose()
        self.plain.close()

    def _fill(self) -> None:
        with self.transaction(self.ways[0]):
            for table in self.tables:
                for _ in range(self.rng.randint(5, 16)):
                    self.write(self.ways[0], insert(table).values(row(self.rng, table)))

    # ------------------------------------------------------------ statements

    def _compiled(self, statement: Any) -> tuple[str, list[Any]]:
        """A statement's text and parameters, as they are for SQLite."""
        options = {"render_postcompile": True}
        compiled: Any = statement.compile(self._engines[0], compile_kwargs=options)
        values = compiled.params
        return str(compiled), [values[name] for name in compiled.positiontup or ()]

    def _expected(self, text: str, parameters: Sequence[Any]) -> tuple[str, Rows, int]:
        """The error, the rows and the count of rows changed in SQLite."""
        try:
            rows = self.plain.execute(text, parameters).fetchall()
            return "", [tuple(row) for row in rows], self.plain.changes()
        except apsw.Error as error:
            return str(error), [], -1

    @staticmethod
    def _found(way: Connection, statement: Any) -> tuple[str, Rows, int]:
        try:
            result = way.execute(statement)
            rows = [tuple(row) for row in result] if result.returns_rows else []
            return "", rows, result.rowcount
        except DBAPIError as error:
            return str(error.orig), [], -1

    def read(
        self, way: Connection, statement: Any, ordered: bool = False, loose: bool = False
    ) -> Rows:
        """The rows of a SELECT on one way: just those of SQLite.

        ordered: their order counts.  loose: 1 and 1.0 are one, as in groups.
        """
        text, parameters = self._compiled(statement)
        self._log(way, text, parameters)
        error, expected, _ = self._expected(text, parameters)
        words, rows, _ = self._found(way, statement)
        self._same("error", error, words)
        self._same("rows", _shown(expected, ordered, loose), _shown(rows, ordered, loose))
        self.counts["queries"] += 1
        self.counts["queries with rows"] += bool(rows)
        self.counts["failed queries"] += bool(error)
        return rows

    def write(self, way: Connection, statement: Any) -> int:
        """Run an INSERT, UPDATE or DELETE on both sides: how many rows it changed."""
        text, parameters = self._compiled(statement)
        self._log(way, text, parameters)
        error, _, count = self._expected(text, parameters)
        words, _, changed = self._found(way, statement)
        self._same("error", error, words)
        self._same("count of rows", count, changed)
        self.counts["writes of rows"] += changed > 0
        return changed

    @contextlib.contextmanager
    def transaction(self, way: Connection, keep: bool = True) -> Iterator[None]:
        """A transaction on one way and in SQLite, committed at the end, or rolled back."""
        self.refresh()
        self.plain.execute("BEGIN")
        yield
        self.plain.execute("COMMIT" if keep else "ROLLBACK")
        self.log.append("COMMIT" if keep else "ROLLBACK")
        (way.commit if keep else way.rollback)()

    @contextlib.contextmanager
    def savepoint(self, way: Connection) -> Iterator[None]:
        """What is written inside is rolled back."""
        nested = way.begin_nested()
        self.plain.execute("SAVEPOINT inside")
        self.log.append("SAVEPOINT")
        yield
        self.log.append("ROLLBACK TO SAVEPOINT")
        nested.rollback()
        self.plain.execute("ROLLBACK TO inside")
        self.plain.execute("RELEASE inside")

    def refresh(self) -> None:
        """Begin a new transaction on each way."""
        for way in self.ways:
            way.rollback()

    # ------------------------------------------------------------ words

    def _log(self, way: Connection, text: str, parameters: Sequence[Any]) -> None:
        words = " ".join(text.split())
        self.log.append(f"{self.ways.index(way)}: {words}\n      {parameters}")

    def _same(self, what: str, expected: Any, found: Any) -> None:
        if expected != found:
            raise self.differs(f"{what}: expected {expected}, found {found}")

    def differs(self, what: str) -> Differs:
        """The error that tells how to come to a difference."""
        urls = "\n".join(f"{place}: {engine.url}" for place, engine in enumerate(self._engines))
        return Differs("\n".join([what, urls, *self.log, what]))


def plain_number(value: Any) -> Any:
    """The integer that a whole float equals; all else as it is."""
    if isinstance(value, float) and abs(value) < 2.0**63 and value == int(value):
        return int(value)
    return value


def _shown(rows: Rows, ordered: bool, loose: bool) -> list[str]:
    shown = [repr(tuple(map(plain_number, row)) if loose else row) for row in rows]
    return shown if ordered else sorted(shown)
