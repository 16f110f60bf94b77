"""SQLAlchemy's elements of a statement: what they are, and what they hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.sql import elements, functions, operators, selectable, visitors
from sqlalchemy.sql.selectable import Alias, TableClause, TableValuedAlias

from rome.planner.plan import Bind, Constant

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


def is_table(element: Any) -> bool:
    """Tell whether an element is a table."""
    return isinstance(element, TableClause)


def is_alias(element: Any) -> bool:
    """Tell whether an element is an alias of something."""
    return isinstance(element, Alias) and not isinstance(element, TableValuedAlias)


def statement_of(owner: Any) -> Any:
    """Return the statement of a subquery or CTE."""
    statement = owner.element
    while isinstance(statement, selectable.SelectStatementGrouping):
        statement = statement.element
    return statement


def bare(element: Any) -> Any:
    """Return an element without its parentheses and labels."""
    while True:
        if isinstance(element, elements.Grouping | elements.Label) or (
            isinstance(element, elements.AsBoolean) and element.operator is operators.is_true
        ):
            element = element.element
        else:
            return element


def is_plain(part: Any) -> bool:
    """Tell whether a comparison has nothing that may give it another meaning."""
    return all(
        key in ("negate", "eager_grouping", "_is_implicitly_boolean") for key in part.modifiers
    )


def may_count(statement: Any) -> bool:
    """Tell whether a SELECT may have an answer without any row, as with an aggregate."""
    return bool(statement._having_criteria) or any(
        isinstance(element, _NOT_PLAIN)
        # Text that may be an aggregate.
        or (getattr(element, "is_literal", False) and str(element) not in ("*", "1"))
        or element.__visit_name__ == "aggregate_order_by"
        for column in statement._raw_columns
        for element in visitors.iterate(column)
    )


def row_by_row(statement: Any) -> bool:
    """Tell whether each row of a SELECT's answer depends on no others."""
    return not (
        statement._group_by_clauses
        or statement._limit_clause is not None
        or statement._offset_clause is not None
        or may_count(statement)
    )


def parts_of(criteria: Iterable[Any]) -> Iterator[Any]:
    """Yield the parts of a conjunction."""
    for part in criteria:
        part = bare(part)
        if isinstance(part, elements.BooleanClauseList) and part.operator is operators.and_:
            yield from parts_of(part.clauses)
        else:
            yield part


def relied_columns(table: Any, expressions: Iterable[Any]) -> frozenset[str] | None:
    """Return the names of a table's columns in expressions; None if they are unknown."""
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


def values_of(element: Any, compiled: Any) -> tuple[Bind | Constant, ...] | None:
    """Return the bind parameters and constants that an expression is; None: it is others."""
    element = bare(element)
    if isinstance(element, elements.BindParameter):
        name = compiled.bind_names.get(element)
        if name is None or element in compiled.literal_execute_params:
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
            more = values_of(clause, compiled)
            if more is None:
                return None
            values += more
        return tuple(values)
    return None
