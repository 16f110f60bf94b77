"""Ranges of a key, and the first rows in its order: ROME answers as SQLite does."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rome.stores import rows
from rome.stores.redis.link import Server
from rome.stores.redis.store import RedisStore
from rome.stores.sort_bytes import AFTER, entry, number_in, sort_bytes
from rome.stores.values import sort_key
from sqlalchemy import (
    Engine,
    Table,
    and_,
    create_engine,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from tests.etcd_servers import EtcdServer
from tests.fuzzing.pairs import sqlite_engine, wrong_index
from tests.ordered_tables import (
    blobs,
    metadata,
    mixed,
    named,
    numbered,
    numerics,
    pairs,
    reals,
    triples,
)
from tests.servers import RedisServer

_EDGES = [0, 1, -1, 2**53 - 1, 2**53, 2**53 + 1, -(2**53) - 1, 2**62 + 1, 2**63 - 1, -(2**63)]
VALUES = st.one_of(
    st.none(),
    st.sampled_from([*_EDGES, *map(float, _EDGES), 0.5, -0.5, 1e300, -1e300, 5e-324, -math.inf]),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-300, 300),
    st.floats(allow_nan=False),
    st.text(alphabet="\0\1aAé\U0001f600", max_size=4),
    st.text(max_size=4),
    st.binary(max_size=4),
)


# ---------------------------------------------------------------- bytes


@given(st.lists(VALUES, min_size=1, max_size=3), st.lists(VALUES, min_size=1, max_size=3))
def test_bytes_have_the_order_of_the_values(one: list[Any], other: list[Any]) -> None:
    length = min(len(one), len(other))
    one, other = one[:length], other[:length]
    mine, its = list(map(sort_key, one)), list(map(sort_key, other))
    data, its_data = entry(one, 5), entry(other, 5)
    assert (data < its_data) == (mine < its)
    assert (data == its_data) == (mine == its)
    assert number_in(data) == b"5"
    # What equals in the first columns lies below their bytes with AFTER, nothing else.
    start = sort_bytes(other[0])
    assert (start <= data < start + AFTER) == (mine[0] == its[0])


@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=20))
def test_the_script_builds_the_same_bytes(redis_server: RedisServer, pairs: list[Any]) -> None:
    store = RedisStore(Server((("127.0.0.1", redis_server.port),)), "built")
    client = redis_server.client()
    try:
        client.delete("{built}:r1", "{built}:o1.2")
        for number, pair in enumerate(pairs, -3):
            client.hset("{built}:r1", str(number), rows.encode(pair))
        store.build_ordered(1, 2, [1, 0], None, [])
        built = set(client.zrange("{built}:o1.2", 0, -1))
        assert built == {entry((b, a), number) for number, (a, b) in enumerate(pairs, -3)}
    finally:
        client.close()
        store.close()


# ---------------------------------------------------------------- beside SQLite

_numbers = st.one_of(st.integers(-9, 9), st.sampled_from([2**52, -(2**52), 2**40, 255, 256]))
_names = st.text(alphabet="\0aAb\x7fé\U0001f600", max_size=3)
_blobs = st.binary(max_size=2)
_reals = st.one_of(st.sampled_from([0.5, -0.5, 1.0, 2.0, -3.0, 1e300, 2.0**60]), st.floats(-9, 9))
# A unique index tells keys apart by their bytes, and 1 and 1.0 differ where no type is declared.
_uneven = st.sampled_from([0.5, -0.5, 2.5, -3.25, 255.5])
_few = st.integers(0, 3)
KINDS: dict[str, Any] = {
    "numbered": _numbers,
    "named": _names,
    "blobs": _blobs,
    "reals": _reals,
    "mixed": st.one_of(st.none(), _numbers, _names, _blobs, _uneven),
    "numerics": st.one_of(_numbers, _reals, _names, _blobs),
    "pairs": _names,
    "triples": st.one_of(st.none(), _few),
    "l of pairs": _few,
    "l of triples": st.one_of(st.none(), _names),
    "m of triples": st.one_of(st.none(), _reals),
}
_TABLES = (numbered, named, blobs, reals, mixed, numerics, pairs, triples)


def keys(table: Table) -> list[Any]:
    return [column for column in table.c if column.name in "klm"]


def kind_of(column: Any) -> Any:
    name = column.table.name
    return KINDS[name if column.name == "k" else f"{column.name} of {name}"]


@st.composite
def rows_of(draw: Any, table: Table) -> dict[str, Any]:
    row = {column.name: draw(kind_of(column)) for column in keys(table)}
    return row | {"x": draw(_few), "y": draw(_names), "z": draw(_few)}


@st.composite
def conditions(draw: Any, table: Table) -> list[Any]:
    found = []
    for _ in range(draw(st.integers(0, 2))):
        column = draw(st.sampled_from([*keys(table), *keys(table), table.c.x, table.c.z]))
        kind = _few if column.name in "xz" else kind_of(column)
        value, other = draw(kind), draw(kind)
        found.append(
            draw(
                st.sampled_from(
                    [
                        column > literal(value, column.type),
                        column >= literal(value, column.type),
                        column < literal(value, column.type),
                        literal(value, column.type) >= column,
                        column.between(literal(value, column.type), literal(other, column.type)),
                        column == literal(value, column.type),
                        column.is_not(None),
                        or_(
                            column > literal(value, column.type),
                            and_(column == literal(value, column.type), table.c.x > 1),
                        ),
                    ]
                )
            )
        )
    return found


@st.composite
def order_of(draw: Any, table: Table) -> list[Any]:
    """A key's columns, all or some, in one direction or not; then what makes it total."""
    columns = keys(table)[draw(st.sampled_from([0, 0, 0, 1])) :]
    columns = columns[: draw(st.integers(0, 3))]
    if draw(st.booleans()):
        columns.append(table.c.x)
    total = [*columns, *keys(table), table.c.y, table.c.x, table.c.z]
    down = draw(st.booleans())
    return [c.desc() if down != (draw(st.integers(0, 9)) == 0) else c for c in total]


