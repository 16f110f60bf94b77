"""INSERT, UPDATE and DELETE: run in the work area, or told from their parameters; their keys are
looked up in the store."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import apsw

from rome.engine.foreign_keys import FAILED
from rome.engine.state import NUMBER_TAKEN, Call, InconsistentRead, Result, State
from rome.errors import (
    ConflictError,
    DataError,
    IntegrityError,
    InternalError,
    NotSupportedError,
)
from rome.planner.inserts import PlainInsert
from rome.planner.plan import BoundPlan
from rome.planner.workspace import Touch
from rome.schema.changes import Change, Key, Row, index_data
from rome.schema.tables import Table, fold
from rome.stores.base import Request
from rome.stores.wire import KeyLookup, Step

# Row numbers go through doubles in the store's scripts.
LARGEST_NUMBER = 2**53
# SQLite numbers a row that brings no number of its own with one above this.
_NOT_CHOSEN = 2**62
# Of an INSERT that says what becomes of rows that collide.
_RESOLVES = re.compile(r"\bON\s+CONFLICT\b|\A\s*INSERT\s+OR\b|\A\s*REPLACE\b", re.I)
# Hint of a plan: its INSERT names the key, and gives NULL for it.
_LEAVES_OUT = "leaves out keys"


class Needs(Exception):
    """A running statement needs rows that it hasn't read: it is undone, and run again over these
    and its others, read together, so that it sees one moment."""

    def __init__(self, steps: list[Step]) -> None:
        super().__init__(steps)
        self.steps = steps


class Writes:
    """The statements of a transaction that write."""

    def __init__(self, state: State) -> None:
        self._state = state
        # Of the running statement: where its changes begin, and rows of the store that it
        # collides with.
        self._mark = 0
        self._missing: list[tuple[int, list[bytes]]] = []
        # Whether it reads rows of the store, and has done so by now; and the look-ups that it
        # turned out to need.
        self._fetches = False
        self._read_now = False
        self._covered: set[Any] = set()

    def write(self, call: Call, bound: BoundPlan) -> Result:
        """Run one."""
        state = self._state
        if bound.target is None:
            raise NotSupportedError(f"the statement {call.sql.split(None, 1)[0]}")
        sets = call.parameters if call.many else call.parameters[:1] or ((),)
        if bound.insert is not None and (plainly := self._insert(call, bound.insert, sets)):
            return plainly
        state.flush()
        steps: list[Step] = []
        self._fetches, self._read_now, self._covered = bound.fetches, False, set()
        if bound.fetches:
            state.reading_calls += 1
            for parameters in sets:
                steps += bound.steps(parameters, call.layout, state.changes, len(steps))[0]
            if state.aside is not None and bound.by_number:
                aside, state.aside = state.aside, None
                state.work.ensure([state.table_of(step.table) for step in aside[0]], state.clean)
                state.bring_in(*aside)
            if not self._all_here(bound, steps):
                if bound.compares_and_sets:
                    self._wait_for(steps)
                state.fetch(steps, bound)
                self._read_now = True
        else:
            state.unload()
            state.work.ensure(bound.tables, state.clean)
            state.work.begin()
        known = state.relied.get(bound.target.number, set())
        if known is not None:
            relied = bound.relied
            state.relied[bound.target.number] = None if relied is None else known | relied
        state.assigned.setdefault(bound.target.number, set()).update(bound.assigned)
        call.given = 0
        taken = list(call.taken) if call.retrying else []
        if not state.savepoints:
            state.overlay.forget_marks()
        self._mark = state.overlay.mark()
        more: list[Step] = []
        for _ in range(20):
            state.work.run("SAVEPOINT rome_statement")
            kept = False
            needed = len(more)
            try:
                call.taken = list(taken)
                call.given = 0
                answer = self._apply(call, bound, sets)
                if answer is not None:
                    kept = True
                    return answer
            except Needs as needs:
                more += needs.steps
            except apsw.ConstraintError:
                # Where a row of the transaction's own collides, SQLite doesn't get to rows that
                # are not here, about which ON CONFLICT may have something else to say.
                step = Step(bound.target.number, defaults=bound.target.packed_defaults)
                if not _RESOLVES.search(call.sql) or not self._uncovered([step]):
                    raise
                more.append(step)
                self._covered.add(_look_up_of(step))
            finally:
                if not kept:
                    state.work.run("ROLLBACK TO rome_statement")
                    state.work.forget_tables_made_inside()
                    for number, row_number in state.statement_loaded:
                        state.loaded.get(number, {}).pop(row_number, None)
                    state.overlay.back_to(self._mark)
                state.work.run("RELEASE rome_statement")
            if len(more) > needed or self._fetches:
                self._fetches = self._read_now = True
                state.reading_calls += 1
                request = [*steps, *_merged(more)]
                state.work.ensure([state.table_of(step.table) for step in request], state.clean)
                state.fetch(request, bound)
            for number, rows in self._missing:
                # Rows that the statement collides with came from the store.
                state.load(number, rows)
        raise ConflictError("the statement's keys are changed by others all the time; try again")

    def _uncovered(self, steps: Sequence[Step]) -> list[Step]:
        """Return the steps whose rows aren't here as of the statement's moment."""
        return [step for step in steps if _look_up_of(step) not in self._covered]

    def _require(self, steps: Sequence[Step]) -> None:
        """Have the rows of these steps as of the statement's moment; raises Needs."""
        missing = self._uncovered(steps)
        if missing:
            self._covered.update(map(_look_up_of, missing))
            raise Needs(missing)

    def _wait_for(self, steps: Sequence[Step]) -> None:
        """Until no other transaction of this process compares and sets the same rows."""
        state = self._state
        keys = {
            (step.table, lookup.kind, lookup.index, key)
            for step in steps
            for lookup in step.lookups
            if isinstance(lookup, KeyLookup) and lookup.kind != "set"
            for key in lookup.keys
        }
        if keys:
            state.row_locks.take(state, sorted(keys, key=repr))
            state.holds_rows = True

    def _insert(
        self, call: Call, insert: PlainInsert, sets: Sequence[Sequence[Any]]
    ) -> Result | None:
        """A plain INSERT, without the work area; None: that has to do it."""
        state = self._state
        table = insert.table
        if state.savepoints or table.number in state.reworked:
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
        first = self._number(call, table, len(rows), state.used.get(table.number, 0))
        changes = []
        for number, row in enumerate(rows, first):
            if insert.key_place is not None:
                row[insert.key_place] = number
            changes.append(Change(table, number, None, tuple(row)))
        if not self._entered(changes):
            if not call.retrying:
                state.ids.give_back(table.number, first, len(rows))
                call.taken = []
            return None
        returned = [insert.returned(row) for row in rows] if insert.returning else []
        description = state.work.description(call.sql) if insert.returning else None
        last = None if table.key is None else first + len(rows) - 1
        return Result(returned, description, len(rows), last)

    def _entered(self, changes: list[Change]) -> bool:
        """Take new rows of one table among the changes; False: a key of theirs is taken."""
        state = self._state
        unique = [index for index in changes[0].table.indexes if index.unique]
        number = changes[0].table.number
        keys = [
            (number, index.number, data)
            for index in unique
            for change in changes
            if (data := index_data(change.table, index, change.row or ())) is not None
        ]
        fresh = set(keys)
        places = [(number, change.number) for change in changes]
        if len(fresh) != len(keys) or fresh & state.fresh_keys:
            return False
        state.statement_loaded = []
        self._missing = []
        self._fetches, self._read_now, self._covered = False, False, set()
        state.overlay.forget_marks()  # there is no savepoint
        self._mark = state.overlay.mark()
        state.overlay.put_all(changes)
        done = False
        try:
            done = self._check_keys(dict.fromkeys(places, True), in_area=False)
        except Needs:
            pass  # the work area has to do it
        finally:
            if not done:
                state.overlay.back_to(self._mark)
        if done:
            state.pending += changes
            state.fresh_keys |= fresh
        return done

    def _all_here(self, bound: BoundPlan, steps: list[Step]) -> bool:
        """Whether the statement names rows by number that this transaction has read."""
        state = self._state
        target = bound.target
        if not bound.by_number or len(steps) != 1 or state.serializable or target is None:
            return False
        if state.partial and fold(target.name) in state.schema.children:
            return False  # children may be here in part, and follow
        table = steps[0].table
        if table in state.partial:
            return False
        here = state.loaded.get(table, {})
        return all(
            int(key) in here or (table, int(key)) in state.changes
            for lookup in steps[0].lookups
            if isinstance(lookup, KeyLookup) and lookup.kind == "row"
            for key in lookup.keys
        )

    def _apply(self, call: Call, bound: BoundPlan, sets: Sequence[Sequence[Any]]) -> Result | None:
        """Run the statement and check its keys; None: again, with the rows in _missing."""
        state = self._state
        state.statement_loaded = []
        self._missing = []
        rows: list[Row] = []
        description = None
        count = 0
        touched: dict[Key, bool] = {}  # whether its number came from us
        removing: list[Touch] = []
        target = bound.target
        inserts = bound.inserts and target is not None
        lastrowid = None
        numbered = target if inserts and target is not None and target.key is not None else None
        # Rows that bring their numbers need none of ours, unless they leave one out.
        unsteered = bound.chosen_key and not call.plan.hints.get(_LEAVES_OUT)
        if numbered is not None and unsteered:
            state.work.set_sequence(numbered, _NOT_CHOSEN)
        for parameters in sets:
            first = 0
            wanted = call.plan.hints.get(call.sql, 1)
            if numbered is not None and not unsteered:
                first = self._steer(call, numbered, wanted)
            more, description, changed, touches = state.work.write(call.sql, parameters)
            if numbered is not None:
                new = [t.after for t in touches if t.op == "INSERT" and t.table == numbered.name]
                past = first + len(new)
                if unsteered and any(number > _NOT_CHOSEN for number in new):
                    call.plan.hints[_LEAVES_OUT] = 1
                    return None
                if new and not bound.chosen_key and past > first + wanted:
                    # More rows than numbers were taken for: again with enough.
                    call.plan.hints[call.sql] = len(new)
                    state.ids.give_back(numbered.number, first, wanted)
                    return None
                lastrowid = new[-1] if new else lastrowid
            self._note(call, bound, touches, touched, first)
            removing += [touch for touch in touches if touch.old is not None]
            rows += more
            count += changed
        if state.check_foreign_keys and removing:
            self._note(call, bound, state.foreign.follow(removing, self._require), touched)
        if not self._check_keys(touched):
            return None
        rowcount = count if description is None or not bound.inserts else len(rows) or count
        return Result(rows, description, rowcount, lastrowid)

    def _steer(self, call: Call, table: Table, count: int) -> int:
        """Make SQLite number new rows with numbers of ours; the first of them."""
        state = self._state
        if call.given < len(call.taken):
            _, first, had = call.taken[call.given]
            if had < count:
                raise ConflictError("a retried statement inserts more rows; try again")
        else:
            above = state.work.highest(table)
            first = state.ids.take(table.number, count, above, state.store.reserve)
            call.taken.append((table.number, first, count))
        call.given += 1
        state.work.set_sequence(table, first - 1)
        return first

    def _number(self, call: Call, table: Table, count: int, above: int = 0) -> int:
        """The first of numbers for rows that have none of their own."""
        state = self._state
        if call.given < len(call.taken):
            _, first, had = call.taken[call.given]
            if had < count:
                raise ConflictError("a retried statement inserts more rows; try again")
        else:
            first = state.ids.take(table.number, count, above, state.store.reserve)
            call.taken.append((table.number, first, count))
        call.given += 1
        return first

    def _note(
        self,
        call: Call,
        bound: BoundPlan,
        touches: list[Touch],
        touched: dict[Key, bool],
        first: int = 0,
    ) -> None:
        """Remember what was written, with the rows as they were in the store."""
        tables = self._state.schema.tables
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
                    self._touch(table, touch.after, touch.row, touched, ours, new=True)
                    if not ours:
                        self._chosen(table, touch.after)
            elif touch.op == "DELETE":
                if new.pop(touch.before, None) is None:
                    self._touch(table, touch.before, None, touched, ours=True)
            elif touch.before != touch.after:
                if table.key is None:
                    raise NotSupportedError(f"setting the row number of table {table.name}")
                self._touch(table, touch.before, None, touched, ours=True, moved=True)
                self._chosen(table, touch.after)
                self._touch(table, touch.after, touch.row, touched, ours=False, new=True)
            elif touch.before in new:
                new[touch.before] = touch.row
            else:
                self._touch(table, touch.after, touch.row, touched, ours=True)
        for table, rows in unnumbered.values():
            if rows:
                self._number_rows(call, table, rows, touched)

    def _number_rows(
        self, call: Call, table: Table, rows: dict[int, Row | None], touched: dict[Key, bool]
    ) -> None:
        """Give new rows, by SQLite's numbers, numbers that no other row has or had."""
        state = self._state
        state.reworked.add(table.number)
        first = self._number(call, table, len(rows))
        numbers = list(range(first, first + len(rows)))
        try:
            state.work.renumber(table, list(zip(rows, numbers, strict=True)))
        except apsw.ConstraintError:
            state.ids.forget(table.number)
            raise ConflictError(f"{NUMBER_TAKEN} of table {table.name}; try again") from None
        for number, row in zip(numbers, rows.values(), strict=True):
            state.overlay.put(Change(table, number, None, row))
            touched[table.number, number] = True

    def _touch(
        self,
        table: Table,
        number: int,
        row: Row | None,
        touched: dict[Key, bool],
        ours: bool,
        moved: bool = False,
        new: bool = False,
    ) -> None:
        """Note a row's state.  ours: its number was given by us; moved: its values went on under
        another number; new: there was no row with this number here."""
        state = self._state
        key = (table.number, number)
        state.reworked.add(table.number)
        change = state.changes.get(key)
        if change is not None:
            if change.base is None:
                state.keys_given_back([table.number])
            state.overlay.put(change.followed_by(row, moved))
        else:
            base = None if new else state.loaded.get(table.number, {}).get(number)
            if base is None and not new:
                raise InternalError(f"row {number} of table {table.name} came from nowhere")
            state.overlay.put(Change(table, number, base, row, moved=moved))
        touched[key] = ours and touched.get(key, True)

    def _chosen(self, table: Table, number: int) -> None:
        state = self._state
        if abs(number) > LARGEST_NUMBER:
            raise DataError(
                f"{table.name}.{table.names([table.key or 0])[0]}: {number} is too large a key;"
                f" the largest is {LARGEST_NUMBER}"
            )
        state.used[table.number] = max(state.used.get(table.number, 0), number)
        state.ids.passed(table.number, number)

    def _check_keys(self, touched: dict[Key, bool], in_area: bool = True) -> bool:
        """Whether the store has no other row with a key that was written, and has parents.

        False: there are such rows; they are in _missing, for SQLite to decide.  `in_area`:
        SQLite has seen the statement, so rows that it had then don't collide.
        """
        state = self._state
        changed = [state.changes[key] for key in touched if key in state.changes]
        key_steps = self._key_steps(changed, touched)
        steps = _merged(key_steps)
        parents: list[Step] = []
        if state.check_foreign_keys:
            parents = state.foreign.parent_steps(changed, self._require, self._read_now)
        if not steps and not parents:
            return True
        asked = [*steps, *parents]
        watched = [step.table for step in asked] if state.serializable else ()
        read = state.reads.check(Request(asked, watched))
        new = state.overlay.noted_since(self._mark)
        answer, commits = read.rows or [], read.commits
        for place, commit in enumerate(commits):
            # A key that is taken, or a parent that is missing, is an answer to the application.
            if bool(answer[place]) == (place < len(steps)):
                state.reading_calls += 1
                state.saw(watched[place], commit)
            elif place < len(steps):
                state.free_then.setdefault(watched[place], commit)
        for step, rows in zip(steps, answer, strict=False):
            fresh: list[bytes] = []
            here = state.loaded.get(step.table, {}) if in_area else {}
            for number, row in zip(rows[::2], rows[1::2], strict=True):
                key = (step.table, int(number))
                own = state.changes.get(key)
                if own is None:
                    # One that came in while the statement ran may have been left out, as
                    # its key was taken by then.
                    if key[1] not in here or key in state.statement_loaded:
                        fresh += (number, row)
                elif own.base is None:
                    # A row of ours has a number that is taken.
                    if key not in new:
                        raise ConflictError(f"{NUMBER_TAKEN}; try again")
                    fresh += (number, row)
            if fresh:
                self._missing.append((step.table, fresh))
        if self._missing:
            if self._fetches:
                self._missing = []
                collisions = self._uncovered(key_steps)
                if not collisions:
                    raise InconsistentRead(changed[0].table.number, [])
                self._require(collisions)
            return False
        lacking = state.foreign.parents_lacking(parents, answer[len(steps) :])
        if lacking and self._fetches:
            # Perhaps the rows that lack them aren't there any more, either.
            self._require(lacking)
        if lacking:
            raise IntegrityError(FAILED)
        return True

    def _key_steps(self, changed: list[Change], touched: dict[Key, bool]) -> list[Step]:
        steps: list[Step] = []
        for change in changed:
            table = change.table
            if change.row is None:
                continue
            if change.base is None and not touched[table.number, change.number]:
                steps.append(Step(table.number, [KeyLookup("row", 0, [str(change.number)])]))
            unique = [index for index in table.indexes if index.unique]
            if not unique:
                continue
            row = change.values or ()
            before = change.before
            for index in unique:
                data = index_data(table, index, row)
                if data is None or self._state.foreign.new_by_parent(table, index.slots, row):
                    continue
                if before is None or data != b"".join(before[slot] for slot in index.slots):
                    steps.append(Step(table.number, [KeyLookup("unique", index.number, [data])]))
        return steps


def _look_up_of(step: Step) -> Any:
    """Return what a step with one look-up of one key, or without any, asks for."""
    lookup = _key_lookup(step)
    if lookup is None:
        return step.table
    return step.table, lookup.kind, lookup.index, lookup.keys[0]


def _key_lookup(step: Step) -> KeyLookup | None:
    """Return the one look-up of a step; None: it scans its table."""
    lookup = step.lookups[0] if step.lookups else None
    return lookup if isinstance(lookup, KeyLookup) else None


def _merged(steps: list[Step]) -> list[Step]:
    """Look-ups in one index as one step."""
    scans: dict[int, Step] = {}
    merged: dict[tuple[int, str, int], KeyLookup] = {}
    for step in steps:
        lookup = _key_lookup(step)
        if lookup is None:
            scans[step.table] = step
            continue
        place = (step.table, lookup.kind, lookup.index)
        if place in merged:
            merged[place].keys.extend(lookup.keys)
        else:
            merged[place] = KeyLookup(lookup.kind, lookup.index, list(lookup.keys))
    lookups = [Step(table, [lookup]) for (table, _, _), lookup in merged.items()]
    return [*scans.values(), *lookups]
