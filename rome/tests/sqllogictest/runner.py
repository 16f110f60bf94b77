"""Runs a file of the suite on ROME, beside SQLite as the judge of what may fail.

A record has one of four outcomes:
- passed: the answer is that of the file; or the record failed as the file wants, with the
  very words with which SQLite refuses it;
- refused: ROME raised NotSupportedError, whose words are the reason; or the statement needs
  what an earlier one was refused, and SQLite, which wasn't given that one either, fails with
  the same words;
- skipped: a query that isn't of the sample;
- wrong: all else.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw
from rome.errors import NotSupportedError
from rome.sqlite.statements import split_script
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from tests.sqllogictest.answers import digest, is_right, values_of
from tests.sqllogictest.records import Query, Statement, parse

FOLLOWS = "what was refused before"


@dataclass
class Outcome:
    """What came of a file: counts of records, and the wrong ones in words."""

    name: str
    statements: int = 0
    queries: int = 0
    passed: int = 0
    skipped: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def run(self) -> int:
        """How many records were run."""
        return self.statements + self.queries


def run_file(path: Path, name: str, engine: Engine, every: int = 1, whole: bool = False) -> Outcome:
    """Run a file in an empty database.

    every: of the file's queries, the first of each so many is run; statements all are.
    whole: in one transaction (but for DDL, which commits), so that queries see uncommitted
    rows; else each statement is committed.
    """
    outcome = Outcome(name)
    started = time.perf_counter()
    with engine.connect() as connection:
        if not whole:
            connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        _File(connection, outcome, every).run(path.read_text())
        if whole:
            connection.commit()
    outcome.seconds = time.perf_counter() - started
    return outcome


class _File:
    """The run of one file."""

    def __init__(self, connection: Connection, outcome: Outcome, every: int) -> None:
        self._connection = connection
        self._outcome = outcome
        self._every = every
        self._judge = apsw.Connection(":memory:")
        self._labels: dict[str, str] = {}
        self._queries = 0

    def run(self, text: str) -> None:
        """Run its records one after another."""
        for record in parse(text):
            if isinstance(record, Statement):
                self._statement(record)
                continue
            self._queries += 1
            if (self._queries - 1) % self._every:
                self._outcome.skipped += 1
            else:
                self._query(record)
        self._judge.close()

    def _execute(self, sql: str) -> tuple[list[Any] | None, BaseException | None]:
        """Run SQL in ROME: the rows, and the driver's error."""
        try:
            result = self._connection.exec_driver_sql(sql)
            return list(map(tuple, result)) if result.returns_rows else [], None
        except DBAPIError as error:
            return None, error.orig

    def _judged(self, sql: str) -> str:
        """Run SQL in SQLite: its error in words, or nothing."""
        try:
            self._judge.execute(sql).fetchall()
        except apsw.Error as error:
            return str(error)
        return ""

    def _statement(self, record: Statement) -> None:
        outcome = self._outcome
        outcome.statements += 1
        ours = words = ""
        for sql in split_script(record.sql):  # a few records hold two statements
            _, error = self._execute(sql)
            if isinstance(error, NotSupportedError):
                outcome.refused[str(error)] += 1
                return
            ours, words = "" if error is None else str(error), self._judged(sql)
            if ours != words:
                break
        if ours == words and bool(ours) == record.fails:
            outcome.passed += 1
        elif ours == words and ours and outcome.refused:
            outcome.refused[FOLLOWS] += 1
        else:
            self._wrong(record, f"{ours or 'no error'}, in SQLite {words or 'no error'}")

    def _query(self, record: Query) -> None:
        outcome = self._outcome
        outcome.queries += 1
        rows, error = self._execute(record.sql)
        if rows is None:
            if isinstance(error, NotSupportedError):
                outcome.refused[str(error)] += 1
            elif record.values or record.hashed or str(error) != self._judged(record.sql):
                self._wrong(record, str(error))
            else:
                outcome.passed += 1  # no answer is how the format says that a query fails
            return
        values = values_of(record, rows)
        if not is_right(record, values):
            theirs = values_of(record, self._judge.execute(record.sql).fetchall())
            verdict = "this SQLite gives the same" if theirs == values else "SQLite's is another"
            self._wrong(record, f"{len(values)} values {values[:12]}: {verdict}")
            return
        if record.label:
            found = digest(values)
            if self._labels.setdefault(record.label, found) != found:
                self._wrong(record, f"another answer than before for label {record.label}")
                return
        outcome.passed += 1

    def _wrong(self, record: Statement | Query, words: str) -> None:
        sql = " ".join(record.sql.split())
        self._outcome.wrong.append(f"{self._outcome.name}:{record.line}: {sql[:300]}: {words}")
