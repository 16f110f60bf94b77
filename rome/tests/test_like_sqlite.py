"""Single cases in which ROME once answered otherwise than SQLite: each is run on both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Float,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    column,
    exists,
    func,
    literal,
    literal_column,
    or_,
    select,
    table,
    text,
)
from sqlalchemy.exc import DBAPIError

from tests.fuzzing.pairs import sqlite_engine, wrong_index

pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")

Case = Callable[[Connection], Any]
CASES: list[Case] = []


def case(function: Case) -> Case:
    CASES.append(function)
    return function


def made(connection: Connection, *columns: Any, name: str = "t", rows: Any = ()) -> Table:
    """A table with rows, committed."""
    fresh = Table(name, MetaData(), *columns)
    fresh.create(connection)
    if rows:
        connection.execute(fresh.insert(), list(rows))
    connection.commit()
    return fresh


def numbers(connection: Connection, **more: Any) -> Table:
    columns = [Column("id", Integer, primary_key=True), Column("n", BigInteger, **more)]
    return made(connection, *columns, rows=[{"id": i, "n": i} for i in range(5)])


def family(connection: Connection, key: Any, **rules: Any) -> tuple[Table, Table]:
    """Parents 1 to 3 (or a to c), and one wide child of the first."""
    metadata = MetaData()
    words = isinstance(key, String)
    parents = Table("p", metadata, Column("k", key, primary_key=True), Column("n", Integer))
    children = Table(
        "c",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("p", key, ForeignKey("p.k", **rules)),
        *(Column(f"x{i}", String(9), index=i == 5) for i in range(9)),
    )
    metadata.create_all(connection)
    keys = ["a", "b", "c"] if words else [1, 2, 3]
    connection.execute(parents.insert(), [{"k": k, "n": 0} for k in keys])
    wide = {f"x{i}": f"v{i}" for i in range(9)}
    connection.execute(children.insert().values(id=7, p=keys[0], **wide))
    connection.commit()
    return parents, children


def refused(connection: Connection, statement: Any) -> str:
    try:
        connection.execute(statement)
    except DBAPIError as error:
        return type(error).__name__
    return "done"


def all_of(connection: Connection, *tables: Table) -> list[Any]:
    """Committed rows, all columns and few."""
    connection.commit()
    return [sorted(map(repr, map(tuple, connection.execute(select(t))))) for t in tables]


# ---------------------------------------------------------------- reading


@case
def a_table_in_text(connection: Connection) -> Any:
    t = numbers(connection)
    other = text("EXISTS (SELECT 1 FROM t AS o WHERE o.id = 4)")
    return connection.scalars(select(t.c.id).where(t.c.id == 1, other)).all()


@case
def a_view_beside_its_table(connection: Connection) -> Any:
    t = numbers(connection)
    connection.execute(text("CREATE VIEW v AS SELECT id FROM t"))
    connection.commit()
    v = table("v", column("id"))
    found = connection.execute(select(t.c.id, v.c.id).where(t.c.id == 1))
    return sorted(map(tuple, found))


@case
def an_aggregate_in_text(connection: Connection) -> Any:
    t = numbers(connection)
    counted: Any = select(literal_column("count(*)")).select_from(t)
    return [
        connection.scalar(counted.limit(1)),
        connection.scalar(counted.order_by(t.c.id).limit(1)),
    ]


@case
def digits_of_other_scripts(connection: Connection) -> Any:
    t = made(connection, Column("id", Integer, primary_key=True), Column("n", Integer))
    connection.execute(text("INSERT INTO t VALUES (1, '٣'), (2, 3), (3, ' 4')"))
    connection.commit()
    words = ["٣", "\v3", "3", " 3 ", "3.0", "3e0", "4", "0x3", "1_0"]
    return [
        connection.scalars(select(t.c.id).where(t.c.n == literal(word, String))).all()
        for word in words
    ]


@case
def integers_beyond_doubles(connection: Connection) -> Any:
    t = numbers(connection)
    large = [{"id": 10 + i, "n": 2**60 + (7 * i) % 10} for i in range(10)]
    connection.execute(t.insert(), large)
    connection.commit()
    return [
        connection.scalars(select(t.c.n).order_by(t.c.n.desc()).limit(3)).all(),
        connection.scalars(select(t.c.id).where(t.c.n > 2**60).order_by(t.c.id).limit(1)).all(),
        connection.scalars(select(t.c.id).where(t.c.n >= 2**60 + 4).order_by(t.c.id)).all(),
        connection.scalar(select(func.max(t.c.n))),
        connection.scalar(select(func.sum(t.c.n)).where(t.c.id < 13)),
        refused(connection, select(func.sum(t.c.n))),
    ]


@case
def values_of_all_kinds_in_one_column(connection: Connection) -> Any:
    columns = [Column("n", Integer), Column("s", String(9)), Column("r", Float)]
    t = made(connection, Column("id", Integer, primary_key=True), *columns)
    connection.execute(
        text("INSERT INTO t VALUES (1, 'abc', 5, 'x'), (2, 5.5, x'41', '1.5'), (3, '5', '5', 7)")
    )
    connection.commit()
    n, s, r = t.c.n, t.c.s, t.c.r
    tests = [n > 5, n < "b", n == "abc", n == 5.5, n.in_([5, "abc"]), n != "abc", s == 5]
    tests += [s > "4", r == 1.5, r > 1, r == "x", r < 10, n.not_in([5]), or_(n > 100, r > 100)]
    found = [connection.scalars(select(t.c.id).where(x).order_by(t.c.id)).all() for x in tests]
    extremes = select(func.min(n), func.max(n), func.max(r), func.min(s))
    return found, connection.execute(extremes).all()


@case
def equal_values_of_two_kinds(connection: Connection) -> Any:
    columns = [Column("b", LargeBinary, index=True), Column("n", BigInteger, index=True)]
    t = made(connection, Column("id", Integer, primary_key=True), *columns)
    connection.execute(text("INSERT INTO t VALUES (1, 1, -9223372036854775808), (2, 1.0, -1e0)"))
    connection.execute(text("INSERT INTO t VALUES (3, '1', -9223372036854775808.0)"))
    connection.commit()
    least = -(2**63)
    return [
        sorted(connection.scalars(select(func.count()).group_by(t.c.b).select_from(t))),
        connection.scalars(select(t.c.id).where(t.c.n == least).order_by(t.c.id)).all(),
        connection.scalars(select(t.c.id).where(t.c.n.in_([least, 5])).order_by(t.c.id)).all(),
        connection.scalar(select(func.count()).where(t.c.n != least)),
        connection.scalar(select(func.count()).where(t.c.n == literal(str(least), String))),
    ]


@case
def nothing_is_in_an_empty_list(connection: Connection) -> Any:
    t = numbers(connection)
    connection.execute(t.insert().values(id=9, n=None))
    connection.commit()
    anything = or_(t.c.n.not_in([]), t.c.n == 77)
    return [
        connection.scalars(select(t.c.id).where(anything).order_by(t.c.id)).all(),
        connection.scalar(select(func.count()).select_from(t).where(anything)),
        connection.scalars(select(t.c.id).where(t.c.n.in_([])).limit(2)).all(),
        connection.scalar(select(func.count()).select_from(t).where(t.c.n.not_in([None]))),
    ]


@case
def a_join_by_new_whole_floats(connection: Connection) -> Any:
    a = made(connection, Column("id", Integer, primary_key=True), Column("f", Float), name="a")
    b = made(
        connection,
        Column("id", Integer, primary_key=True),
        Column("f", Float, index=True),
        name="b",
        rows=[{"id": 1, "f": 5.0}, {"id": 2, "f": 0.0}],
    )
    connection.execute(a.insert(), [{"id": 1, "f": 5.0}, {"id": 2, "f": -0.0}])
    found = connection.execute(select(a.c.id, b.c.id).join(b, a.c.f == b.c.f))
    return sorted(map(tuple, found))


# ---------------------------------------------------------------- writing


@case
def the_first_statement_of_a_connection_is_an_update(connection: Connection) -> Any:
    t = numbers(connection)
    with connection.engine.connect() as other:
        other.execute(t.update().values(n=t.c.n + 1))
        other.commit()
    return all_of(connection, t)


@case
def update_from(connection: Connection) -> Any:
    a = numbers(connection)
    columns = [Column("id", Integer, primary_key=True), Column("n", Integer)]
    b = made(connection, *columns, name="b", rows=[{"id": i, "n": i * 10} for i in range(5)])
    one = exists(select(b.c.id).where(b.c.id == 1).correlate(None))
    done = connection.execute(a.update().where(a.c.id == b.c.id, b.c.n > 10, one).values(n=b.c.n))
    return done.rowcount, all_of(connection, a)


@case
def replaced_rows(connection: Connection) -> Any:
    p, c = family(connection, String(9))
    connection.execute(p.insert().prefix_with("OR REPLACE").values(k="a", n=5))
    return all_of(connection, p, c)


@case
def reindexing(connection: Connection) -> Any:
    t = numbers(connection)
    names = ["", "t", "t_n", "nothing", "main.t", "NOCASE"]
    connection.execute(text("CREATE INDEX t_n ON t (n)"))
    connection.commit()
    return [refused(connection, text(f"REINDEX {name}")) for name in names], all_of(connection, t)


# ---------------------------------------------------------------- foreign keys


@case
def a_child_whose_key_is_its_parent(connection: Connection) -> Any:
    p = numbers(connection)
    key = Column("id", Integer, ForeignKey(p.c.id), primary_key=True)
    c = Table("c", p.metadata, key)
    c.create(connection)
    connection.execute(c.insert().values(id=1))
    connection.commit()
    connection.execute(p.delete().where(p.c.id == 0))
    return refused(connection, p.delete().where(p.c.id == 1)), all_of(connection, p, c)


@case
def a_child_is_written_after_its_parent_was_kept(connection: Connection) -> Any:
    p, c = family(connection, Integer())
    words = refused(connection, p.delete().where(p.c.k == 1))
    done = connection.execute(c.update().where(c.c.id == 7).values(x1="new"))
    return words, done.rowcount, all_of(connection, p, c)


@case
def zero_as_a_float_key(connection: Connection) -> Any:
    p = made(connection, Column("f", Float, primary_key=True), name="p", rows=[{"f": 0.0}])
    key = Column("f", Float, ForeignKey(p.c.f))
    c = Table("c", p.metadata, Column("id", Integer, primary_key=True), key)
    c.create(connection)
    connection.execute(c.insert().values(id=1, f=0.0))
    return refused(connection, c.insert().values(id=2, f=0.5)), all_of(connection, c)


@case
def a_child_of_a_parent_that_went(connection: Connection) -> Any:
    p, c = family(connection, Integer())
    connection.execute(p.delete().where(p.c.k == 2))
    return refused(connection, c.insert().values(id=8, p=2)), all_of(connection, p, c)


@case
def a_child_that_comes_back(connection: Connection) -> Any:
    p, c = family(connection, Integer(), ondelete="CASCADE")
    connection.execute(p.delete().where(p.c.k == 1))
    return refused(connection, c.insert().values(id=7, p=1)), all_of(connection, p, c)


@case
def a_parent_with_a_new_key(connection: Connection) -> Any:
    p, c = family(connection, String(9), onupdate="CASCADE")
    connection.execute(p.update().where(p.c.k == "a").values(k="z"))
    connection.execute(c.insert().values(id=8, p="z"))
    return all_of(connection, p, c)


@case
def a_cascade_into_a_key_that_is_taken(connection: Connection) -> Any:
    t = Table(
        "t",
        MetaData(),
        Column("k", String(9), primary_key=True),
        Column("up", String(9), ForeignKey("t.k", onupdate="CASCADE")),
    )
    t.create(connection)
    connection.execute(t.insert(), [{"k": "a", "up": None}, {"k": "b", "up": "a"}])
    connection.commit()
    return refused(connection, t.update().where(t.c.k == "a").values(k="b")), all_of(connection, t)


@case
def two_keys_of_one_parent(connection: Connection) -> Any:
    code = Column("code", String(9), unique=True)
    p = made(connection, Column("id", Integer, primary_key=True), code, name="p",
             rows=[{"id": 1, "code": "x"}])  # fmt: skip
    c = Table("c", p.metadata, Column("id", Integer, primary_key=True),
              Column("a", ForeignKey(p.c.id)), Column("b", ForeignKey(p.c.code)))  # fmt: skip
    c.create(connection)
    connection.commit()
    connection.execute(c.insert().values(id=1, a=1, b="x"))
    return all_of(connection, c)


def _after_a_narrow_look(connection: Connection, rule: str) -> Any:
    p, c = family(connection, Integer(), ondelete=rule)
    connection.execute(select(p, c.c.id).join(c, c.c.p == p.c.k).where(p.c.k == 1)).all()
    done = connection.execute(p.delete().where(p.c.k == 1))
    found = all_of(connection, p, c)
    return done.rowcount, found, connection.scalars(select(c.c.id).where(c.c.x5 == "v5")).all()


@case
def children_seen_in_part_that_go(connection: Connection) -> Any:
    return _after_a_narrow_look(connection, "CASCADE")


@case
def children_seen_in_part_that_stay(connection: Connection) -> Any:
    return _after_a_narrow_look(connection, "SET NULL")


@pytest.mark.parametrize("run", CASES, ids=lambda run: run.__name__)
def test_case(engine: Engine, run: Case) -> None:
    plain = sqlite_engine()
    with plain.connect() as connection:
        expected = run(connection)
    plain.dispose()
    with engine.connect() as connection:
        found = run(connection)
        assert found == expected
        assert wrong_index(connection) is None


def test_a_row_that_a_savepoint_brings_back_is_read_anew(engine: Engine) -> None:
    """Else its old value would be written: a lost update."""
    with engine.connect() as connection, engine.connect() as other:
        a = numbers(connection)
        b = made(connection, Column("id", Integer, primary_key=True), name="b")
        connection.execute(b.insert().values(id=1))
        connection.execute(select(a)).all()
        savepoint = connection.begin_nested()
        connection.execute(select(b)).all()
        other.execute(a.update().where(a.c.id == 1).values(n=10))
        other.commit()
        savepoint.rollback()
        connection.execute(a.update().where(a.c.id == 1).values(n=a.c.n + 1))
        connection.commit()
        assert connection.scalar(select(a.c.n).where(a.c.id == 1)) == 11
