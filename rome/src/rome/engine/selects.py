"""SELECTs: answered from rows of the store, by the store itself, or by SQLite in the work area."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rome.engine.calls import Call, Result
from rome.engine.reads import ReadRequest, Reads
from rome.engine.session import Session
from rome.engine.working_set import WorkingSet
from rome.planner.plan import BoundPlan
from rome.schema.changes import index_data
from rome.stores.rows import unpack_value
from rome.stores.values import sort_key
from rome.stores.wire import JoinLookup, KeyLookup, Lookup, Step


class Selects:
    """The SELECTs of a transaction."""

    def __init__(self, session: Session, reads: Reads, rows: WorkingSet) -> None:
        self._session = session
        self._reads = reads
        self._rows = rows

    def select(self, call: Call, bound: BoundPlan) -> Result:
        """Return the result of one."""
        session, rows = self._session, self._rows
        if not bound.tables:
            return self._evaluate(call)
        request = self._reads.plan_read(bound, call.sql, call.first_parameters, call.layout)
        if not request.store_only:
            rows.flush()
        if needs_no_rows(session, request.steps):
            rows.prepare(bound.tables)
        elif request.store_only:
            return self._read_store(call, bound, request)
        else:
            rows.fetch(request.steps, bound)
        if bound.locks:
            self._lock(bound)
        return self._evaluate(call)

    def _read_store(self, call: Call, bound: BoundPlan, request: ReadRequest) -> Result:
        """Return the result of a SELECT from rows of the store only."""
        session, overlay = self._session, self._session.overlay
        overlay.reading_calls += 1
        answer = self._reads.read(request)
        if session.serializable:
            overlay.saw_all(request.sent, answer.commits)
        aggregated = request.sent is not request.steps
        if answer.rows is None and request.cached is not None:
            self._rows.unload()
            if not aggregated:
                overlay.aside = request.steps, request.cached.found
            cached: Result = request.cached.result
            return cached
        row_lists = answer.rows or []
        if not aggregated:
            result = self._project_or_evaluate(call, bound, request, row_lists)
        elif (groups := self._take_groups(call, row_lists)) is not None:
            result = groups
        else:
            self._rows.fetch(request.steps, bound)
            return self._evaluate(call)
        cache = self._reads.result_cache
        if cache is not None and request.key is not None:
            cache.put(request.key, result, [] if aggregated else row_lists, answer.commits)
        return result

    def _project_or_evaluate(
        self, call: Call, bound: BoundPlan, request: ReadRequest, row_lists: list[list[bytes]]
    ) -> Result:
        """Return the result from rows that have come: by a projection where that is enough."""
        overlay, work = self._session.overlay, self._session.work
        self._rows.unload()
        if request.pushed_down and bound.projection is not None:
            window = bound.window(call.first_parameters, call.layout)
            if window is not None:
                rows = bound.projection.answer(row_lists[0], window)
                overlay.aside = request.steps, row_lists
                return Result(rows, work.description(call.sql), -1, None)
        work.ensure(bound.tables, overlay.clean)
        self._rows.bring_in(request.steps, row_lists)
        return Result(*work.query(call.sql, call.first_parameters), -1, None)

    def _take_groups(self, call: Call, row_lists: list[list[Any]]) -> Result | None:
        """Return counts, sums and extremes as the store has found them; None: it met values that
        it can't add without loss."""
        (groups,) = row_lists
        if groups and groups[0] == b"no":
            return None
        rows = [tuple(map(unpack_value, group)) for group in groups]
        if len(rows) > 1:
            # GROUP BY, in the order that SQLite gives.
            rows.sort(key=lambda row: [sort_key(value) for value in row])
        return Result(rows, self._session.work.description(call.sql), -1, None)

    def _evaluate(self, call: Call) -> Result:
        """Return the result over the rows in the work area."""
        self._session.overlay.reading_calls += 1
        return Result(*self._session.work.query(call.sql, call.first_parameters), -1, None)

    def _lock(self, bound: BoundPlan) -> None:
        """Let the commit check the rows of a SELECT ... FOR UPDATE."""
        overlay = self._session.overlay
        for table in bound.tables:
            for number in overlay.loaded.get(table.number, {}):
                overlay.lock(table, number)


def needs_no_rows(session: Session, steps: Sequence[Step]) -> bool:
    """Tell whether no row of the store is needed: the one row with a unique key is the
    transaction's own, or the statement asks for some of no values."""
    if session.serializable:
        return False
    if _find_nothing(steps):
        return True
    if len(steps) != 1:
        return False
    for lookup in steps[0].lookups:
        if not isinstance(lookup, KeyLookup) or lookup.kind == "set" or len(lookup.keys) != 1:
            continue
        (key,) = lookup.keys
        for (table, row_number), change in session.overlay.changes.items():
            if table != steps[0].table or change.row is None:
                continue
            if lookup.kind == "row":
                if str(row_number) == key:
                    return True
                continue
            index = next((i for i in change.table.indexes if i.number == lookup.index), None)
            row = change.values
            if index and row and index_data(change.table, index, row) == key:
                return True
    return False


def _find_nothing(steps: Sequence[Step]) -> bool:
    """Tell whether each step looks for no keys, or for those of rows that such a step finds."""
    for place, step in enumerate(steps):
        if not any(_finds_nothing(lookup, place) for lookup in step.lookups):
            return False
    return True


def _finds_nothing(lookup: Lookup, place: int) -> bool:
    """Tell whether a look-up has no keys, if the steps before this place find nothing."""
    if isinstance(lookup, JoinLookup):
        return not lookup.keys and lookup.step < place
    return isinstance(lookup, KeyLookup) and not lookup.keys
