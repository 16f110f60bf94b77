"""Access plans: which rows of which tables a statement may need.

A plan says so by conditions on columns, independent of any schema.  Bound to a version of
the schema it yields the steps of one read (stores/base.py).  The rows are a superset:
SQLite evaluates the whole statement over them, so a condition that isn't used costs time,
never an answer.  Tables that a plan doesn't know but SQLite's parser does are read whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rome.alter import plain
from rome.answers import changes_by_itself
from rome.inserts import PlainInsert, plain_insert
from rome.projection import Projection
from rome.rows import NULL, pack_value
from rome.schema import Column, Table
from rome.stores.base import Step
from rome.values import UNKNOWN, canonical

if TYPE_CHECKING:
    from rome.catalogue import Schema
    from rome.workspace import Workspace

# Where the values of a bind parameter are among the positional ones.
Layout = Mapping[str, Sequence[int]]
_NUMERIC = ("INTEGER", "REAL", "NUMERIC")
_COLUMNS = re.compile(
    r"\s*(?:INSERT|REPLACE)\b[^(]*?\bINTO\s+(?:\"[^\"]*\"|\S+?)\s*\(([^()]*)\)", re.I
)


@dataclass(frozen=True)
class Bind:
    """The value of a bind parameter, or the values of an expanding one."""

    name: str


@dataclass(frozen=True)
class Constant:
    """A value that stands in the statement."""

    value: Any


@dataclass(frozen=True)
class Condition:
    """What holds for all rows of one occurrence of a table that are wanted.

    `op` is one of base.py's filters, with `values`; or `join`: the column equals column
    `other` of occurrence `source`; or `any`: all conditions of one of `branches` hold.
    """

    occurrence: int
    column: str
    op: str
    values: tuple[Bind | Constant, ...] = ()
    source: int = -1
    other: str = ""
    branches: tuple[tuple[Condition, ...], ...] = ()


@dataclass(frozen=True)
class Top:
    """Only the first rows in an order are wanted of an occurrence, if all `conditions` can
    be told by the store."""

    occurrence: int
    conditions: tuple[int, ...]
    order: tuple[tuple[str, bool], ...]
    counts: tuple[Bind | Constant, ...]


@dataclass(frozen=True)
class Aggregate:
    """A SELECT of one occurrence that the store can answer by itself, if all `conditions`
    can be told by it.

    columns: function (count, sum, min, max, or empty: a column of GROUP BY) and column
    (None: count of rows).  groups: the columns of GROUP BY.  limit: of the one row.
    """

    conditions: tuple[int, ...]
    columns: tuple[tuple[str, str | None], ...]
    groups: tuple[str, ...]
    limit: Bind | Constant | None = None


@dataclass(frozen=True)
class Direct:
    """A SELECT of columns of one occurrence, whose rows need nothing but to be put in order,
    if all `conditions` can be told by the store.

    counts: of LIMIT, and of OFFSET.
    """

    conditions: tuple[int, ...]
    columns: tuple[str, ...]
    order: tuple[tuple[str, bool], ...]
    counts: tuple[Bind | Constant, ...]


@dataclass
class Plan:
    """What a statement reads and writes.

    occurrences: names of tables, one for each place in the statement.
    target: the table that is written.  relied: its columns in conditions and expressions;
    None: any.  locks: SELECT ... FOR UPDATE.
    """

    kind: str = ""  # select, insert, update, delete; empty: to be told from the text
    occurrences: tuple[str, ...] = ()
    conditions: tuple[Condition, ...] = ()
    tops: tuple[Top, ...] = ()
    target: str | None = None
    relied: frozenset[str] | None = None
    locks: bool = False
    aggregate: Aggregate | None = None
    direct: Direct | None = None
    # Tables that the statement names at places without an occurrence as well; and whether
    # it has text that may name any.
    partly_known: frozenset[str] = frozenset()
    text_inside: bool = False
    refused: str = ""  # a construct that isn't carried
    bound: BoundPlan | None = None
    hints: dict[str, int] = field(default_factory=dict)  # rows that a statement inserts

    def bind(self, schema: Schema, work: Workspace, sql: str, clean: bool) -> BoundPlan:
        """For one version of the schema."""
        known = [schema.tables[n] for n in self.occurrences if n in schema.tables]
        if self.target is not None and self.target in schema.tables:
            known.append(schema.tables[self.target])
        work.ensure([table for table in known if not table.is_view], clean)
        try:
            names, assigned, reads_only = work.tables_read(sql)
        except Exception:
            # Tables that the plan doesn't know, or that don't exist.
            work.ensure_all(clean)
            names, assigned, reads_only = work.tables_read(sql)
        # Another thread may put its own there meanwhile.
        bound = BoundPlan(self, schema, sql, names, assigned, reads_only)
        bound.made_for = work
        if bound.inserts and bound.target is not None and self.relied == frozenset():
            bound.insert = plain_insert(sql, bound.target, work.database)
        self.bound = bound
        return bound


class TextPlan(Plan):
    """Of a statement that is only known as text: all rows of its tables."""


@dataclass
class _Bound:
    """A condition whose column is known."""

    slot: int
    affinity: str
    op: str
    values: tuple[Bind | Constant, ...]
    source: int  # a step
    source_slot: int
    index: tuple[str, int] | None  # kind of look-up and number
    filter: bool  # whether the store can test it
    branches: tuple[tuple[_Bound, ...], ...] = ()


class BoundPlan:
    """A plan for one version of the schema."""

    def __init__(
        self,
        plan: Plan,
        schema: Schema,
        sql: str,
        names: Mapping[str, set[str]],
        assigned: Iterable[str],
        reads_only: bool,
    ) -> None:
        self.schema = schema
        self.plan = plan
        self.reads_only = reads_only
        self.locks = plan.locks
        self.made_for: Workspace | None = None
        self.insert: PlainInsert | None = None  # rows that can be told without SQLite
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
        columns_set = [target.column(name) for name in assigned] if target else []
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
            table.name for _, table in occurrences if table.name.lower() not in plan.partly_known
        }
        if plan.text_inside or any(table.is_view for table in read):
            covered = set()
        if self.inserts and target is not None and not isinstance(plan, TextPlan):
            covered.add(target.name)  # rows that collide come when its keys are checked
        whole = [t for t in read if t.name not in covered and not t.is_view]
        self._order(plan, occurrences)
        # The columns that come, of tables of which few are read; False: all.
        self.parts: dict[int, tuple[int, ...]] = {}
        if reads_only and not plan.locks:
            for table in read:
                part = _part(table, names[table.name.lower()])
                if part:
                    self.parts[table.number] = part
        self._whole = [
            [t.number, [], [], t.packed_fills, [], 0, self.parts.get(t.number, False)]
            for t in whole
        ]
        self.fetches = bool(self._occurrences or self._whole)
        self.by_number = (
            len(self._occurrences) == 1
            and not self._whole
            and target is not None
            and [(c.op, c.slot) for c in self._conditions[0]] == [("in", target.key)]
            and not self.relied
            and self.relied is not None
        )
        self.aggregate = self._aggregate(plan)
        self.projection = self._projection(plan)

    @staticmethod
    def _target(plan: Plan, sql: str, kind: str, read: list[Table]) -> Table | None:
        if plan.target is not None:
            return next((t for t in read if t.name.lower() == plan.target), None)
        match = re.match(
            r"\s*(?:WITH\b.*?\)\s*)?(?:INSERT|REPLACE|UPDATE|DELETE)\b\s*(?:OR\s+\w+\s+)?"
            r"(?:INTO\s+|FROM\s+)?(?:main\s*\.\s*)?(\"(?:[^\"]|\"\")*\"|`[^`]*`|\[[^\]]*\]|\w+)",
            sql,
            re.I | re.S,
        )
        if match is None:
            return None
        name = plain(match[1]).lower()
        return next((t for t in read if t.name.lower() == name), None)

    @staticmethod
    def _chosen_key(sql: str, target: Table | None) -> bool:
        """Whether an INSERT gives the row number itself."""
        if target is None or target.key is None:
            return False
        match = _COLUMNS.match(sql)
        if match is None:
            return not re.search(r"\bDEFAULT\s+VALUES\b", sql, re.I)
        names = [name.strip().strip('"`[]').lower() for name in match[1].split(",")]
        return (target.slots[target.key] or "").lower() in names

    def _order(self, plan: Plan, occurrences: list[tuple[int, Table]]) -> None:
        """Occurrences one after another, each found by those before it where possible."""
        tables = dict(occurrences)
        remaining = [place for place, _ in occurrences]
        steps: dict[int, int] = {}
        self._occurrences: list[Table] = []
        self._conditions: list[list[_Bound]] = []
        self._reductions: list[list[tuple[int, int, int]]] = []
        self._tops: list[tuple[Top, list[tuple[int, bool]], list[_Bound]] | None] = []
        by_occurrence: dict[int, list[tuple[int, Condition]]] = {}
        for number, condition in enumerate(plan.conditions):
            by_occurrence.setdefault(condition.occurrence, []).append((number, condition))
        while remaining:
            best = None
            for place in remaining:
                bound = [
                    (number, found)
                    for number, condition in by_occurrence.get(place, ())
                    if (found := self._bound(tables, steps, condition)) is not None
                ]
                constant = any(c.index and c.op == "in" for _, c in bound)
                joined = any(c.index and c.op == "join" for _, c in bound)
                several = self._whole_unique(tables[place], [c for _, c in bound])
                kind = 0 if constant or several else 1 if joined else 2 if bound else 3
                # What leaves out rows of others comes before what is found by these.
                rank = kind, not self._reductions_by(plan, place, tables, steps)
                if best is None or rank < best[0]:
                    best = (rank, place, bound)
            if best is None:
                break
            _, place, bound = best
            remaining.remove(place)
            self._reductions.append(self._reductions_by(plan, place, tables, steps))
            steps[place] = len(self._occurrences)
            self._occurrences.append(tables[place])
            self._conditions.append([condition for _, condition in bound])
            self._tops.append(self._top(plan, place, tables[place], dict(bound)))

    @staticmethod
    def _reductions_by(
        plan: Plan, place: int, tables: Mapping[int, Table], steps: Mapping[int, int]
    ) -> list[tuple[int, int, int]]:
        """Earlier steps whose rows must match one of this place: step, slot, slot here."""
        found = []
        for condition in plan.conditions:
            if condition.op != "join" or condition.source != place:
                continue
            if condition.occurrence not in steps or place not in tables:
                continue
            column = tables[condition.occurrence].column(condition.column)
            own = tables[place].column(condition.other)
            if column is not None and own is not None and _same_bytes(column, own):
                found.append((steps[condition.occurrence], column.slot, own.slot))
        return found

    def _reduced(self, place: int, changes: Mapping[Any, Any]) -> list[tuple[int, int, int]]:
        """Those that hold for the store's rows: a row of the transaction's own may match
        what no other does."""
        if not self._reductions[place] or not changes:
            return self._reductions[place]
        changed = {change.table.number for change in changes.values()}
        if self._occurrences[place].number in changed:
            return []
        return [
            reduction
            for reduction in self._reductions[place]
            if self._occurrences[reduction[0]].number not in changed
        ]

    def _aggregate(self, plan: Plan) -> list[Any] | None:
        """What the store is asked for: slots to group by, functions and slots."""
        wanted = plan.aggregate
        if wanted is None or not self.reads_only or len(self._occurrences) != 1 or self._whole:
            return None
        table = self._occurrences[0]
        used = len(self._conditions[0])
        if used != len(wanted.conditions):
            return None
        groups = [table.column(name) for name in wanted.groups]
        # The store tells groups by bytes: 1 and 1.0, which are equal, may both be in a BLOB column.
        if not all(column and column.binary and column.affinity != "BLOB" for column in groups):
            return None
        functions = []
        for function, name in wanted.columns:
            if name is None:
                functions.append([function, -1])
                continue
            column = table.column(name)
            if column is None or not column.binary:
                return None
            if function == "sum" and column.affinity not in _NUMERIC:
                return None
            # A column that is never NULL needs not be looked at to be counted.
            never_null = column.required or column.slot == table.key
            functions.append([function, -1 if function == "count" and never_null else column.slot])
        return [[column.slot for column in groups if column], functions]

    def _projection(self, plan: Plan) -> Projection | None:
        """How the rows of a direct SELECT become its answer."""
        wanted = plan.direct
        if wanted is None or not self.reads_only or plan.locks or self._whole:
            return None
        if len(self._occurrences) != 1 or len(self._conditions[0]) != len(wanted.conditions):
            return None
        table = self._occurrences[0]
        columns = [table.column(name) for name in wanted.columns]
        order = [(table.column(name), descending) for name, descending in wanted.order]
        if None in columns or not all(column and column.binary for column, _ in order):
            return None
        return Projection(
            table,
            self.parts.get(table.number),
            tuple(column.slot for column in columns if column),
            tuple((column.slot, descending) for column, descending in order if column),
            wanted.counts,
        )

    def summed_up(self, parameters: Sequence[Any], layout: Layout) -> list[Any] | None:
        """What the store is asked for, if it can answer by itself once it tests all conditions."""
        wanted = self.plan.aggregate
        if self.aggregate is None or wanted is None:
            return None
        if wanted.limit is not None:
            limit = _plain(wanted.limit, parameters, layout)
            if len(limit) != 1 or not isinstance(limit[0], int) or limit[0] == 0:
                return None
        return self.aggregate

    def window(self, parameters: Sequence[Any], layout: Layout) -> list[int] | None:
        """LIMIT and OFFSET of a direct SELECT; None: they aren't plain counts."""
        counts = []
        for wanted in self.projection.counts if self.projection else ():
            values = _plain(wanted, parameters, layout)
            if len(values) != 1 or type(values[0]) is not int or values[0] < 0:
                return None
            counts.append(values[0])
        return counts

    def _top(
        self, plan: Plan, place: int, table: Table, bound: Mapping[int, _Bound]
    ) -> tuple[Top, list[tuple[int, bool]], list[_Bound]] | None:
        for top in plan.tops:
            if top.occurrence != place:
                continue
            columns = [table.column(name) for name, _ in top.order]
            if not all(column and column.binary for column in columns):
                continue
            if not all(n in bound and bound[n].filter for n in top.conditions):
                continue
            order = [
                (column.slot, descending)
                for column, (_, descending) in zip(columns, top.order, strict=True)
                if column
            ]
            return top, order, [bound[n] for n in top.conditions]
        return None

    @staticmethod
    def _whole_unique(table: Table, bound: Iterable[_Bound]) -> bool:
        slots = {c.slot for c in bound if c.op == "in"}
        return any(i.ready and i.unique and slots.issuperset(i.slots) for i in table.indexes)

    @staticmethod
    def _bound(
        tables: Mapping[int, Table], steps: Mapping[int, int], condition: Condition
    ) -> _Bound | None:
        table = tables[condition.occurrence]
        if condition.op == "any":
            branches = tuple(
                tuple(BoundPlan._bound(tables, steps, part) for part in branch)
                for branch in condition.branches
            )
            if any(part is None for branch in branches for part in branch):
                return None
            parts = tuple(tuple(part for part in branch if part) for branch in branches)
            return _Bound(0, "", "any", (), -1, -1, None, True, parts)
        column = table.column(condition.column)
        if column is None or not column.binary:
            return None
        index: tuple[str, int] | None = None
        if column.slot == table.key:
            index = ("row", 0)
        else:
            for unique in (True, False):
                found = table.find_index((column.slot,), unique)
                if index is None and found is not None and found.ready:
                    index = ("unique" if unique else "set", found.number)
        if condition.op != "join":
            return _Bound(
                column.slot, column.affinity, condition.op, condition.values, -1, -1, index, True
            )
        if condition.source not in steps or index is None:
            return None
        other = tables[condition.source].column(condition.other)
        if other is None or not _same_bytes(column, other):
            return None
        return _Bound(
            column.slot,
            column.affinity,
            "join",
            (),
            steps[condition.source],
            other.slot,
            index,
            False,
        )

    # ------------------------------------------------------------ steps

    def steps(
        self,
        parameters: Sequence[Any],
        layout: Layout,
        changes: Mapping[Any, Any],
        before: int = 0,
    ) -> tuple[list[Step], bool]:
        """What to read for these parameters, and whether the store tests every condition.

        changes: rows that the transaction wrote.  before: steps of the same request before
        these.
        """
        steps: list[Step] = []
        told = True
        for place, table in enumerate(self._occurrences):
            lookups: list[Any] = []
            filters: list[Any] = []
            single: dict[int, list[bytes]] = {}
            joins: dict[tuple[int, int, int], int] = {}  # columns -> place of the look-up
            for condition in self._conditions[place]:
                if condition.op == "join":
                    told = False
                    if condition.index is not None:
                        columns = (condition.source, condition.source_slot, condition.slot)
                        joins[columns] = len(lookups)
                        lookups.append(self._join(condition, changes, before))
                    continue
                test = _test(condition, parameters, layout)
                if test is None:
                    told = False
                    continue
                op, data = test[1], test[2]
                if condition.op == "any":
                    filters.append(test)
                    continue
                said = []
                if op != "out" or data:  # NULL is not in an empty list either
                    said = [len(filters)]
                    filters.append(test)
                if op == "in":
                    single.setdefault(condition.slot, data)
                if condition.index is None:
                    continue
                kind, number = condition.index
                if op == "in":
                    keys: list[Any] = data
                    if kind == "row":
                        values = _values(condition, parameters, layout) or ()
                        keys = [str(value) for value in values if type(value) is int]
                    lookups.append([kind, number, keys, said])
                elif op == "null" and kind == "set":
                    lookups.append(["set", number, [NULL], said])
            for index in table.indexes:
                if index.unique and index.ready and len(index.slots) > 1:
                    key = self._unique_key(index.slots, single)
                    if key is not None:
                        lookups.append(["unique", index.number, [key], []])
            order, limit = self._limit(place, table, parameters, layout, changes)
            part = self.parts.get(table.number, False)
            step = [table.number, lookups, filters, table.packed_fills, order, limit, part]
            reduced = self._reduced(place, changes)
            if reduced:
                step += [False, [[before + r[0], r[1], r[2], joins.get(r, -1)] for r in reduced]]
            steps.append(step)
        return steps + self._whole, told

    @staticmethod
    def _unique_key(slots: tuple[int, ...], single: Mapping[int, list[bytes]]) -> bytes | None:
        parts: list[list[bytes]] = [single.get(slot, []) for slot in slots]
        return b"".join(part[0] for part in parts) if all(len(p) == 1 for p in parts) else None

    def _join(self, condition: _Bound, changes: Mapping[Any, Any], before: int) -> list[Any]:
        """A look-up by an earlier step, and by the rows that only the transaction has."""
        kind, number = condition.index or ("", 0)
        source = self._occurrences[condition.source]
        extra: list[Any] = []
        for change in changes.values():
            if change.table is source and change.row is not None:
                value = source.row(change.row)[condition.source_slot]
                if value is not None:
                    extra.append(str(value) if kind == "row" else pack_value(value))
        return [kind, number, False, before + condition.source, [condition.source_slot], extra]

    def _limit(
        self,
        place: int,
        table: Table,
        parameters: Sequence[Any],
        layout: Layout,
        changes: Mapping[Any, Any],
    ) -> tuple[list[Any], int]:
        found = self._tops[place]
        if found is None or any(change.table is table for change in changes.values()):
            return [], 0
        top, order, conditions = found
        if not all(_told(condition, parameters, layout) for condition in conditions):
            return [], 0
        total = 0
        for count in top.counts:
            values_of = _plain(count, parameters, layout)
            if len(values_of) != 1 or not isinstance(values_of[0], int) or values_of[0] < 0:
                return [], 0
            total += values_of[0]
        return [list(part) for part in order], total


