"""What a SELECT of one table makes of its rows: first rows, plain columns, aggregates."""

from __future__ import annotations

from typing import Any, Protocol

from sqlalchemy.sql import elements, functions, operators
from sqlalchemy.sql.selectable import Alias, Select, TableClause

from rome.dialect.elements import Scope, bare, may_count
from rome.planner.plan import Aggregate, Bind, Constant, SimpleSelect, TopNCandidate


class Resolver(Protocol):
    """Finds what expressions stand for."""

    def resolve(self, scope: Scope | None, element: Any) -> tuple[int, str, Scope] | None:
        """Return the occurrence and the name of the column that an expression is."""

    def values(self, element: Any) -> tuple[Bind | Constant, ...] | None:
        """Return the bind parameters and constants that an expression is."""


class Outputs:
    """What can be pushed down to the store of the outputs of a statement's SELECTs."""

    def __init__(self, analysis: Resolver) -> None:
        self._analysis = analysis
        self.top_n_candidates: list[TopNCandidate] = []
        self.aggregate: Aggregate | None = None
        self.simple_select: SimpleSelect | None = None

    def note(self, scope: Scope, place: int, where: tuple[int, ...], only: bool) -> None:
        """Take in a SELECT of one occurrence, all of whose conditions are `where`.

        only: whether the statement has no other SELECT.
        """
        self._find_top(scope, place, where)
        if only:
            self._find_aggregate(scope, place, where)
            self._find_direct(scope, place, where)

    def _find_top(self, scope: Scope, place: int, where: tuple[int, ...]) -> None:
        """Note the order of a SELECT from one table with a LIMIT, if it is one of columns."""
        statement = scope.statement
        limit = getattr(statement, "_limit_clause", None)
        if limit is None or not isinstance(statement, Select):
            return
        if statement._distinct or statement._group_by_clauses:
            return
        if may_count(statement):
            return
        order = self._order(scope, place)
        counts = self._counts(statement)
        if order is not None and counts is not None:
            self.top_n_candidates.append(TopNCandidate(place, where, order, counts))

    def _order(self, scope: Scope, place: int) -> tuple[tuple[str, bool], ...] | None:
        """Return ORDER BY, if it is one of this occurrence's columns."""
        order: list[tuple[str, bool]] = []
        for clause in scope.statement._order_by_clauses:
            clause = bare(clause)
            descending = False
            if isinstance(clause, elements.UnaryExpression):
                if clause.modifier not in (operators.asc_op, operators.desc_op):
                    return None
                descending = clause.modifier is operators.desc_op
                clause = bare(clause.element)
            column = self._analysis.resolve(scope, clause)
            if column is None or column[0] != place:
                return None
            order.append((column[1], descending))
        return tuple(order)

    def _counts(self, statement: Any) -> tuple[Bind | Constant, ...] | None:
        """Return LIMIT and OFFSET, as far as there are any."""
        counts: list[Bind | Constant] = []
        for bound in (statement._limit_clause, statement._offset_clause):
            if bound is None:
                continue
            values = self._analysis.values(bound)
            if values is None or len(values) != 1:
                return None
            counts += values
        return tuple(counts)

    def _find_direct(self, scope: Scope, place: int, where: tuple[int, ...]) -> None:
        """Note a statement that only takes columns of one table, perhaps in an order."""
        statement = scope.statement
        if not isinstance(statement, Select) or statement._distinct:
            return
        if statement._group_by_clauses or statement._having_criteria:
            return
        if statement._offset_clause is not None and statement._limit_clause is None:
            return
        names = []
        for raw in statement._raw_columns:
            for element in raw.c if isinstance(raw, TableClause | Alias) else (raw,):
                column = self._analysis.resolve(scope, element)
                if column is None or column[0] != place:
                    return
                names.append(column[1])
        order, counts = self._order(scope, place), self._counts(statement)
        if len(names) == scope.width and order is not None and counts is not None:
            self.simple_select = SimpleSelect(where, tuple(names), order, counts)

    def _find_aggregate(self, scope: Scope, place: int, where: tuple[int, ...]) -> None:
        """Note a statement that only counts, sums, and finds extremes of one table."""
        statement = scope.statement
        if not isinstance(statement, Select) or statement._distinct:
            return
        if statement._having_criteria or statement._order_by_clauses:
            return
        groups: list[str] = []
        for clause in statement._group_by_clauses:
            column = self._analysis.resolve(scope, clause)
            if column is None or column[0] != place:
                return
            groups.append(column[1])
        limit = None
        if statement._limit_clause is not None:
            limit = self._analysis.values(statement._limit_clause)
            if groups or limit is None or len(limit) != 1:
                return
        if statement._offset_clause is not None:
            return
        columns: list[tuple[str, str | None]] = []
        for raw in statement._raw_columns:
            output = self._aggregated(scope, place, bare(raw), groups)
            if output is None:
                return
            columns.append(output)
        if any(function for function, _ in columns):
            self.aggregate = Aggregate(
                where, tuple(columns), tuple(groups), limit[0] if limit else None
            )

    def _aggregated(
        self, scope: Scope, place: int, element: Any, groups: list[str]
    ) -> tuple[str, str | None] | None:
        if not isinstance(element, functions.FunctionElement):
            column = self._analysis.resolve(scope, element)
            if column is None or column[0] != place or column[1] not in groups:
                return None
            return "", column[1]
        name = str(getattr(element, "name", "")).lower()
        clauses = list(element.clauses)
        if name not in ("count", "sum", "min", "max") or len(clauses) > 1:
            return None
        if name == "count" and (
            not clauses
            or (isinstance(clauses[0], elements.ColumnClause) and clauses[0].name == "*")
        ):
            return "count", None
        if not clauses or type(clauses[0]) is elements.UnaryExpression:
            return None
        column = self._analysis.resolve(scope, clauses[0])
        if column is None or column[0] != place:
            return None
        return name, column[1]
