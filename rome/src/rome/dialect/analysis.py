"""From a SQLAlchemy statement to a plan: which conditions bound the rows of each table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.sql import elements, functions, operators, selectable, visitors
from sqlalchemy.sql.selectable import (
    CTE,
    Alias,
    FromGrouping,
    Join,
    Select,
    Subquery,
    TableClause,
    TableValuedAlias,
)

from rome.planner.plan import Aggregate, Bind, Condition, Constant, Direct, Plan, Top
from rome.schema.tables import fold

_COMPARISONS = {
    operators.lt: ("<", ">"),
    operators.le: ("<=", ">="),
    operators.gt: (">", "<"),
    operators.ge: (">=", "<="),
}


# What may count or look at other rows than its own.
_NOT_PLAIN = (
    *(elements.Over, elements.TextClause, functions.FunctionElement),
    *(selectable.ScalarSelect, selectable.Exists),
)


@dataclass
class Scope:
    """One SELECT of a statement (or the UPDATE or DELETE), as it was compiled."""

    parent: Scope | None
    statement: Any = None
    source: Any = None  # the SELECT as its users refer to it
    froms: list[Any] = field(default_factory=list)
    width: int = -1  # columns that it was written with
    occurrences: dict[int, int] = field(default_factory=dict)  # hash of a table -> occurrence
    nullable: set[int] = field(default_factory=set)


class Analysis:
    """Gathers occurrences and conditions over all scopes."""

    def __init__(self, compiled: Any, scopes: list[Scope]) -> None:
        self._compiled = compiled
        self._scopes = scopes
        self._names: list[str] = []
        self._conditions: list[Condition] = []
        self._tops: list[Top] = []
        self._found_aggregate: Aggregate | None = None
        self._found_direct: Direct | None = None
        self._by_source: dict[int, Scope | None] = {}
        for scope in scopes:
            key = hash(scope.source)
            # The same SELECT at two places: which one a column comes from can't be told.
            self._by_source[key] = None if key in self._by_source else scope

    def plan(self, kind: str, target: Any = None, relied: frozenset[str] | None = None) -> Plan:
        """The plan of the whole statement."""
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
            tops=tuple(self._tops),
            target=None if target is None else fold(str(target.name)),
            relied=relied,
            locks=locks,
            aggregate=self._found_aggregate,
            direct=self._found_direct,
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
        elif _is_table(element) or (_is_alias(element) and _is_table(element.element)):
            table = element if _is_table(element) else element.element
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

    def _resolve(self, scope: Scope | None, element: Any) -> tuple[int, str, Scope] | None:
        """The occurrence and the name of the column that an expression is."""
        for _ in range(30):
            element = _bare(element)
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
            scope = self._by_source.get(hash(_statement_of(owner)))
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
        for part in _parts(getattr(scope.statement, "_where_criteria", ())):
            exact = self._condition(scope, part, own, scope.nullable) and exact
        where = tuple(range(before, len(self._conditions)))
        for element in scope.froms:
            self._joins(scope, element)
        # A prefix may be DISTINCT, or anything.
        plain = not getattr(scope.statement, "_prefixes", ()) and not getattr(
            scope.statement, "_suffixes", ()
        )
        if exact and plain and len(own) == 1 and len(scope.froms) == 1:
            self._top(scope, next(iter(own)), where)
            if len(self._scopes) == 1:
                self._aggregate(scope, next(iter(own)), where)
                self._direct(scope, next(iter(own)), where)

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
        for part in _parts((element.onclause,)):
            self._condition(scope, part, allowed, inner)

    def _condition(self, scope: Scope, part: Any, allowed: set[int], nullable: set[int]) -> bool:
        """Note what a part of a conjunction says; whether that is all that it says."""
        part = _bare(part)
        if isinstance(part, elements.True_):
            return True
        if isinstance(part, elements.BooleanClauseList) and part.operator is operators.or_:
            return self._any(scope, part, allowed, nullable)
        if isinstance(part, selectable.Exists):
            self._exists(part, allowed)
            return False
        if not isinstance(part, elements.BinaryExpression):
            return False
        operator, left, right = part.operator, _bare(part.left), _bare(part.right)
        if operator is operators.between_op:
            return self._between(scope, part, allowed)
        if not _is_plain(part):
            return False
        if operator is operators.eq:
            both = self._resolve(scope, left), self._resolve(scope, right)
            if both[0] and both[1]:
                self._join(both[0], both[1], allowed)
                self._join(both[1], both[0], allowed)
                return False
        if self._resolve(scope, left) is None and operator in (
            operators.eq,
            operators.ne,
            *_COMPARISONS,
        ):
            left, right = right, left
            if operator in _COMPARISONS:
                return self._compared(scope, _COMPARISONS[operator][1], left, right, allowed)
        column = self._resolve(scope, left)
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
        values = self._values(right)
        if values is None:
            return False
        self._conditions.append(Condition(place, name, op, values))
        return True

    def _any(self, scope: Scope, part: Any, allowed: set[int], nullable: set[int]) -> bool:
        """An OR whose every branch speaks of one and the same occurrence."""
        branches = []
        start = len(self._conditions)
        whole = True
        for clause in part.clauses:
            before = len(self._conditions)
            for piece in _parts((clause,)):
                whole = self._condition(scope, piece, allowed, nullable) and whole
            branches.append(tuple(self._conditions[before:]))
        found = self._conditions[start:]
        del self._conditions[start:]
        places = {condition.occurrence for condition in found}
        if not whole or len(places) != 1 or not all(branches):
            return False
        self._conditions.append(Condition(places.pop(), "", "any", branches=tuple(branches)))
        return True

    def _compared(self, scope: Scope, op: str, left: Any, right: Any, allowed: set[int]) -> bool:
        column = self._resolve(scope, left)
        values = self._values(right)
        if column is None or column[0] not in allowed or values is None:
            return False
        self._conditions.append(Condition(column[0], column[1], op, values))
        return True

    def _between(self, scope: Scope, part: Any, allowed: set[int]) -> bool:
        ends = _bare(part.right)
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

    def _subquery(self, element: Any) -> tuple[Any, Scope] | None:
        """A subquery that is a SELECT, and its scope."""
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
        found = self._resolve(inner, columns[0])
        if found is None or found[0] not in inner.occurrences.values():
            return
        self._conditions.append(Condition(place, name, "join", source=found[0], other=found[1]))
        if _row_by_row(statement):
            # Rows with other values, or with NULL, can't make it true.
            self._conditions.append(Condition(found[0], found[1], "join", source=place, other=name))

    def _exists(self, part: Any, allowed: set[int]) -> None:
        """`EXISTS (SELECT ... WHERE own = outer)`: outer rows without an own one don't count."""
        subquery = self._subquery(part.element)
        if subquery is None or _may_count(subquery[0]):
            return
        inner = subquery[1]
        own = set(inner.occurrences.values())
        for piece in _parts(getattr(inner.statement, "_where_criteria", ())):
            if not isinstance(piece, elements.BinaryExpression) or not _is_plain(piece):
                continue
            if piece.operator is not operators.eq:
                continue
            left, right = self._resolve(inner, piece.left), self._resolve(inner, piece.right)
            for mine, other in ((left, right), (right, left)):
                if mine and other and mine[0] in allowed and other[0] in own:
                    self._conditions.append(
                        Condition(mine[0], mine[1], "join", source=other[0], other=other[1])
                    )

    def _values(self, element: Any) -> tuple[Bind | Constant, ...] | None:
        element = _bare(element)
        if isinstance(element, elements.BindParameter):
            name = self._compiled.bind_names.get(element)
            if name is None or element in self._compiled.literal_execute_params:
                return None
            if getattr(element.type, "_has_bind_expression", False):
                return None
            return (Bind(name),)
        if isinstance(element, elements.Null):
            return (Constant(None),)
        if isinstance(element, elements.True_ | elements.False_):
            return (Constant(int(isinstance(element, elements.True_))),)
        if isinstance(element, elements.ClauseList) and not isinstance(
            element, elements.BooleanClauseList
        ):
            values: list[Bind | Constant] = []
            for clause in element.clauses:
                found = self._values(clause)
                if found is None:
                    return None
                values += found
            return tuple(values)
        return None

    # ------------------------------------------------------------ limits

    def _top(self, scope: Scope, place: int, where: tuple[int, ...]) -> None:
        """Of a SELECT from one table with a LIMIT: the order, if it is one of columns."""
        statement = scope.statement
        limit = getattr(statement, "_limit_clause", None)
        if limit is None or not isinstance(statement, Select):
            return
        if statement._distinct or statement._group_by_clauses:
            return
        if _may_count(statement):
            return
        order = self._order(scope, place)
        counts = self._counts(statement)
        if order is not None and counts is not None:
            self._tops.append(Top(place, where, order, counts))

    def _order(self, scope: Scope, place: int) -> tuple[tuple[str, bool], ...] | None:
        """ORDER BY, if it is one of this occurrence's columns."""
        order: list[tuple[str, bool]] = []
        for clause in scope.statement._order_by_clauses:
            clause = _bare(clause)
            descending = False
            if isinstance(clause, elements.UnaryExpression):
                if clause.modifier not in (operators.asc_op, operators.desc_op):
                    return None
                descending = clause.modifier is operators.desc_op
                clause = _bare(clause.element)
            column = self._resolve(scope, clause)
            if column is None or column[0] != place:
                return None
            order.append((column[1], descending))
        return tuple(order)

    def _counts(self, statement: Any) -> tuple[Bind | Constant, ...] | None:
        """LIMIT and OFFSET, as far as there are any."""
        counts: list[Bind | Constant] = []
        for bound in (statement._limit_clause, statement._offset_clause):
            if bound is None:
                continue
            values = self._values(bound)
            if values is None or len(values) != 1:
                return None
            counts += values
        return tuple(counts)

    # ------------------------------------------------------------ plain columns

    def _direct(self, scope: Scope, place: int, where: tuple[int, ...]) -> None:
        """Of a statement that only takes columns of one table, perhaps in an order."""
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
                column = self._resolve(scope, element)
                if column is None or column[0] != place:
                    return
                names.append(column[1])
        order, counts = self._order(scope, place), self._counts(statement)
        if len(names) == scope.width and order is not None and counts is not None:
            self._found_direct = Direct(where, tuple(names), order, counts)

    # ------------------------------------------------------------ aggregates

    def _aggregate(self, scope: Scope, place: int, where: tuple[int, ...]) -> None:
        """Of a statement that only counts, sums, and finds extremes of one table."""
        statement = scope.statement
        if not isinstance(statement, Select) or statement._distinct:
            return
        if statement._having_criteria or statement._order_by_clauses:
            return
        groups: list[str] = []
        for clause in statement._group_by_clauses:
            column = self._resolve(scope, clause)
            if column is None or column[0] != place:
                return
            groups.append(column[1])
        limit = None
        if statement._limit_clause is not None:
            limit = self._values(statement._limit_clause)
            if groups or limit is None or len(limit) != 1:
                return
        if statement._offset_clause is not None:
            return
        columns: list[tuple[str, str | None]] = []
        for raw in statement._raw_columns:
            found = self._aggregated(scope, place, _bare(raw), groups)
            if found is None:
                return
            columns.append(found)
        if any(function for function, _ in columns):
            self._found_aggregate = Aggregate(
                where, tuple(columns), tuple(groups), limit[0] if limit else None
            )

    def _aggregated(
        self, scope: Scope, place: int, element: Any, groups: list[str]
    ) -> tuple[str, str | None] | None:
        if not isinstance(element, functions.FunctionElement):
            column = self._resolve(scope, element)
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
        column = self._resolve(scope, clauses[0])
        if column is None or column[0] != place:
            return None
        return name, column[1]


