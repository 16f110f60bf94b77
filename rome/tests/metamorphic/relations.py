"""What must hold between the answers of statements that differ by a condition.

Three-valued logic partitions rows: for each row a condition is true, false or NULL.  So what a
query says of all rows follows from what it says of the rows with `p`, `NOT p` and `p IS NULL`.
And a condition that is evaluated as a value, for each row, is true as often as a WHERE finds rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from rome.stores.values import sort_key
from sqlalchemy import (
    Connection,
    Integer,
    Table,
    and_,
    case,
    delete,
    exists,
    func,
    insert,
    literal_column,
    not_,
    null,
    or_,
    select,
    type_coerce,
    update,
)
from sqlalchemy.sql import elements

from tests.metamorphic.predicates import Predicates
from tests.metamorphic.tables import SUMMED, fitting, row
from tests.metamorphic.world import Rows, World, plain_number


class Relations:
    """Relations on one way of a world, for random queries and conditions."""

    def __init__(
        self, world: World, way: Connection, rng: Random, changed: Table | None = None
    ) -> None:
        """`changed`: the table that is mostly asked for."""
        self._changed = changed
        self.world = world
        self.way = way
        self.rng = rng
        self.element, self.sources = self._from()
        self._predicates = Predicates(rng, self.sources, world.tables)

    def check(self) -> None:
        """Check one of the relations."""
        kinds: list[tuple[int, Callable[[], None]]] = [
            (6, self.rows),
            (2, self.distinct),
            (4, self.aggregates),
            (4, self.groups),
            (2, self.having),
            (6, self.evaluated),
            (6, self.top_n),
            (3, self.written),
            (2, self.nested),
        ]
        chosen = self.rng.choices([k for _, k in kinds], [weight for weight, _ in kinds])[0]
        self.world.log.append(f"-- {chosen.__name__}")
        chosen()
        self.world.counts[chosen.__name__] += 1

    # ------------------------------------------------------------ queries

    def _from(self) -> tuple[Any, list[Any]]:
        """A table, an alias, a join, an outer join, or a SELECT to select from."""
        rng = self.rng
        tables = self.world.tables
        pick = rng.randrange(100)
        first: Any = rng.choice(tables)
        if self._changed is not None and rng.randrange(3):
            first = self._changed
        if pick < 45:
            return first, [first]
        if pick < 53:
            alias: Any = first.alias("a")
            return alias, [alias]
        if pick < 61:
            inner = Predicates(rng, [first], tables, 1)
            subquery: Any = select(first).where(inner.predicate(1)).subquery("f")
            return subquery, [subquery]
        element: Any = first
        sources: list[Any] = [first]
        for place in range(rng.choice([1, 1, 2])):
            other: Any = rng.choice(tables)
            other = other.alias(f"j{place}") if other in sources or rng.randrange(4) == 0 else other
            on = self._on(sources, other)
            element = element.join(other, on, isouter=rng.randrange(2) == 0)
            sources.append(other)
        return element, sources

    def _on(self, sources: list[Any], other: Any) -> Any:
        rng = self.rng
        mine = rng.choice(list(rng.choice(sources).columns))
        same = [c for c in other.columns if c.name == mine.name]
        theirs = same[0] if same and rng.randrange(4) else rng.choice(list(other.columns))
        on = mine == theirs
        if rng.randrange(3) == 0:
            on = and_(on, Predicates(rng, [*sources, other]).predicate(1))
        return on

    def _columns(self) -> list[Any]:
        rng = self.rng
        if len(self.sources) == 1 and rng.randrange(4) == 0:
            return list(self.sources[0].columns)
        columns = [self._predicates.column() for _ in range(rng.randint(1, 4))]
        return [column.label(f"x{place}") for place, column in enumerate(columns)]

    def _condition(self) -> Any:
        return self._predicates.predicate()

    def _parts(self, condition: Any) -> Iterator[Any]:
        """The condition, its negation, and that it is NULL; each in one of its forms."""
        grouped = elements.Grouping(condition)
        yield condition if self.rng.randrange(2) else grouped
        yield not_(condition) if self.rng.randrange(2) else elements.Grouping(not_(grouped))
        yield grouped.is_(null())

    def _read(self, statement: Any, ordered: bool = False, loose: bool = False) -> Rows:
        return self.world.read(self.way, statement, ordered, loose)

    def _three(self, statement: Any, loose: bool = False) -> list[Rows]:
        """The rows of a statement for each part of a condition."""
        parts = self._parts(self._condition())
        return [self._read(statement.where(part), loose=loose) for part in parts]

    def _must(self, holds: bool, what: str) -> None:
        if not holds:
            raise self.world.differs(what)

    # ------------------------------------------------------------ relations

    def rows(self) -> None:
        """Each row is in one of the three."""
        statement = select(*self._columns()).select_from(self.element)
        whole, parts = self._read(statement), self._three(statement)
        found: Counter[str] = Counter()
        for part in parts:
            found.update(map(repr, part))
        self._must(Counter(map(repr, whole)) == found, "rows of the parts")

    def distinct(self) -> None:
        """Each different row is in at least one."""
        statement = select(*self._columns()).select_from(self.element).distinct()
        whole, parts = self._read(statement, loose=True), self._three(statement, loose=True)
        self._must(set(whole) == set().union(*parts), "different rows of the parts")
        self._must(len(whole) == len(set(whole)), "different rows")

    def aggregates(self) -> None:
        """Counts and sums add up; extremes are those of the extremes."""
        column = self._predicates.column()
        summed = self.rng.choice(self.sources).c[self.rng.choice(SUMMED)]
        functions = [func.count(), func.count(column), func.sum(summed), func.min(column),
                     func.max(column)]  # fmt: skip
        chosen = sorted(self.rng.sample(range(5), self.rng.randint(1, 5)))
        statement = select(*(functions[place].label(f"f{place}") for place in chosen))
        statement = statement.select_from(self.element)
        (whole,), parts = self._read(statement, loose=True), self._three(statement, loose=True)
        for place, value, *values in zip(chosen, whole, *(part[0] for part in parts), strict=True):
            self._must(plain_number(value) == _combined(place, values), f"aggregate {place}")

    def groups(self) -> None:
        """The same for each group."""
        groups = [self._predicates.column() for _ in range(self.rng.randint(1, 2))]
        summed = self.rng.choice(self.sources).c[self.rng.choice(SUMMED)]
        labels = [column.label(f"g{place}") for place, column in enumerate(groups)]
        statement = select(*labels, func.count().label("n"), func.sum(summed).label("s"))
        statement = statement.select_from(self.element).group_by(*groups)
        whole, parts = self._read(statement, loose=True), self._three(statement, loose=True)
        found: dict[Any, list[list[Any]]] = {}
        for part in parts:
            for *keys, count, total in part:
                values = found.setdefault(tuple(keys), [[], []])
                values[0].append(count)
                values[1].append(total)
        sums = {key: (sum(counts), _combined(2, totals)) for key, (counts, totals) in found.items()}
        self._must({tuple(keys): (n, s) for *keys, n, s in whole} == sums, "groups of the parts")

    def having(self) -> None:
        """Each group is in one of the three."""
        group, column = self._predicates.column(), self._predicates.column()
        statement = select(group.label("g"), func.count().label("n")).select_from(self.element)
        if self.rng.randrange(2):
            statement = statement.where(self._condition())
        statement = statement.group_by(group)
        value = fitting(self.rng, column.name) if column.name in "itrbn" else 1
        tests = [func.count() > 1, func.max(column) > (value or 0), func.min(column).in_([value])]
        parts = [self._read(statement.having(part), loose=True)
                 for part in self._parts(self.rng.choice(tests))]  # fmt: skip
        whole = self._read(statement, loose=True)
        self._must(
            Counter(whole) == Counter(row for part in parts for row in part), "groups of the parts"
        )

    def evaluated(self) -> None:
        """As many rows as those for which the condition, as a value, is true."""
        condition = self._condition()
        value = case((condition, 1), else_=0) if self.rng.randrange(2) else condition
        number = type_coerce(value, Integer)  # else it would come as True
        values = self._read(select(number.label("x")).select_from(self.element))
        count = sum(1 for (x,) in values if x)
        counted = select(func.count()).select_from(self.element)
        rows = select(*self._columns()).select_from(self.element)
        # Not all of this can be tested by the store.
        more = or_(condition, and_(condition, literal_column("1") == 1))
        for part in (condition, more, elements.Grouping(condition)):
            self._must(self._read(counted.where(part))[0][0] == count, "count of rows")
            self._must(len(self._read(rows.where(part))) == count, "rows")
        there = select(type_coerce(exists(rows.where(condition)), Integer))
        self._must(self._read(there)[0][0] == (count > 0), "EXISTS")

    def top_n(self) -> None:
        """LIMIT and OFFSET take a piece of all rows in their order."""
        keys = [column for source in self.sources for column in source.columns
                if column.name in ("id", "k", "l")]  # fmt: skip
        columns = self._columns()
        order = [self._predicates.column() for _ in range(self.rng.randint(0, 2))]
        directed = [column.desc() if self.rng.randrange(2) else column for column in order]
        statement = select(*columns, *(key.label(f"k{i}") for i, key in enumerate(keys)))
        statement = statement.select_from(self.element).order_by(*directed, *keys)
        if self.rng.randrange(2):
            statement = statement.where(self._condition())
        whole = self._read(statement, ordered=True)
        limit, offset = self.rng.choice([0, 1, 2, 5, 100]), self.rng.choice([0, 0, 1, 3])
        piece = self._read(statement.limit(limit).offset(offset), ordered=True)
        self._must(
            list(map(repr, piece)) == list(map(repr, whole[offset : offset + limit])), "piece"
        )

    def written(self) -> None:
        """UPDATE and DELETE of the three parts take each row once."""
        table = self.rng.choice(self.world.tables)
        predicates = Predicates(self.rng, [table], self.world.tables, 1)
        condition = predicates.predicate()
        count = self._read(select(func.count()).select_from(table))[0][0]
        changed = []
        for part in self._parts(condition):
            with self.world.savepoint(self.way):
                statement: Any = delete(table).where(part)
                if self.rng.randrange(2):
                    statement = update(table).where(part).values(h=table.c.q)
                changed.append(self.world.write(self.way, statement))
                self._read(select(table))
        self._must(sum(changed) == count, "rows written")

    def nested(self) -> None:
        """A condition inside of a subquery finds what it finds outside."""
        table = self.rng.choice(self.world.tables)
        key = next(iter(table.primary_key.columns))
        condition = Predicates(self.rng, [table], self.world.tables, 1).predicate()
        outside = self._read(select(table.c.i, table.c.t).where(condition))
        same = table.alias("same")
        whole_key = [same.c[c.name] == c for c in table.primary_key.columns]
        linked = select(same.c.i, same.c.t).where(
            exists(select(literal_column("1")).where(condition, *whole_key).correlate(same))
        )
        self._must(sorted(map(repr, outside)) == sorted(map(repr, self._read(linked))), "EXISTS")
        if len(table.primary_key.columns) == 1:
            chosen = select(same.c.i, same.c.t).where(
                same.c[key.name].in_(select(key).where(condition))
            )
            self._must(sorted(map(repr, outside)) == sorted(map(repr, self._read(chosen))), "IN")


def _combined(place: int, values: list[Any]) -> Any:
    """An aggregate (by its place: two counts, a sum, a minimum, a maximum) of aggregates."""
    known = [value for value in values if value is not None]
    if place < 2:
        return sum(known)
    if not known:
        return None
    if place == 2:
        return plain_number(sum(known))
    return plain_number((min if place == 3 else max)(known, key=sort_key))


def change(world: World, way: Connection, rng: Random) -> Table:
    """Write something: rows of all kinds come, change and go; which table it was."""
    table = rng.choice(world.tables)
    pick = rng.randrange(10)
    condition = Predicates(rng, [table], world.tables, 1).predicate(1)
    if pick < 3:
        rows = [row(rng, table) for _ in range(rng.choice([1, 1, 2]))]
        world.write(way, insert(table).values(rows if len(rows) > 1 else rows[0]))
    elif pick < 7:
        names = rng.sample(["i", "t", "r", "b", "n", "q"], rng.randint(1, 3))
        values = {name: fitting(rng, name) for name in names}
        if rng.randrange(3) == 0:
            condition = table.c.q.in_([1, 2, 3])
        world.write(way, update(table).where(condition).values(values))
    else:
        world.write(way, delete(table).where(condition, table.c.q > 1))
    return table
