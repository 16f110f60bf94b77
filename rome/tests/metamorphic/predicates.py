"""Random conditions: those that the store can test, those that it can't, and mixtures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from sqlalchemy import (
    Integer,
    Numeric,
    String,
    and_,
    between,
    case,
    cast,
    false,
    func,
    literal,
    not_,
    null,
    or_,
    select,
    true,
    tuple_,
    type_coerce,
)
from sqlalchemy.sql import operators

from tests.metamorphic.tables import AFFINITIES, SUMMED, Affine, anything, fitting

COMPARISONS = (
    operators.eq,
    operators.eq,
    operators.ne,
    operators.lt,
    operators.le,
    operators.gt,
    operators.ge,
)


class Predicates:
    """Conditions over sources (tables or aliases); `inner`: tables for subqueries."""

    def __init__(
        self, rng: Random, sources: Sequence[Any], inner: Sequence[Any] = (), depth: int = 0
    ) -> None:
        self.rng = rng
        self.sources = sources
        self.inner = inner
        self.depth = depth

    def column(self) -> Any:
        """A column of any source."""
        return self.rng.choice(list(self.rng.choice(self.sources).columns))

    def _value(self, column: Any) -> Any:
        name = column.name
        if name in AFFINITIES or name in SUMMED:
            return fitting(self.rng, name) if self.rng.randrange(3) else anything(self.rng)
        if self.rng.randrange(3) == 0:
            return anything(self.rng)
        return "a1" if name == "k" else self.rng.choice([1, -4, 2.0, "5"])

    def _bound(self, value: Any) -> Any:
        """A value of an operand: NULL too as a parameter, not as IS NULL."""
        return literal(value, Affine("")) if value is None or self.rng.randrange(2) else value

    def predicate(self, level: int = 2) -> Any:
        """A condition, with others inside of it at some levels."""
        rng = self.rng
        pick = rng.randrange(100)
        if level and pick < 40:
            parts = [self.predicate(level - 1) for _ in range(rng.randint(2, 3))]
            return (and_ if rng.randrange(2) else or_)(*parts)
        if level and pick < 47:
            return not_(self.predicate(level - 1))
        if pick < 50:
            return rng.choice([true(), false(), literal(None, Integer) > 1])
        if pick < 58 and self.inner and self.depth < 2:
            return self._subquery()
        if pick < 70:
            return self._computed()
        if pick < 76:
            # Branches about one column: the store tests them together.
            column = self.column()
            return or_(*(self._plain(column) for _ in range(rng.randint(2, 3))))
        return self._plain(self.column())

    def _plain(self, column: Any) -> Any:
        """A column and values, as the store may test them."""
        rng = self.rng
        pick = rng.randrange(100)
        if pick < 36:
            value = self._bound(self._value(column))
            compared = rng.choice(COMPARISONS)(column, value)
            return not_(compared) if rng.randrange(6) == 0 else compared
        if pick < 44:
            # A value on the left, or another column.
            left: Any = self.column()
            if rng.randrange(2):
                left = literal(self._value(column), column.type)
            return rng.choice(COMPARISONS)(left, column)
        if pick < 54:
            return column.is_(null()) if rng.randrange(2) else column.is_not(null())
        if pick < 60:
            # One test of bytes in the store.
            one = rng.choice([operators.eq, operators.ne])(column, self._value(column) or 1)
            return or_(one, column.is_(null()))
        if pick < 66:
            value = literal(None if rng.randrange(2) else self._value(column), column.type)
            different = column.is_distinct_from(value)
            return different if rng.randrange(2) else column.is_not_distinct_from(value)
        if pick < 88:
            values = [self._value(column) for _ in range(rng.choice([0, 1, 2, 3, 5]))]
            return column.in_(values) if rng.randrange(3) else column.not_in(values)
        if pick < 92:
            low, high = self._value(column), self._value(column)
            return between(column, literal(low, column.type), literal(high, column.type))
        if pick < 97:
            words = rng.choice(["a%", "%", "A_", "_", "1%", "", "%b", "\\%", None])
            pattern = literal(words, Affine(""))
            liked = column.like(pattern) if rng.randrange(2) else column.ilike(pattern)
            return liked if rng.randrange(3) else not_(liked)
        other = self.column()
        pairs = [(self._value(column), self._value(other)) for _ in range(rng.randint(1, 3))]
        return tuple_(column, other).in_(pairs)

    def expression(self) -> Any:
        """Something that is computed from a column."""
        rng = self.rng
        column = self.column()
        value = self._bound(self._value(column))
        ways: list[Callable[[], Any]] = [
            lambda: column + self._bound(rng.choice([0, 1, 0.5, "1", None])),
            lambda: column * 2,
            lambda: -column,
            lambda: column - self.column(),
            lambda: func.coalesce(column, value),
            lambda: func.coalesce(column, self.column(), 0),
            lambda: func.nullif(column, value),
            lambda: func.round(column),
            lambda: func.lower(column),
            lambda: func.length(column),
            lambda: func.typeof(column),
            lambda: cast(column, Integer),
            lambda: cast(column, String),
            lambda: cast(column, Numeric(10, 2, asdecimal=False)),
            lambda: case((self._plain(column), value), else_=self.column()),
            lambda: case((column == value, 1), (column.is_(null()), None), else_=0),
            lambda: column.concat(self._bound(rng.choice(["", "x", None]))),
            lambda: column,
            lambda: column.collate("NOCASE"),
            lambda: column.bitwise_and(3),
            lambda: column % 2,
        ]
        return type_coerce(rng.choice(ways)(), Affine(""))  # values pass as they are

    def _computed(self) -> Any:
        rng = self.rng
        expression = self.expression()
        pick = rng.randrange(10)
        if pick < 5:
            value = anything(rng)
            return rng.choice(COMPARISONS)(expression, self._bound(value))
        if pick < 7:
            return rng.choice(COMPARISONS)(self.column(), expression)
        if pick < 8:
            return expression.is_(null())
        if pick < 9:
            return expression.in_([anything(rng) for _ in range(rng.randint(0, 3))])
        return cast(expression, Integer) == rng.choice([0, 1])

    def _subquery(self) -> Any:
        """EXISTS, IN (SELECT ...), a scalar subquery; correlated or not."""
        rng = self.rng
        table = rng.choice(self.inner).alias(f"s{self.depth}")
        within = Predicates(rng, [table], self.inner, self.depth + 1)
        around = [source for source in self.sources if source is not table]
        own = rng.choice(list(table.columns))
        mine = self.column()
        statement = select(own)
        if rng.randrange(3):
            statement = statement.where(within.predicate(1))
        pick = rng.randrange(10)
        if pick < 4:
            linked = statement.where(own == mine).correlate(*around)
            found = linked.exists()
            return found if rng.randrange(3) else not_(found)
        if pick < 8:
            statement = statement.correlate(*around)
            return mine.in_(statement) if rng.randrange(3) else mine.not_in(statement)
        counted = select(func.count()).select_from(table).where(own == mine).correlate(*around)
        return rng.choice(COMPARISONS)(counted.scalar_subquery(), rng.choice([0, 1, 2]))
