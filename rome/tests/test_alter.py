"""Constraints and columns altered in place, on tables with rows."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
from rome.schema.alter import altered
from sqlalchemy import (
    CheckConstraint,
    Column,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    exc,
    inspect,
    text,
)

from tests.servers import redis_server


@pytest.fixture(scope="module", params=["memory", "redis"])
def base(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "memory":
        yield "rome+memory:///alter"
        return
    with redis_server() as server:
        yield server.url("alter")


@pytest.fixture
def engine(base: str) -> Iterator[Engine]:
    """Two parents; three children, one without a parent of its own."""
    metadata = MetaData()
    Table("parents", metadata, Column("id", Integer, primary_key=True), Column("code", String(9)))
    Table(
        "children",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("n", Integer),
        Column("parent", Integer),
        Column("note", String(5), server_default="x, (y)"),
        CheckConstraint("n < 100", name="small"),
    )
    engine = create_engine(base + secrets.token_hex(4))
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO parents VALUES (1, 'a'), (2, 'b')"))
        connection.execute(
            text("INSERT INTO children (n, parent) VALUES (1, 1), (2, 9), (NULL, NULL)")
        )
    yield engine
    engine.dispose()


def run(engine: Engine, *statements: str) -> None:
    for statement in statements:
        with engine.begin() as connection:
            connection.execute(text(statement))


def refused(engine: Engine, statement: str, words: str) -> None:
    with pytest.raises(exc.DBAPIError, match=words):
        run(engine, statement)


FOREIGN = "ALTER TABLE children ADD CONSTRAINT fk FOREIGN KEY(parent) REFERENCES parents(id)"


def test_foreign_key_must_hold_and_is_then_kept(engine: Engine) -> None:
    refused(engine, FOREIGN, "FOREIGN KEY constraint failed")
    assert inspect(engine).get_foreign_keys("children") == []
    run(engine, "UPDATE children SET parent = 2 WHERE parent = 9", FOREIGN + " ON DELETE CASCADE")
    refused(engine, "INSERT INTO children (parent) VALUES (77)", "FOREIGN KEY")
    run(engine, "DELETE FROM parents WHERE id = 1")
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT n, parent, note FROM children ORDER BY id"))
        assert list(map(tuple, rows)) == [(2, 2, "x, (y)"), (None, None, "x, (y)")]


def test_not_null(engine: Engine) -> None:
    set_it = "ALTER TABLE children ALTER COLUMN n SET NOT NULL"
    refused(engine, set_it, "NOT NULL constraint failed: children.n")
    run(engine, "UPDATE children SET n = 5 WHERE n IS NULL", set_it)
    refused(engine, "INSERT INTO children (n) VALUES (NULL)", "NOT NULL")
    run(engine, "ALTER TABLE children ALTER COLUMN n DROP NOT NULL")
    run(engine, "INSERT INTO children (n) VALUES (NULL)")


def test_check_goes(engine: Engine) -> None:
    refused(engine, "INSERT INTO children (n) VALUES (200)", "CHECK constraint failed")
    run(
        engine,
        "ALTER TABLE children DROP CONSTRAINT small",
        "INSERT INTO children (n) VALUES (200)",
    )
    refused(engine, "ALTER TABLE children DROP CONSTRAINT small", "no such constraint: small")


def test_unique_must_hold_and_is_then_kept(engine: Engine) -> None:
    unique = "ALTER TABLE parents ADD CONSTRAINT codes UNIQUE (code)"
    run(engine, unique)
    refused(engine, "INSERT INTO parents (code) VALUES ('a')", "UNIQUE constraint failed")
    run(
        engine,
        "ALTER TABLE parents DROP CONSTRAINT codes",
        "INSERT INTO parents (code) VALUES ('a')",
    )
    refused(engine, unique, "UNIQUE constraint failed: parents.code")
    assert inspect(engine).get_unique_constraints("parents") == []


def test_type_and_default(engine: Engine) -> None:
    run(
        engine,
        "ALTER TABLE children ALTER COLUMN note TYPE VARCHAR(200)",
        "ALTER TABLE children ALTER COLUMN note DROP DEFAULT",
        "INSERT INTO children (n) VALUES (7)",
    )
    column = next(c for c in inspect(engine).get_columns("children") if c["name"] == "note")
    assert str(column["type"]) == "VARCHAR(200)" and column["default"] is None
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT note FROM children WHERE n = 7")) is None
        assert connection.scalar(text("SELECT note FROM children WHERE n = 1")) == "x, (y)"


def test_character_set_that_text_has_already(engine: Engine) -> None:
    run(engine, "ALTER TABLE parents CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
    refused(
        engine,
        "ALTER TABLE parents CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci",
        "NotSupportedError",
    )


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ('ALTER TABLE "t" DROP CONSTRAINT "c, d"', "CREATE TABLE t (a INT DEFAULT ',)', b INT)"),
        (
            "ALTER TABLE t ADD UNIQUE (a)",
            "CREATE TABLE t (a INT DEFAULT ',)', b INT, CONSTRAINT \"c, d\" CHECK (a IN (1, 2)),"
            " UNIQUE (a))",
        ),
        (
            "ALTER TABLE t ADD CONSTRAINT pk PRIMARY KEY (b)",
            "CREATE TABLE t (a INT DEFAULT ',)', b INT NOT NULL, CONSTRAINT \"c, d\""
            " CHECK (a IN (1, 2)), CONSTRAINT pk PRIMARY KEY (b))",
        ),
    ],
)
def test_sql_with_commas_and_parentheses_in_it(change: str, expected: str) -> None:
    sql = "CREATE TABLE t (a INT DEFAULT ',)', b INT, CONSTRAINT \"c, d\" CHECK (a IN (1, 2)))"
    assert altered(sql, change) == expected
