"""Unique keys and foreign keys of the rows that a statement wrote, looked up in the store."""

from __future__ import annotations

from collections.abc import Sequence

from rome.engine.foreign_keys import FAILED, ForeignKeys
from rome.engine.reads import Reads
from rome.engine.session import Session
from rome.engine.statement_run import StatementRun, merged
from rome.engine.working_set import NUMBER_TAKEN, InconsistentRead
from rome.errors import ConflictError, IntegrityError
from rome.schema.changes import Change, index_data
from rome.stores.base import Request
from rome.stores.wire import KeyLookup, Step


class ConstraintChecks:
    """The look-ups of one statement's keys and parents: one round trip."""

    def __init__(self, session: Session, reads: Reads, foreign: ForeignKeys) -> None:
        self._session = session
        self._reads = reads
        self._foreign = foreign

    def hold(self, run: StatementRun, in_area: bool = True) -> bool:
        """Tell whether the store has no other row with a key that was written, and has parents.

        False: there are such rows; they are in `run.missing`, for SQLite to decide.  `in_area`:
        SQLite has seen the statement, so rows that it had then don't collide.
        """
        session, changes = self._session, self._session.overlay.changes
        changed = [changes[key] for key in run.touched if key in changes]
        key_steps = self._key_steps(changed, run)
        steps = merged(key_steps)
        parents: list[Step] = []
        if session.check_foreign_keys:
            parents = self._foreign.parent_steps(changed, run.require, run.read_now)
        if not steps and not parents:
            return True
        if self._reads.keys_hold(key_steps, parents):
            return True
        lookups = [*steps, *parents]
        watched = [step.table for step in lookups] if session.serializable else []
        request = Request(lookups, watched, keys=len(steps))
        read = self._reads.check(request, [*key_steps, *parents], len(key_steps))
        answer = read.rows or []
        self._note_read(len(steps), answer, watched, read.commits)
        self._collect_missing(run, steps, answer, in_area)
        if run.missing:
            if run.fetches:
                run.missing = []
                collisions = run.uncovered(key_steps)
                if not collisions:
                    raise InconsistentRead(changed[0].table.number, [])
                run.require(collisions)
            return False
        lacking = self._foreign.parents_lacking(parents, answer[len(steps) :])
        if lacking and run.fetches:
            # Perhaps the rows that lack them aren't there any more, either.
            run.require(lacking)
        if lacking:
            raise IntegrityError(FAILED)
        return True

    def _note_read(
        self,
        keys: int,
        answer: Sequence[list[bytes]],
        watched: Sequence[int],
        commits: Sequence[str],
    ) -> None:
        """Note what a serializable transaction has learnt; the first `keys` steps are of keys."""
        overlay = self._session.overlay
        for place, commit in enumerate(commits):
            # A key that is taken, or a parent that is missing, is an answer to the application.
            if bool(answer[place]) == (place < keys):
                overlay.reading_calls += 1
                overlay.saw(watched[place], commit)
            elif place < keys:
                overlay.free_then.setdefault(watched[place], commit)

    def _collect_missing(
        self, run: StatementRun, steps: Sequence[Step], answer: Sequence[list[bytes]], in_area: bool
    ) -> None:
        """Put the rows of the store that the statement collides with into `run.missing`."""
        overlay = self._session.overlay
        new = overlay.noted_since(run.mark)
        for step, rows in zip(steps, answer, strict=False):
            fresh: list[bytes] = []
            here = overlay.loaded.get(step.table, {}) if in_area else {}
            for number, row in zip(rows[::2], rows[1::2], strict=True):
                key = (step.table, int(number))
                own = overlay.changes.get(key)
                if own is None:
                    # One that came in while the statement ran may have been left out, as
                    # its key was taken by then.
                    if key[1] not in here or key in overlay.statement_loaded:
                        fresh += (number, row)
                elif own.base is None:
                    # A row of ours has a number that is taken.
                    if key not in new:
                        raise ConflictError(f"{NUMBER_TAKEN}; try again")
                    fresh += (number, row)
            if fresh:
                run.missing.append((step.table, fresh))

    def _key_steps(self, changed: list[Change], run: StatementRun) -> list[Step]:
        steps: list[Step] = []
        for change in changed:
            table = change.table
            if change.row is None:
                continue
            if change.base is None and not run.touched[table.number, change.number]:
                steps.append(Step(table.number, [KeyLookup("row", 0, [str(change.number)])]))
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
                    steps.append(Step(table.number, [KeyLookup("unique", index.number, [data])]))
        return steps