def relied_columns(table: Any, expressions: Iterable[Any]) -> frozenset[str] | None:
    """Names of a table's columns in expressions; None if they can't be told."""
    names = set()
    for expression in expressions:
        for element in visitors.iterate(expression):
            if isinstance(element, elements.TextClause):
                return None
            if isinstance(element, elements.ColumnClause):
                if element.table is None or element.is_literal:
                    return None
                if hash(element.table) == hash(table):
                    names.add(str(element.name))
    return frozenset(names)


def _is_table(element: Any) -> bool:
    return isinstance(element, TableClause)


def _is_alias(element: Any) -> bool:
    return isinstance(element, Alias) and not isinstance(element, TableValuedAlias)


def _statement_of(owner: Any) -> Any:
    statement = owner.element
    while isinstance(statement, selectable.SelectStatementGrouping):
        statement = statement.element
    return statement


def _bare(element: Any) -> Any:
    while True:
        if isinstance(element, elements.Grouping | elements.Label) or (
            isinstance(element, elements.AsBoolean) and element.operator is operators.is_true
        ):
            element = element.element
        else:
            return element


def _is_plain(part: Any) -> bool:
    """Whether a comparison has nothing that may give it another meaning."""
    return all(
        key in ("negate", "eager_grouping", "_is_implicitly_boolean") for key in part.modifiers
    )


def _may_count(statement: Any) -> bool:
    """Whether a SELECT may have an answer without any row, as with an aggregate."""
    return bool(statement._having_criteria) or any(
        isinstance(found, _NOT_PLAIN)
        # Text that may be an aggregate.
        or (getattr(found, "is_literal", False) and str(found) not in ("*", "1"))
        or found.__visit_name__ == "aggregate_order_by"
        for column in statement._raw_columns
        for found in visitors.iterate(column)
    )


def _row_by_row(statement: Any) -> bool:
    """Whether each row of a SELECT's answer depends on no others."""
    return not (
        statement._group_by_clauses
        or statement._limit_clause is not None
        or statement._offset_clause is not None
        or _may_count(statement)
    )


def _parts(criteria: Iterable[Any]) -> Iterator[Any]:
    """The parts of a conjunction."""
    for part in criteria:
        part = _bare(part)
        if isinstance(part, elements.BooleanClauseList) and part.operator is operators.and_:
            yield from _parts(part.clauses)
        else:
            yield part
