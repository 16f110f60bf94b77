"""SELECTs: answered from rows of the store, by the store itself, or by SQLite in the work area."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rome.engine.reads import ReadRequest
from rome.engine.state import Call, Result, State
from rome.planner.plan import BoundPlan
from rome.schema.changes import index_data
from rome.stores.rows import unpack_value
from rome.stores.values import sort_key
from rome.stores.wire import JoinLookup, KeyLookup, Lookup, Step


class Selects:
    """The SELECTs of a transaction."""

    def __init__(self, state: State) -> None:
        self._state = state

    def select(self, call: Call, bound: BoundPlan) -> Result:
        """The answer of one."""
        state = self._state
        parameters = call.parameters[0] if call.parameters else ()
        if not bound.tables:
            return self._evaluated(call, parameters)
        read_request = state.reads.plan_read(bound, call.sql, parameters, call.layout)
        if not read_request.store_only:
            state.flush()
        if needs_no_rows(state, read_request.steps):
            state.unload()
            state.work.ensure(bound.tables, state.clean)
        elif read_request.store_only:
            return self._read_plainly(call, bound, read_request, parameters)
        else:
            state.fetch(read_request.steps, bound)
        if bound.locks:
            self._lock(bound)
        return self._evaluated(call, parameters)

    def _read_plainly(
        self, call: Call, bound: BoundPlan, read_request: ReadRequest, parameters: Sequence[Any]
    ) -> Result:
        """The answer of a SELECT from rows of the store only."""
        state = self._state
        state.reading_calls += 1
        answer = state.reads.read(read_request)
        state.saw_all(read_request.sent, answer.commits)
        kept, found = read_request.cached, answer.rows
        summed = read_request.sent is not read_request.steps
        if found is None and kept is not None:
            state.unload()
            if not summed:
                state.aside = read_request.steps, kept.found
            known: Result = kept.result
            return known
        found = found or []
        if summed:
            result = self._sums(call, found)
            if result is None:
                state.fetch(read_request.steps, bound)
                return self._evaluated(call, parameters)
        else:
            result = self._rows(call, bound, read_request, found, parameters)
        if state.reads.result_cache is not None and read_request.key is not None:
            state.reads.result_cache.put(
                read_request.key, result, [] if summed else found, answer.commits
            )
        return result

    def _rows(
        self,
        call: Call,
        bound: BoundPlan,
        read_request: ReadRequest,
        found: list[list[bytes]],
        parameters: Sequence[Any],
    ) -> Result:
        state = self._state
        state.unload()
        window = None
        if read_request.pushed_down and bound.projection is not None:
            window = bound.window(parameters, call.layout)
        if bound.projection is not None and window is not None:
            rows = bound.projection.answer(found[0], window)
            state.aside = read_request.steps, found
            return Result(rows, state.work.description(call.sql), -1, None)
        state.work.ensure(bound.tables, state.clean)
        state.bring_in(read_request.steps, found)
        return Result(*state.work.query(call.sql, parameters), -1, None)

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
        return Result(rows, self._state.work.description(call.sql), -1, None)

    def _evaluated(self, call: Call, parameters: Sequence[Any]) -> Result:
        """The answer over the rows in the work area."""
        state = self._state
        state.reading_calls += 1
        return Result(*state.work.query(call.sql, parameters), -1, None)

    def _lock(self, bound: BoundPlan) -> None:
        """SELECT ... FOR UPDATE: these rows must be the same at commit."""
        state = self._state
        for table in bound.tables:
            for number in state.loaded.get(table.number, {}):
                state.lock(table, number)


def needs_no_rows(state: State, steps: Sequence[Step]) -> bool:
    """Tell whether no row of the store is needed: the one row with a unique key is the
    transaction's own, or the statement asks for some of no values."""
    if state.serializable:
        return False
    if _find_nothing(steps):
        return True
    if len(steps) != 1:
        return False
    for lookup in steps[0].lookups:
        if not isinstance(lookup, KeyLookup) or lookup.kind == "set" or len(lookup.keys) != 1:
            continue
        (key,) = lookup.keys
        for (table, row_number), change in state.changes.items():
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
    """Whether each step looks for no keys, or for those of rows that such a step finds."""
    for place, step in enumerate(steps):
        if not any(_finds_nothing(lookup, place) for lookup in step.lookups):
            return False
    return True


def _finds_nothing(lookup: Lookup, place: int) -> bool:
    """Tell whether a look-up has no keys, if the steps before this place find nothing."""
    if isinstance(lookup, JoinLookup):
        return not lookup.keys and lookup.step < place
    return isinstance(lookup, KeyLookup) and not lookup.keys
