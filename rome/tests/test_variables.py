"""Statements with more parameters than SQLite takes (32766)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import apsw
import pytest
from rome.errors import NotSupportedError
from rome.sqlite import variables
from sqlalchemy import (
    Column,
    Engine,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    func,
    insert,
    select,
    tuple_,
)
from sqlalchemy import exc as exceptions

MANY = 40_000
TEXTS = ["?", "it's", "a\x00b", "'", "--", "é"]

t = Table(
    "t",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("s", String(9), index=True),
    Column("n", Integer),
    Column("r", Float),
    Column("b", LargeBinary),
)


@pytest.fixture
def filled(engine: Engine) -> Iterator[Engine]:
    """A table with 50 rows."""
    t.create(engine)
    with engine.begin() as connection:
        rows = [{"id": i, "s": f"s{i}", "n": i, "r": i / 8, "b": bytes([i])} for i in range(44)]
        connection.execute(t.insert(), rows)
        connection.execute(t.insert(), [{"id": 44 + i, "s": s} for i, s in enumerate(TEXTS)])
    yield engine


def test_lists_of_40000(filled: Engine) -> None:
    texts = [f"s{i}" for i in range(5, MANY)] + TEXTS
    numbers = range(5, MANY)
    with filled.begin() as connection:
        for statement, count in (
            (select(t.c.id).where(t.c.id.in_(numbers)), 45),
            (select(t).where(t.c.s.in_(texts)), 45),
            (select(t.c.id).where((t.c.n + 0).in_(numbers)), 39),
            (select(t.c.id).where(func.lower(t.c.s).in_(texts)), 45),
            (select(t.c.id).where(t.c.n.not_in(numbers)), 5),
            (select(t.c.id).where(tuple_(t.c.id, t.c.n).in_([(i, i) for i in numbers])), 39),
        ):
            assert len(connection.execute(statement).all()) == count
        assert connection.scalar(select(func.count()).where(t.c.n.in_(numbers))) == 39
        done = connection.execute(t.update().where(t.c.n.in_(numbers)).values(s="new"))
        assert done.rowcount == 39
        connection.execute(insert(t).values([{"id": i, "n": -i} for i in range(100, MANY // 2)]))
        done = connection.execute(t.delete().where(t.c.n.in_([-i for i in range(100, MANY)])))
        assert done.rowcount == MANY // 2 - 100
    with filled.connect() as connection:
        assert connection.scalar(select(func.count()).where(t.c.s == "new")) == 39


def test_too_many_that_are_not_written_out(filled: Engine) -> None:
    with filled.connect() as connection:
        many = select(t.c.id).where((t.c.r + 0).in_([i / 8 for i in range(MANY)]))
        with pytest.raises(exceptions.NotSupportedError, match="32766"):
            connection.execute(many)
        assert connection.scalar(select(func.count()).select_from(t)) == 50


@pytest.mark.parametrize(
    "value",
    [0, -1, 2**63 - 1, -(2**63), True, None, 0.1, 5.0, 1e300, "", "5", "it's ?", "a\x00b", "🐍",
     b"", b"\x00'?"],
    ids=repr,
)  # fmt: skip
def test_values_mean_the_same(monkeypatch: pytest.MonkeyPatch, value: Any) -> None:
    """Written out or as parameters, compared with columns of each affinity."""
    database = apsw.Connection(":memory:")
    database.execute("CREATE TABLE v (i INTEGER, t TEXT, r REAL, b BLOB, n NUMERIC)")
    database.execute("INSERT INTO v VALUES (?1, ?1, ?1, ?1, ?1)", (value,))
    marks = ", ".join("?" * 120)
    sql = (
        f"SELECT ?, '?', \"i\" /* ? */, i IN ({marks}), t IN ({marks}), r IN ({marks}), b IN"
        f" ({marks}), n IN ({marks}), typeof(x.column1) -- ?\n"
        f" FROM v, (VALUES ({marks})) AS x WHERE 'a''?' > ? ORDER BY ?, [i]"
    )
    parameters = ["first", *([value, *["no"] * 119] * 6), "", 1]
    expected = database.execute(sql, parameters).fetchall()
    monkeypatch.setattr(variables, "LIMIT", 300)
    written, left = variables.fitted(sql, parameters)
    # The three single ones, and values that aren't written out.
    plain = value is None or (type(value) is not float and value not in ("a\x00b", -(2**63)))
    assert len(left) == (3 if plain else 9)
    assert database.execute(written, left).fetchall() == expected


def test_what_fits_stays() -> None:
    sql = f"SELECT 1 WHERE 1 IN ({', '.join('?' * 120)})"
    assert variables.fitted(sql, [1] * 120) == (sql, [1] * 120)
    with pytest.raises(NotSupportedError):
        variables.fitted("SELECT " + "?+" * 40_000 + "1", [1] * 40_000)
