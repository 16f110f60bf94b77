"""Access plans: which rows of which tables a statement may need.

A plan says so by conditions on columns, independent of any schema.  Bound to a version of
the schema it yields the steps of one read (stores/wire.py).  The rows are a superset:
SQLite evaluates the whole statement over them, so a condition that isn't used costs time,
never an answer.  Tables that a plan doesn't know but SQLite's parser does are read whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from rome.planner.binding import BoundPlan
from rome.planner.conditions import (
    Aggregate,
    Bind,
    Condition,
    Constant,
    Layout,
    SimpleSelect,
    StatementPlan,
    TopNCandidate,
)
from rome.planner.footprint import footprint
from rome.planner.inserts import plain_insert

if TYPE_CHECKING:
    from rome.planner.workspace import Workspace
    from rome.schema.catalogue import Schema

__all__ = [
    "Aggregate",
    "Bind",
    "BoundPlan",
    "Condition",
    "Constant",
    "Layout",
    "Plan",
    "SimpleSelect",
    "TextPlan",
    "TopNCandidate",
]


@dataclass
class Plan(StatementPlan):
    """What a statement reads and writes, and the same bound to the schema."""

    bound: BoundPlan | None = None
    hints: dict[str, int] = field(default_factory=dict)  # rows that a statement inserts

    def bind(self, schema: Schema, work: Workspace, sql: str, clean: bool) -> BoundPlan:
        """Bind the plan to a version of the schema."""
        tables = [schema.tables[n] for n in self.occurrences if n in schema.tables]
        if self.target is not None and self.target in schema.tables:
            tables.append(schema.tables[self.target])
        work.ensure([table for table in tables if not table.is_view], clean)
        try:
            touched = footprint(work.database, sql)
        except Exception:
            # Tables that the plan doesn't know, or that don't exist.
            work.ensure_all(clean)
            touched = footprint(work.database, sql)
        # Another thread may put its own there meanwhile.
        bound = BoundPlan(self, schema, sql, touched)
        bound.made_for = work
        if bound.inserts and bound.target is not None and self.relied == frozenset():
            bound.insert = plain_insert(sql, bound.target, work.database)
        self.bound = bound
        return bound


class TextPlan(Plan):
    """Of a statement that is only known as text: all rows of its tables."""

    text_only: ClassVar[bool] = True
