"""Rows as strings: what goes in comes out, and each column is where the offsets say."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rome.stores import rows
from sqlalchemy import Column, Engine, Integer, LargeBinary, MetaData, String, Table, select

VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
)


def same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and (
        math.copysign(1, one) == math.copysign(1, other) and one == other
        if isinstance(one, float)
        else one == other
    )


@given(st.lists(VALUES, max_size=12))
def test_round_trip(values: list[Any]) -> None:
    row = rows.encode(values)
    decoded = rows.decode(row)
    assert len(decoded) == len(values)
    assert all(map(same, values, decoded))
    parts = rows.split(row)
    assert parts == [rows.pack_value(value) for value in values]
    assert rows.join(parts) == row
    assert all(map(same, values, map(rows.unpack_value, parts)))


@given(VALUES, VALUES)
def test_equal_bytes_are_equal_values(one: Any, other: Any) -> None:
    assert (rows.pack_value(one) == rows.pack_value(other)) == same(one, other)


@pytest.mark.parametrize("size", [0, 65_500, 65_530, 65_535, 65_536, 65_537, 200_000])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_sizes_around_the_width_of_offsets(size: int, place: int) -> None:
    values: list[Any] = [1, "é", None]
    values[place] = b"x" * size
    row = rows.encode(values)
    assert rows.decode(row) == values
    assert rows.join(rows.split(row)) == row


def test_many_columns() -> None:
    values = list(range(1000))
    assert rows.decode(rows.encode(values)) == values


def test_no_columns() -> None:
    assert rows.decode(rows.encode([])) == []


def test_scripts_read_and_change_large_rows(engine: Engine) -> None:
    """Scripts in the store find columns in rows with wide offsets, and rows that grow and
    shrink across the limit stay readable."""
    table = Table(
        "t",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("a", LargeBinary),
        Column("b", String(50), index=True),
        Column("c", Integer),
    )
    table.create(engine)
    with engine.begin() as connection:
        connection.execute(table.insert().values(id=1, a=b"", b="one", c=1))
        connection.execute(table.insert().values(id=2, a=b"\xc0" * 70_000, b="two", c=2))
    for size in (65_520, 65_540, 300_000, 3):
        with engine.begin() as connection:
            large = bytes(range(256)) * (size // 256) + b"z" * (size % 256)
            done = connection.execute(
                table.update().where(table.c.b == "two", table.c.c > 1).values(a=large)
            )
            assert done.rowcount == 1
        with engine.connect() as connection:
            found = connection.execute(select(table).where(table.c.c.in_([2, 5])))
            assert list(map(tuple, found)) == [(2, large, "two", 2)]
            small = connection.execute(select(table.c.id, table.c.c).where(table.c.b == "two"))
            assert list(map(tuple, small)) == [(2, 2)]
