"""Ranges of a key, and the first rows in its order, by the ordered index."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgpack import unpackb
from rome.schema import OrderedIndex, from_entry, to_entry
from rome.schema import Table as StoredTable
from rome.sort_bytes import AFTER, entry, number_in, sort_bytes
from rome.stores.redis_store import RedisStore
from rome.stores.redis_wire import Server
from rome.values import sort_key
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    and_,
    create_engine,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.types import UserDefinedType

from rome import rows
from tests.fuzzing.pairs import sqlite_engine, wrong_index
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

metadata = MetaData()


class Affinity(UserDefinedType[Any]):
    """Values of any kind, as SQLite keeps them with a declared type."""

    cache_ok = True

    def __init__(self, declared: str) -> None:
        self.declared = declared

    def get_col_spec(self, **_: Any) -> str:
        return self.declared


def _more() -> list[Any]:
    return [Column("x", Integer), Column("y", String(9)), Column("z", Integer, index=True)]


numbered = Table("numbered", metadata, Column("k", Integer, primary_key=True), *_more())
named = Table("named", metadata, Column("k", String(9), primary_key=True), *_more())
blobs = Table("blobs", metadata, Column("k", LargeBinary, primary_key=True), *_more())
reals = Table("reals", metadata, Column("k", Float, primary_key=True), *_more())
# Any kind of value, and NULL as well: SQLite allows it in a primary key.
mixed = Table(
    "mixed", metadata, Column("k", Affinity("BLOB"), primary_key=True, nullable=True), *_more()
)
numerics = Table("numerics", metadata, Column("k", Affinity("NUMERIC"), primary_key=True), *_more())
pairs = Table(
    "pairs",
    metadata,
    Column("k", String(9), primary_key=True),
    Column("l", Integer, primary_key=True, autoincrement=False),
    *_more(),
)
triples = Table(
    "triples",
    metadata,
    Column("k", Integer, primary_key=True, nullable=True, autoincrement=False),
    Column("l", String(9), primary_key=True, nullable=True),
    Column("m", Float, primary_key=True, nullable=True),
    *_more(),
)

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


@pytest.mark.parametrize("store", ["memory", "redis", "redis page by page"])
@pytest.mark.parametrize("table", _TABLES, ids=lambda table: table.name)
def test_like_sqlite(redis_server: RedisServer, table: Table, store: str) -> None:
    name = f"ordered-{table.name}-{store.replace(' ', '-')}"
    url = f"rome+memory:///{name}"
    if "redis" in store:
        url = redis_server.url(name) + ("?page=4" if "page" in store else "")
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


# ---------------------------------------------------------------- rows looked at

MANY = 3000
# More than so many rows take a script more than one call.
FEW = 60


_KEYS: dict[str, Callable[[int], Any]] = {
    "numbered": int,
    "named": "n{:05}".format,
    "pairs": lambda number: f"p{number // 50:05}",
}


class Looked:
    """A table with many rows, and how many calls a statement needs."""

    def __init__(self, server: RedisServer, table: Table) -> None:
        self.table = table
        url = server.url(f"looked-{table.name}")
        self.engine = create_engine(f"{url}?page={FEW}&answers=off&foresight=off")
        metadata.create_all(self.engine, [table])
        with self.engine.begin() as connection:
            rows_of_it = [
                {"k": _KEYS[table.name](n), "x": n % 3, "z": n % 2} for n in range(1, MANY + 1)
            ]
            if table is pairs:
                for n, row in enumerate(rows_of_it):
                    row["l"] = n
            connection.execute(insert(table), rows_of_it)

    def calls(self, connection: Connection, statement: Any) -> tuple[list[Any], int]:
        """The rows of an answer, or the count of rows written, and the round trips."""
        driver: Any = connection.connection.dbapi_connection
        before = driver.transaction.store.traffic.round_trips
        result = connection.execute(statement)
        found = list(map(tuple, result)) if result.returns_rows else [(result.rowcount,)]
        return found, driver.transaction.store.traffic.round_trips - before


@pytest.fixture(scope="module")
def looked(redis_server: RedisServer) -> Iterator[dict[str, Looked]]:
    made = {table.name: Looked(redis_server, table) for table in (numbered, named, pairs)}
    yield made
    for each in made.values():
        each.engine.dispose()


n, s, p = numbered.c, named.c, pairs.c
ONE_CALL: dict[str, tuple[Any, list[Any]]] = {
    "first": (select(n.k).order_by(n.k).limit(3), [(1,), (2,), (3,)]),
    "last": (select(n.k).order_by(n.k.desc()).limit(2), [(3000,), (2999,)]),
    "no order": (select(n.k).limit(2), [(1,), (2,)]),
    "offset": (select(n.k).order_by(n.k).limit(2).offset(20), [(21,), (22,)]),
    "marker": (select(n.k).where(n.k > 1500).order_by(n.k).limit(2), [(1501,), (1502,)]),
    "marker back": (select(n.k).where(n.k < 9).order_by(n.k.desc()).limit(2), [(8,), (7,)]),
    "range": (select(n.k).where(n.k > 2998), [(2999,), (3000,)]),
    "between": (select(n.k).where(n.k.between(10, 11)), [(10,), (11,)]),
    "between nothing": (select(n.k).where(n.k.between(11, 10)), []),
    "range and filter": (select(n.k).where(n.k >= 2990, n.x == 0).limit(2), [(2991,), (2994,)]),
    "walk and filter": (select(n.k).where(n.x == 2).order_by(n.k).limit(2), [(2,), (5,)]),
    "walk beside a set": (select(n.k).where(n.z == 1).order_by(n.k).limit(2), [(1,), (3,)]),
    "more columns": (select(n.k).order_by(n.k, n.x.desc()).limit(1), [(1,)]),
    "highest": (select(func.max(n.k)), [(3000,)]),
    "lowest": (select(func.min(n.k)).where(n.k > 7), [(8,)]),
    "highest with": (select(func.max(n.k)).where(n.x == 1), [(2998,)]),
    "count": (select(func.count()).where(n.k > 1000), [(2000,)]),
    "either": (
        select(n.k).where(or_(n.k > 2999, and_(n.k == 2999, n.x > 0))).order_by(n.k).limit(1),
        [(2999,)],
    ),
    "outer": (
        select(n.k).where(n.k.in_(select(n.k).order_by(n.k).limit(2))),
        [(1,), (2,)],
    ),
    "name marker": (
        select(s.k).where(s.k > "n02000").order_by(s.k).limit(2),
        [("n02001",), ("n02002",)],
    ),
    "names from": (select(s.k).where(s.k >= "n02999"), [("n02999",), ("n03000",)]),
    "last name": (select(func.max(s.k)), [("n03000",)]),
    "names like": (select(s.k).where(s.k.between("n0001", "n00011")), [("n00010",), ("n00011",)]),
    "in a group": (
        select(p.l).where(p.k == "p00002").order_by(p.l.desc()).limit(2),
        [(148,), (147,)],
    ),
    "range in a group": (
        select(p.l).where(p.k == "p00002", p.l < 101),
        [(99,), (100,)],
    ),
    "by both": (
        select(p.k, p.l).order_by(p.k, p.l).limit(2),
        [("p00000", 0), ("p00000", 1)],
    ),
    "by the first": (
        select(p.k, p.l).order_by(p.k, p.x.desc(), p.l).limit(1),
        [("p00000", 1)],
    ),
}


@pytest.mark.parametrize("question", ONE_CALL.values(), ids=ONE_CALL)
def test_few_rows_are_looked_at(looked: dict[str, Looked], question: tuple[Any, Any]) -> None:
    statement, expected = question
    table = looked[statement.get_final_froms()[0].name]
    with table.engine.connect() as connection:
        connection.execute(select(table.table).where(table.table.c.k == "none")).all()
        assert table.calls(connection, statement) == (expected, 1)


def test_a_walk_that_finds_little_goes_on_page_by_page(looked: dict[str, Looked]) -> None:
    table = looked["numbered"]
    with table.engine.connect() as connection:
        rare = select(n.k).where(n.x == 1, n.k % 1 == 0, n.k > 100)
        connection.execute(rare.limit(1)).all()
        # 110 rows of the walk, of which a call looks at a quarter of the most.
        found, calls = table.calls(
            connection, select(n.k).where(n.x == 2, n.z == 0).order_by(n.k).limit(19)
        )
        assert [k for (k,) in found] == list(range(2, 111, 6))
        assert 2 < calls < 12
        # Nothing is found: all is looked at, and told rightly.
        assert table.calls(connection, select(n.k).where(n.x == 9).order_by(n.k).limit(1))[0] == []


def test_rows_of_its_own_are_among_the_first(looked: dict[str, Looked]) -> None:
    table = looked["numbered"]
    with table.engine.connect() as connection:
        connection.execute(delete(numbered).where(n.k.in_([1, 3])))
        connection.execute(update(numbered).where(n.k == 5).values(x=9))
        connection.execute(insert(numbered), [{"k": -5, "x": 0}, {"k": 4000, "x": 0}])
        first = select(n.k).order_by(n.k).limit(4)
        assert table.calls(connection, first) == ([(-5,), (2,), (4,), (5,)], 1)
        last = select(n.k).order_by(n.k.desc()).limit(2)
        assert table.calls(connection, last) == ([(4000,), (3000,)], 1)
        assert table.calls(connection, select(func.max(n.k))) == ([(4000,)], 1)
        zeros = select(n.k).where(n.x == 9).order_by(n.k).limit(1)
        assert connection.scalars(zeros).all() == [5]
        connection.rollback()
        assert table.calls(connection, first) == ([(1,), (2,), (3,), (4,)], 1)


def test_a_purge_looks_at_what_it_takes(looked: dict[str, Looked]) -> None:
    table = looked["named"]
    some = select(s.k).where(s.k > "n00100").order_by(s.k).limit(20).scalar_subquery()
    with table.engine.connect() as connection:
        connection.execute(select(named).where(s.k == "none")).all()
        found, calls = table.calls(connection, delete(named).where(s.k.in_(some)))
        assert (found, calls) == ([(20,)], 1)
        left = select(s.k).where(s.k > "n00100").order_by(s.k).limit(1)
        assert connection.scalars(left).all() == ["n00121"]
        connection.rollback()


# ---------------------------------------------------------------- schemas


def driver_of(connection: Connection) -> Any:
    return connection.connection.dbapi_connection


def orders_of(connection: Connection) -> dict[str, list[tuple[list[str], bool]]]:
    """By table, the columns of its ordered indexes, and whether they are ready."""
    driver = driver_of(connection)
    return {
        table.name: [(table.names(index.slots), index.ready) for index in table.ordered]
        for table in driver.catalogue.load(driver.store).tables.values()
        if not table.is_view
    }


def run(engine: Engine, *words: str) -> None:
    with engine.begin() as connection:
        for each in words:
            connection.execute(text(each))


def test_which_columns_are_kept_in_order(engine: Engine) -> None:
    run(
        engine,
        "CREATE TABLE a (id INTEGER PRIMARY KEY, x INT UNIQUE)",
        "CREATE TABLE b (x TEXT, y TEXT, PRIMARY KEY (y, x))",
        "CREATE TABLE c (x TEXT)",
        "CREATE TABLE d (x TEXT COLLATE NOCASE, y INT PRIMARY KEY)",
        "CREATE VIEW v AS SELECT x FROM c",
    )
    with engine.connect() as connection:
        assert orders_of(connection) == {
            "a": [(["id"], True)],
            "b": [(["y", "x"], True)],
            "c": [],
            "d": [(["y"], True)],
        }


def test_order_outlives_changes_of_the_table(engine: Engine) -> None:
    run(
        engine,
        "CREATE TABLE t (a TEXT PRIMARY KEY, b INT, c INT)",
        "INSERT INTO t VALUES ('x', 1, 1), ('y', 2, 2), ('w', 3, 3)",
        "ALTER TABLE t ADD COLUMN d INT DEFAULT 5",
        "ALTER TABLE t DROP COLUMN b",
        "ALTER TABLE t RENAME COLUMN a TO key",
        "ALTER TABLE t RENAME TO u",
        "INSERT INTO u VALUES ('v', 4, 6)",
    )
    u = Table("u", MetaData(), Column("key", String, primary_key=True), Column("d", Integer))
    with engine.connect() as connection:
        assert orders_of(connection) == {"u": [(["key"], True)]}
        question = select(u.c.key, u.c.d).where(u.c.key < "y").order_by(u.c.key.desc()).limit(2)
        assert list(map(tuple, connection.execute(question))) == [("x", 5), ("w", 5)]
        assert wrong_index(connection) is None
        driver = driver_of(connection)
        stored = driver.catalogue.schema.tables["u"]
        connection.rollback()
        run(engine, "DROP TABLE u")
        assert list(driver.store.members(stored.number, stored.ordered[0].number)) == []


def older(engine: Engine) -> None:
    """Make the database as a version without ordered indexes has made it."""
    with engine.connect() as connection:
        driver = driver_of(connection)
        schema = driver.catalogue.load(driver.store)
        entries = {}
        for table in schema.tables.values():
            for index in table.ordered:
                driver.store.drop_ordered(table.number, index.number)
            entries[table.name] = to_entry(replace(table, ordered=()))
        driver.store.change_schema(schema.version, entries, [], [])


def test_a_database_of_an_older_version_gets_its_orders(engine: Engine) -> None:
    metadata.create_all(engine, [numbered, named])
    with engine.begin() as connection:
        connection.execute(insert(numbered), [{"k": n} for n in (5, -3, 9)])
        connection.execute(insert(named), [{"k": name} for name in "cab"])
    older(engine)
    questions_of_both = [
        (select(numbered.c.k).where(numbered.c.k > 0).order_by(numbered.c.k).limit(1), 5),
        (select(func.max(named.c.k)), "c"),
    ]
    with engine.connect() as connection:
        assert orders_of(connection) == {"numbered": [], "named": []}
        for question, answer in questions_of_both:
            assert connection.scalar(question) == answer
    with engine.begin() as connection:  # written as the older version writes
        connection.execute(insert(named).values(k="d"))
    run(engine, "CREATE TABLE other (x INT)")
    with engine.connect() as connection:
        made = orders_of(connection)
        assert made == {"numbered": [(["k"], True)], "named": [(["k"], True)], "other": []}
        assert wrong_index(connection) is None
        assert connection.scalar(select(func.max(named.c.k))) == "d"


def test_writers_keep_an_order_that_nobody_reads_yet(engine: Engine) -> None:
    metadata.create_all(engine, [named])
    with engine.begin() as connection:
        connection.execute(insert(named), [{"k": name} for name in "cab"])
    older(engine)
    with engine.connect() as connection:
        driver = driver_of(connection)
        driver.catalogue.load(driver.store)
        driver.catalogue.complete(driver.store)  # and its builder dies
        assert orders_of(connection) == {"named": [(["k"], False)]}
    with engine.begin() as connection:
        connection.execute(insert(named).values(k="z"))
        connection.execute(delete(named).where(named.c.k == "a"))
        stored = driver.catalogue.schema.tables["named"]
        first = select(named.c.k).order_by(named.c.k).limit(2)
        assert connection.scalars(first).all() == ["b", "c"]
    assert len(list(driver.store.members(stored.number, stored.ordered[0].number))) == 1
    run(engine, "CREATE TABLE other (x INT)")  # the next DDL builds it
    with engine.connect() as connection:
        assert orders_of(connection)["named"] == [(["k"], True)]
        assert wrong_index(connection) is None
        assert connection.scalars(first).all() == ["b", "c"]


def test_an_older_version_cant_read_the_schema() -> None:
    """Or it would write rows past the order."""
    table = StoredTable("t", 1, "CREATE TABLE t (a TEXT PRIMARY KEY)", slots=("a",))
    table = replace(table, ordered=(OrderedIndex(1, (0,), ready=False),))
    made = to_entry(table)
    assert from_entry("t", made) == table
    with pytest.raises(ValueError, match="too many values"):
        for _number, _slots, _unique, _ready in unpackb(made)["indexes"]:  # as it does
            pass
