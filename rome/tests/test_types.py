"""Values come back as they were written."""

from __future__ import annotations

import datetime
import enum
import math
import uuid
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
    Uuid,
    func,
    null,
    select,
)
from sqlalchemy.exc import DataError, SQLAlchemyError, StatementError


class Colour(enum.Enum):
    RED = 1
    GREEN = 2


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
    "value", [Decimal("0.1234567890123456789"), Decimal(2**53) + Decimal("0.1"), Decimal("1e-400")]
)
def test_decimal_that_would_lose_digits(engine: Engine, value: Decimal) -> None:
    table = table_of(engine, Numeric(40, 30))
    with engine.begin() as connection, pytest.raises(SQLAlchemyError) as caught:
        connection.execute(table.insert().values(id=1, v=value))
    assert isinstance(caught.value, DataError | StatementError)
    with engine.connect() as connection:
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
