"""INSERT, UPDATE and DELETE: run in the work area, or told from their parameters; their keys are
looked up in the store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rome.changes import Change, Key, Row, index_data
from rome.errors import (
    ConflictError,
    DataError,
    NotSupportedError,
)
from rome.inserts import PlainInsert
from rome.plan import BoundPlan
from rome.schema import Table, fold
from rome.state import Call, Result, State
from rome.stores.base import Request, Step
from rome.workspace import Touch

# Row numbers go through doubles in the store's scripts.
LARGEST_NUMBER = 2**53


class Writes:
    """The statements of a transaction that write."""

    def __init__(self, state: State) -> None:
        self._state = state
        # Of the running statement: rows that it was the first to write, those that were
        # written before, and rows of the store that it collides with.
        self._statement_new: set[Key] = set()
        self._statement_old: set[Key] = set()
        self._missing: list[tuple[int, list[bytes]]] = []

    def write(self, call: Call, bound: BoundPlan) -> Result:
        """Run one."""
        state = self._state
        if bound.target is None:
            raise NotSupportedError(f"the statement {call.sql.split(None, 1)[0]}")
        sets = call.parameters if call.many else call.parameters[:1] or ((),)
        if bound.insert is not None and (plainly := self._insert(call, bound.insert, sets)):
            return plainly
        state.settle()
        if bound.fetches:
            state.reading_calls += 1
            steps: list[Step] = []
            for parameters in sets:
                steps += bound.steps(parameters, call.layout, state.changes, len(steps))[0]
            if state.aside is not None and bound.by_number:
                aside, state.aside = state.aside, None
                state.work.ensure([state.table_of(step[0]) for step in aside[0]], state.clean)
                state.bring_in(*aside)
            if not self._all_here(bound, steps):
                if bound.compares_and_sets:
                    self._wait_for(steps)
                state.fetch(steps, bound)
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
        taken = list(call.taken) if call.replaying else []
        for _ in range(20):
            state.work.run("SAVEPOINT rome_statement")
            kept = False
            try:
                call.taken = list(taken)
                call.given = 0
                answer = self._apply(call, bound, sets)
                if answer is not None:
                    kept = True
                    return answer
            finally:
                if not kept:
                    state.work.run("ROLLBACK TO rome_statement")
                    state.work.forget_tables_made_inside()
                    for number, row_number in state.statement_loaded:
                        state.loaded.get(number, {}).pop(row_number, None)
                    for key in self._statement_new:
                        state.changes.pop(key, None)
                    for key in self._statement_old:
                        change = state.changes[key]
                        change.row = state.work.row(change.table, key[1])
                state.work.run("RELEASE rome_statement")
            # Rows that the statement collides with came from the store: run it again.
            state.reads.discard()
            for number, rows in self._missing:
                state.load(number, rows)
        raise ConflictError("the statement's keys are changed by others all the time; try again")

    def _wait_for(self, steps: Sequence[Step]) -> None:
        """Until no other transaction of this process compares and sets the same rows."""
        state = self._state
        keys = {
            (step[0], lookup[0], lookup[1], key)
            for step in steps
            for lookup in step[1]
            if lookup[0] != "set" and lookup[2] is not False
            for key in lookup[2]
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
        if call.replaying and [count for _, _, count in call.taken] != [len(rows)]:
            return None
        call.given = 0
        first = self._number(call, table, len(rows), state.used.get(table.number, 0))
        changes = []
        for number, row in enumerate(rows, first):
            if insert.key_place is not None:
                row[insert.key_place] = number
            changes.append(Change(table, number, None, tuple(row)))
        if not self._entered(changes):
            if not call.replaying:
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
        self._statement_new = set(places)
        self._statement_old = set()
        state.statement_loaded = []
        self._missing = []
        state.changes.update(zip(places, changes, strict=True))
        done = False
        try:
            done = self._check_keys(dict.fromkeys(places, True), in_area=False)
        finally:
            if not done:
                for place in places:
                    del state.changes[place]
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
        table, lookups = steps[0][0], steps[0][1]
        if table in state.partial:
            return False
        here = state.loaded.get(table, {})
        return all(
            int(key) in here or (table, int(key)) in state.changes
            for lookup in lookups
            if lookup[0] == "row"
            for key in lookup[2]
        )

    def _apply(self, call: Call, bound: BoundPlan, sets: Sequence[Sequence[Any]]) -> Result | None:
        """Run the statement and check its keys; None: again, with the rows in _missing."""
        state = self._state
        self._statement_new = set()
        self._statement_old = set()
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
        for parameters in sets:
            first = 0
            wanted = call.plan.hints.get(call.sql, 1)
            if inserts and target is not None and target.key is not None:
                first = self._steer(call, target, wanted)
            more, description, changed, touches = state.work.write(call.sql, parameters)
            if inserts and target is not None and target.key is not None:
                new = [t.after for t in touches if t.op == "INSERT" and t.table == target.name]
                past = first + len(new)
                if new and not bound.chosen_key and past > first + wanted:
                    # More rows than numbers were taken for: again with enough.
                    call.plan.hints[call.sql] = len(new)
                    state.ids.give_back(target.number, first, wanted)
                    return None
                lastrowid = new[-1] if new else lastrowid
            self._note(call, bound, touches, touched, first)
            removing += [touch for touch in touches if touch.old is not None]
            rows += more
            count += changed
        if state.check_foreign_keys and removing:
            self._note(call, bound, state.foreign.follow(removing), touched)
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
                raise ConflictError("a replayed statement inserts more rows; try again")
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
            first = call.taken[call.given][1]
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
        new_rows: dict[int, tuple[Table, list[int]]] = {}
        for touch in touches:
            table = tables.get(fold(touch.table))
            if table is None:
                continue  # SQLite's own
            if touch.op == "INSERT":
                if table.key is None:
                    new_rows.setdefault(table.number, (table, []))[1].append(touch.after)
                    self._touch(table, touch.after, touch.row, touched, ours=True)
                else:
                    ours = first > 0 and not bound.chosen_key and bound.inserts
                    self._touch(table, touch.after, touch.row, touched, ours)
                    if not ours:
                        self._chosen(table, touch.after)
            elif touch.op == "DELETE":
                self._touch(table, touch.before, None, touched, ours=True)
            else:
                if touch.before != touch.after:
                    self._touch(table, touch.before, None, touched, ours=True)
                    self._chosen(table, touch.after)
                    self._touch(table, touch.after, touch.row, touched, ours=False)
                else:
                    self._touch(table, touch.after, touch.row, touched, ours=True)
        for table, numbers in new_rows.values():
            self._renumber(call, table, numbers, touched)

    def _renumber(
        self, call: Call, table: Table, numbers: list[int], touched: dict[Key, bool]
    ) -> None:
        # A number may have been given twice, if its row was replaced within the statement.
        state = self._state
        present = [
            n
            for n in dict.fromkeys(numbers)
            if (c := state.changes.get((table.number, n))) and c.row is not None and c.base is None
        ]
        if not present:
            return
        first = self._number(call, table, len(present))
        pairs = [(old, first + i) for i, old in enumerate(present)]
        state.work.renumber(table, pairs)
        moved = []
        for old, new in pairs:
            key = (table.number, old)
            change = state.changes.pop(key)
            touched.pop(key, None)
            self._statement_new.discard(key)
            for _, keys in state.savepoints:
                keys.discard(key)
            change.number = new
            moved.append(change)
        for change in moved:
            key = (table.number, change.number)
            state.changes[key] = change
            touched[key] = True
            self._statement_new.add(key)
            if state.savepoints:
                state.savepoints[-1][1].add(key)

    def _touch(
        self, table: Table, number: int, row: Row | None, touched: dict[Key, bool], ours: bool
    ) -> None:
        state = self._state
        key = (table.number, number)
        state.reworked.add(table.number)
        change = state.changes.get(key)
        if change is None:
            base = state.loaded.get(table.number, {}).get(number)
            state.changes[key] = Change(table, number, base, row)
            self._statement_new.add(key)
            if state.savepoints:
                state.savepoints[-1][1].add(key)
        else:
            change.row = row
            if key not in self._statement_new:
                self._statement_old.add(key)
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
        steps = _merged(self._key_steps(changed, touched))
        parents = state.foreign.parent_steps(changed) if state.check_foreign_keys else []
        if not steps and not parents:
            return True
        asked = [*steps, *parents]
        watched = [step[0] for step in asked] if state.serializable else ()
        read = state.store.read(state.schema.version, [Request(asked, watched)])[0]
        answer, commits = read.rows or [], read.commits
        for place, commit in enumerate(commits):
            # A key that is taken, or a parent that is missing, is an answer to the application.
            if bool(answer[place]) == (place < len(steps)):
                state.reading_calls += 1
                state.saw(watched[place], commit)
        for step, rows in zip(steps, answer, strict=False):
            fresh: list[bytes] = []
            here = state.loaded.get(step[0], {}) if in_area else {}
            for number, row in zip(rows[::2], rows[1::2], strict=True):
                key = (step[0], int(number))
                own = state.changes.get(key)
                if own is None:
                    # One that came in while the statement ran may have been left out, as
                    # its key was taken by then.
                    if key[1] not in here or key in state.statement_loaded:
                        fresh += (number, row)
                elif own.base is None:
                    # A row of ours has a number that is taken.
                    if key not in self._statement_new:
                        raise ConflictError("a new row's number is taken; try again")
                    fresh += (number, row)
            if fresh:
                self._missing.append((step[0], fresh))
        if self._missing:
            return False
        state.foreign.parents_found(parents, answer[len(steps) :])
        return True

    def _key_steps(self, changed: list[Change], touched: dict[Key, bool]) -> list[Step]:
        steps: list[Step] = []
        for change in changed:
            table = change.table
            if change.row is None:
                continue
            if change.base is None and not touched[table.number, change.number]:
                steps.append(
                    [table.number, [["row", 0, [str(change.number)], []]], [], [], [], 0, False]
                )
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
                    lookup = ["unique", index.number, [data], []]
                    steps.append([table.number, [lookup], [], [], [], 0, False])
        return steps


def _merged(steps: list[Step]) -> list[Step]:
    """Look-ups in one index as one step."""
    merged: dict[tuple[int, str, int], Step] = {}
    for step in steps:
        kind, index, keys, _ = step[1][0]
        have = merged.get((step[0], kind, index))
        if have is None:
            merged[step[0], kind, index] = [
                step[0],
                [[kind, index, list(keys), []]],
                [],
                [],
                [],
                0,
                False,
            ]
        else:
            have[1][0][2].extend(keys)
    return list(merged.values())
