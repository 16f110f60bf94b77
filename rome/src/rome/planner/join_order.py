"""The order in which a statement's tables are accessed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rome.planner.access import Occurrence, Reduction, TopN
from rome.planner.conditions import Condition, StatementPlan
from rome.planner.predicates import COMPARISONS, Predicate, bind_condition, same_bytes
from rome.schema.tables import Table


def join_order(plan: StatementPlan, occurrences: list[tuple[int, Table]]) -> list[Occurrence]:
    """Put occurrences one after another, each found by those before it where possible."""
    tables = dict(occurrences)
    remaining = [place for place, _ in occurrences]
    steps: dict[int, int] = {}
    ordered: list[Occurrence] = []
    by_occurrence: dict[int, list[tuple[int, Condition]]] = {}
    for number, condition in enumerate(plan.conditions):
        by_occurrence.setdefault(condition.occurrence, []).append((number, condition))
    while remaining:
        best = None
        for place in remaining:
            bound = [
                (number, bound_condition)
                for number, condition in by_occurrence.get(place, ())
                if (bound_condition := bind_condition(tables, steps, condition)) is not None
            ]
            constant = any(c.index and c.op == "in" for _, c in bound)
            joined = any(c.index and c.op == "join" for _, c in bound)
            several = _whole_unique(tables[place], [c for _, c in bound])
            kind = 0 if constant or several else 1 if joined else 3 if bound else 4
            if kind > 2 and _in_range(plan, place, tables[place], bound):
                kind = 2
            # What leaves out rows of others comes before what is found by these.
            rank = kind, not _semi_joins_by(plan, place, tables, steps)
            if best is None or rank < best[0]:
                best = (rank, place, bound)
        if best is None:
            break
        _, place, bound = best
        remaining.remove(place)
        reductions = _semi_joins_by(plan, place, tables, steps)
        steps[place] = len(ordered)
        ordered.append(
            Occurrence(
                tables[place],
                [predicate for _, predicate in bound],
                reductions,
                _first_rows(plan, place, tables[place], dict(bound)),
            )
        )
    return ordered


def _in_range(
    plan: StatementPlan, place: int, table: Table, bound: Iterable[tuple[int, Predicate]]
) -> bool:
    """Tell whether an ordered index may find an occurrence's rows: a range, or the first."""
    if any(top.occurrence == place for top in plan.top_n_candidates):
        return True
    firsts = {index.slots[0] for index in table.ordered if index.ready}
    return any(c.op in COMPARISONS and c.slot in firsts for _, c in bound)


def _semi_joins_by(
    plan: StatementPlan, place: int, tables: Mapping[int, Table], steps: Mapping[int, int]
) -> list[Reduction]:
    """Return earlier steps whose rows must match one of this place: step, slot, slot here."""
    semi_joins = []
    for condition in plan.conditions:
        if condition.op != "join" or condition.source != place:
            continue
        if condition.occurrence not in steps or place not in tables:
            continue
        column = tables[condition.occurrence].column(condition.column)
        own = tables[place].column(condition.other)
        if column is not None and own is not None and same_bytes(column, own):
            semi_joins.append((steps[condition.occurrence], column.slot, own.slot))
    return semi_joins


def _first_rows(
    plan: StatementPlan, place: int, table: Table, bound: Mapping[int, Predicate]
) -> TopN | None:
    for top in plan.top_n_candidates:
        if top.occurrence != place:
            continue
        columns = [table.column(name) for name, _ in top.order]
        if not all(column and column.binary for column in columns):
            continue
        if not all(n in bound and bound[n].filter for n in top.conditions):
            continue
        order = tuple(
            (column.slot, descending)
            for column, (_, descending) in zip(columns, top.order, strict=True)
            if column
        )
        return TopN(order, [bound[n] for n in top.conditions], top.counts)
    return None


def _whole_unique(table: Table, bound: Iterable[Predicate]) -> bool:
    slots = {c.slot for c in bound if c.op == "in"}
    return any(i.ready and i.unique and slots.issuperset(i.slots) for i in table.indexes)
