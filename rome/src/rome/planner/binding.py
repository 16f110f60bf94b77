"""A plan for one version of the schema."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rome.planner.access import TopN, Values, steps_of
from rome.planner.conditions import Constant, Layout, StatementPlan, plain_values
from rome.planner.inserts import PlainInsert
from rome.planner.join_order import join_order
from rome.planner.projection import Projection
from rome.schema.alter import plain
from rome.schema.tables import Table, fold
from rome.stores.wire import Aggregation, Step

if TYPE_CHECKING:
    from rome.planner.footprint import Footprint
    from rome.planner.workspace import Workspace
    from rome.schema.catalogue import Schema

_NUMERIC = ("INTEGER", "REAL", "NUMERIC")
_COLUMNS = re.compile(
    r"\s*(?:INSERT|REPLACE)\b[^(]*?\bINTO\s+(?:\"[^\"]*\"|\S+?)\s*\(([^()]*)\)", re.I
)

# Functions whose value is another one each time; a column of such a name only costs time.
_CHANGING = re.compile(
    r"\b(?:random|randomblob|current_\w+|date|time|datetime|julianday|unixepoch|strftime|timediff"
    r"|changes|total_changes|last_insert_rowid)\b",
    re.IGNORECASE,
)


class BoundPlan:
    """A plan for one version of the schema."""

    def __init__(
        self,
        plan: StatementPlan,
        schema: Schema,
        sql: str,
        footprint: Footprint,
    ) -> None:
        names, reads_only = footprint.columns, footprint.reads_only
        self.schema = schema
        self.plan = plan
        self.reads_only = reads_only
        self.locks = plan.locks
        self.made_for: Workspace | None = None
        self.insert: PlainInsert | None = None  # rows that are computed without SQLite
        word = sql.split(None, 1)[0].upper() if sql.strip() else ""
        kind = plan.kind or word.lower()
        self.inserts = kind in ("insert", "replace")
        read = [schema.tables[name] for name in sorted(names) if name in schema.tables]
        self.tables = read
        self.numbers = tuple(table.number for table in read if not table.is_view)
        # Whether the same rows give the same answer.
        self.repeatable = reads_only and not plan.locks and not changes_by_itself(sql)
        target = None if reads_only else self._target(plan, sql, kind, read)
        self.target = target
        columns_set = [target.column(name) for name in footprint.assigned] if target else []
        self.assigned = {column.slot for column in columns_set if column}
        self.relied: set[int] | None = None
        if target is not None and plan.relied is not None:
            columns = [target.column(name) for name in plan.relied]
            if None not in columns:
                self.relied = {c.slot for c in columns if c and c.slot != target.key}
        # Whether it changes rows only if they are as they should be, in what it changes.
        self.compares_and_sets = self.relied is None or not self.relied.isdisjoint(self.assigned)
        self.chosen_key = not reads_only and self._chosen_key(sql, target)
        occurrences: list[tuple[int, Table]] = [
            (place, schema.tables[name])
            for place, name in enumerate(plan.occurrences)
            if name in schema.tables and not schema.tables[name].is_view
        ]
        covered = {
            table.name for _, table in occurrences if fold(table.name) not in plan.partly_known
        }
        if plan.text_inside or any(table.is_view for table in read):
            covered = set()
        if self.inserts and target is not None:
            # Rows that collide come when its keys are checked; but it may be read as well, at a
            # place that the plan doesn't know.
            name = fold(target.name)
            analysed = not (plan.text_only or plan.text_inside or name in plan.partly_known)
            if analysed or name not in footprint.read:
                covered.add(target.name)
        whole = [t for t in read if t.name not in covered and not t.is_view]
        self._occurrences = join_order(plan, occurrences)
        # The columns that come, of tables of which few are read; False: all.
        self.parts: dict[int, tuple[int, ...]] = {}
        if reads_only and not plan.locks:
            for table in read:
                part = _part(table, names[fold(table.name)])
                if part:
                    self.parts[table.number] = part
        self._whole = [
            Step(t.number, defaults=t.packed_defaults, columns=self.parts.get(t.number))
            for t in whole
        ]
        self.fetches = bool(self._occurrences or self._whole)
        self.by_number = (
            len(self._occurrences) == 1
            and not self._whole
            and target is not None
            and [(c.op, c.slot) for c in self._occurrences[0].predicates] == [("in", target.key)]
            and not self.relied
            and self.relied is not None
        )
        self.aggregate = self._aggregate(plan)
        self._walk_to_extreme()
        self.projection = self._projection(plan)

    @staticmethod
    def _target(plan: StatementPlan, sql: str, kind: str, read: list[Table]) -> Table | None:
        if plan.target is not None:
            return next((t for t in read if fold(t.name) == plan.target), None)
        match = re.match(
            r"\s*(?:WITH\b.*?\)\s*)?(?:INSERT|REPLACE|UPDATE|DELETE)\b\s*(?:OR\s+\w+\s+)?"
            r"(?:INTO\s+|FROM\s+)?(?:main\s*\.\s*)?(\"(?:[^\"]|\"\")*\"|`[^`]*`|\[[^\]]*\]|\w+)",
            sql,
            re.I | re.S,
        )
        if match is None:
            return None
        name = fold(plain(match[1]))
        return next((t for t in read if fold(t.name) == name), None)

    @staticmethod
    def _chosen_key(sql: str, target: Table | None) -> bool:
        """Tell whether an INSERT gives the row number itself."""
        if target is None or target.key is None:
            return False
        match = _COLUMNS.match(sql)
        if match is None:
            return not re.search(r"\bDEFAULT\s+VALUES\b", sql, re.I)
        names = [fold(name.strip().strip('"`[]')) for name in match[1].split(",")]
        return fold(target.slots[target.key] or "") in names

    def _aggregate(self, plan: StatementPlan) -> Aggregation | None:
        """Return the aggregation that the store can do instead of giving rows."""
        aggregate = plan.aggregate
        if aggregate is None or not self.reads_only or len(self._occurrences) != 1 or self._whole:
            return None
        table = self._occurrences[0].table
        used = len(self._occurrences[0].predicates)
        if used != len(aggregate.conditions):
            return None
        groups = [table.column(name) for name in aggregate.groups]
        # The store tells groups by bytes: 1 and 1.0, which are equal, may both be in a BLOB column.
        if not all(column and column.binary and column.affinity != "BLOB" for column in groups):
            return None
        functions: list[tuple[str, int]] = []
        for function, name in aggregate.columns:
            if name is None:
                functions.append((function, -1))
                continue
            column = table.column(name)
            if column is None or not column.binary:
                return None
            if function == "sum" and column.affinity not in _NUMERIC:
                return None
            # A column that is never NULL needs not be looked at to be counted.
            never_null = column.required or column.slot == table.key
            functions.append((function, -1 if function == "count" and never_null else column.slot))
        return Aggregation([column.slot for column in groups if column], functions)

    def _walk_to_extreme(self) -> None:
        """Find the least or greatest value of a key in the first row in its order."""
        if self.aggregate is None or self.aggregate.groups or len(self.aggregate.functions) != 1:
            return
        function, slot = self.aggregate.functions[0]
        occurrence = self._occurrences[0]
        table = occurrence.table
        if function not in ("min", "max"):
            return
        if not any(index.ready and index.slots[0] == slot for index in table.ordered):
            return
        column = next(column for column in table.columns if column.slot == slot)
        first = TopN(
            ((slot, function == "max"),),
            occurrence.predicates,
            (Constant(1),),
            not_null=None if column.required or slot == table.key else slot,
        )
        occurrence.limit_to(first)

    def _projection(self, plan: StatementPlan) -> Projection | None:
        """Tell how the rows of a direct SELECT become its answer."""
        direct = plan.simple_select
        if direct is None or not self.reads_only or plan.locks or self._whole:
            return None
        if len(self._occurrences) != 1 or len(self._occurrences[0].predicates) != len(
            direct.conditions
        ):
            return None
        table = self._occurrences[0].table
        columns = [table.column(name) for name in direct.columns]
        order = [(table.column(name), descending) for name, descending in direct.order]
        if None in columns or not all(column and column.binary for column, _ in order):
            return None
        return Projection(
            table,
            self.parts.get(table.number),
            tuple(column.slot for column in columns if column),
            tuple((column.slot, descending) for column, descending in order if column),
            direct.counts,
        )

    def aggregation(self, parameters: Sequence[Any], layout: Layout) -> Aggregation | None:
        """Return what the store aggregates, if it tests all conditions; None: rows have to come."""
        aggregate = self.plan.aggregate
        if self.aggregate is None or aggregate is None:
            return None
        if aggregate.limit is not None:
            limit = plain_values(aggregate.limit, parameters, layout)
            if len(limit) != 1 or not isinstance(limit[0], int) or limit[0] == 0:
                return None
        return self.aggregate

    def window(self, parameters: Sequence[Any], layout: Layout) -> list[int] | None:
        """Return LIMIT and OFFSET of a direct SELECT; None: they aren't plain counts."""
        counts = []
        for count in self.projection.counts if self.projection else ():
            values = plain_values(count, parameters, layout)
            if len(values) != 1 or type(values[0]) is not int or values[0] < 0:
                return None
            counts.append(values[0])
        return counts

    def steps(
        self, parameters: Sequence[Any], layout: Layout, changes: Mapping[Any, Any], before: int = 0
    ) -> tuple[list[Step], bool]:
        """Say what to read for these parameters, and whether the store tests every condition.

        changes: rows that the transaction wrote.  before: steps of the same request before
        these.
        """
        values = Values(parameters, layout, changes)
        steps, tested = steps_of(self._occurrences, self.parts, values, before)
        return steps + self._whole, tested


def _part(table: Table, names: set[str]) -> tuple[int, ...] | None:
    """Return the slots of these columns and of the keys, if that is a small part of the table."""
    if table.checked or table.is_view:
        return None
    columns = [table.column(name) for name in names]
    if None in columns:
        return None
    slots = {column.slot for column in columns if column}
    # With a key's columns missing, rows would look alike.
    slots.update(*(index.slots for index in table.indexes if index.unique))
    if table.key is not None:
        slots.add(table.key)
    return tuple(sorted(slots)) if len(slots) <= 0.6 * len(table.columns) else None


def changes_by_itself(sql: str) -> bool:
    """Tell whether a statement may answer differently over the same rows."""
    return _CHANGING.search(sql) is not None
