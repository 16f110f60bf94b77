"""A SELECT in text as the SQLAlchemy construct that compiles to it, so that it can be planned.

ROME plans what SQLAlchemy compiles; text goes to SQLite as it is, over whole tables.  To explain
what an application's statement does, such as one from a log, its text is read back.  This
understands what SQLAlchemy writes for usual SELECTs: joins, subqueries in FROM, IN and EXISTS,
conditions, aggregates, GROUP BY, ORDER BY, LIMIT.  Anything else raises NotParsed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    and_,
    column,
    func,
    literal,
    literal_column,
    not_,
    null,
    or_,
    select,
    table,
)

from rome.schema.catalogue import Schema
from rome.schema.tables import fold

_TOKEN = re.compile(
    r"""\s*(?:(?P<number>\d+(?:\.\d+)?)|(?P<string>'(?:[^']|'')*')
    |(?P<quoted>"(?:[^"]|"")*"|`[^`]*`)|(?P<parameter>\?|%\(\w+\)s|%s|:\w+)
    |(?P<word>[A-Za-z_]\w*)|(?P<symbol><>|<=|>=|!=|==|\|\||[-+*/%=<>(),.]))""",
    re.VERBOSE,
)
_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "=": lambda a, b: a == b,
    "==": lambda a, b: a == b,
    "<>": lambda a, b: a != b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "||": lambda a, b: a.concat(b),
}
_RESERVED = frozenset(
    (
        *("AS", "CROSS", "FROM", "GROUP", "HAVING", "INNER", "JOIN", "LEFT", "LIMIT", "OFFSET"),
        *("ON", "ORDER", "OUTER", "UNION", "WHERE"),
    )
)
# What SQLAlchemy writes for a list without any value.
_EMPTY_LIST = ["SELECT", "1", "FROM", "(", "SELECT", "1", ")", "WHERE", "1", "!=", "1"]


class NotParsed(Exception):
    """The text is no SELECT that can be read back."""


class ParametersMissing(NotParsed):
    """The text has more parameters than there are values."""


Froms = Mapping[str, Any]  # by folded name or alias


def parse_select(sql: str, values: Sequence[Any], schema: Schema) -> Any:
    """Return the SELECT that a text is; `values` are those of its parameters, in their order.

    Raises NotParsed, ParametersMissing.
    """
    parser = _Parser(list(_tokens(sql)), values, schema)
    statement = parser.select({})
    parser.end()
    return statement


def _tokens(sql: str) -> Iterator[tuple[str, str]]:
    place = 0
    text = sql.rstrip().rstrip(";").rstrip()
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None or match.lastgroup is None:
            raise NotParsed(f"what stands at {text[place : place + 20]!r}")
        yield match.lastgroup, match[match.lastgroup]
        place = match.end()


class _Parser:
    """A parser by recursive descent; each method takes the tokens of what it is named after."""

    def __init__(
        self, tokens: Sequence[tuple[str, str]], values: Sequence[Any], schema: Schema
    ) -> None:
        self._tokens = tokens
        self._place = 0
        self._values = list(values)
        self._used = 0
        self._schema = schema

    # ------------------------------------------------------------ tokens

    def _peek(self, ahead: int = 0) -> tuple[str, str]:
        place = self._place + ahead
        return self._tokens[place] if place < len(self._tokens) else ("end", "")

    def _at(self, *words: str) -> bool:
        """Tell whether these words or symbols come next."""
        return all(self._peek(n)[1].upper() == word for n, word in enumerate(words)) and all(
            self._peek(n)[0] in ("word", "symbol", "number") for n in range(len(words))
        )

    def _take(self, *words: str) -> bool:
        """Take these words or symbols, if they come next."""
        if not self._at(*words):
            return False
        self._place += len(words)
        return True

    def _expect(self, word: str) -> None:
        if not self._take(word):
            raise NotParsed(f"{self._peek()[1] or 'the end'!r}, where {word} is expected")

    def _name(self) -> str:
        kind, text = self._peek()
        if kind == "word" and text.upper() not in _RESERVED:
            self._place += 1
            return text
        if kind == "quoted":
            self._place += 1
            return text[1:-1].replace('""', '"')
        raise NotParsed(f"{text or 'the end'!r}, where a name is expected")

    def _list(self, item: Callable[[], Any]) -> list[Any]:
        items = [item()]
        while self._take(","):
            items.append(item())
        return items

    def end(self) -> None:
        """Refuse what is left."""
        if self._place < len(self._tokens):
            raise NotParsed(repr(self._peek()[1]))

    # ------------------------------------------------------------ SELECT

    def select(self, outer: Froms) -> Any:
        """Take a SELECT; `outer`: the tables of those around it."""
        self._expect("SELECT")
        distinct = self._take("DISTINCT")
        start = self._place
        self._skip_to_from()
        own: dict[str, Any] = {}
        joined = self._list(lambda: self._joins(own)) if self._take("FROM") else []
        after, self._place = self._place, start
        froms = {**outer, **own}
        statement = select(*self._items(froms, own)).select_from(*joined)
        self._place = max(after, self._place)
        if distinct:
            statement = statement.distinct()
        if self._take("WHERE"):
            statement = statement.where(self.condition(froms))
        if self._take("GROUP", "BY"):
            statement = statement.group_by(*self._list(lambda: self._value(froms)))
        if self._take("HAVING"):
            statement = statement.having(self.condition(froms))
        if self._take("ORDER", "BY"):
            statement = statement.order_by(*self._list(lambda: self._ordering(froms)))
        if self._take("LIMIT"):
            statement = statement.limit(self._value(froms))
        if self._take("OFFSET"):
            statement = statement.offset(self._value(froms))
        return statement

    def _skip_to_from(self) -> None:
        depth = 0
        while self._peek()[0] != "end" and not (depth == 0 and self._at("FROM")):
            depth += {"(": 1, ")": -1}.get(self._peek()[1], 0)
            if depth < 0:
                return
            self._place += 1

    def _items(self, froms: Froms, own: Froms) -> list[Any]:
        items: list[Any] = []

        def item() -> None:
            if self._take("*"):
                items.extend(part for one in own.values() for part in one.c)
            elif self._peek(1)[1] == "." and self._peek(2)[1] == "*":
                items.extend(self._from(froms, self._name()).c)
                self._place += 2
            else:
                value = self.condition(froms)
                name = self._name() if self._take("AS") else None
                same = name is None or name == getattr(value, "name", None)
                items.append(value if same else value.label(name))

        self._list(item)
        return items

    def _ordering(self, froms: Froms) -> Any:
        value = self._value(froms)
        if self._take("DESC"):
            return value.desc()
        self._take("ASC")
        return value

    # ------------------------------------------------------------ FROM

    def _joins(self, own: dict[str, Any]) -> Any:
        left = self._source(own)
        while True:
            outer = self._take("LEFT", "OUTER", "JOIN") or self._take("LEFT", "JOIN")
            if not outer and not self._take("INNER", "JOIN") and not self._take("JOIN"):
                return left
            right = self._source(own)
            self._expect("ON")
            left = left.join(right, self.condition(own), isouter=outer)

    def _source(self, own: dict[str, Any]) -> Any:
        if self._take("("):
            if self._at("SELECT"):
                inner = self.select({})
                self._expect(")")
                self._take("AS")
                name = self._name()
                own[fold(name)] = inner.subquery(name)
                return own[fold(name)]
            inner = self._joins(own)
            self._expect(")")
            return inner
        name = self._name()
        stored = self._schema.tables.get(fold(name))
        if stored is None or stored.is_view:
            raise NotParsed(f"{name!r}, which is no table")
        source: Any = table(stored.name, *(column(one.name) for one in stored.columns))
        if self._take("AS") or (
            self._peek()[0] in ("word", "quoted") and self._peek()[1].upper() not in _RESERVED
        ):
            name = self._name()
            source = source.alias(name)
        own[fold(name)] = source
        return source

    @staticmethod
    def _from(froms: Froms, name: str) -> Any:
        if fold(name) not in froms:
            raise NotParsed(f"{name!r}, which is no table of the statement")
        return froms[fold(name)]

    # ------------------------------------------------------------ conditions

    def condition(self, froms: Froms) -> Any:
        """Take a disjunction."""
        parts = [self._conjunction(froms)]
        while self._take("OR"):
            parts.append(self._conjunction(froms))
        return or_(*parts) if len(parts) > 1 else parts[0]

    def _conjunction(self, froms: Froms) -> Any:
        parts = [self._test(froms)]
        while self._take("AND"):
            parts.append(self._test(froms))
        return and_(*parts) if len(parts) > 1 else parts[0]

    def _test(self, froms: Froms) -> Any:
        if self._take("NOT"):
            return not_(self._test(froms))
        if self._take("EXISTS", "("):
            inner = self.select(froms)
            self._expect(")")
            return inner.exists()
        left = self._value(froms)
        for symbol, compare in _COMPARISONS.items():
            if self._take(symbol):
                return compare(left, self._value(froms))
        if self._take("IS"):
            negated = self._take("NOT")
            self._expect("NULL")
            return left.is_not(None) if negated else left.is_(None)
        negated = self._take("NOT")
        if self._take("IN", "("):
            operand = self._members(froms)
            return left.not_in(operand) if negated else left.in_(operand)
        if self._take("BETWEEN"):
            low = self._value(froms)
            self._expect("AND")
            operand = left.between(low, self._value(froms))
            return not_(operand) if negated else operand
        if self._take("LIKE"):
            pattern = self._value(froms)
            return left.not_like(pattern) if negated else left.like(pattern)
        if negated:
            raise NotParsed(f"{self._peek()[1]!r} behind NOT")
        return left

    def _members(self, froms: Froms) -> Any:
        if self._take(*_EMPTY_LIST):
            members: Any = []
        elif self._at("SELECT"):
            members = self.select(froms)
        else:
            members = [] if self._at(")") else self._list(lambda: self._value(froms))
        self._expect(")")
        return members

    # ------------------------------------------------------------ values

    def _value(self, froms: Froms) -> Any:
        left = self._operand(froms)
        while self._peek()[0] == "symbol" and self._peek()[1] in _ARITHMETIC:
            operate = _ARITHMETIC[self._peek()[1]]
            self._place += 1
            left = operate(left, self._operand(froms))
        return left

    def _operand(self, froms: Froms) -> Any:
        kind, text = self._peek()
        if self._take("("):
            inner = self.select(froms).scalar_subquery() if self._at("SELECT") else None
            value = self.condition(froms) if inner is None else inner
            self._expect(")")
            return value
        if self._take("-"):
            return -self._operand(froms)
        if self._take("NULL"):
            return null()
        if kind in ("number", "string", "parameter"):
            self._place += 1
            return literal(self._constant(kind, text))
        name = self._name()
        if self._take("("):
            return self._function(name, froms)
        if self._take("."):
            return self._column(self._from(froms, name), self._name())
        owners = [source for source in froms.values() if name in source.c]
        if not owners:
            raise NotParsed(f"{name!r}, which is no column")
        return self._column(owners[-1], name)

    @staticmethod
    def _column(source: Any, name: str) -> Any:
        match = next((one for one in source.c if fold(one.name) == fold(name)), None)
        if match is None:
            raise NotParsed(f"{name!r}, which is no column of {source.name}")
        return match

    def _constant(self, kind: str, text: str) -> Any:
        if kind == "number":
            return float(text) if "." in text else int(text)
        if kind == "string":
            return text[1:-1].replace("''", "'")
        if self._used == len(self._values):
            raise ParametersMissing(f"the value of parameter {self._used + 1} ({text})")
        self._used += 1
        return self._values[self._used - 1]

    def _function(self, name: str, froms: Froms) -> Any:
        distinct = self._take("DISTINCT")
        arguments: list[Any] = []
        if self._take("*"):
            arguments = [literal_column("*")]
        elif not self._at(")"):
            arguments = self._list(lambda: self._value(froms))
        self._expect(")")
        if distinct:
            arguments[0] = arguments[0].distinct()
        return getattr(func, name.lower())(*arguments)
