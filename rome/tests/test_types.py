"""Values come back as they were written."""

from __future__ import annotations

import datetime
import enum
import itertools
import math
import uuid
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Engine,
    Enum,
    Float,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    Numeric,
    PickleType,
    String,
    Table,
    Text,
    Time,
    TypeDecorator,
    Uuid,
    bindparam,
    create_engine,
    func,
    null,
    select,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DataError, SQLAlchemyError, StatementError

_databases = itertools.count()


@pytest.fixture
def memory_engine() -> Iterator[Engine]:
    """An empty database in memory, for what no store has a part in."""
    engine = create_engine(f"rome+memory:///types{next(_databases)}")
    yield engine
    engine.dispose()


class Colour(enum.Enum):
    RED = 1
    GREEN = 2


D = Decimal
ZONE = datetime.timezone(datetime.timedelta(hours=2))
VALUES: list[tuple[Any, list[Any]]] = [
    (Integer(), [0, 1, -1, 2**31 - 1, -(2**31)]),
    (BigInteger(), [2**31, 2**53, 2**53 + 1, 2**63 - 1, -(2**63), -(2**53) - 1]),
    (Boolean(), [True, False]),
    (Float(), [0.1, -1.5, 1e308, 5e-324, 1.0, math.pi, math.inf, -math.inf, 2.0**53, 1e15]),
    (Numeric(10, 2), [Decimal("0"), Decimal("12345678.9"), Decimal("-0.01"), Decimal(7)]),
    (Numeric(15, 10), [Decimal("12345.0123456789"), Decimal("0.0000000001")]),
    (String(50), ["", "a", "日本語", "🐍", "' \" \\ %", "a\x00b", "\t\r\n", "5", "1.0", " a "]),
    (Text(), ["x" * 200_000, "é" * 70_000]),
    (LargeBinary(), [b"", bytes(range(256)), b"\xc0" * 70_000, b"text"]),
    (
        DateTime(),
        [
            datetime.datetime(2020, 2, 29, 23, 59, 59, 999999),
            datetime.datetime(1, 1, 1),
            datetime.datetime(9999, 12, 31, 23, 59, 59, 1),
        ],
    ),
    (Date(), [datetime.date(2020, 2, 29), datetime.date(1, 1, 1)]),
    (Time(), [datetime.time(23, 59, 59, 999999), datetime.time(0)]),
    (Interval(), [datetime.timedelta(days=3, microseconds=1), datetime.timedelta(0)]),
    (JSON(), [{"a": [1, None, "é", 1.5, {}]}, [], "", 0, False, 2**60]),
    (Enum(Colour), list(Colour)),
    (Enum("x", "y"), ["x", "y"]),
    (Uuid(), [uuid.UUID(int=0), uuid.UUID(int=2**128 - 1)]),
    (PickleType(), [{"a": {1, 2}}, (1, b"\x00")]),
]
CASES = [
    pytest.param(kind, value, id=f"{type(kind).__name__}-{place}")
    for kind, values in VALUES
    for place, value in enumerate(values)
]


def table_of(engine: Engine, kind: Any, **options: Any) -> Table:
    table = Table(
        "t", MetaData(), Column("id", Integer, primary_key=True), Column("v", kind, **options)
    )
    table.create(engine)
    return table


def comparable(kind: Any) -> bool:
    return not isinstance(kind, JSON | PickleType)


@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize(("kind", "value"), CASES)
def test_value(engine: Engine, kind: Any, value: Any, indexed: bool) -> None:
    table = table_of(engine, kind, index=indexed)
    with engine.begin() as connection:
        connection.execute(table.insert().values(id=1, v=value))
        inside = connection.scalar(select(table.c.v))
    with engine.begin() as connection:
        after = connection.scalar(select(table.c.v).where(table.c.id == 1))
        if comparable(kind):
            # By the index, or by a test in the store.
            assert connection.scalar(select(table.c.id).where(table.c.v == value)) == 1
            assert connection.scalar(select(func.count()).where(table.c.v != value)) == 0
        connection.execute(table.update().values(id=2))
    with engine.connect() as connection:
        moved = connection.scalar(select(table.c.v))
    for found in (inside, after, moved):
        assert found == value
        assert type(found) is type(value)


@pytest.mark.parametrize("kind", [k for k, _ in VALUES], ids=lambda k: type(k).__name__)
def test_none(engine: Engine, kind: Any) -> None:
    table = table_of(engine, kind)
    with engine.begin() as connection:
        connection.execute(table.insert().values(id=1, v=null()))
        connection.execute(table.insert().values(id=2))
    with engine.connect() as connection:
        assert connection.scalars(select(table.c.v)).all() == [None, None]
        assert connection.scalar(select(func.count()).where(table.c.v.is_(null()))) == 2


