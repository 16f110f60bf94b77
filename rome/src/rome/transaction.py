"""One transaction: statements over rows from the store, and their commit as one step.

A statement brings the rows that it may need into the work area, in one round trip, and is
evaluated there.  What it writes stays there until commit, which ships the changed columns
together with what they rely on: for each row, the old values of the columns that the
statements' conditions and expressions used.  Where another transaction was faster, all
statements are run again over the rows as they are now; if every answer is what the
application has seen, the transaction commits, else it fails with ConflictError, and the
application may try again.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import apsw

from rome import sqlite_errors
from rome.answers import Answers
from rome.catalogue import Catalogue, Schema
from rome.changes import Change, Key, Row, blank_write, index_data, whole_row, write_of
from rome.errors import (
    ConflictError,
    DataError,
    Error,
    InternalError,
    NotSupportedError,
    OperationalError,
)
from rome.foreign_keys import ForeignKeys
from rome.foresight import Foresight
from rome.ids import Ids
from rome.inserts import PlainInsert
from rome.plan import BoundPlan, Layout, Plan, TextPlan
from rome.reads import Reads, Wanted
from rome.rows import unpack_value
from rome.schema import Table
from rome.stores.base import Changed, Commit, Duplicate, Request, SchemaChanged, Step, Store
from rome.values import sort_key
from rome.workspace import Touch, Workspace

# Replays of a commit before it is given up as a conflict.
REPLAYS = 30
# Row numbers go through doubles in the store's scripts.
LARGEST_NUMBER = 2**53


class Result(NamedTuple):
    """What a statement answered; rowcount -1: it has none."""

    rows: list[Row]
    description: tuple[Row, ...] | None
    rowcount: int
    lastrowid: int | None


@dataclass(slots=True)
class Call:
    """A statement as the application made it, for running it again."""

    sql: str
    parameters: Sequence[Sequence[Any]]  # one set, or many
    many: bool
    plan: Plan
    layout: Layout
    taken: list[tuple[int, int, int]] = field(default_factory=list)  # table, first, count
    replaying: bool = False
    read: bool = False  # whether it needed rows of the store
    asked: bool = False  # whether it had to ask for them itself
    given: int = 0
    savepoint: tuple[str, str] | None = None
    outcome: Any = None


class Transaction:
    """The open transaction of a connection; it begins with its first statement."""

    def __init__(
        self,
        store: Store,
        catalogue: Catalogue,
        ids: Ids,
        answers: Answers | None = None,
        foresight: Foresight | None = None,
        foreign_keys: bool = True,
        serializable: bool = False,
    ) -> None:
        self.store = store
        self.catalogue = catalogue
        self.ids = ids
        self.check_foreign_keys = foreign_keys
        self.serializable = serializable
        self.replays = 0
        self.work = Workspace()
        self._foreign = ForeignKeys(self)
        self._reads = Reads(self, answers, foresight)
        self._forget()

    def _forget(self) -> None:
        self.calls: list[Call] = []
        self.loaded: dict[int, dict[int, bytes]] = {}
        self.ever_loaded: set[int] = set()
        self._statement_loaded: list[Key] = []  # rows that came in while a statement ran
        self.partial: set[int] = set()  # tables whose loaded rows lack columns
        # What the last statement has read, where the work area doesn't have it.
        self.aside: tuple[Sequence[Step], list[list[bytes]]] | None = None
        # Rows that were inserted and aren't in the work area; their unique keys; and tables
        # whose rows were written in another way.
        self.pending: list[Change] = []
        self.fresh_keys: set[tuple[int, int, bytes]] = set()
        self.reworked: set[int] = set()
        self.changes: dict[Key, Change] = {}
        self.savepoints: list[tuple[str, set[Key]]] = []
        self.locked: dict[Key, tuple[Table, bytes]] = {}
        self.used: dict[int, int] = {}
        self.relied: dict[int, set[int] | None] = {}  # None: on every column
        self.assigned: dict[int, set[int]] = {}
        self.seen_writes: dict[int, str] = {}
        self._reads.forget()
        self.reading_calls = 0

    # ------------------------------------------------------------ statements

    @property
    def schema(self) -> Schema:
        """The schema that the work area has; loaded when first asked for."""
        schema = self.work.schema
        if schema is None:
            schema = self.catalogue.schema
            if not schema.version:
                schema = self.catalogue.load(self.store)
            self.work.use(schema)
        return schema

    @property
    def clean(self) -> bool:
        """Whether nothing in the work area needs to stay."""
        return not self.changes and not self.savepoints

    def execute(
        self,
        sql: str,
        parameters: Sequence[Sequence[Any]],
        many: bool,
        plan: Plan,
        layout: Layout,
    ) -> Result:
        """Run a statement and remember it."""
        if plan.refused:
            raise NotSupportedError(plan.refused)
        call = Call(sql, parameters, many, plan, layout)
        try:
            result = self._run(call)
        except Error as error:
            call.outcome = type(error)
            if not isinstance(error, ConflictError):
                self.calls.append(call)
            raise
        call.outcome = result
        self.calls.append(call)
        return result

    def savepoint(self, word: str, name: str) -> None:
        """SAVEPOINT, RELEASE or ROLLBACK TO (the word) a savepoint."""
        call = Call("", (), False, TextPlan(), {}, savepoint=(word, name))
        self._savepoint(word, name)
        self.calls.append(call)

    def _savepoint(self, word: str, name: str) -> None:
        names = [open_name for open_name, _ in self.savepoints]
        self._settle()
        if word == "SAVEPOINT":
            self.schema  # noqa: B018 - the work area must have one before it is marked
            self.work.begin()
            self.work.run(f'SAVEPOINT "{name}"')
            self.savepoints.append((name, set()))
            return
        if name not in names:
            raise OperationalError(f"no such savepoint: {name}")
        place = len(names) - 1 - names[::-1].index(name)
        later = set().union(*(keys for _, keys in self.savepoints[place:]))
        if word == "RELEASE":
            self.work.run(f'RELEASE "{name}"')
            del self.savepoints[place:]
            if self.savepoints:
                self.savepoints[-1][1].update(later)
            return
        self.work.run(f'ROLLBACK TO "{name}"')
        self.work.forget_tables_made_inside()
        del self.savepoints[place + 1 :]
        self.savepoints[place][1].clear()
        for key in later:
            self.changes.pop(key, None)
        for key, change in self.changes.items():
            change.row = self.work.row(change.table, key[1])
        # Rows that came in meanwhile are gone, older ones are back: all are fetched anew.
        for number in self.ever_loaded:
            kept = [key for table, key in self.changes if table == number]
            self.work.keep_only(self._table(number), kept)
        self._nothing_loaded()

    def _nothing_loaded(self) -> None:
        self.loaded = {}
        self.partial.clear()
        self.aside = None

    def _run(self, call: Call) -> Result:
        mine, newest = self.work.schema, self.catalogue.schema
        if mine is not None and mine is not newest and not self.calls and self.clean:
            # A transaction begins with the newest schema that this process knows.
            self._use(newest)
        for attempt in range(20):
            try:
                return self._run_once(call)
            except SchemaChanged:
                self._new_schema()
            except apsw.SQLError as error:
                # Perhaps a table that was made since.
                known = self.schema.version
                if attempt or "no such" not in str(error):
                    raise sqlite_errors.translated(error) from error
                if self.catalogue.load(self.store).version == known:
                    raise sqlite_errors.translated(error) from error
                self._new_schema()
            except apsw.Error as error:
                raise sqlite_errors.translated(error) from error
        raise ConflictError("the schema is changed by others all the time; try again")

    def _new_schema(self) -> None:
        schema = self.catalogue.load(self.store)
        if self.changes:
            raise ConflictError("the schema was changed during this transaction; try again")
        self._use(schema)
        if self.savepoints:
            self.work.begin()
            for name, _ in self.savepoints:
                self.work.run(f'SAVEPOINT "{name}"')

    def _use(self, schema: Schema) -> None:
        self.work.use(schema)
        self._nothing_loaded()

    def _run_once(self, call: Call) -> Result:
        plan = call.plan
        bound = plan.bound
        self._reads.begin(call)
        if bound is None or bound.schema is not self.schema:
            bound = plan.bind(self.schema, self.work, call.sql, self.clean)
        if bound.made_for is not self.work:
            # Another connection bound it: its tables may be missing here.
            self.work.ensure(bound.tables, self.clean)
            bound.made_for = self.work
        if bound.reads_only:
            return self._select(call, bound)
        return self._write(call, bound)

    def _select(self, call: Call, bound: BoundPlan) -> Result:
        parameters = call.parameters[0] if call.parameters else ()
        if not bound.tables:
            return self._evaluated(call, parameters)
        wanted = self._reads.wanted(bound, call.sql, parameters, call.layout)
        if not wanted.plain:
            self._settle()
        if self._known(wanted.steps):
            self._unload()
            self.work.ensure(bound.tables, self.clean)
        elif wanted.plain:
            return self._read_plainly(call, bound, wanted, parameters)
        else:
            self.fetch(wanted.steps, bound)
        if bound.locks:
            self._lock(bound)
        return self._evaluated(call, parameters)

    def _read_plainly(
        self, call: Call, bound: BoundPlan, wanted: Wanted, parameters: Sequence[Any]
    ) -> Result:
        """The answer of a SELECT from rows of the store only."""
        self.reading_calls += 1
        answer = self._reads.read(wanted)
        self._saw_all(wanted.request, answer.commits)
        kept, found = wanted.kept, answer.rows
        summed = wanted.request is not wanted.steps
        if found is None and kept is not None:
            self._unload()
            if not summed:
                self.aside = wanted.steps, kept.found
            known: Result = kept.result
            return known
        found = found or []
        if summed:
            result = self._sums(call, found)
            if result is None:
                self.fetch(wanted.steps, bound)
                return self._evaluated(call, parameters)
        else:
            result = self._rows(call, bound, wanted, found, parameters)
        if self._reads.answers is not None and wanted.key is not None:
            self._reads.answers.put(wanted.key, result, [] if summed else found, answer.commits)
        return result

    def _rows(
        self,
        call: Call,
        bound: BoundPlan,
        wanted: Wanted,
        found: list[list[bytes]],
        parameters: Sequence[Any],
    ) -> Result:
        self._unload()
        window = None
        if wanted.told and bound.projection is not None:
            window = bound.window(parameters, call.layout)
        if bound.projection is not None and window is not None:
            rows = bound.projection.answer(found[0], window)
            self.aside = wanted.steps, found
            return Result(rows, self.work.description(call.sql), -1, None)
        self.work.ensure(bound.tables, self.clean)
        self._bring_in(wanted.steps, found)
        return Result(*self.work.query(call.sql, parameters), -1, None)

    def _sums(self, call: Call, found: list[list[Any]]) -> Result | None:
        """Counts, sums and extremes, as the store has found them; None: it met values that it
        can't add without loss."""
        (groups,) = found
        if groups and groups[0] == b"no":
            return None
        rows = [tuple(map(unpack_value, group)) for group in groups]
        if len(rows) > 1:
            # GROUP BY, in the order that SQLite gives.
            rows.sort(key=lambda row: [sort_key(value) for value in row])
        return Result(rows, self.work.description(call.sql), -1, None)

    def _evaluated(self, call: Call, parameters: Sequence[Any]) -> Result:
        """The answer over the rows in the work area."""
        self.reading_calls += 1
        return Result(*self.work.query(call.sql, parameters), -1, None)

    def _known(self, steps: Sequence[Step]) -> bool:
        """Whether no row of the store is needed: the one row with a unique key is the
        transaction's own, or the statement asks for one of no values."""
        if len(steps) != 1 or self.serializable:
            return False
        number, lookups = steps[0][0], steps[0][1]
        for kind, index_number, keys, *_ in lookups:
            if keys is False:
                continue
            if not keys:
                return True
            if kind == "set" or len(keys) != 1:
                continue
            for (table, row_number), change in self.changes.items():
                if table != number or change.row is None:
                    continue
                if kind == "row":
                    if str(row_number) == keys[0]:
                        return True
                    continue
                index = next((i for i in change.table.indexes if i.number == index_number), None)
                row = change.values
                if index and row and index_data(change.table, index, row) == keys[0]:
                    return True
        return False

    def read_again(self, step: Step) -> list[bytes]:
        """The rows of a step alone."""
        found = self.store.read(self.schema.version, [Request([step])])[0].rows
        return found[0] if found else []

    def _saw_all(self, steps: Sequence[Step], commits: Sequence[str]) -> None:
        if self.serializable:
            for step, commit in zip(steps, commits, strict=True):
                self._saw(step[0], commit)

    def _saw(self, table: int, commit: str) -> None:
        """A serializable transaction has read a table as this commit had left it."""
        if self.seen_writes.setdefault(table, commit) != commit:
            raise ConflictError(
                "a table was changed since this serializable transaction read it; try again"
            )

    # ------------------------------------------------------------ rows in

    def fetch(self, steps: Sequence[Step], bound: BoundPlan) -> None:
        """The rows of these steps, and no others but the transaction's own."""
        self._unload()
        self.work.ensure(bound.tables, self.clean)
        self.fetch_more(steps)

    def fetch_more(self, steps: Sequence[Step]) -> list[list[bytes]]:
        """The rows of these steps, beside those that are here."""
        request = list(steps)
        answer = self._reads.read(Wanted(request, request, False, False))
        self._saw_all(request, answer.commits)
        found = answer.rows or []
        self._bring_in(steps, found)
        return found

    def _bring_in(self, steps: Sequence[Step], found: Sequence[list[bytes]]) -> None:
        self.work.begin()
        for step, rows in zip(steps, found, strict=True):
            if rows:
                self.load(step[0], rows, step[6] or None)

    def _settle(self) -> None:
        """Bring the rows that were inserted plainly into the work area."""
        if not self.pending:
            return
        self.work.begin()
        by_table: dict[int, list[Change]] = {}
        for change in self.pending:
            by_table.setdefault(change.table.number, []).append(change)
        for changes in by_table.values():
            self.work.ensure([changes[0].table], clean=False)
            self.work.put(changes[0].table, [(c.number, c.row or ()) for c in changes])
        self.pending = []

    def load(self, number: int, rows: list[bytes], slots: tuple[int, ...] | None = None) -> None:
        """Rows of one table as the store gives them: numbers and rows by turns.

        `slots`: the only columns that came.
        """
        table = self._table(number)
        here = self.loaded.setdefault(number, {})
        new = []
        for key, row in zip(map(int, rows[::2]), rows[1::2], strict=True):
            if key not in here and (number, key) not in self.changes:
                here[key] = row
                new.append((key, row))
        if new:
            self.work.load(table, new, slots)
            self.ever_loaded.add(number)
            self._statement_loaded += [(number, key) for key, _ in new]
            if slots is not None:
                self.partial.add(number)

    def _table(self, number: int) -> Table:
        table = self.schema.by_number(number)
        if table is None:
            raise InternalError(f"no table has number {number}")
        return table

    def _unload(self) -> None:
        """Take out the rows that the transaction hasn't written."""
        if not self.loaded:
            self.aside = None
            return
        if self.clean:
            self.work.end()
        else:
            for number, rows in self.loaded.items():
                kept = self.changes
                gone = [key for key in rows if (number, key) not in kept]
                if gone:
                    self.work.unload(self._table(number), gone)
        self._nothing_loaded()

    def _lock(self, bound: BoundPlan) -> None:
        """SELECT ... FOR UPDATE: these rows must be the same at commit."""
        for table in bound.tables:
            for number, row in self.loaded.get(table.number, {}).items():
                self.locked.setdefault((table.number, number), (table, row))

    # ------------------------------------------------------------ writes

    def _write(self, call: Call, bound: BoundPlan) -> Result:
        if bound.target is None:
            raise NotSupportedError(f"the statement {call.sql.split(None, 1)[0]}")
        sets = call.parameters if call.many else call.parameters[:1] or ((),)
        if bound.insert is not None and (plainly := self._insert(call, bound.insert, sets)):
            return plainly
        self._settle()
        if bound.fetches:
            self.reading_calls += 1
            steps: list[Step] = []
            for parameters in sets:
                steps += bound.steps(parameters, call.layout, self.changes, len(steps))[0]
            if self.aside is not None and bound.by_number:
                aside, self.aside = self.aside, None
                self.work.ensure([self._table(step[0]) for step in aside[0]], self.clean)
                self._bring_in(*aside)
            if not self._all_here(bound, steps):
                self.fetch(steps, bound)
        else:
            self._unload()
            self.work.ensure(bound.tables, self.clean)
            self.work.begin()
        known = self.relied.get(bound.target.number, set())
        if known is not None:
            relied = bound.relied
            self.relied[bound.target.number] = None if relied is None else known | relied
        self.assigned.setdefault(bound.target.number, set()).update(bound.assigned)
        call.given = 0
        taken = list(call.taken) if call.replaying else []
        for _ in range(20):
            self.work.run("SAVEPOINT rome_statement")
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
                    self.work.run("ROLLBACK TO rome_statement")
                    self.work.forget_tables_made_inside()
                    for number, row_number in self._statement_loaded:
                        self.loaded.get(number, {}).pop(row_number, None)
                    for key in self._statement_new:
                        self.changes.pop(key, None)
                    for key in self._statement_old:
                        change = self.changes[key]
                        change.row = self.work.row(change.table, key[1])
                self.work.run("RELEASE rome_statement")
            # Rows that the statement collides with came from the store: run it again.
            self._reads.discard()
            for number, rows in self._missing:
                self.load(number, rows)
        raise ConflictError("the statement's keys are changed by others all the time; try again")

    def _all_here(self, bound: BoundPlan, steps: list[Step]) -> bool:
        """Whether the statement names rows by number that this transaction has read."""
        target = bound.target
        if not bound.by_number or len(steps) != 1 or self.serializable or target is None:
            return False
        if self.partial and target.name.lower() in self.schema.children:
            return False  # children may be here in part, and follow
        table, lookups = steps[0][0], steps[0][1]
        if table in self.partial:
            return False
        here = self.loaded.get(table, {})
        return all(
            int(key) in here or (table, int(key)) in self.changes
            for lookup in lookups
            if lookup[0] == "row"
            for key in lookup[2]
        )

    def _apply(self, call: Call, bound: BoundPlan, sets: Sequence[Sequence[Any]]) -> Result | None:
        """Run the statement and check its keys; None: again, with the rows in _missing."""
        self._statement_new: set[Key] = set()
        self._statement_old: set[Key] = set()
        self._statement_loaded = []
        self._missing: list[tuple[int, list[bytes]]] = []
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
            more, description, changed, touches = self.work.write(call.sql, parameters)
            if inserts and target is not None and target.key is not None:
                new = [t.after for t in touches if t.op == "INSERT" and t.table == target.name]
                past = first + len(new)
                if new and not bound.chosen_key and past > first + wanted:
                    # More rows than numbers were taken for: again with enough.
                    call.plan.hints[call.sql] = len(new)
                    self.ids.give_back(target.number, first, wanted)
                    return None
                lastrowid = new[-1] if new else lastrowid
            self._note(call, bound, touches, touched, first)
            removing += [touch for touch in touches if touch.old is not None]
            rows += more
            count += changed
        if self.check_foreign_keys and removing:
            self._note(call, bound, self._foreign.follow(removing), touched)
        if not self._check_keys(touched):
            return None
        rowcount = count if description is None or not bound.inserts else len(rows) or count
        return Result(rows, description, rowcount, lastrowid)

    def _insert(
        self, call: Call, insert: PlainInsert, sets: Sequence[Sequence[Any]]
    ) -> Result | None:
        """A plain INSERT, without the work area; None: that has to do it."""
        table = insert.table
        if self.savepoints or table.number in self.reworked:
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
        first = self._number(call, table, len(rows), self.used.get(table.number, 0))
        changes = []
        for number, row in enumerate(rows, first):
            if insert.key_place is not None:
                row[insert.key_place] = number
            changes.append(Change(table, number, None, tuple(row)))
        if not self._entered(changes):
            if not call.replaying:
                self.ids.give_back(table.number, first, len(rows))
                call.taken = []
            return None
        returned = [insert.returned(row) for row in rows] if insert.returning else []
        description = self.work.description(call.sql) if insert.returning else None
        last = None if table.key is None else first + len(rows) - 1
        return Result(returned, description, len(rows), last)

    def _entered(self, changes: list[Change]) -> bool:
        """Take new rows of one table among the changes; False: a key of theirs is taken."""
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
        if len(fresh) != len(keys) or fresh & self.fresh_keys:
            return False
        self._statement_new = set(places)
        self._statement_old = set()
        self._statement_loaded = []
        self._missing = []
        self.changes.update(zip(places, changes, strict=True))
        done = False
        try:
            done = self._check_keys(dict.fromkeys(places, True), in_area=False)
        finally:
            if not done:
                for place in places:
                    del self.changes[place]
        if done:
            self.pending += changes
            self.fresh_keys |= fresh
        return done

    def _steer(self, call: Call, table: Table, count: int) -> int:
        """Make SQLite number new rows with numbers of ours; the first of them."""
        if call.given < len(call.taken):
            _, first, had = call.taken[call.given]
            if had < count:
                raise ConflictError("a replayed statement inserts more rows; try again")
        else:
            above = self.work.highest(table)
            first = self.ids.take(table.number, count, above, self.store.reserve)
            call.taken.append((table.number, first, count))
        call.given += 1
        self.work.set_sequence(table, first - 1)
        return first

    def _number(self, call: Call, table: Table, count: int, above: int = 0) -> int:
        """The first of numbers for rows that have none of their own."""
        if call.given < len(call.taken):
            first = call.taken[call.given][1]
        else:
            first = self.ids.take(table.number, count, above, self.store.reserve)
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
        tables = self.schema.tables
        new_rows: dict[int, tuple[Table, list[int]]] = {}
        for touch in touches:
            table = tables.get(touch.table.lower())
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
        present = [
            n
            for n in dict.fromkeys(numbers)
            if (c := self.changes.get((table.number, n))) and c.row is not None and c.base is None
        ]
        if not present:
            return
        first = self._number(call, table, len(present))
        pairs = [(old, first + i) for i, old in enumerate(present)]
        self.work.renumber(table, pairs)
        moved = []
        for old, new in pairs:
            key = (table.number, old)
            change = self.changes.pop(key)
            touched.pop(key, None)
            self._statement_new.discard(key)
            for _, keys in self.savepoints:
                keys.discard(key)
            change.number = new
            moved.append(change)
        for change in moved:
            key = (table.number, change.number)
            self.changes[key] = change
            touched[key] = True
            self._statement_new.add(key)
            if self.savepoints:
                self.savepoints[-1][1].add(key)

    def _touch(
        self, table: Table, number: int, row: Row | None, touched: dict[Key, bool], ours: bool
    ) -> None:
        key = (table.number, number)
        self.reworked.add(table.number)
        change = self.changes.get(key)
        if change is None:
            base = self.loaded.get(table.number, {}).get(number)
            self.changes[key] = Change(table, number, base, row)
            self._statement_new.add(key)
            if self.savepoints:
                self.savepoints[-1][1].add(key)
        else:
            change.row = row
            if key not in self._statement_new:
                self._statement_old.add(key)
        touched[key] = ours and touched.get(key, True)

    def _chosen(self, table: Table, number: int) -> None:
        if abs(number) > LARGEST_NUMBER:
            raise DataError(
                f"{table.name}.{table.names([table.key or 0])[0]}: {number} is too large a key;"
                f" the largest is {LARGEST_NUMBER}"
            )
        self.used[table.number] = max(self.used.get(table.number, 0), number)
        self.ids.passed(table.number, number)

    # ------------------------------------------------------------ keys

    def _check_keys(self, touched: dict[Key, bool], in_area: bool = True) -> bool:
        """Whether the store has no other row with a key that was written, and has parents.

        False: there are such rows; they are in _missing, for SQLite to decide.  `in_area`:
        SQLite has seen the statement, so rows that it had then don't collide.
        """
        changed = [self.changes[key] for key in touched if key in self.changes]
        steps = _merged(self._key_steps(changed, touched))
        parents = self._foreign.parent_steps(changed) if self.check_foreign_keys else []
        if not steps and not parents:
            return True
        asked = [*steps, *parents]
        watched = [step[0] for step in asked] if self.serializable else ()
        read = self.store.read(self.schema.version, [Request(asked, watched)])[0]
        answer, commits = read.rows or [], read.commits
        for place, commit in enumerate(commits):
            # A key that is taken, or a parent that is missing, is an answer to the application.
            if bool(answer[place]) == (place < len(steps)):
                self.reading_calls += 1
                self._saw(watched[place], commit)
        for step, rows in zip(steps, answer, strict=False):
            fresh: list[bytes] = []
            here = self.loaded.get(step[0], {}) if in_area else {}
            for number, row in zip(rows[::2], rows[1::2], strict=True):
                key = (step[0], int(number))
                own = self.changes.get(key)
                if own is None:
                    # One that came in while the statement ran may have been left out, as
                    # its key was taken by then.
                    if key[1] not in here or key in self._statement_loaded:
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
        self._foreign.parents_found(parents, answer[len(steps) :])
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
                if data is None or self._foreign.new_by_parent(table, index.slots, row):
                    continue
                if before is None or data != b"".join(before[slot] for slot in index.slots):
                    lookup = ["unique", index.number, [data], []]
                    steps.append([table.number, [lookup], [], [], [], 0, False])
        return steps

    # ------------------------------------------------------------ the end

    def rollback(self) -> None:
        """Forget everything; costs no round trip."""
        if self.calls and not self.calls[0].replaying and not self.serializable:
            self._reads.learn(self.calls)
        self.work.end()
        self._forget()

    def commit(self) -> None:
        """All writes at once; raises ConflictError, IntegrityError."""
        try:
            self._commit()
        finally:
            self.rollback()

    def _commit(self) -> None:
        token = uuid.uuid4().hex
        for attempt in range(REPLAYS):
            commit = self._request(token)
            if commit is None:
                return
            try:
                self.store.commit(commit)
                return
            except (Changed, Duplicate, SchemaChanged) as error:
                if attempt == REPLAYS - 1:
                    break
                reason = error
            if isinstance(reason, Duplicate) and reason.index < 0:
                # Given out twice: a failover or a restart has lost what was reserved.
                self.ids.forget(reason.table)
                if attempt:
                    raise ConflictError("a new row's number is taken; try again") from reason
            self.replays += 1
            time.sleep(random.random() * min(0.05, 0.001 * 2**attempt))
            self._replay(isinstance(reason, SchemaChanged))
        raise ConflictError("other transactions were faster; try again")

    def _request(self, token: str) -> Commit | None:
        writes = []
        for key, change in self.changes.items():
            number = change.table.number
            write = write_of(
                change, self.relied.get(number, set()), self.assigned.get(number, set())
            )
            if write is not None:
                if key in self.locked and write["op"] != "insert":
                    write["checks"] += whole_row(self.locked[key][1])
                writes.append(write)
        needed = bool(writes) or bool(self.locked)
        reads: list[list[Any]] = []
        if self.serializable and (needed or self.reading_calls > 1):
            reads = [[table, count] for table, count in self.seen_writes.items()]
        if not needed and not reads:
            return None
        exists: list[list[Any]] = []
        childless: list[list[Any]] = []
        if self.check_foreign_keys:
            exists = self._foreign.exists(self.changes.values())
            childless = self._foreign.childless(self.changes.values())
        for key, (table, row) in self.locked.items():
            if key not in self.changes:
                writes.append(blank_write("update", table, key[1], whole_row(row)))
        return Commit(
            version=self.schema.version,
            token=token,
            writes=writes,
            exists=exists,
            childless=childless,
            reads=reads,
            used=[[table, number] for table, number in self.used.items()],
        )

    # ------------------------------------------------------------ replay

    def _replay(self, new_schema: bool) -> None:
        """Run all statements again; raises ConflictError if an answer is another one."""
        calls = self.calls
        self.work.end()
        self._forget()
        if new_schema:
            self.work.use(self.catalogue.load(self.store))
        for call in calls:
            if call.savepoint:
                self._savepoint(*call.savepoint)
                self.calls.append(call)
                continue
            call.replaying = True
            try:
                outcome: Any = self._run(call)
            except ConflictError:
                raise
            except Error as error:
                outcome = type(error)
            seen = call.outcome
            same = (
                outcome == seen
                if not isinstance(outcome, Result) or not isinstance(seen, Result)
                else (outcome.rows, outcome.rowcount, outcome.lastrowid)
                == (seen.rows, seen.rowcount, seen.lastrowid)
            )
            if not same:
                raise ConflictError(
                    "another transaction changed what this one has read or written; try again"
                )
            self.calls.append(call)


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