def _same_bytes(column: Column, other: Column) -> bool:
    """Whether equal values have equal bytes in both columns."""
    if not column.binary or not other.binary or "BLOB" in (column.affinity, other.affinity):
        return False
    whole = ("INTEGER", "NUMERIC")
    return column.affinity == other.affinity or (
        column.affinity in whole and other.affinity in whole
    )


def _part(table: Table, names: set[str]) -> tuple[int, ...] | None:
    """The slots of these columns and of the keys, if that is a small part of the table."""
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


def _plain(value: Bind | Constant, parameters: Sequence[Any], layout: Layout) -> list[Any]:
    if isinstance(value, Constant):
        return [value.value]
    return [parameters[place] for place in layout.get(value.name, ())]


def _one_test(branches: list[list[list[Any]]]) -> list[Any] | None:
    """`x = ? OR x IS NULL`, `x != ? OR x IS NULL` as one test of a column's bytes."""
    if any(len(branch) != 1 for branch in branches):
        return None
    tests = [branch[0] for branch in branches]
    ops = [test[1] for test in tests]
    if len({test[0] for test in tests}) != 1 or not set(ops) <= {"in", "null", "out"}:
        return None
    values = [value for test in tests for value in test[2]]
    if "out" not in ops:
        return [tests[0][0], "in", values + [NULL] * ("null" in ops)]
    if sorted(ops) == ["null", "out"]:
        return [tests[0][0], "not", values]
    return None


