"""Text SQL: one statement each, comments before it, and nothing that reaches files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rome.cli import main
from rome.sqlite.statements import first_word, single, split_script
from sqlalchemy import Connection, Engine, literal_column, select, text
from sqlalchemy.exc import (
    DBAPIError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
)

from tests.servers import RedisServer


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as made:
        run(made, "CREATE TABLE t (id INTEGER PRIMARY KEY, x VARCHAR(30))")
        run(made, "INSERT INTO t VALUES (1, 'one')")
        yield made


def run(connection: Connection, *statements: str) -> None:
    for statement in statements:
        connection.exec_driver_sql(statement)


def rows(connection: Connection, sql: str) -> list[tuple[Any, ...]]:
    return list(map(tuple, connection.exec_driver_sql(sql)))


# ---------------------------------------------------------------- one statement


@pytest.mark.parametrize(
    "first",
    [
        "SELECT 1",
        "VALUES (1)",
        "INSERT INTO t (x) VALUES ('a')",
        "UPDATE t SET x = 'b'",
        "DELETE FROM t",
        "CREATE TABLE u (id INTEGER)",
        "DROP TABLE t",
        "ALTER TABLE t ADD COLUMN y INTEGER",
        "PRAGMA table_info(t)",
        "PRAGMA foreign_keys = ON",
        "SELECT * FROM sqlite_master",
        "BEGIN",
        "COMMIT",
        "ROLLBACK",
        "SAVEPOINT s",
        "REINDEX",
        "EXPLAIN SELECT 1",
        "-- a comment; with a semicolon\nSELECT ';'",
    ],
)
def test_one_statement_at_a_time(connection: Connection, first: str, tmp_path: Path) -> None:
    file = tmp_path / "stolen.db"
    attach = f"ATTACH DATABASE '{file}' AS e"
    for second in (attach, "SELECT 2", f"{attach}; CREATE TABLE e.x AS SELECT 1", "garbage"):
        with pytest.raises(ProgrammingError, match="You can only execute one statement at a time"):
            run(connection, f"{first}; {second}")
    assert not file.exists()
    assert rows(connection, "SELECT * FROM t") == [(1, "one")]
    assert rows(connection, "SELECT name FROM sqlite_master") == [("t",)]


def test_one_statement_in_what_is_compiled(connection: Connection, tmp_path: Path) -> None:
    file = tmp_path / "stolen.db"
    stolen: Any = literal_column(f"1; ATTACH DATABASE '{file}' AS e; SELECT 2")
    with pytest.raises(ProgrammingError, match="one statement at a time"):
        connection.execute(select(stolen))
    with pytest.raises(ProgrammingError, match="one statement at a time"):
        connection.execute(text("SELECT :x; SELECT 2"), {"x": 1})
    assert not file.exists()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1;",
        "SELECT 1 ; -- and; no more\n",
        ";; SELECT 1 /* ; */ ;;",
        "\n\t-- first; this\n/* then; that */ SELECT 1",
    ],
)
def test_semicolons_that_end_no_statement(connection: Connection, sql: str) -> None:
    assert rows(connection, sql) == [(1,)]


def test_a_null_character_ends_nothing() -> None:
    with pytest.raises(Exception, match="null character"):
        single("SELECT 1;\0")


@pytest.mark.parametrize("comment", ["-- why\n", "/* why */ ", "\n  /* a; */ -- b;\n\t"])
def test_comments_before_a_statement(connection: Connection, comment: str) -> None:
    for statement in (
        "CREATE TABLE u (id INTEGER PRIMARY KEY)",
        "INSERT INTO u VALUES (1)",
        "REPLACE INTO u VALUES (1)",
        "SAVEPOINT s",
        "UPDATE u SET id = 2",
        "PRAGMA foreign_keys = OFF",
        "ALTER TABLE u ADD COLUMN x INTEGER",
        "BEGIN",
        "COMMIT",
    ):
        run(connection, comment + statement)
    assert rows(connection, comment + "SELECT * FROM u") == [(2, None)]
    assert rows(connection, comment + "WITH w AS (SELECT id FROM u) SELECT * FROM w") == [(2,)]
    assert rows(connection, comment + "PRAGMA foreign_keys") == [(0,)]
    assert rows(connection, comment + "SELECT count(*) FROM sqlite_master") == [(2,)]
    assert connection.exec_driver_sql(comment + "DELETE FROM u").rowcount == 1
    run(connection, comment + "DROP TABLE u")
    with pytest.raises(NotSupportedError):
        run(connection, comment + "CREATE TEMP TABLE u (id INTEGER)")


def test_words_and_scripts() -> None:
    assert first_word("-- no end") == ""
    assert first_word("/* no end") == ""
    assert first_word(" /* a */ select 1") == "SELECT"
    assert list(split_script("a; 'b;' ; -- c;\nd")) == ["a", "'b;'", " -- c;\nd"]
    assert single("/* nothing; */ ;") == ""


# ---------------------------------------------------------------- files


def reaching(folder: Path) -> list[str]:
    """Statements that would reach a file in a folder, or are on the way to one."""
    return [
        f"ATTACH '{folder}/x' AS e",
        "DETACH main",
        f"VACUUM INTO '{folder}/x'",
        f"VACUUM main INTO '{folder}/x'",
        f"PRAGMA temp_store_directory = '{folder}'",
        f"PRAGMA data_store_directory = '{folder}'",
        f"SELECT load_extension('{folder}/x')",
        f"SELECT x FROM t WHERE load_extension('{folder}/x') IS NULL",
        f"UPDATE t SET x = load_extension('{folder}/x')",
        "CREATE VIRTUAL TABLE v USING fts5(x)",
        "CREATE TEMP TABLE v (x)",
        "CREATE TEMP VIEW v AS SELECT 1",
        f"CREATE TABLE v (x CHECK (load_extension('{folder}/x')))",
        f"CREATE INDEX v ON t (load_extension('{folder}/x'))",
    ]


def test_nothing_reaches_files(connection: Connection, tmp_path: Path) -> None:
    for statement in reaching(tmp_path):
        with pytest.raises(DBAPIError):
            run(connection, statement)
    assert list(tmp_path.iterdir()) == []
    assert rows(connection, "SELECT name FROM sqlite_master") == [("t",)]
    assert rows(connection, "SELECT * FROM t") == [(1, "one")]


@pytest.mark.parametrize("place", ["work area", "catalogue"])
def test_sqlite_itself_refuses_files(engine: Engine, tmp_path: Path, place: str) -> None:
    """Whatever text gets so far."""
    with engine.connect() as connection:
        own: Any = connection.connection.dbapi_connection
        database = own.transaction.session.work.database
        if place == "catalogue":
            database = own.catalogue.snapshot().database
        for statement in (
            f"ATTACH '{tmp_path}/x' AS e",
            f"SELECT 1; ATTACH '{tmp_path}/x' AS e",
            f"VACUUM INTO '{tmp_path}/x'",
            f"PRAGMA temp_store_directory = '{tmp_path}'",
            "PRAGMA journal_mode = DELETE",
            f"SELECT load_extension('{tmp_path}/x')",
            "CREATE VIRTUAL TABLE v USING fts5(x)",
            "CREATE TABLE a (x); CREATE TRIGGER b AFTER INSERT ON a BEGIN SELECT 1; END",
        ):
            with pytest.raises(Exception, match=r"ATTACH|PRAGMA|function|VIRTUAL|TRIGGER"):
                database.execute(statement).fetchall()
        assert list(tmp_path.iterdir()) == []


def test_load_reaches_no_files(
    redis_server: RedisServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import io
    import sys

    for statement in reaching(tmp_path):
        script = f"CREATE TABLE t (x); {statement};".encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(script)))
        assert main(["load", redis_server.url("confined")]) == 2, statement
    assert list(tmp_path.iterdir()) == []
    assert "rome: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "statement",
    [
        "PRAGMA foreign_key_check",
        "PRAGMA integrity_check",
        "PRAGMA quick_check",
        "PRAGMA case_sensitive_like = ON",
        "PRAGMA defer_foreign_keys = ON",
        "PRAGMA ignore_check_constraints(1)",
        "PRAGMA user_version = 5",
        "PRAGMA writable_schema = ON",
    ],
)
def test_pragmas_that_would_be_ignored_in_silence(connection: Connection, statement: str) -> None:
    with pytest.raises(NotSupportedError, match="PRAGMA"):
        run(connection, statement)


# ---------------------------------------------------------------- sqlite_master


def test_statements_that_contain_the_text_sqlite_master(connection: Connection) -> None:
    assert rows(connection, "SELECT x, 'sqlite_master' FROM t") == [("one", "sqlite_master")]
    run(connection, "INSERT INTO t VALUES (2, 'sqlite_master')")
    assert rows(connection, "SELECT id FROM t WHERE x = 'sqlite_master'") == [(2,)]
    run(connection, "UPDATE t SET x = 'SQLITE_SCHEMA' WHERE x = 'sqlite_master'")
    assert rows(connection, "SELECT id, x AS sqlite_master FROM t WHERE id = 2") == [
        (2, "SQLITE_SCHEMA")
    ]
    assert rows(connection, "SELECT x FROM t /* sqlite_master */ WHERE id = 1") == [("one",)]
    mixed = "SELECT x FROM t WHERE x <> 'sqlite_master' AND id = ?"
    assert connection.exec_driver_sql(mixed, (1,)).scalars().all() == ["one"]


def test_questions_about_the_schema(connection: Connection) -> None:
    names = "SELECT name FROM sqlite_master WHERE type = 'table'"
    assert rows(connection, names) == [("t",)]
    assert rows(connection, 'SELECT name FROM main."sqlite_schema"') == [("t",)]
    assert rows(connection, f"WITH s AS ({names}) SELECT count(*) FROM s") == [(1,)]
    assert rows(connection, "SELECT name FROM pragma_table_info('t')") == [("id",), ("x",)]
    columns = "SELECT m.name, c.name FROM sqlite_master AS m, pragma_table_info(m.name) AS c"
    assert rows(connection, columns) == [("t", "id"), ("t", "x")]
    found = connection.exec_driver_sql(names + " AND name = ?", ("t",))
    assert found.keys() == ["name"]
    assert found.scalars().all() == ["t"]


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM sqlite_master, t",
        "SELECT x FROM t WHERE x IN (SELECT name FROM sqlite_master)",
        "INSERT INTO t (x) SELECT name FROM sqlite_schema",
        "DELETE FROM t WHERE EXISTS (SELECT 1 FROM pragma_table_info('t'))",
        "SELECT * FROM t JOIN pragma_table_info('t') AS i",
    ],
)
def test_the_schema_beside_other_tables_is_refused(connection: Connection, statement: str) -> None:
    with pytest.raises(NotSupportedError, match=r"sqlite_master|pragma_table_info"):
        run(connection, statement)
    assert rows(connection, "SELECT * FROM t") == [(1, "one")]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE sqlite_master SET name = 'u'",
        "DELETE FROM sqlite_schema",
        "DELETE FROM sqlite_sequence",
        "SELECT * FROM sqlite_sequence",
    ],
)
def test_sqlites_own_tables_are_not_written(connection: Connection, statement: str) -> None:
    run(connection, "CREATE TABLE a (id INTEGER PRIMARY KEY AUTOINCREMENT)")
    run(connection, "INSERT INTO a VALUES (5)")
    with pytest.raises((NotSupportedError, OperationalError)):
        run(connection, statement)
    assert rows(connection, "SELECT * FROM a") == [(5,)]


def test_a_compiled_select_from_the_schema_is_refused(connection: Connection) -> None:
    with pytest.raises(NotSupportedError, match="sqlite_master"):
        connection.execute(select(literal_column("name")).select_from(text("sqlite_master")))
