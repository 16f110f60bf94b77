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
from typing import Any

import apsw

from rome.engine.explain import explain
from rome.engine.selects import Selects
from rome.engine.shared import Options, Shared
from rome.engine.state import NUMBER_TAKEN, Call, Digest, InconsistentRead, Result, State
from rome.engine.writes import Writes
from rome.errors import (
    ConflictError,
    Error,
    NotSupportedError,
    OperationalError,
)
from rome.planner.plan import BoundPlan, Layout, Plan, TextPlan
from rome.schema.changes import blank_write, whole_row, write_of
from rome.schema.tables import fold
from rome.sqlite import errors as sqlite_errors
from rome.stores.base import Changed, Commit, Duplicate, SchemaChanged, Store

# Replays of a commit before it is given up as a conflict.
RETRIES = 30
# Rows of answers that a transaction keeps as they are; of others it keeps a digest.
ROWS_KEPT = 2000
# Times that a statement's rows don't fit together before it is given up as a conflict.
INCONSISTENT_READS = 3


class Transaction(State):
    """The open transaction of a connection; it begins with its first statement."""

    def __init__(self, store: Store, shared: Shared, options: Options) -> None:
        super().__init__(store, shared, options)
        self.retries = 0
        # Whether its writes are gone, as they couldn't be run again: only ROLLBACK is left.
        self.doomed = False
        self._selects = Selects(self)
        self._writes = Writes(self)

    def execute(
        self,
        sql: str,
        parameters: Sequence[Sequence[Any]],
        many: bool,
        plan: Plan,
        layout: Layout,
    ) -> Result:
        """Run a statement and remember it."""
        self._check()
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
        self._remember(call, result)
        return result

    def explain(
        self, sql: str, parameters: Sequence[Sequence[Any]], plan: Plan, layout: Layout
    ) -> Result:
        """Return the plan of a statement, which isn't run: a row for each line."""
        self._check()
        if plan.refused:
            raise NotSupportedError(plan.refused)
        call = Call(sql, parameters, False, plan, layout)
        try:
            self._begin()
            lines = explain(self, call, self._bind(call))
        except apsw.Error as error:
            raise sqlite_errors.translated(error) from error
        return Result([(line,) for line in lines], (("plan", *[None] * 6),), -1, None)

    def _remember(self, call: Call, outcome: Result) -> None:
        """Keep a statement with its answer, to compare with when it is run again."""
        self.calls.append(call)
        if self.rows_kept + len(outcome.rows) <= ROWS_KEPT:
            self.rows_kept += len(outcome.rows)
            call.outcome = outcome
        else:
            call.outcome = Digest.of(outcome)

    def savepoint(self, word: str, name: str) -> None:
        """SAVEPOINT, RELEASE or ROLLBACK TO (the word) a savepoint."""
        if self.doomed and word == "ROLLBACK TO":
            return  # or its error would hide the conflict that led to it
        self._check()
        call = Call("", (), False, TextPlan(), {}, savepoint=(word, name))
        self._savepoint(word, name)
        self.calls.append(call)

    def _savepoint(self, word: str, name: str) -> None:
        name = fold(name)
        names = [open_name for open_name, _ in self.savepoints]
        if word == "SAVEPOINT":
            self._begin()
            self.flush()
            self.schema  # noqa: B018 - the work area must have one before it is marked
            self.work.begin()
            self.work.run(f'SAVEPOINT "{name}"')
            self.savepoints.append((name, self.overlay.mark()))
            return
        if name not in names:
            raise OperationalError(f"no such savepoint: {name}")
        place = len(names) - 1 - names[::-1].index(name)
        if word == "RELEASE":
            self.work.run(f'RELEASE "{name}"')
            del self.savepoints[place:]
            return
        self.work.run(f'ROLLBACK TO "{name}"')
        self.work.forget_tables_made_inside()
        del self.savepoints[place + 1 :]
        self.overlay.back_to(self.savepoints[place][1])
        self.keys_given_back(self.free_then)
        # Rows that came in meanwhile are gone, older ones are back: all are fetched anew.
        for number in self.ever_loaded:
            kept = [key for table, key in self.changes if table == number]
            self.work.keep_only(self.table_of(number), kept)
        self.nothing_loaded()

    def _begin(self) -> None:
        """Begin a transaction with the newest schema that this process knows."""
        mine, newest = self.work.schema, self.catalogue.schema
        if mine is not None and mine is not newest and not self.calls and self.clean:
            self.use(newest)

    def _run(self, call: Call) -> Result:
        self._begin()
        inconsistent = 0
        for attempt in range(20):
            try:
                return self._run_once(call)
            except SchemaChanged:
                self._new_schema()
            except InconsistentRead:
                inconsistent += 1
                if inconsistent == INCONSISTENT_READS:
                    raise ConflictError(
                        "another transaction has taken a key of a row that this one has written;"
                        " try again"
                    ) from None
                self.unload()
            except apsw.SQLError as error:
                # Perhaps it speaks of a table or a column that was made since.
                known = self.schema.version
                if attempt or self.catalogue.load(self.store).version == known:
                    raise sqlite_errors.translated(error) from error
                self._new_schema()
            except apsw.Error as error:
                raise sqlite_errors.translated(error) from error
        raise ConflictError("the schema is changed by others all the time; try again")

    def _new_schema(self) -> None:
        """Go on with the schema as it is now; raises ConflictError if what the transaction has
        written and read so far would have been answered otherwise."""
        if self.changes:
            try:
                self._retry(new_schema=True)
            except Error:
                self.doomed = True
                raise
            return
        self.use(self.catalogue.load(self.store))
        if self.savepoints:
            self.work.begin()
            for name, _ in self.savepoints:
                self.work.run(f'SAVEPOINT "{name}"')

    def _run_once(self, call: Call) -> Result:
        self.reads.begin(call)
        bound = self._bind(call)
        if bound.reads_only:
            return self._selects.select(call, bound)
        return self._writes.write(call, bound)

    def _bind(self, call: Call) -> BoundPlan:
        """Return a statement's plan for the schema as it is."""
        plan = call.plan
        bound = plan.bound
        if bound is None or bound.schema is not self.schema:
            bound = plan.bind(self.schema, self.work, call.sql, self.clean)
        if bound.made_for is not self.work:
            # Another connection bound it: its tables may be missing here.
            self.work.ensure(bound.tables, self.clean)
            bound.made_for = self.work
        return bound

    def rollback(self) -> None:
        """Forget everything; costs no round trip."""
        if self.calls and not self.calls[0].retrying and not self.serializable:
            self.reads.learn(self.calls)
        self.work.end()
        self.forget()
        self.doomed = False
        if self.holds_rows:
            self.row_locks.release(self)
            self.holds_rows = False

    def commit(self) -> None:
        """All writes at once; raises ConflictError, IntegrityError."""
        try:
            self._commit()
        finally:
            self.rollback()

    def _check(self) -> None:
        if self.doomed:
            raise ConflictError("what this transaction relied on was changed by others; try again")

    def _commit(self) -> None:
        self._check()
        token = uuid.uuid4().hex
        for attempt in range(RETRIES):
            commit = self._request(token)
            if commit is None:
                return
            try:
                try:
                    self.store.commit(commit)
                finally:
                    # Also where nobody knows whether it is done.
                    self.reads.committed({write["t"] for write in commit.writes})
                return
            except (Changed, Duplicate, SchemaChanged) as error:
                if attempt == RETRIES - 1:
                    break
                reason = error
            if isinstance(reason, Duplicate) and reason.index < 0:
                # Another transaction chose the number itself, or a failover has lost what was
                # reserved.  The application knows the number already.
                self.ids.forget(reason.table)
                raise ConflictError(f"{NUMBER_TAKEN}; try again") from reason
            self.retries += 1
            time.sleep(random.random() * min(0.05, 0.001 * 2**attempt))
            self._retry(isinstance(reason, SchemaChanged))
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
            exists = self.foreign.exists(self.changes.values())
            childless = self.foreign.childless(self.changes.values())
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

    def _retry(self, new_schema: bool) -> None:
        """Run all statements again; raises ConflictError if an answer is another one."""
        calls = self.calls
        self.work.end()
        self.forget()
        if new_schema:
            self.work.use(self.catalogue.load(self.store))
        for call in calls:
            if call.savepoint:
                self._savepoint(*call.savepoint)
                self.calls.append(call)
                continue
            call.retrying = True
            outcome: Result | type[Error]
            try:
                outcome = self._run(call)
            except ConflictError:
                raise
            except Error as error:
                outcome = type(error)
            if not call.answered(outcome):
                raise ConflictError(
                    "another transaction changed what this one has read or written; try again"
                )
            self.calls.append(call)
