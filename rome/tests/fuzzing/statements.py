"""Random statements over a schema, aimed at what an access plan might get wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

from sqlalchemy import (
    Boolean,
    Float,
    Integer,
    Numeric,
    String,
    and_,
    case,
    delete,
    exists,
    func,
    insert,
    literal,
    literal_column,
    not_,
    null,
    or_,
    select,
    union,
    union_all,
    update,
)
from sqlalchemy.dialects import sqlite

from tests.fuzzing.schemas import POOLS, Made, Schema, type_of

ORDERED = ("int", "text", "float", "bool", "time", "big", "enum")


@dataclass
class Source:
    """Something to select from: a table, an alias, a subquery."""

    element: Any
    kinds: dict[str, str]
    keys: list[str]  # columns that tell its rows apart; none: they can't be told

    def column(self, name: str) -> Any:
        """By name."""
        return self.element.c[name]


@dataclass
class Query:
    """A SELECT; `ordered`: the order of its rows is told."""

    statement: Any
    ordered: bool = False


@dataclass
class Write:
    """A statement that writes a table."""

    statement: Any
    made: Made
    parameters: list[dict[str, Any]] | None = None
    given: bool = True  # no number is left to the database
    returning: bool = False


@dataclass
class Generator:
    """Statements for one schema; `existing` tells values that are in a column."""

    rng: Random
    schema: Schema
    existing: Any
    depth: int = 0
    around: list[Source] = field(default_factory=list)

    # ------------------------------------------------------------ dice

    def chance(self, percent: int) -> bool:
        """True in so many of a hundred cases."""
        return self.rng.randrange(100) < percent

    def value(self, made: Made, name: str) -> Any:
        """A value that a column may hold."""
        rng = self.rng
        column = made.table.c[name]
        if column.nullable and self.chance(20):
            return None
        if name in made.references and (name == "up" or self.chance(75)):
            there = self.existing(made.references[name])
            if there:
                return rng.choice(there)
            if name == "up":
                return None  # no row may meet its own number by chance
        if made.auto and column.primary_key:
            return rng.randint(1, 8)
        return rng.choice(POOLS[made.kinds[name]])

    def constant(self, kind: str) -> Any:
        """A value to compare a column with: mostly of its own type."""
        rng = self.rng
        if kind == "int" and self.chance(25):
            return literal(rng.randint(1, 60))
        if self.chance(82):
            return literal(rng.choice(POOLS[kind]), type_of(kind))
        if self.chance(25):
            return literal(None, type_of(kind))
        return rng.choice(
            [
                literal("5", String()),
                literal(" 1", String()),
                literal("1.0", String()),
                literal("1e0", String()),
                literal("a", String()),
                literal("", String()),
                literal("2020-01-01 00:00:00.000000", String()),
                literal("RED", String()),
                literal(5, Integer()),
                literal(1, Integer()),
                literal(2**53 + 1, Integer()),
                literal(5.0, Float()),
                literal(1.5, Float()),
                literal(-0.0, Float()),
                literal(True, Boolean()),
                literal(2, Numeric(10, 2, asdecimal=False)),
                literal_column("1"),
                literal_column("'a'"),
            ]
        )

    # ------------------------------------------------------------ sources

    def source(self) -> Source:
        """A table, an alias of one, or a derived table."""
        rng = self.rng
        pick = rng.randrange(100)
        if pick < 55 or self.depth >= 2:
            made = rng.choice(self.schema.tables)
            taken = {s.element.name for s in self.around if hasattr(s.element, "name")}
            element: Any = made.table
            if made.table.name in taken or self.chance(15):
                number = rng.randrange(10**6)
                element = made.table.alias(f"a{len(self.around)}_{self.depth}_{number}")
            return Source(element, made.kinds, [c.name for c in made.keys])
        return self.derived()

    def derived(self) -> Source:
        """A subquery or CTE, whose rows are told whatever the order of evaluation."""
        rng = self.rng
        inner = Generator(rng, self.schema, self.existing, self.depth + 1)
        made = rng.choice(self.schema.tables)
        table = made.table if self.chance(60) else made.table.alias(f"d{rng.randrange(10**6)}")
        own = Source(table, made.kinds, [c.name for c in made.keys])
        keys = own.keys
        names = list(dict.fromkeys([*keys, *rng.sample(list(made.kinds), min(3, len(made.kinds)))]))
        statement = select(*(table.c[name] for name in names))
        if self.chance(70):
            statement = statement.where(*inner.predicates([own], 1))
        pick = rng.randrange(100)
        if pick < 50:
            order = [table.c[n] for n in rng.sample(names, min(len(names), rng.randint(0, 2)))]
            statement = statement.order_by(
                *(self.directed(c) for c in order), *(table.c[k] for k in keys)
            ).limit(rng.randint(0, 4))
            if self.chance(40):
                statement = statement.offset(rng.randint(0, 2))
        elif pick < 65:
            other = select(*(table.c[name] for name in names)).where(*inner.predicates([own], 1))
            both = (union if self.chance(50) else union_all)(statement, other)
            name = f"u{rng.randrange(10**6)}"
            kinds = {n: made.kinds[n] for n in names}
            return Source(both.cte(name) if self.chance(40) else both.subquery(name), kinds, [])
        elif pick < 80:
            group = rng.choice([n for n in names if made.kinds[n] != "json"] or names)
            statement = select(
                table.c[group].label("g"),
                func.count().label("n"),
                func.max(table.c[keys[0]]).label("m"),
            )
            if self.chance(60):
                statement = statement.where(*inner.predicates([own], 1))
            statement = statement.group_by(table.c[group])
            kinds = {"g": made.kinds[group], "n": "int", "m": made.kinds[keys[0]]}
            return Source(statement.subquery(f"g{rng.randrange(10**6)}"), kinds, ["g"])
        kinds = {n: made.kinds[n] for n in names}
        name = f"s{rng.randrange(10**6)}"
        element = statement.cte(name) if self.chance(30) else statement.subquery(name)
        return Source(element, kinds, keys)

    def joined(self) -> tuple[Any, list[Source]]:
        """One to four sources, joined."""
        rng = self.rng
        first = self.source()
        outer, self.around = self.around, [*self.around, first]
        sources = [first]
        element = first.element
        for _ in range(rng.choice([0, 0, 1, 1, 1, 2, 2, 3])):
            right = self.source()
            self.around.append(right)
            target = right.element
            inner: list[Source] = [right]
            if self.chance(20):
                nested = self.source()
                self.around.append(nested)
                target = right.element.join(
                    nested.element, self.on([right], [nested]), isouter=self.chance(30)
                )
                inner.append(nested)
            on = self.on(sources, inner)
            if len(sources) == 1 and self.chance(5):
                # Older SQLites can't do much more with it.
                element = element.join(target, on, full=True)
                sources += inner
                break
            element = element.join(target, on, isouter=self.chance(55))
            sources += inner
        self.around = outer
        return element, sources

    def on(self, left: list[Source], right: list[Source]) -> Any:
        """A join's condition: columns of one kind, and sometimes more."""
        rng = self.rng
        conditions: list[Any] = []
        for _ in range(rng.choice([1, 1, 1, 2])):
            mine, other = rng.choice(left), rng.choice(right)
            pairs = [
                (a, b)
                for a, kind in mine.kinds.items()
                for b, wanted in other.kinds.items()
                if kind == wanted and kind != "json"
            ]
            if not pairs or self.chance(6):
                pairs = [(a, b) for a in mine.kinds for b in other.kinds]
            a, b = rng.choice(pairs)
            one, two = mine.column(a), other.column(b)
            if self.chance(50):
                one, two = two, one
            conditions.append(one == two if self.chance(92) else one >= two)
        if self.chance(30):
            conditions += self.predicates([*left, *right], 1)
        if len(conditions) > 1 and self.chance(6):
            return or_(*conditions)
        return and_(*conditions)

    # ------------------------------------------------------------ predicates

    def predicates(self, sources: list[Source], most: int) -> list[Any]:
        """Conditions, all of which hold."""
        return [self.predicate(sources) for _ in range(self.rng.randint(1, most))]

    def pick(self, sources: list[Source], kinds: tuple[str, ...] = ()) -> tuple[Any, str]:
        """A column and its kind."""
        source = self.rng.choice(sources)
        names = [n for n, kind in source.kinds.items() if not kinds or kind in kinds]
        if not names:
            return self.pick(sources)
        # Keys are what is looked up most.
        keys = [name for name in source.keys if name in names]
        name = self.rng.choice(keys) if keys and self.chance(25) else self.rng.choice(names)
        return source.column(name), source.kinds[name]

    def predicate(self, sources: list[Source], level: int = 0) -> Any:
        """A condition over columns of these sources."""
        rng = self.rng
        pick = rng.randrange(100)
        column, kind = self.pick(sources)
        if kind == "json":
            return column.is_(None) if self.chance(50) else column.is_not(null())
        if pick < 24:
            return column == self.constant(kind)
        if pick < 30:
            return column != self.constant(kind)
        if pick < 33:
            return self.constant(kind) == column
        if pick < 41:
            other = self.constant(kind)
            return rng.choice([column < other, column <= other, column > other, column >= other])
        if pick < 44:
            return column.between(self.constant(kind), self.constant(kind))
        if pick < 52:
            values = [rng.choice(POOLS[kind]) for _ in range(rng.randint(0, 3))]
            if kind == "int" and self.chance(30):
                values += [rng.randint(1, 60)]
            if self.chance(15):
                values.append(None)
            return column.in_(values) if self.chance(60) else column.not_in(values)
        if pick < 62:
            return column.is_(None) if self.chance(60) else column.is_not(None)
        if pick < 67:
            other, _ = self.pick(sources, (kind,))
            return column == other if self.chance(70) else column < other
        if pick < 70 and kind == "text":
            return column.like(rng.choice(["a%", "%b", "%", "5"]))
        if level < 2 and pick < 78:
            parts = [self.predicate(sources, level + 1) for _ in range(rng.randint(2, 3))]
            return or_(*parts) if self.chance(75) else and_(*parts)
        if level < 2 and pick < 82:
            return not_(self.predicate(sources, level + 1))
        if self.depth < 2 and pick < 97:
            return self.subquery_predicate(sources)
        return func.coalesce(column, self.constant(kind)) == self.constant(kind)

    def subquery_predicate(self, sources: list[Source]) -> Any:
        """EXISTS, IN (SELECT ...), or a comparison with a scalar subquery."""
        rng = self.rng
        inner = Generator(rng, self.schema, self.existing, self.depth + 1, list(sources))
        element, own = inner.joined()
        conditions = inner.predicates(own, 2) if self.chance(60) else []
        # An outer column: correlation.
        if self.chance(65):
            column, kind = self.pick(sources)
            fitting = [
                s.column(n) for s in own for n, k in s.kinds.items() if k == kind and k != "json"
            ]
            if fitting:
                conditions.append(rng.choice(fitting) == column)
        plain = [s.element for s in sources]
        pick = rng.randrange(100)
        if pick < 45:
            found = exists(select(literal_column("1")).select_from(element).where(*conditions)
                           .correlate(*plain))  # fmt: skip
            return found if self.chance(50) else ~found
        column, kind = self.pick(sources, ORDERED)
        wanted = [(s, n) for s in own for n, k in s.kinds.items() if k == kind]
        source, name = rng.choice(wanted) if wanted else (own[0], rng.choice(list(own[0].kinds)))
        target = source.column(name)
        if pick < 80:
            statement = select(target).select_from(element).where(*conditions).correlate(*plain)
            if self.chance(12) and all(s.keys for s in own):
                keys = [s.column(k) for s in own for k in s.keys]
                statement = statement.order_by(self.directed(target), *keys).limit(2)
            return column.in_(statement) if self.chance(65) else column.not_in(statement)
        value = getattr(func, rng.choice(["max", "min", "count"]))(target)
        scalar = (
            select(value).select_from(element).where(*conditions).correlate(*plain)
        ).scalar_subquery()
        return rng.choice([column == scalar, column < scalar, column >= scalar])

    # ------------------------------------------------------------ queries

    def directed(self, column: Any) -> Any:
        """Ascending, descending, or as the default."""
        direction = self.rng.randrange(4)
        if direction == 0:
            return column.desc()
        return column.asc() if direction == 1 else column

    def query(self) -> Query:
        """A SELECT."""
        pick = self.rng.randrange(100)
        if pick < 10:
            return self.compound()
        if pick < 26:
            return self.simple_aggregate()
        if pick < 40:
            return self.grouped()
        if pick < 62:
            return self.limited()
        if pick < 74:
            return self.matched()
        element, sources = self.joined()
        columns = [self.pick(sources)[0] for _ in range(self.rng.randint(1, 4))]
        columns = [c.label(f"x{i}") for i, c in enumerate(columns)]
        if self.chance(12) and self.depth == 0:
            columns.append(self.scalar(sources).label("sub"))
        if self.chance(8):
            column, _ = self.pick(sources)
            columns.append(case((column.is_(None), 1), else_=0).label("flag"))
        statement = select(*columns).select_from(element)
        if self.chance(80):
            statement = statement.where(*self.predicates(sources, 3))
        if self.chance(10):
            statement = statement.distinct()
        return Query(statement)

    def matched(self) -> Query:
        """Rows that must have others in other tables, and what is joined to them."""
        made = self.rng.choice(self.schema.tables)
        table = made.table.alias(f"m{self.rng.randrange(10**6)}")
        first = Source(table, made.kinds, [c.name for c in made.keys])
        conditions = [self.match([first]) for _ in range(self.rng.choice([1, 1, 2]))]
        if self.chance(40):
            conditions += self.predicates([first], 2)
        element: Any = table
        if self.chance(50):
            element = select(table).where(*conditions).subquery(f"s{self.rng.randrange(10**6)}")
            first, conditions = Source(element, first.kinds, first.keys), []
        sources = [first]
        for _ in range(self.rng.randint(0, 2)):
            self.around = list(sources)
            right = self.source()
            on = self.on(sources, [right])
            if self.chance(20):
                on = and_(on, self.match([right] if self.chance(70) else sources))
            element = element.join(right.element, on, isouter=self.chance(60))
            sources.append(right)
        self.around = []
        if self.chance(20):
            conditions.append(self.match(sources))
        columns = [self.pick(sources)[0] for _ in range(self.rng.randint(1, 4))]
        labelled = [c.label(f"x{i}") for i, c in enumerate(columns)]
        return Query(select(*labelled).select_from(element).where(*conditions))

    def match(self, sources: list[Source]) -> Any:
        """That there is a row with an equal column in another table."""
        inner = Generator(self.rng, self.schema, self.existing, self.depth + 1, list(sources))
        element, own = inner.joined()
        conditions = inner.predicates(own, 1) if self.chance(60) else []
        if self.chance(15) and inner.depth < 2:
            conditions.append(inner.match(own))
        column, kind = self.pick(sources, ORDERED)
        fitting = [s.column(n) for s in own for n, k in s.kinds.items() if k == kind]
        plain = [s.element for s in sources]
        if not fitting or self.chance(50):
            on = self.on(sources, own)
            any_row: Any = select(literal_column("1")).select_from(element)
            return any_row.where(on, *conditions).correlate(*plain).exists()
        wanted: Any = select(self.rng.choice(fitting)).select_from(element).where(*conditions)
        return column.in_(wanted.correlate(*plain))

    def scalar(self, sources: list[Source]) -> Any:
        """A correlated count."""
        inner = Generator(self.rng, self.schema, self.existing, self.depth + 1, list(sources))
        element, own = inner.joined()
        column, kind = self.pick(sources)
        fitting = [
            s.column(n) for s in own for n, k in s.kinds.items() if k == kind and k != "json"
        ]
        statement = select(func.count()).select_from(element)
        if fitting:
            statement = statement.where(self.rng.choice(fitting) == column)
        return statement.correlate(*(s.element for s in sources)).scalar_subquery()

    def limited(self) -> Query:
        """The first rows in an order.  Rows that are equal in it must be equal in all that
        is asked for, or be told apart by keys."""
        rng = self.rng
        if self.chance(60):
            made = rng.choice(self.schema.tables)
            element: Any = made.table
            sources = [Source(element, made.kinds, [c.name for c in made.keys])]
        else:
            element, sources = self.joined()
        columns = [self.pick(sources, ORDERED)[0] for _ in range(rng.randint(1, 3))]
        order = [self.directed(c) for c in columns]
        told = all(s.keys for s in sources)
        if told and self.chance(50):
            keys = [s.column(k) for s in sources for k in s.keys]
            order += keys
            columns += [self.pick(sources)[0], *keys]
        labelled = [c.label(f"x{i}") for i, c in enumerate(columns)]
        statement = select(*labelled).select_from(element)
        if self.chance(65):
            statement = statement.where(*self.predicates(sources, 2))
        statement = statement.order_by(*order).limit(rng.choice([0, 1, 1, 2, 3, 5, 100]))
        if self.chance(30):
            statement = statement.offset(rng.randint(0, 3))
        if self.chance(5):
            statement = statement.distinct()
        return Query(statement, ordered=True)

    def aggregates(self, sources: list[Source]) -> list[Any]:
        """Functions over groups."""
        rng = self.rng
        found: list[Any] = []
        for _ in range(rng.randint(1, 3)):
            pick = rng.randrange(100)
            if pick < 25:
                found.append(func.count())
            elif pick < 40:
                found.append(func.count(self.pick(sources)[0]))
            elif pick < 48:
                found.append(func.count(self.pick(sources, ORDERED)[0].distinct()))
            elif pick < 70:
                found.append(func.sum(self.pick(sources, ("int", "float"))[0]))
            elif pick < 75:
                column, _ = self.pick(sources, ("int",))
                found.append(func.coalesce(func.sum(column), 0))
            else:
                column, _ = self.pick(sources, ORDERED)
                found.append(getattr(func, rng.choice(["min", "max"]))(column))
        return [f.label(f"f{i}") for i, f in enumerate(found)]

    def simple_aggregate(self) -> Query:
        """Counts, sums, extremes of one table."""
        rng = self.rng
        made = rng.choice(self.schema.tables)
        source = Source(made.table, made.kinds, [c.name for c in made.keys])
        columns = self.aggregates([source])
        groups: list[Any] = []
        if self.chance(35):
            groups = [self.pick([source], ORDERED)[0] for _ in range(rng.randint(1, 2))]
            columns += [g.label(f"g{i}") for i, g in enumerate(groups)]
        statement = select(*columns).select_from(made.table)
        if self.chance(60):
            statement = statement.where(*self.predicates([source], 2))
        if groups:
            statement = statement.group_by(*groups)
        elif self.chance(10):
            statement = statement.limit(rng.randint(0, 2))
        return Query(statement)

    def grouped(self) -> Query:
        """GROUP BY over joins, with HAVING."""
        element, sources = self.joined()
        groups = [self.pick(sources, ORDERED)[0] for _ in range(self.rng.randint(0, 2))]
        columns = [g.label(f"g{i}") for i, g in enumerate(groups)] + self.aggregates(sources)
        statement = select(*columns).select_from(element)
        if self.chance(60):
            statement = statement.where(*self.predicates(sources, 2))
        if groups:
            statement = statement.group_by(*groups)
            if self.chance(40):
                column, kind = self.pick(sources, ORDERED)
                statement = statement.having(
                    self.rng.choice([func.count() > 1, func.max(column) > self.constant(kind)])
                )
        return Query(statement)

    def compound(self) -> Query:
        """UNION and its like."""
        rng = self.rng
        kind = rng.choice(ORDERED)
        parts = []
        for _ in range(rng.randint(2, 3)):
            element, sources = self.joined()
            column, _ = self.pick(sources, (kind,))
            part = select(column.label("x")).select_from(element)
            if self.chance(80):
                part = part.where(*self.predicates(sources, 2))
            parts.append(part)
        first, *rest = parts
        word = rng.randrange(4)
        if word == 0:
            return Query(first.union(*rest))
        if word == 1:
            return Query(first.union_all(*rest))
        return Query(first.except_(*rest) if word == 2 else first.intersect(*rest))

    # ------------------------------------------------------------ writes

    def row(self, made: Made, given: bool) -> dict[str, Any]:
        """Values of a new row."""
        row = {}
        for column in made.table.columns:
            if made.auto and column.primary_key and not given:
                continue
            if column.nullable and self.chance(10):
                continue
            row[column.name] = self.value(made, column.name)
        return row

    def write(self) -> Write:
        """An INSERT, UPDATE or DELETE."""
        pick = self.rng.randrange(100)
        made = self.rng.choice(self.schema.tables)
        if pick < 46:
            return self.insert(made)
        if pick < 82:
            return self.update(made)
        return self.delete(made)

    def insert(self, made: Made) -> Write:
        """One row, several, or those of a SELECT."""
        rng = self.rng
        given = not made.auto or self.chance(45)
        pick = rng.randrange(100)
        table = made.table
        if pick < 45:
            statement = insert(table).values(**self.row(made, given))
            if self.chance(25):
                return Write(statement.returning(*table.columns), made, None, given, True)
            return Write(statement, made, None, given)
        if pick < 70:
            names = set(self.row(made, given)) | {c.name for c in table.columns if not c.nullable}
            if made.auto and not given:
                names -= {made.keys[0].name}
            rows = [
                {n: self.value(made, n) for n in sorted(names)} for _ in range(rng.randint(1, 4))
            ]
            if self.chance(50):
                return Write(insert(table), made, rows, given)
            return Write(insert(table).values(rows), made, None, given)
        if pick < 82:
            clause = sqlite.insert(table).values(**self.row(made, True))
            # With other keys it would matter which one is looked at first.
            if self.chance(50) or made.several_keys:
                return Write(clause.on_conflict_do_nothing(), made, None, True)
            name = rng.choice([c.name for c in table.columns if not c.primary_key])
            changed = clause.on_conflict_do_update(
                index_elements=made.keys, set_={name: clause.excluded[name]}
            )
            return Write(changed, made, None, True)
        return self.insert_from(made, given)

    def insert_from(self, made: Made, given: bool) -> Write:
        """INSERT ... SELECT: copies of rows, with other keys."""
        rng = self.rng
        other = made.table.alias("origin") if self.chance(50) else made.table
        source = Source(other, made.kinds, [c.name for c in made.keys])
        names, columns = [], []
        for column in made.table.columns:
            kind = made.kinds[column.name]
            if made.auto and column.primary_key:
                if not given:
                    continue
                columns.append(other.c[column.name] + rng.randint(1, 30))
            elif column.primary_key and kind == "text":
                columns.append(other.c[column.name] + "x")
            elif column.primary_key:
                columns.append(other.c[column.name] + rng.randint(1, 9))
            elif column.nullable and kind != "json" and self.chance(20):
                columns.append(null())
            else:
                columns.append(other.c[column.name])
            names.append(column.name)
        statement = select(*columns).select_from(other)
        if self.chance(80):
            statement = statement.where(*self.predicates([source], 2))
        keys = [other.c[c.name] for c in made.keys]
        statement = statement.order_by(*keys)
        if self.chance(30):
            statement = statement.limit(rng.randint(1, 3))
        return Write(insert(made.table).from_select(names, statement), made, None, given)

    def update(self, made: Made) -> Write:
        """UPDATE with values, expressions, subqueries."""
        rng = self.rng
        table = made.table
        source = Source(table, made.kinds, [c.name for c in made.keys])
        values: dict[str, Any] = {}
        for name in rng.sample(list(made.kinds), min(len(made.kinds), rng.choice([1, 1, 2, 3]))):
            column, kind = table.c[name], made.kinds[name]
            if column.primary_key and self.chance(60):
                continue
            pick = rng.randrange(100)
            if pick < 25 and kind in ("int", "float"):
                values[name] = column + 1
            elif pick < 30 and kind == "text":
                values[name] = column + "b"
            elif pick < 40:
                same = [n for n, k in made.kinds.items() if k == kind and n != name]
                values[name] = table.c[rng.choice(same)] if same else column
            elif pick < 47 and kind == "int":
                other = rng.choice(self.schema.tables)
                values[name] = select(func.count()).select_from(other.table).scalar_subquery()
            else:
                values[name] = self.value(made, name)
        if not values:
            name = rng.choice(list(made.kinds))
            values = {name: self.value(made, name)}
        statement = update(table).values(values)
        if self.chance(88):
            statement = statement.where(*self.chosen(made, source))
        if self.chance(15):
            return Write(statement.returning(*table.columns), made, None, True, True)
        return Write(statement, made)

    def read_and_write(self) -> tuple[Query, Write] | None:
        """A row is read by its key, with a few columns of others that refer to it; then it is
        written by its key, as an ORM does."""
        rng = self.rng
        made = rng.choice([m for m in self.schema.tables if m.auto] or self.schema.tables)
        key = made.keys[0]
        there = self.existing(key)
        if not there:
            return None
        same = key == rng.choice(there)
        children = [
            (other, other.table.c[name])
            for other in self.schema.tables
            for name, target in other.references.items()
            if target.table is made.table and other is not made
        ]
        statement: Any = select(*made.table.columns).where(same)
        if children and self.chance(80):
            child, reference = rng.choice(children)
            joined = made.table.outerjoin(child.table, reference == made.table.c[
                next(t.name for n, t in child.references.items() if n == reference.name)
            ])  # fmt: skip
            column = rng.choice(list(child.table.columns))
            statement = select(*made.table.columns, column.label("x")).select_from(joined)
            statement = statement.where(same)
        plain = [n for n in made.kinds if n not in made.references and n != key.name]
        if plain and self.chance(55):
            name = rng.choice(plain)
            values = {name: self.value(made, name)}
            return Query(statement), Write(update(made.table).where(same).values(values), made)
        return Query(statement), Write(delete(made.table).where(same), made)

    def chosen(self, made: Made, source: Source) -> list[Any]:
        """Conditions that name rows: often by their key, as applications do."""
        if self.chance(45):
            key = made.keys[0]
            there = self.existing(key)
            if there:
                return [key == self.rng.choice(there), *self.predicates([source], 1)][
                    : self.rng.randint(1, 2)
                ]
        return self.predicates([source], 2)

    def delete(self, made: Made) -> Write:
        """DELETE."""
        source = Source(made.table, made.kinds, [c.name for c in made.keys])
        statement = delete(made.table)
        if self.chance(93):
            statement = statement.where(*self.chosen(made, source))
        # What else goes with a row of a table that refers to itself depends on the order.
        if self.chance(15) and "up" not in made.references:
            return Write(statement.returning(*made.table.columns), made, None, True, True)
        return Write(statement, made)
