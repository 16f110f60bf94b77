"""EXPLAIN: what a statement would do if it were run now, in database engines' terms.

The plan is the one that the statement would run by in this transaction: with the rows that the
transaction has written, the results that the process has cached and what it would prefetch.
Nothing is read from the store for it, but the schema where it isn't known yet.
"""

from __future__ import annotations

import re

from rome.engine.calls import Call
from rome.engine.reads import ReadRequest, Reads, compares_keys, named_by_key
from rome.engine.selects import needs_no_rows
from rome.engine.session import Session
from rome.planner.explain import describe_steps
from rome.planner.plan import BoundPlan
from rome.schema.tables import fold
from rome.stores.wire import JoinLookup, KeyLookup, Step

_LONGEST = 100  # characters of a statement that is prefetched
# What a look-up of a constraint is.
_BY_A_KEY = Step(0, [KeyLookup("unique", 0, [])])


def explain(session: Session, reads: Reads, call: Call, bound: BoundPlan) -> list[str]:
    """Return the lines of a statement's plan."""
    if not bound.reads_only:
        return _write_lines(session, call, bound)
    if not bound.tables:
        return ["no table is read", "evaluation: in SQLite", "round trips: 0"]
    request = reads.plan_read(bound, call.sql, call.first_parameters, call.layout)
    evaluation, all_pushed_down = _evaluation(bound, call, request)
    return [
        *describe_steps(request.sent, session.schema),
        *_text_lines(call),
        _pushdown_line(all_pushed_down),
        f"evaluation: {evaluation}",
        *_transaction_lines(session, request),
        f"round trips: {_round_trips(session, reads, call, request)}",
        f"result cache: {_result_cache(session, reads, bound, request)}",
        *_prefetch_lines(reads, call),
    ]


def _write_lines(session: Session, call: Call, bound: BoundPlan) -> list[str]:
    """Return the plan of an INSERT, UPDATE or DELETE."""
    lines = []
    steps: list[Step] = []
    held = False
    trips = ["1 for COMMIT"]
    checks = _constraint_checks(session, bound)
    if checks:
        trips.insert(0, f"{_at_most(session.store.levels([_BY_A_KEY]))} for constraints")
    if bound.fetches:
        steps, _ = bound.steps(call.first_parameters, call.layout, session.overlay.changes)
        if len(steps) == 1 and not session.serializable:
            steps = [named_by_key(bound, steps[0])]
        lines = [*describe_steps(steps, session.schema), *_text_lines(call), _pushdown_line(False)]
        held = not session.serializable and compares_keys(bound, steps)
        trips.insert(0, f"{_at_most(session.store.levels(steps, held))} for the rows")
    if bound.insert is not None:
        lines.append("evaluation: rows are made from the parameters, without SQLite")
    else:
        lines.append("evaluation: in SQLite, over the rows that come and the transaction's own")
    if checks:
        lines.append(f"constraint checks: look-ups of {' and '.join(checks)}")
    lines.append(f"round trips: {', '.join(trips)}")
    way = "compare-and-set of the rows" if bound.fetches and bound.compares_and_sets else "columns"
    way += " validated at COMMIT" + ("; the rows are held" if held else "")
    lines.append(f"concurrency control: optimistic, {way}")
    return lines


def _constraint_checks(session: Session, bound: BoundPlan) -> list[str]:
    """Say which constraints have to be looked up in the store."""
    target = bound.target
    if target is None:
        return []
    assigned = {column.slot for column in target.columns} if bound.inserts else bound.assigned
    checks = []
    if any(index.unique and assigned.intersection(index.slots) for index in target.indexes):
        checks.append("unique keys")
    if session.check_foreign_keys:
        if any(assigned.intersection(foreign.slots) for foreign in target.foreign_keys):
            checks.append("parents (foreign keys)")
        if not bound.inserts and fold(target.name) in session.schema.children:
            checks.append("children (foreign keys), where a key goes")
    return checks


def _text_lines(call: Call) -> list[str]:
    if not call.plan.text_only:
        return []
    return [
        "given as text: its conditions aren't analysed, so whole tables are read; as a SQLAlchemy"
        " construct it would be planned"
    ]


def _pushdown_line(complete: bool) -> str:
    if complete:
        return "pushed down: all conditions"
    return "pushed down: what stands under the steps; SQLite tests all conditions once more"


def _evaluation(bound: BoundPlan, call: Call, request: ReadRequest) -> tuple[str, bool]:
    """Say what evaluates a SELECT, and whether all its conditions are pushed down."""
    if request.sent is not request.steps:
        return "in the store (aggregate pushdown)", True
    if (
        request.store_only
        and request.pushed_down
        and bound.projection is not None
        and bound.window(call.first_parameters, call.layout) is not None
    ):
        return "projection of the rows that come, without SQLite", True
    return "in SQLite, over the rows that come", False


def _transaction_lines(session: Session, request: ReadRequest) -> list[str]:
    if request.store_only or not session.overlay.changes:
        return []
    return [f"with rows that this transaction has written: {len(session.overlay.changes)}"]


def _round_trips(session: Session, reads: Reads, call: Call, request: ReadRequest) -> str:
    if needs_no_rows(session, request.steps):
        return "0; no row of the store is needed"
    if reads.is_prefetched(call, request):
        return "0; the rows have come with an earlier statement"
    levels = session.store.levels(request.sent)
    if levels > 1:
        return f"{_at_most(levels)}, one for each level of look-ups; more for large tables"
    if any(_may_be_large(step) for step in request.sent):
        return "1; more, page by page, where more than some 4000 rows are looked at"
    return "1"


def _at_most(levels: int) -> str:
    return "1" if levels == 1 else f"up to {levels}"


def _may_be_large(step: Step) -> bool:
    """Tell whether a step may look at many rows: no look-up names each of them by a key."""
    return not any(
        isinstance(lookup, KeyLookup | JoinLookup) and lookup.kind != "set"
        for lookup in step.lookups
    )


def _result_cache(session: Session, reads: Reads, bound: BoundPlan, request: ReadRequest) -> str:
    if reads.result_cache is None:
        return "off"
    if session.serializable:
        return "not used by serializable transactions"
    if bound.locks:
        return "not used, as the statement locks rows"
    if not bound.repeatable:
        return "not used, as the statement may give another result each time"
    if not request.store_only:
        return "not used, as this transaction has written to the tables"
    if request.cached is not None:
        return "hit; used if the store knows no later commit to the tables"
    return "miss; the result will be cached"


def _prefetch_lines(reads: Reads, call: Call) -> list[str]:
    if not reads.prefetches:
        return ["prefetching: off"]
    statements = reads.prefetch_plan(call)
    if not statements:
        return ["prefetching: nothing; no statement is known to follow this one"]
    lines = ["prefetching: in the same round trip the rows of"]
    for sql in statements:
        text = re.sub(r"\s+", " ", sql)
        lines.append(f"  {text if len(text) <= _LONGEST else text[: _LONGEST - 3] + '...'}")
    return lines
