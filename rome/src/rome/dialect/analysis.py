"""From a SQLAlchemy statement to a plan: which conditions bound the rows of each table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from sqlalchemy.sql import elements, operators, selectable
from sqlalchemy.sql.selectable import (
    CTE,
    FromGrouping,
    Join,
    Select,
    Subquery,
)

from rome.dialect.elements import (
    Scope,
    bare,
    is_alias,
    is_plain,
    is_table,
    may_count,
    parts_of,
    row_by_row,
    statement_of,
    values_of,
)
from rome.dialect.outputs import Outputs
from rome.planner.plan import Bind, Condition, Constant, Plan
from rome.schema.tables import fold

_COMPARISONS = {
    operators.lt: ("<", ">"),
    operators.le: ("<=", ">="),
    operators.gt: (">", "<"),
    operators.ge: (">=", "<="),
}


class Analysis:
    """Gathers occurrences and conditions over all scopes."""

    def __init__(self, compiled: Any, scopes: list[Scope]) -> None:
        self._compiled = compiled
        self._scopes = scopes
        self._names: list[str] = []
        self._conditions: list[Condition] = []
        self._outputs = Outputs(self)
        self._by_source: dict[int, Scope | None] = {}
        for scope in scopes:
            key = hash(scope.source)
            # The same SELECT at two places: which one a column comes from is ambiguous.
            self._by_source[key] = None if key in self._by_source else scope

    def plan(self, kind: str, target: Any = None, relied: frozenset[str] | None = None) -> Plan:
        """Return the plan of the whole statement."""
        for scope in self._scopes:
            for element in scope.froms:
                self._find(scope, element, nullable=False)
        for scope in self._scopes:
            self._scope(scope)
        # A table that also stands where no condition was noted is read whole.
        names = Counter(self._names)
        written = Counter(getattr(self._compiled, "rome_tables", ()))
        partly = frozenset(name for name, count in written.items() if count != names[name])
        refused = ""
        if any(
            getattr(getattr(scope.statement, "_for_update_arg", None), "skip_locked", False)
            for scope in self._scopes
        ):
            refused = "FOR UPDATE SKIP LOCKED"
        locks = any(
            getattr(scope.statement, "_for_update_arg", None) is not None for scope in self._scopes
        )
        return Plan(
            kind=kind,
            occurrences=tuple(self._names),
            conditions=tuple(self._conditions),
            top_n_candidates=tuple(self._outputs.top_n_candidates),
            target=None if target is None else fold(str(target.name)),
            relied=relied,
            locks=locks,
            aggregate=self._outputs.aggregate,
            simple_select=self._outputs.simple_select,
            partly_known=partly,
            refused=refused,
            text_inside=bool(getattr(self._compiled, "rome_text", False)),
        )

    # ------------------------------------------------------------ tables

    def _find(self, scope: Scope, element: Any, nullable: bool) -> None:
        if isinstance(element, Join):
            self._find(scope, element.left, nullable or element.full)
            self._find(scope, element.right, nullable or element.full or element.isouter)
        elif isinstance(element, FromGrouping):
            self._find(scope, element.element, nullable)
        elif is_table(element) or (is_alias(element) and is_table(element.element)):
            table = element if is_table(element) else element.element
            if table.schema is None if hasattr(table, "schema") else True:
                place = len(self._names)
                self._names.append(fold(str(table.name)))
                scope.occurrences[hash(element)] = place
                if nullable:
                    scope.nullable.add(place)

    def _inside(self, scope: Scope, element: Any) -> Iterator[int]:
        if isinstance(element, Join):
            yield from self._inside(scope, element.left)
            yield from self._inside(scope, element.right)
        elif isinstance(element, FromGrouping):
            yield from self._inside(scope, element.element)
        elif hash(element) in scope.occurrences:
            yield scope.occurrences[hash(element)]

    def resolve(self, scope: Scope | None, element: Any) -> tuple[int, str, Scope] | None:
        """Return the occurrence and the name of the column that an expression is."""
        for _ in range(30):
            element = bare(element)
            if not isinstance(element, elements.ColumnClause) or element.table is None:
                return None
            key = hash(element.table)
            around = scope
            while around is not None and key not in around.occurrences:
                around = around.parent
            if around is not None:
                if getattr(element.type, "_has_column_expression", False):
                    return None
                return around.occurrences[key], str(element.name), around
            owner = element.table
            if not isinstance(owner, Subquery | CTE) or getattr(owner, "recursive", False):
                return None
            scope = self._by_source.get(hash(statement_of(owner)))
            proxies = list(getattr(element, "_proxies", ()))
            if scope is None or len(proxies) != 1:
                return None
            element = proxies[0]
        return None

    # ------------------------------------------------------------ conditions

    def _scope(self, scope: Scope) -> None:
        own = set(scope.occurrences.values())
        before = len(self._conditions)
        exact = True
        for part in parts_of(getattr(scope.statement, "_where_criteria", ())):
            exact = self._condition(scope, part, own, scope.nullable) and exact
        where = tuple(range(before, len(self._conditions)))
        for element in scope.froms:
            self._joins(scope, element)
        # A prefix may be DISTINCT, or anything.
        plain = not getattr(scope.statement, "_prefixes", ()) and not getattr(
            scope.statement, "_suffixes", ()
        )
        if exact and plain and len(own) == 1 and len(scope.froms) == 1:
            self._outputs.note(scope, next(iter(own)), where, only=len(self._scopes) == 1)

    def _joins(self, scope: Scope, element: Any) -> None:
        if isinstance(element, FromGrouping):
            self._joins(scope, element.element)
        if not isinstance(element, Join):
            return
        self._joins(scope, element.left)
        self._joins(scope, element.right)
        if element.full or element.onclause is None:
            return
        right = set(self._inside(scope, element.right))
        allowed = right if element.isouter else right | set(self._inside(scope, element.left))
        # Within the right side, a test for NULL bounds rows that no inner join makes up.
        inner = set() if element.isouter else scope.nullable
        if element.isouter and isinstance(element.right, Join | FromGrouping):
            inner = scope.nullable
        for part in parts_of((element.onclause,)):
            self._condition(scope, part, allowed, inner)

    def _condition(self, scope: Scope, part: Any, allowed: set[int], nullable: set[int]) -> bool:
        """Note what a part of a conjunction says; whether that is all that it says."""
        part = bare(part)
        if isinstance(part, elements.True_):
            return True
        if isinstance(part, elements.BooleanClauseList) and part.operator is operators.or_:
            return self._any(scope, part, allowed, nullable)
        if isinstance(part, selectable.Exists):
            self._exists(part, allowed)
            return False
        if not isinstance(part, elements.BinaryExpression):
            return False
        operator, left, right = part.operator, bare(part.left), bare(part.right)
        if operator is operators.between_op:
            return self._between(scope, part, allowed)
        if not is_plain(part):
            return False
        if operator is operators.eq:
            both = self.resolve(scope, left), self.resolve(scope, right)
            if both[0] and both[1]:
                self._join(both[0], both[1], allowed)
                self._join(both[1], both[0], allowed)
                return False
        if self.resolve(scope, left) is None and operator in (
            operators.eq,
            operators.ne,
            *_COMPARISONS,
        ):
            left, right = right, left
            if operator in _COMPARISONS:
                return self._compared(scope, _COMPARISONS[operator][1], left, right, allowed)
        column = self.resolve(scope, left)
        if column is None or column[0] not in allowed:
            return False
        place, name, _ = column
        if operator is operators.in_op and isinstance(
            right, Select | selectable.ScalarSelect | selectable.SelectStatementGrouping
        ):
            self._in_select(place, name, right)
            return False
        if operator in (operators.is_, operators.is_not) and isinstance(right, elements.Null):
            op = "null" if operator is operators.is_ else "some"
            if op == "null" and place in nullable:
                return False
            self._conditions.append(Condition(place, name, op))
            return True
        if operator in (operators.eq, operators.in_op):
            op = "in"
        elif operator in (operators.ne, operators.not_in_op):
            op = "out"
        elif operator in _COMPARISONS:
            return self._compared(scope, _COMPARISONS[operator][0], left, right, allowed)
        else:
            return False
        values = self.values(right)
        if values is None:
            return False
        self._conditions.append(Condition(place, name, op, values))
        return True

    def _any(self, scope: Scope, part: Any, allowed: set[int], nullable: set[int]) -> bool:
        """Return an OR whose every branch speaks of one and the same occurrence."""
        branches = []
        start = len(self._conditions)
        whole = True
        for clause in part.clauses:
            before = len(self._conditions)
            for piece in parts_of((clause,)):
                whole = self._condition(scope, piece, allowed, nullable) and whole
            branches.append(tuple(self._conditions[before:]))
        conditions = self._conditions[start:]
        del self._conditions[start:]
        places = {condition.occurrence for condition in conditions}
        if not whole or len(places) != 1 or not all(branches):
            return False
        self._conditions.append(Condition(places.pop(), "", "any", branches=tuple(branches)))
        return True

    def _compared(self, scope: Scope, op: str, left: Any, right: Any, allowed: set[int]) -> bool:
        column = self.resolve(scope, left)
        values = self.values(right)
        if column is None or column[0] not in allowed or values is None:
            return False
        self._conditions.append(Condition(column[0], column[1], op, values))
        return True

    def _between(self, scope: Scope, part: Any, allowed: set[int]) -> bool:
        ends = bare(part.right)
        clauses = list(getattr(ends, "clauses", ()))
        if len(clauses) != 2 or part.modifiers.get("symmetric"):
            return False
        low = self._compared(scope, ">=", part.left, clauses[0], allowed)
        high = self._compared(scope, "<=", part.left, clauses[1], allowed)
        return low and high

    def _join(
        self, mine: tuple[int, str, Scope], other: tuple[int, str, Scope], allowed: set[int]
    ) -> None:
        if mine[0] in allowed and mine[0] != other[0]:
            self._conditions.append(
                Condition(mine[0], mine[1], "join", source=other[0], other=other[1])
            )

    def values(self, element: Any) -> tuple[Bind | Constant, ...] | None:
        """Return the bind parameters and constants that an expression is; None: it is others."""
        return values_of(element, self._compiled)

    def _subquery(self, element: Any) -> tuple[Any, Scope] | None:
        """Return a subquery that is a SELECT, and its scope."""
        while isinstance(element, selectable.ScalarSelect | selectable.SelectStatementGrouping):
            element = element.element
        inner = self._by_source.get(hash(element))
        return (element, inner) if inner is not None and isinstance(element, Select) else None

    def _in_select(self, place: int, name: str, right: Any) -> None:
        subquery = self._subquery(right)
        columns = list(subquery[0].selected_columns) if subquery else ()
        if subquery is None or len(columns) != 1:
            return
        statement, inner = subquery
        column = self.resolve(inner, columns[0])
        if column is None or column[0] not in inner.occurrences.values():
            return
        self._conditions.append(Condition(place, name, "join", source=column[0], other=column[1]))
        if row_by_row(statement):
            # Rows with other values, or with NULL, can't make it true.
            self._conditions.append(
                Condition(column[0], column[1], "join", source=place, other=name)
            )

    def _exists(self, part: Any, allowed: set[int]) -> None:
        """Note `EXISTS (SELECT ... WHERE own = outer)`: no outer rows without an own one count."""
        subquery = self._subquery(part.element)
        if subquery is None or may_count(subquery[0]):
            return
        inner = subquery[1]
        own = set(inner.occurrences.values())
        for piece in parts_of(getattr(inner.statement, "_where_criteria", ())):
            if not isinstance(piece, elements.BinaryExpression) or not is_plain(piece):
                continue
            if piece.operator is not operators.eq:
                continue
            left, right = self.resolve(inner, piece.left), self.resolve(inner, piece.right)
            for mine, other in ((left, right), (right, left)):
                if mine and other and mine[0] in allowed and other[0] in own:
                    self._conditions.append(
                        Condition(mine[0], mine[1], "join", source=other[0], other=other[1])
                    )
