"""INSERT, UPDATE and DELETE: run in the work area, or computed from their parameters.

Their keys are looked up in the store.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import apsw

from rome.engine.calls import Call, Result
from rome.engine.cascades import Cascades
from rome.engine.constraint_checks import ConstraintChecks
from rome.engine.foreign_keys import ForeignKeys
from rome.engine.plain_inserts import PlainInserts
from rome.engine.reads import Reads, named_by_key
from rome.engine.row_numbers import RowNumbers
from rome.engine.session import Session
from rome.engine.statement_run import RowsNeeded, StatementRun, merged
from rome.engine.working_set import WorkingSet
from rome.errors import ConflictError, InternalError, NotSupportedError
from rome.planner.plan import BoundPlan
from rome.planner.workspace import Touch
from rome.schema.changes import Change, Row
from rome.schema.tables import Table, fold
from rome.stores.wire import KeyLookup, Step

# SQLite numbers a row that brings no number of its own with one above this.
_NOT_CHOSEN = 2**62
# Of an INSERT that says what becomes of rows that collide.
_RESOLVES = re.compile(r"\bON\s+CONFLICT\b|\A\s*INSERT\s+OR\b|\A\s*REPLACE\b", re.I)
# Hint of a plan: its INSERT names the key, and gives NULL for it.
_LEAVES_OUT = "leaves out keys"
# Times that a statement is run again over further rows.
_RUNS = 20


class Writes:
    """The statements of a transaction that write."""

    def __init__(
        self, session: Session, reads: Reads, rows: WorkingSet, foreign: ForeignKeys
    ) -> None:
        self._session = session
        self._rows = rows
        self._cascades = Cascades(session, foreign)
        self._numbers = RowNumbers(session)
        self._checks = ConstraintChecks(session, reads, foreign)
        self._plain = PlainInserts(session, self._numbers, self._checks)

    def write(self, call: Call, bound: BoundPlan) -> Result:
        """Run one."""
        if bound.target is None:
            raise NotSupportedError(f"the statement {call.sql.split(None, 1)[0]}")
        sets = call.parameters if call.many else call.parameters[:1] or ((),)
        if bound.insert is not None and (plainly := self._plain.insert(call, bound.insert, sets)):
            return plainly
        overlay = self._session.overlay
        self._rows.flush()
        run = StatementRun(fetches=bound.fetches)
        steps = self._read_rows(call, bound, sets, run)
        overlay.rely(bound.target.number, bound.relied, bound.assigned)
        call.given = 0
        if not overlay.savepoints:
            overlay.forget_marks()
        run.mark = overlay.mark()
        return self._run(call, bound, sets, run, steps)

    # ------------------------------------------------------------ rows to work on

    def _read_rows(
        self, call: Call, bound: BoundPlan, sets: Sequence[Sequence[Any]], run: StatementRun
    ) -> list[Step]:
        """Have the rows in the work area that the statement may need; return what they are."""
        session, overlay, rows = self._session, self._session.overlay, self._rows
        steps: list[Step] = []
        if not bound.fetches:
            rows.prepare(bound.tables)
            session.work.begin()
            return steps
        overlay.reading_calls += 1
        for parameters in sets:
            steps += bound.steps(parameters, call.layout, overlay.changes, len(steps))[0]
        if overlay.aside is not None and bound.by_number:
            aside, overlay.aside = overlay.aside, None
            session.work.ensure([session.table_of(s.table) for s in aside[0]], overlay.clean)
            rows.bring_in(*aside)
        if not self._all_here(bound, steps):
            if len(steps) == 1 and not session.serializable:
                steps = [named_by_key(bound, steps[0])]
            rows.fetch(steps, bound)
            run.read_now = True
        return steps

    def _all_here(self, bound: BoundPlan, steps: list[Step]) -> bool:
        """Tell whether the statement names rows by number that this transaction has read."""
        session, overlay = self._session, self._session.overlay
        target = bound.target
        if not bound.by_number or len(steps) != 1 or session.serializable or target is None:
            return False
        if overlay.partial and fold(target.name) in session.schema.children:
            return False  # children may be here in part, and follow
        table = steps[0].table
        if table in overlay.partial:
            return False
        here = overlay.loaded.get(table, {})
        return all(
            int(key) in here or (table, int(key)) in overlay.changes
            for lookup in steps[0].lookups
            if isinstance(lookup, KeyLookup) and lookup.kind == "row"
            for key in lookup.keys
        )

    # ------------------------------------------------------------ running

    def _run(
        self,
        call: Call,
        bound: BoundPlan,
        sets: Sequence[Sequence[Any]],
        run: StatementRun,
        steps: list[Step],
    ) -> Result:
        """Run the statement until it has all rows that it turns out to need."""
        session, overlay, rows = self._session, self._session.overlay, self._rows
        numbers = list(call.taken) if call.retrying else []
        more: list[Step] = []
        for _ in range(_RUNS):
            session.work.run("SAVEPOINT rome_statement")
            result = None
            needed = len(more)
            try:
                call.taken = list(numbers)
                call.given = 0
                result = self._apply(call, bound, sets, run)
                if result is not None:
                    return result
            except RowsNeeded as rows_needed:
                more += rows_needed.steps
            except apsw.ConstraintError:
                more += self._all_that_may_collide(call, bound, run)
            finally:
                if result is None:
                    self._undo(run)
                session.work.run("RELEASE rome_statement")
            if len(more) > needed or run.fetches:
                run.fetches = run.read_now = True
                overlay.reading_calls += 1
                request = [*steps, *merged(more)]
                tables = [session.table_of(step.table) for step in request]
                session.work.ensure(tables, overlay.clean)
                rows.fetch(request, bound)
            for number, missing in run.missing:
                # Rows that the statement collides with came from the store.
                rows.load(number, missing)
        raise ConflictError("the statement's keys are changed by others all the time; try again")

    def _all_that_may_collide(self, call: Call, bound: BoundPlan, run: StatementRun) -> list[Step]:
        """Return the whole table as a step, where a row of the transaction's own collides: SQLite
        doesn't get to rows that are not here, about which ON CONFLICT may have something else to
        say.  Raises the running exception if the statement says nothing of collisions."""
        assert bound.target is not None
        step = Step(bound.target.number, defaults=bound.target.packed_defaults)
        if not _RESOLVES.search(call.sql) or not run.uncovered([step]):
            raise
        run.cover([step])
        return [step]

    def _undo(self, run: StatementRun) -> None:
        """Undo what a run has done to the work area and the overlay."""
        work, overlay = self._session.work, self._session.overlay
        work.run("ROLLBACK TO rome_statement")
        work.forget_tables_made_inside()
        for number, row_number in overlay.statement_loaded:
            overlay.loaded.get(number, {}).pop(row_number, None)
        overlay.back_to(run.mark)

    def _apply(
        self, call: Call, bound: BoundPlan, sets: Sequence[Sequence[Any]], run: StatementRun
    ) -> Result | None:
        """Run the statement and check its keys; None: again, with the rows in `run.missing`."""
        session, work = self._session, self._session.work
        session.overlay.statement_loaded = []
        run.missing = []
        run.touched = {}
        rows: list[Row] = []
        description = None
        count = 0
        removing: list[Touch] = []
        target = bound.target
        lastrowid = None
        inserts = bound.inserts and target is not None
        numbered = target if inserts and target is not None and target.key is not None else None
        # Rows that bring their numbers need none of ours, unless they leave one out.
        unsteered = bound.chosen_key and not call.plan.hints.get(_LEAVES_OUT)
        if numbered is not None and unsteered:
            work.set_sequence(numbered, _NOT_CHOSEN)
        for parameters in sets:
            first = 0
            count_of_new = call.plan.hints.get(call.sql, 1)
            if numbered is not None and not unsteered:
                first = self._numbers.steer(call, numbered, count_of_new)
            more, description, changed, touches = work.write(call.sql, parameters)
            if numbered is not None:
                new = [t.after for t in touches if t.op == "INSERT" and t.table == numbered.name]
                past = first + len(new)
                if unsteered and any(number > _NOT_CHOSEN for number in new):
                    call.plan.hints[_LEAVES_OUT] = 1
                    return None
                if new and not bound.chosen_key and past > first + count_of_new:
                    # More rows than numbers were taken for: again with enough.
                    call.plan.hints[call.sql] = len(new)
                    session.ids.give_back(numbered.number, first, count_of_new)
                    return None
                lastrowid = new[-1] if new else lastrowid
            self._note(call, bound, touches, run, first)
            removing += [touch for touch in touches if touch.old is not None]
            rows += more
            count += changed
        if session.check_foreign_keys and removing:
            self._note(call, bound, self._cascades.follow(removing, run.require), run)
        if not self._checks.hold(run):
            return None
        rowcount = count if description is None or not bound.inserts else len(rows) or count
        return Result(rows, description, rowcount, lastrowid)

    # ------------------------------------------------------------ what was written

    def _note(
        self, call: Call, bound: BoundPlan, touches: list[Touch], run: StatementRun, first: int = 0
    ) -> None:
        """Remember what was written, with the rows as they were in the store."""
        tables = self._session.schema.tables
        # Rows without a key of their own: SQLite has numbered them, perhaps with the number of
        # a row that is gone from here, or that only the store has.
        unnumbered: dict[int, tuple[Table, dict[int, Row | None]]] = {}
        for touch in touches:
            table = tables.get(fold(touch.table))
            if table is None:
                continue  # SQLite's own
            new = unnumbered.setdefault(table.number, (table, {}))[1] if table.key is None else {}
            if touch.op == "INSERT":
                if table.key is None:
                    new[touch.after] = touch.row
                else:
                    ours = first > 0 and not bound.chosen_key and bound.inserts
                    self._touch(table, touch.after, touch.row, run, ours, new=True)
                    if not ours:
                        self._numbers.choose(table, touch.after)
            elif touch.op == "DELETE":
                if new.pop(touch.before, None) is None:
                    self._touch(table, touch.before, None, run, ours=True)
            elif touch.before != touch.after:
                if table.key is None:
                    raise NotSupportedError(f"setting the row number of table {table.name}")
                self._touch(table, touch.before, None, run, ours=True, moved=True)
                self._numbers.choose(table, touch.after)
                self._touch(table, touch.after, touch.row, run, ours=False, new=True)
            elif touch.before in new:
                new[touch.before] = touch.row
            else:
                self._touch(table, touch.after, touch.row, run, ours=True)
        for table, rows in unnumbered.values():
            if rows:
                self._numbers.renumber(call, table, rows, run.touched)

    def _touch(
        self,
        table: Table,
        number: int,
        row: Row | None,
        run: StatementRun,
        ours: bool,
        moved: bool = False,
        new: bool = False,
    ) -> None:
        """Note a row's state.  ours: its number was given by us; moved: its values went on under
        another number; new: there was no row with this number here."""
        overlay = self._session.overlay
        key = (table.number, number)
        overlay.reworked.add(table.number)
        change = overlay.changes.get(key)
        if change is not None:
            if change.base is None:
                overlay.keys_given_back([table.number])
            overlay.put(change.followed_by(row, moved))
        else:
            base = None if new else overlay.loaded.get(table.number, {}).get(number)
            if base is None and not new:
                raise InternalError(f"row {number} of table {table.name} came from nowhere")
            overlay.put(Change(table, number, base, row, moved=moved))
        run.touched[key] = ours and run.touched.get(key, True)