def _test(condition: _Bound, parameters: Sequence[Any], layout: Layout) -> list[Any] | None:
    """A condition as a filter of the store; None: it can't test that."""
    op = condition.op
    if op == "any":
        branches = []
        for branch in condition.branches:
            tests = [_test(part, parameters, layout) for part in branch]
            if None in tests:
                return None
            # NULL is not in an empty list either.
            branches.append([test for test in tests if test and (test[1] != "out" or test[2])])
        return _one_test(branches) or [0, "any", branches]
    if op in ("null", "some"):
        return [condition.slot, op, []]
    values = _values(condition, parameters, layout)
    if values is None:
        return None
    if op in ("<", "<=", ">", ">="):
        if not values or isinstance(values[0], bytes):
            return None
        if isinstance(values[0], int) and abs(values[0]) >= 2**53:
            return None
    return [condition.slot, op, [pack_value(value) for value in values]]


def _told(condition: _Bound, parameters: Sequence[Any], layout: Layout) -> bool:
    return condition.filter and _test(condition, parameters, layout) is not None


def _values(condition: _Bound, parameters: Sequence[Any], layout: Layout) -> list[Any] | None:
    """The values of a condition as its column holds them, without NULLs; None: not known.

    NULL equals nothing, so `in` needs no rows for it; `out` and comparisons with NULL hold
    for no row, and are left to SQLite.
    """
    result: dict[Any, None] = {}
    for value in condition.values:
        if isinstance(value, Bind) and value.name not in layout:
            return None
        for raw in _plain(value, parameters, layout):
            fitting = canonical(raw, condition.affinity)
            if fitting is UNKNOWN:
                return None
            if fitting is not None:
                result[fitting] = None
            elif condition.op != "in":
                return None
    return list(result)