def test_json_null_is_not_sql_null(engine: Engine) -> None:
    table = table_of(engine, JSON())
    with engine.begin() as connection:
        connection.execute(table.insert().values(id=1, v=JSON.NULL))
        connection.execute(table.insert().values(id=2, v=null()))
    with engine.connect() as connection:
        assert connection.scalars(select(table.c.id).where(table.c.v.is_(null()))).all() == [2]
        assert connection.scalars(select(table.c.v)).all() == [None, None]


def test_zero_has_no_sign(engine: Engine) -> None:
    """As in SQLite."""
    table = table_of(engine, Float(), unique=True)
    with engine.begin() as connection:
        connection.execute(table.insert().values(id=1, v=-0.0))
    with engine.connect() as connection:
        found = connection.scalar(select(table.c.v).where(table.c.v == 0.0))
        assert math.copysign(1, found or 0.0) == 1
        assert connection.scalar(select(table.c.id).where(table.c.v == -0.0)) == 1


def test_not_a_number_is_null(engine: Engine) -> None:
    """As in SQLite."""
    table = table_of(engine, Float())
    with engine.begin() as connection:
        connection.execute(table.insert().values(id=1, v=math.nan))
    with engine.connect() as connection:
        assert connection.scalar(select(table.c.v)) is None


@pytest.mark.parametrize(
    "value",
    [Decimal("0.1234567890123456789"), Decimal(2**53) + Decimal("0.1"), 1 + Decimal("1e-25")],
)
def test_decimal_that_would_lose_digits(engine: Engine, value: Decimal) -> None:
    table = table_of(engine, Numeric(40, 30))
    with engine.begin() as connection, pytest.raises(SQLAlchemyError) as caught:
        connection.execute(table.insert().values(id=1, v=value))
    assert isinstance(caught.value, DataError | StatementError)
    with engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(table)) == 0


class Doubled(TypeDecorator[Decimal]):
    """A type of an application, around a decimal."""

    impl = Numeric(10, 2)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return None if value is None else value * 2

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else value / 2


ROUNDED: list[tuple[Any, Any, str]] = [
    (Numeric(10, 2), D("1.5"), "1.50"),
    (Numeric(10, 2), D("1.005"), "1.01"),
    (Numeric(10, 2), D("-1.005"), "-1.01"),
    (Numeric(10, 2), D("1.0049999999999999999999999"), "1.00"),
    (Numeric(10, 2), D("2.675"), "2.68"),  # a double just below it
    (Numeric(10, 2), 1.005, "1.01"),
    (Numeric(10, 2), 7, "7.00"),
    (Numeric(10, 2), D("-0.001"), "0.00"),
    (Numeric(10, 2), D("12345678.90"), "12345678.90"),
    (Numeric(18, 2), D("1234567890123.45"), "1234567890123.45"),
    (Numeric(5, 3), D("1.000"), "1.000"),
    (Numeric(10, 0), D("2.5"), "3"),
    (Numeric(10, 0), D("1200"), "1200"),
    (Numeric(20, 15), D("0.333333333333333333"), "0.333333333333333"),
    (Numeric(10, 2, asdecimal=False), 1.005, "1.01"),
    (Numeric(10, 2, asdecimal=False), D("1.5"), "1.5"),
    (Numeric(), D("1.005"), "1.005"),
    (Numeric(), D("1.5"), "1.5"),
    (Doubled(), D("1.0025"), "1.005"),
]


@pytest.mark.parametrize("way", ["insert", "rows", "many", "bind", "update", "set", "upsert"])
@pytest.mark.parametrize(("kind", "value", "kept"), ROUNDED, ids=str)
def test_rounded_to_the_declared_scale(
    memory_engine: Engine, kind: Any, value: Any, kept: str, way: str
) -> None:
    table = table_of(memory_engine, kind)
    with memory_engine.begin() as connection:
        if way in ("update", "set", "upsert"):
            connection.execute(table.insert().values(id=1))
        upsert = sqlite.insert(table).values(id=1, v=0)
        statements: dict[str, tuple[Any, Any]] = {
            "insert": (table.insert(), {"id": 1, "v": value}),
            "rows": (table.insert().values([{"id": 1, "v": value}, {"id": 2, "v": None}]), None),
            "many": (table.insert(), [{"id": 1, "v": value}, {"id": 2, "v": None}]),
            "bind": (table.insert().values(id=1, v=bindparam("x")), {"x": value}),
            "update": (table.update().where(table.c.id == 1).values(v=value), None),
            "set": (table.update().ordered_values((table.c.v, bindparam("x"))), {"x": value}),
            "upsert": (upsert.on_conflict_do_update(["id"], set_={"v": value}), None),
        }
        connection.execute(*statements[way])
    with memory_engine.connect() as connection:
        found = connection.scalar(select(table.c.v).where(table.c.id == 1))
        assert str(found) == kept
        assert type(found) is (Decimal if kind.asdecimal else float)


