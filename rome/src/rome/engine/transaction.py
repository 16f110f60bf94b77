"""One transaction: statements over rows from the store, and their commit as one step.

A statement brings the rows that it may need into the work area, in one round trip, and is
evaluated there.  What it writes stays there until commit, which ships the changed columns
together with what they rely on: for each row, the old values of the columns that the
statements' conditions and expressions used.  The commit validates these (optimistic concurrency
control).  On a conflict the transaction is retried: all its statements are run again over the
rows as they are now; if every result is what the application has seen, it commits, else it fails
with ConflictError, and the application may try again.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Sequence
from typing import Any

import apsw

from rome.engine.calls import Call, Digest, Result
from rome.engine.commit_request import commit_request
from rome.engine.explain import explain
from rome.engine.foreign_keys import ForeignKeys
from rome.engine.overlay import Overlay
from rome.engine.reads import Reads
from rome.engine.selects import Selects
from rome.engine.session import Session
from rome.engine.shared import Options, Shared
from rome.engine.working_set import NUMBER_TAKEN, InconsistentRead, WorkingSet
from rome.engine.writes import Writes
from rome.errors import (
    ConflictError,
    Error,
    NotSupportedError,
    OperationalError,
)
from rome.planner.plan import BoundPlan, Layout, Plan, TextPlan
from rome.schema.tables import fold
from rome.sqlite import errors as sqlite_errors
from rome.stores.base import Changed, Duplicate, SchemaChanged, Store

# Retries of a commit before it is given up as a conflict.
RETRIES = 30
# Rows of results that a transaction keeps as they are; of others it keeps a digest.
ROWS_KEPT = 2000
# Times that a statement's rows don't fit together before it is given up as a conflict.
INCONSISTENT_READS = 3


class Transaction:
    """The open transaction of a connection; it begins with its first statement."""

    def __init__(self, store: Store, shared: Shared, options: Options) -> None:
        session = self.session = Session(store, shared, options)
        self.reads = Reads(session, shared, options)
        self._rows = WorkingSet(session, self.reads)
        self._foreign = ForeignKeys(session, self.reads)
        self._selects = Selects(session, self.reads, self._rows)
        self._writes = Writes(session, self.reads, self._rows, self._foreign)
        self.retries = 0
        # Whether its writes are gone, as they couldn't be run again: only ROLLBACK is left.
        self.doomed = False
        self._calls: list[Call] = []  # to be run again, if a commit meets a conflict
        self._rows_kept = 0  # in the outcomes of these

    @property
    def has_work(self) -> bool:
        """Whether its commit has something to say to the store."""
        overlay = self.session.overlay
        return bool(overlay.changes or overlay.locked or self.session.serializable)

    def _forget(self) -> None:
        """Start anew, for the next transaction or for running this one again."""
        self.session.work.end()
        self.session.overlay = Overlay()
        self._calls = []
        self._rows_kept = 0
        self.reads.forget()

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
                self._calls.append(call)
            raise
        self._remember(call, result)
        self.reads.executed(call, result.rows[0] if result.rows else (result.lastrowid,))
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
            lines = explain(self.session, self.reads, call, self._bind(call))
        except apsw.Error as error:
            raise sqlite_errors.translated(error) from error
        return Result([(line,) for line in lines], (("plan", *[None] * 6),), -1, None)

    def _remember(self, call: Call, outcome: Result) -> None:
        """Keep a statement with its answer, to compare with when it is run again."""
        self._calls.append(call)
        if self._rows_kept + len(outcome.rows) <= ROWS_KEPT:
            self._rows_kept += len(outcome.rows)
            call.outcome = outcome
        else:
            call.outcome = Digest.of(outcome)

    def savepoint(self, word: str, name: str) -> None:
        """Run SAVEPOINT, RELEASE or ROLLBACK TO (the word) for a savepoint."""
        if self.doomed and word == "ROLLBACK TO":
            return  # or its error would hide the conflict that led to it
        self._check()
        call = Call("", (), False, TextPlan(), {}, savepoint=(word, name))
        self._savepoint(word, name)
        self._calls.append(call)

    def _savepoint(self, word: str, name: str) -> None:
        session, overlay = self.session, self.session.overlay
        name = fold(name)
        names = [open_name for open_name, _ in overlay.savepoints]
        if word == "SAVEPOINT":
            self._begin()
            self._rows.flush()
            session.schema  # noqa: B018 - the work area must have one before it is marked
            session.work.begin()
            session.work.run(f'SAVEPOINT "{name}"')
            overlay.savepoints.append((name, overlay.mark()))
            return
        if name not in names:
            raise OperationalError(f"no such savepoint: {name}")
        place = len(names) - 1 - names[::-1].index(name)
        if word == "RELEASE":
            session.work.run(f'RELEASE "{name}"')
            del overlay.savepoints[place:]
            return
        session.work.run(f'ROLLBACK TO "{name}"')
        session.work.forget_tables_made_inside()
        del overlay.savepoints[place + 1 :]
        overlay.back_to(overlay.savepoints[place][1])
        overlay.keys_given_back(overlay.free_then)
        # Rows that came in meanwhile are gone, older ones are back: all are fetched anew.
        for number in overlay.ever_loaded:
            numbers = [key for table, key in overlay.changes if table == number]
            session.work.keep_only(session.table_of(number), numbers)
        overlay.nothing_loaded()

    def _begin(self) -> None:
        """Begin a transaction with the newest schema that this process knows."""
        session, overlay = self.session, self.session.overlay
        mine, newest = session.work.schema, session.catalogue.schema
        if mine is not None and mine is not newest and not self._calls and overlay.clean:
            self._rows.use(newest)

    def _run(self, call: Call) -> Result:
        session = self.session
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
                self._rows.unload()
            except apsw.SQLError as error:
                # Perhaps it speaks of a table or a column that was made since.
                version = session.schema.version
                if attempt or session.catalogue.load(session.store).version == version:
                    raise sqlite_errors.translated(error) from error
                self._new_schema()
            except apsw.Error as error:
                raise sqlite_errors.translated(error) from error
        raise ConflictError("the schema is changed by others all the time; try again")

    def _new_schema(self) -> None:
        """Go on with the schema as it is now; raises ConflictError if what the transaction has
        written and read so far would have been answered otherwise."""
        session, overlay = self.session, self.session.overlay
        if overlay.changes:
            try:
                self._retry(new_schema=True)
            except Error:
                self.doomed = True
                raise
            return
        self._rows.use(session.catalogue.load(session.store))
        if overlay.savepoints:
            session.work.begin()
            for name, _ in overlay.savepoints:
                session.work.run(f'SAVEPOINT "{name}"')

    def _run_once(self, call: Call) -> Result:
        self.reads.begin(call)
        bound = self._bind(call)
        if bound.reads_only:
            return self._selects.select(call, bound)
        return self._writes.write(call, bound)

    def _bind(self, call: Call) -> BoundPlan:
        """Return a statement's plan for the schema as it is."""
        session, overlay = self.session, self.session.overlay
        plan = call.plan
        bound = plan.bound
        if bound is None or bound.schema is not session.schema:
            bound = plan.bind(session.schema, session.work, call.sql, overlay.clean)
        if bound.made_for is not session.work:
            # Another connection bound it: its tables may be missing here.
            session.work.ensure(bound.tables, overlay.clean)
            bound.made_for = session.work
        return bound

    def rollback(self) -> None:
        """Forget everything; costs no round trip."""
        session = self.session
        if self._calls and not self._calls[0].retrying and not session.serializable:
            self.reads.learn(self._calls)
        self._forget()
        self.doomed = False
        session.holds.release()
        if self.session.holds_rows:
            self.session.row_locks.release(self.session)
            self.session.holds_rows = False

    def commit(self) -> None:
        """Commit all writes at once.  Raises ConflictError, IntegrityError."""
        try:
            self._commit()
        finally:
            self.rollback()

    def _check(self) -> None:
        if self.doomed:
            raise ConflictError("what this transaction relied on was changed by others; try again")

    def _commit(self) -> None:
        session = self.session
        self._check()
        token = uuid.uuid4().hex
        for attempt in range(RETRIES):
            commit = commit_request(session, self._foreign, token)
            if commit is None:
                return
            try:
                try:
                    session.store.commit(commit)
                finally:
                    # Also where nobody knows whether it is done.
                    self.reads.committed({write["t"] for write in commit.writes})
                session.holds.ended()
                return
            except (Changed, Duplicate, SchemaChanged) as error:
                if attempt == RETRIES - 1:
                    break
                reason = error
            if isinstance(reason, Duplicate) and reason.index < 0:
                # Another transaction chose the number itself, or a failover has lost what was
                # reserved.  The application knows the number already.
                session.ids.forget(reason.table)
                raise ConflictError(f"{NUMBER_TAKEN}; try again") from reason
            self.retries += 1
            time.sleep(random.random() * min(0.05, 0.001 * 2**attempt))
            self._retry(isinstance(reason, SchemaChanged))
        raise ConflictError("other transactions were faster; try again")

    def _retry(self, new_schema: bool) -> None:
        """Run all statements again; raises ConflictError if an answer is another one."""
        session = self.session
        calls = self._calls
        self._forget()
        if new_schema:
            session.work.use(session.catalogue.load(session.store))
        for call in calls:
            if call.savepoint:
                self._savepoint(*call.savepoint)
                self._calls.append(call)
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
            self._calls.append(call)
