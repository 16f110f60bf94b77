"""Plain INSERTs, which don't go through SQLite: they must keep, refuse and return the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import (
    CheckConstraint,
    Column,
    Connection,
    Engine,
    ForeignKey,
    Insert,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    and_,
    cast,
    func,
    literal,
    select,
    text,
    union_all,
)
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.types import UserDefinedType

from tests.fuzzing.pairs import sqlite_engine


class Declared(UserDefinedType[Any]):
    """A column type of just this name; values go through as they are."""

    cache_ok = True

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **_: Any) -> str:
        return self.name


vnis = Table(
    "vnis",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("vni", Integer),
    Column("net", String(9)),
    UniqueConstraint("vni", "net"),
)
LOW, HIGH = 10, 17


def drawn(draw: float, net: str) -> Insert:
    """Insert one of the free numbers of a net, as Neutron draws a VNI: all in one statement.

    `draw`, below 1, is which one, as a share of those that are free.
    """
    own = and_(vnis.c.net == net, vnis.c.vni.between(LOW, HIGH))
    before = func.coalesce(func.lag(vnis.c.vni).over(order_by=vnis.c.vni), LOW - 1)
    taken = select(vnis.c.vni, before.label("before")).where(own).cte("taken")
    last = select(func.max(vnis.c.vni).label("vni")).where(own).cte("last")
    gaps = union_all(
        select(
            (taken.c.before + 1).label("first"), (taken.c.vni - taken.c.before - 1).label("size")
        ).where(taken.c.vni - taken.c.before > 1),
        select(func.coalesce(last.c.vni + 1, LOW), HIGH - func.coalesce(last.c.vni, LOW - 1)),
    ).cte("gaps")
    free = select(func.sum(gaps.c.size).label("n")).cte("free")
    chosen = select(cast(func.floor(draw * free.c.n), Integer)).where(free.c.n > 0)
    place = chosen.scalar_subquery()
    skipped = func.sum(gaps.c.size).over(order_by=gaps.c.first) - gaps.c.size
    numbered = select(gaps.c.first, gaps.c.size, skipped.label("skipped")).cte("numbered")
    found = (
        select((numbered.c.first + place - numbered.c.skipped).label("vni"))
        .where(place.between(numbered.c.skipped, numbered.c.skipped + numbered.c.size - 1))
        .limit(1)
        .subquery()
    )
    row = select(found.c.vni, literal(net)).where(found.c.vni.isnot(None))
    return vnis.insert().from_select(["vni", "net"], row)


DECLARED = ["INTEGER", "VARCHAR(9)", "TEXT", "BLOB", "REAL", "NUMERIC", "BOOLEAN", "DATETIME"]
VALUES: list[Any] = [
    *(None, 0, 1, -1, 2**53 + 1, 2**63 - 1, -(2**63), True, False),
    *(0.0, -0.0, 1.0, 1.5, -2.25, 1e300, 1e10, float("inf"), float("nan"), 0.1),
    *("", "a", "é", "0", "12", " 12 ", "1.0", "1e3", "0x10", "1.10", "99999999999999999999"),
    *("2026-01-01 00:00:00", "-", "+5", "a\0b", b"", b"12", b"\xff"),
]


@pytest.fixture
def both(engine: Engine) -> Iterator[list[Connection]]:
    """ROME, and SQLite."""
    other = sqlite_engine()
    with engine.connect() as ours, other.connect() as theirs:
        yield [ours, theirs]
    other.dispose()


def said(run: Any) -> Any:
    try:
        return run()
    except DBAPIError as error:
        return type(error).__name__


@pytest.mark.parametrize("declared", DECLARED)
@pytest.mark.parametrize("required", [False, True], ids=["nullable", "required"])
def test_every_value_is_kept_as_sqlite_keeps_it(
    both: list[Connection], declared: str, required: bool
) -> None:
    name = f"t_{declared[:3]}"
    key = Column("id", Integer, primary_key=True)
    table = Table(name, MetaData(), key, Column("v", Declared(declared), nullable=not required))
    kept: list[list[Any]] = []
    for connection in both:
        table.create(connection)
        connection.commit()
        for value in VALUES:
            insert = table.insert().values(v=value)
            said(lambda c=connection, i=insert: c.execute(i).rowcount)
            connection.commit()
        found = connection.execute(text(f"SELECT typeof(v), v FROM {name} ORDER BY id"))
        kept.append([tuple(map(repr, row)) for row in found])
    assert kept[0] == kept[1]
    assert len(kept[0]) >= len(VALUES) - 2


metadata = MetaData()
owners = Table("owners", metadata, Column("id", Integer, primary_key=True))
things = Table(
    "things",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(20)),
    Column("place", Integer, nullable=False),
    Column("owner", Integer, ForeignKey("owners.id")),
    Column("note", String(20), server_default="none"),
    UniqueConstraint("name", "place"),
)
words = Table("words", metadata, Column("word", String(9), primary_key=True), Column("n", Integer))
small = Table(
    "small",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("n", Integer, CheckConstraint("n < 10")),
)


def rows_of(connection: Connection) -> list[Any]:
    return [
        sorted(map(tuple, connection.execute(select(*columns))), key=repr)
        for columns in (
            [things.c.name, things.c.place, things.c.owner, things.c.note],
            [words.c.word, words.c.n],
            [small.c.n],
        )
    ]


def thing(name: Any, place: Any, **more: Any) -> Any:
    return things.insert().values(name=name, place=place, note="mine", **more)


SCRIPTS: dict[str, list[Any]] = {
    "a key twice in one transaction": [thing("a", 1), thing("a", 2), thing("a", 1)],
    "a key that is NULL": [thing(None, 1), thing(None, 1)],
    "a key twice in one statement": [
        things.insert().values([{"name": "a", "place": 1}, {"name": "a", "place": 1}])
    ],
    "after a change of its key": [
        thing("a", 1),
        things.update().values(name="b"),
        thing("a", 1),
        thing("b", 1),
    ],
    "after it was deleted": [thing("a", 1), things.delete(), thing("a", 1)],
    "a value is missing": [thing("a", None), thing("a", 2)],
    "a default of the table": [things.insert().values(name="a", place=1)],
    "a parent of the same transaction": [owners.insert().values(id=5), thing("a", 1, owner=5)],
    "no parent": [thing("a", 1, owner=77)],
    "a chosen number": [things.insert().values(id=9, name="a", place=1), thing("b", 1)],
    "a key that is text": [
        words.insert().values(word="x", n=1),
        words.insert().values(word="y", n=2),
        words.insert().values(word="x", n=3),
    ],
    "a rule": [small.insert().values(n=1), small.insert().values(n=11)],
    "seen by a join": [
        owners.insert().values(id=5),
        thing("a", 1, owner=5),
        things.update().where(things.c.owner == owners.c.id).values(note="joined"),
    ],
    "changed by its number": [
        thing("a", 1),
        things.update().where(things.c.id == 1).values(place=3),
    ],
}


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=list(SCRIPTS))
@pytest.mark.parametrize("end", ["commit", "rollback", "savepoint"])
def test_transactions_end_as_sqlites_do(
    both: list[Connection], script: list[Any], end: str
) -> None:
    outcomes = []
    for connection in both:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA foreign_keys = ON")
        metadata.create_all(connection)
        connection.commit()
        outcome = []
        savepoint = connection.begin_nested() if end == "savepoint" else None
        for statement in script:
            outcome.append(said(lambda c=connection, s=statement: c.execute(s).rowcount))
            outcome.append(rows_of(connection))
        if savepoint is not None:
            savepoint.rollback()
        outcome.append(rows_of(connection))
        if end == "rollback":
            connection.rollback()
        else:
            connection.commit()
        outcome.append(rows_of(connection))
        connection.rollback()
        outcomes.append(outcome)
    assert outcomes[0] == outcomes[1]


def test_a_key_that_another_transaction_took(engine: Engine) -> None:
    metadata.create_all(engine)
    with engine.connect() as one, engine.connect() as two:
        one.execute(thing("a", 1))
        one.commit()
        two.execute(thing("b", 1))
        with pytest.raises(IntegrityError, match="UNIQUE constraint failed"):
            two.execute(thing("a", 1))
        two.commit()
        assert {row[0] for row in rows_of(one)[0]} == {"a", "b"}


def test_several_rows_are_numbered_in_their_order(engine: Engine) -> None:
    metadata.create_all(engine)
    names = [f"n{number}" for number in range(250)]
    with engine.begin() as connection:
        returned = connection.execute(
            things.insert().returning(things.c.id, things.c.name, sort_by_parameter_order=True),
            [{"name": name, "place": 1, "note": "x"} for name in names],
        ).all()
    assert [name for _, name in returned] == names
    numbers = [number for number, _ in returned]
    assert numbers == sorted(numbers)
    with engine.connect() as connection:
        found = connection.execute(select(things.c.id, things.c.name)).all()
    assert sorted(map(tuple, found)) == sorted(map(tuple, returned))


def test_rows_that_bring_their_numbers_ask_for_none(engine: Engine) -> None:
    table = Table(
        "numbered", MetaData(), Column("id", Integer, primary_key=True), Column("x", Integer)
    )
    table.create(engine)
    with engine.connect() as connection:
        connection.execute(table.insert().values(id=1))
        connection.commit()
        driver: Any = connection.connection.dbapi_connection
        before = driver.store.traffic.round_trips
        connection.execute(table.insert(), [{"id": number} for number in range(1000, 2000)])
        assert driver.store.traffic.round_trips == before + 1  # whether they are taken
        connection.commit()
        connection.execute(text("INSERT INTO numbered VALUES (5000, 1), (NULL, 2)"))
        connection.commit()
        assert connection.scalar(select(func.count()).select_from(table)) == 1003
        assert connection.scalar(select(table.c.id).where(table.c.x == 2)) == 5001


def test_text_inserts_do_not_read_their_table(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.execute(text("CREATE TABLE plain (k VARCHAR PRIMARY KEY, x INTEGER)"))
        for number in range(50):
            connection.execute(text("INSERT INTO plain VALUES (:k, 1)"), {"k": f"key {number}"})
            connection.commit()
        driver: Any = connection.connection.dbapi_connection
        before = driver.store.traffic.received
        connection.execute(text("INSERT INTO plain VALUES ('another', 1)"))
        # The rows would be some thousands; an answer of etcd has a head, and names in JSON.
        few = 1000 if engine.url.drivername == "rome+etcd" else 200
        assert driver.store.traffic.received - before < few
        # One that reads it does.
        connection.execute(text("INSERT INTO plain SELECT 'all', count(*) FROM plain"))
        assert connection.scalar(text("SELECT x FROM plain WHERE k = 'all'")) == 51
        with pytest.raises(IntegrityError):
            connection.execute(text("INSERT INTO plain VALUES ('key 7', 1)"))


def test_a_number_drawn_by_window_functions_is_sqlites(both: list[Connection]) -> None:
    """Over rows of the store and over the transaction's own, until none is free."""
    order = [0.5, 0.0, 0.99, 0.3, 0.6, 0.1, 0.8, 0.4, 0.5]
    counts: list[list[int]] = []
    rows: list[list[tuple[Any, ...]]] = []
    for connection in both:
        vnis.create(connection)
        connection.execute(vnis.insert(), [{"vni": n, "net": "other"} for n in (LOW, HIGH)])
        counts.append([])
        for number, draw in enumerate(order):
            counts[-1].append(connection.execute(drawn(draw, "a")).rowcount)
            if number % 3 == 0:
                connection.commit()
        found = connection.execute(select(vnis.c.vni, vnis.c.net).order_by(vnis.c.id))
        rows.append([tuple(row) for row in found])
    assert rows[0] == rows[1]
    # Python's sqlite3 doesn't count after WITH.
    assert counts[0] == [1] * (HIGH - LOW + 1) + [0]
    assert sorted(vni for vni, net in rows[0] if net == "a") == list(range(LOW, HIGH + 1))


def test_one_number_that_two_draw_at_once_is_one_transactions(engine: Engine) -> None:
    """The slower one draws again over the rows of then."""
    vnis.create(engine)
    with engine.connect() as one, engine.connect() as two:
        for connection in (one, two):
            connection.execute(drawn(0.0, "a"))
        one.commit()
        two.commit()
        found = one.scalars(select(vnis.c.vni).order_by(vnis.c.vni)).all()
    assert found == [LOW, LOW + 1]