def test_what_is_compared_or_computed_is_not_rounded(engine: Engine) -> None:
    table = table_of(engine, Numeric(10, 2))
    v = table.c.v
    with engine.begin() as connection:
        connection.execute(table.insert(), [{"v": D(x)} for x in ("1.00", "1.01", "8.00")])
        for condition, count in (
            (v >= D("1.004"), 2),
            (v == D("1.005"), 0),
            (v.between(D("1.001"), D("1.011")), 1),
            (v.in_([D("1.005"), D("8")]), 1),
            (v * D("0.125") == 1, 1),
        ):
            assert connection.scalar(select(func.count()).where(condition)) == count
        connection.execute(table.update().where(v == 8).values(v=v * D("0.125")))
        assert connection.scalar(select(func.count()).where(v == 1)) == 2


def test_sums_means_and_quotients_of_decimals(engine: Engine) -> None:
    """At least the declared digits, and those that a quotient has."""
    table = table_of(engine, Numeric(16, 2))
    v = table.c.v
    with engine.begin() as connection:
        assert connection.scalar(select(func.sum(v))) is None
        connection.execute(table.insert(), [{"v": D(x)} for x in ("0.1", "0.2", "0.75")])
        found = [
            connection.scalar(select(expression))
            for expression in (
                func.sum(v),
                v + v,
                func.avg(v, type_=Numeric(16, 2)),
                func.max(v) / 2,
                func.sum(v) * func.sum(v),
                func.min(v) / 3,
            )
        ]
        assert [str(x) for x in found] == ["1.05", "0.20", "0.35", "0.375", "1.1025",
                                           "0.0333333333333333"]  # fmt: skip
        connection.execute(table.delete())
        connection.execute(table.insert(), [{"v": D("12345678901234.56")}] * 3)
        assert str(connection.scalar(select(func.sum(v)))) == "37037036703703.68"


@pytest.mark.parametrize("kind", [Numeric(10, 2), Numeric(), Numeric(10, 2, asdecimal=False)])
@pytest.mark.parametrize("value", [D("NaN"), D("inf"), math.nan, -math.inf, D("1e5000")], ids=str)
def test_no_decimal(memory_engine: Engine, kind: Any, value: Any) -> None:
    table = table_of(memory_engine, kind)
    with memory_engine.begin() as connection:
        with pytest.raises(DataError):
            connection.execute(table.insert().values(id=1, v=value))
        assert connection.scalar(select(func.count()).select_from(table)) == 0


def test_decimals_are_numbers(engine: Engine) -> None:
    table = table_of(engine, Numeric(12, 2))
    numbers = [Decimal(n) / 4 for n in (2, 10, 40, 396, -7)]
    with engine.begin() as connection:
        connection.execute(table.insert(), [{"v": n} for n in numbers])
    with engine.connect() as connection:
        assert connection.scalars(select(table.c.v).order_by(table.c.v)).all() == sorted(numbers)
        assert connection.scalar(select(func.sum(table.c.v))) == sum(numbers)
        assert connection.scalar(select(func.max(table.c.v))) == 99
        above = select(table.c.v).where(table.c.v * 2 > Decimal("19.5")).order_by(table.c.v)
        assert connection.scalars(above).all() == [10, 99]


def test_too_large_an_integer(engine: Engine) -> None:
    table = table_of(engine, BigInteger())
    with engine.begin() as connection, pytest.raises((SQLAlchemyError, OverflowError)):
        connection.execute(table.insert().values(id=1, v=2**63))


def test_zone_is_dropped(engine: Engine) -> None:
    """As in SQLite: the wall-clock time is kept."""
    table = table_of(engine, DateTime(timezone=True))
    with engine.begin() as connection:
        value = datetime.datetime(2020, 1, 1, 12, tzinfo=ZONE)
        connection.execute(table.insert().values(id=1, v=value))
    with engine.connect() as connection:
        assert connection.scalar(select(table.c.v)) == datetime.datetime(2020, 1, 1, 12)