@st.composite
def questions(draw: Any, table: Table) -> Any:
    where = draw(conditions(table))
    pick = draw(st.integers(0, 9))
    if pick == 0:
        function = draw(st.sampled_from([func.min, func.max]))
        return select(function(draw(st.sampled_from(keys(table))))).where(*where)
    if pick == 1:
        return select(func.count()).select_from(table).where(*where)
    columns = [table] if draw(st.booleans()) else [*keys(table), table.c.x]
    found = select(*columns).where(*where).order_by(*draw(order_of(table)))
    if draw(st.integers(0, 5)):
        found = found.limit(draw(st.integers(0, 6)))
        if draw(st.booleans()):
            found = found.offset(draw(st.integers(0, 4)))
    return found


@st.composite
def changes(draw: Any, table: Table) -> Any:
    pick = draw(st.integers(0, 5))
    key = keys(table)
    if pick < 2:
        return insert(table).values(draw(rows_of(table)))
    some = select(*key).where(*draw(conditions(table))).order_by(*draw(order_of(table)))
    some = some.limit(draw(st.integers(1, 2)))
    first = key[0].in_(some.with_only_columns(key[0]))
    if pick == 2:
        return delete(table).where(first)
    if pick == 3:
        return update(table).where(first).values(x=draw(_few), z=draw(_few))
    if pick == 4:
        return delete(table).where(*draw(conditions(table)))
    column = draw(st.sampled_from(key))
    value = literal(draw(kind_of(column)), column.type)
    return update(table).where(*draw(conditions(table))).values({column: value})


class Both:
    """SQLite and ROME with the same rows."""

    def __init__(self, rome: Engine) -> None:
        self.engines = sqlite_engine(), rome
        for engine in self.engines:
            metadata.create_all(engine)
        self.plain, self.rome = (engine.connect() for engine in self.engines)
        self.savepoints: list[tuple[Any, Any]] = []

    def close(self) -> None:
        for connection in (self.plain, self.rome):
            connection.rollback()
            connection.close()
        self.engines[0].dispose()

    def empty(self, table: Table) -> None:
        self.savepoints.clear()
        for connection in (self.plain, self.rome):
            connection.rollback()
            connection.execute(delete(table))
            connection.commit()

    def ask(self, question: Any) -> list[str]:
        expected = [repr(tuple(row)) for row in self.plain.execute(question)]
        found = [repr(tuple(row)) for row in self.rome.execute(question)]
        if found != expected:
            compiled = question.compile(self.engines[0])
            raise AssertionError(f"{compiled} {compiled.params}: {found}, expected {expected}")
        return expected

    def change(self, statement: Any) -> None:
        counts = []
        for connection in (self.plain, self.rome):
            around = connection.begin_nested()
            try:
                counts.append(connection.execute(statement).rowcount)
                around.commit()
            except IntegrityError:
                counts.append(-1)
                around.rollback()
        assert counts[0] == counts[1], str(statement)

    def control(self, word: str) -> None:
        if word == "commit" and not self.savepoints:
            self.plain.commit()
            self.rome.commit()
        elif word == "savepoint":
            self.savepoints.append((self.plain.begin_nested(), self.rome.begin_nested()))
        elif self.savepoints:
            for savepoint in self.savepoints.pop():
                savepoint.rollback() if word == "back" else savepoint.commit()

    def end(self) -> None:
        while self.savepoints:
            self.control("release")
        self.control("commit")
        assert wrong_index(self.rome) is None
        self.rome.rollback()


@pytest.mark.parametrize("store", ["memory", "redis", "redis page by page", "etcd"])
@pytest.mark.parametrize("table", _TABLES, ids=lambda table: table.name)
def test_like_sqlite(
    redis_server: RedisServer, etcd_server: EtcdServer, table: Table, store: str
) -> None:
    name = f"ordered-{table.name}-{store.replace(' ', '-')}"
    url = f"rome+memory:///{name}"
    if "redis" in store:
        url = redis_server.url(name) + ("?page=4" if "page" in store else "")
    elif store == "etcd":
        url = etcd_server.url(name)
    both = Both(create_engine(url))
    asked: Counter[bool] = Counter()
    words = st.sampled_from(["commit", "commit", "savepoint", "back", "release"])
    step = st.one_of(questions(table), questions(table), changes(table), words)

    @settings(max_examples=max(6, settings().max_examples // 12))
    @given(st.lists(rows_of(table), max_size=30), st.lists(step, min_size=5, max_size=14))
    def examples(first: list[Any], steps: list[Any]) -> None:
        both.empty(table)
        for row in first:
            both.change(insert(table).values(row))
        both.end()
        for part in steps:
            if isinstance(part, str):
                both.control(part)
            elif part.is_select:
                asked[bool(both.ask(part))] += 1
            else:
                both.change(part)
        both.end()

    try:
        examples()
        assert asked[True] > 10
    finally:
        both.close()
