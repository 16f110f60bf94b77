"""Plain INSERTs: their rows are made from the parameters, without SQLite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rome.engine.calls import Call, Result
from rome.engine.constraint_checks import ConstraintChecks
from rome.engine.row_numbers import RowNumbers
from rome.engine.session import Session
from rome.engine.statement_run import RowsNeeded, StatementRun
from rome.planner.inserts import PlainInsert
from rome.schema.changes import Change, index_data


class PlainInserts:
    """Plain INSERTs of a transaction (inserts.py of the planner)."""

    def __init__(self, session: Session, numbers: RowNumbers, checks: ConstraintChecks) -> None:
        self._session = session
        self._numbers = numbers
        self._checks = checks

    def insert(
        self, call: Call, insert: PlainInsert, sets: Sequence[Sequence[Any]]
    ) -> Result | None:
        """Insert rows without the work area; None: the work area has to do it."""
        session, overlay = self._session, self._session.overlay
        table = insert.table
        if overlay.savepoints or table.number in overlay.reworked:
            return None
        rows: list[list[Any]] = []
        for parameters in sets:
            more = insert.rows(parameters)
            if more is None:
                return None
            rows += more
        if call.retrying and [count for _, _, count in call.taken] != [len(rows)]:
            return None
        call.given = 0
        above = overlay.used.get(table.number, 0)
        first = self._numbers.take(call, table, len(rows), above)
        changes = []
        for number, row in enumerate(rows, first):
            if insert.key_place is not None:
                row[insert.key_place] = number
            changes.append(Change(table, number, None, tuple(row)))
        if not self._enter(changes):
            if not call.retrying:
                session.ids.give_back(table.number, first, len(rows))
                call.taken = []
            return None
        returned = [insert.returned(row) for row in rows] if insert.returning else []
        description = session.work.description(call.sql) if insert.returning else None
        last = None if table.key is None else first + len(rows) - 1
        return Result(returned, description, len(rows), last)

    def _enter(self, changes: list[Change]) -> bool:
        """Take new rows of one table among the changes; False: a key of theirs is taken."""
        overlay = self._session.overlay
        unique = [index for index in changes[0].table.indexes if index.unique]
        number = changes[0].table.number
        keys = [
            (number, index.number, data)
            for index in unique
            for change in changes
            if (data := index_data(change.table, index, change.row or ())) is not None
        ]
        fresh = set(keys)
        if len(fresh) != len(keys) or fresh & overlay.fresh_keys:
            return False
        overlay.statement_loaded = []
        overlay.forget_marks()  # there is no savepoint
        run = StatementRun(overlay.mark())
        run.touched = dict.fromkeys(((number, change.number) for change in changes), True)
        overlay.put_all(changes)
        done = False
        try:
            done = self._checks.hold(run, in_area=False)
        except RowsNeeded:
            pass  # the work area has to do it
        finally:
            if not done:
                overlay.back_to(run.mark)
        if done:
            overlay.pending += changes
            overlay.fresh_keys |= fresh
        return done
