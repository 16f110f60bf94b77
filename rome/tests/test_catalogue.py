"""Changes of the schema: rows and indexes follow, connections and processes notice."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from rome.engine.shared import Shared
from sqlalchemy import (
    CheckConstraint,
    Column,
    Connection,
    Engine,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    create_engine,
    event,
    func,
    inspect,
    select,
    text,
)
from sqlalchemy.exc import IntegrityError, NotSupportedError, OperationalError

from rome import driver
from tests.fuzzing.pairs import wrong_index

MANY = 1200


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    """Each of its statements takes effect at once."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as made:
        yield made
        problem = wrong_index(made)
        assert problem is None, problem


@pytest.fixture
def other(engine: Engine) -> Iterator[Connection]:
    """Another connection, which may know an older schema."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as made:
        made.execute(text("SELECT 1"))
        yield made


def run(connection: Connection, *statements: str) -> None:
    for statement in statements:
        connection.exec_driver_sql(statement)


def rows(connection: Connection, sql: str) -> list[tuple[Any, ...]]:
    return list(map(tuple, connection.exec_driver_sql(sql)))


def trips(engine: Engine, action: Callable[[], Any]) -> int:
    """Round trips that an action costs."""
    counts: list[int] = []

    def observe(_kind: str, _statements: int, trips: int, *_rest: Any) -> None:
        counts.append(trips)

    driver.observers.append(observe)
    try:
        action()
    finally:
        driver.observers.remove(observe)
    return sum(counts)


# ---------------------------------------------------------------- tables


def test_create_and_drop(connection: Connection, other: Connection) -> None:
    run(connection, "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER UNIQUE)")
    run(other, "INSERT INTO t VALUES (1, 5)")
    with pytest.raises(OperationalError, match="already exists"):
        run(other, "CREATE TABLE t (id INTEGER)")
    run(other, "CREATE TABLE IF NOT EXISTS t (id INTEGER)")
    assert rows(connection, "SELECT * FROM t") == [(1, 5)]
    run(connection, "DROP TABLE t")
    with pytest.raises(OperationalError, match="no such table"):
        run(other, "SELECT * FROM t")
    with pytest.raises(OperationalError, match="no such table"):
        run(other, "DROP TABLE t")
    run(other, "DROP TABLE IF EXISTS t")


def test_a_table_made_anew_is_empty(connection: Connection, other: Connection) -> None:
    run(connection, "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER UNIQUE)")
    run(other, "INSERT INTO t VALUES (1, 5)", "DROP TABLE t")
    run(other, "CREATE TABLE t (id INTEGER PRIMARY KEY, x VARCHAR(9), n INTEGER UNIQUE)")
    run(connection, "INSERT INTO t (x, n) VALUES ('new', 5)")
    assert rows(connection, "SELECT id, x, n FROM t") == [(1, "new", 5)]


def test_a_dropped_database_leaves_nothing(engine: Engine) -> None:
    metadata = MetaData()
    Table(
        "a", metadata, Column("id", Integer, primary_key=True), Column("x", String(9), index=True)
    )
    Table("b", metadata, Column("a", ForeignKey("a.id"), primary_key=True))
    metadata.create_all(engine)
    with engine.begin() as connection:
        run(connection, "INSERT INTO a VALUES (1, 'x')", "INSERT INTO b VALUES (1)")
    numbers = [table.number for table in _tables(engine).values()]
    metadata.drop_all(engine)
    assert _tables(engine) == {}
    with engine.connect() as connection:
        store: Any = connection.connection.dbapi_connection.store  # type: ignore[union-attr]
        assert [store.count(number) for number in numbers] == [0, 0]
        assert store.schema_unless("")[1] == {}


def _tables(engine: Engine) -> dict[str, Any]:
    with engine.connect() as connection:
        dbapi: Any = connection.connection.dbapi_connection
        return dict(dbapi.catalogue.load(dbapi.store).tables)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TEMPORARY TABLE t (id INTEGER)",
        "CREATE TRIGGER x AFTER INSERT ON base BEGIN SELECT 1; END",
        "CREATE VIRTUAL TABLE t USING fts5(x)",
        "CREATE TABLE t (id INTEGER PRIMARY KEY) WITHOUT ROWID",
        "CREATE TABLE t (id INTEGER, d INTEGER GENERATED ALWAYS AS (id + 1))",
        "CREATE UNIQUE INDEX x ON base (lower(name))",
        "CREATE UNIQUE INDEX x ON base (name) WHERE id > 5",
        "ATTACH ':memory:' AS other",
    ],
)
def test_refused(connection: Connection, statement: str) -> None:
    run(connection, "CREATE TABLE base (id INTEGER PRIMARY KEY, name VARCHAR(9))")
    with pytest.raises(NotSupportedError):
        run(connection, statement)
    assert inspect(connection).get_table_names() == ["base"]
    assert inspect(connection).get_indexes("base") == []


def test_ddl_that_fails_changes_nothing(connection: Connection) -> None:
    run(connection, "CREATE TABLE t (id INTEGER PRIMARY KEY)")
    for wrong in ("CREATE TABLE u (", "ALTER TABLE t ADD COLUMN", "CREATE INDEX i ON t (nothing)"):
        with pytest.raises(OperationalError):
            run(connection, wrong)
    assert inspect(connection).get_table_names() == ["t"]
    run(connection, "INSERT INTO t VALUES (1)")


# ---------------------------------------------------------------- columns


def test_add_column(connection: Connection, other: Connection) -> None:
    run(connection, "CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER)")
    run(connection, "INSERT INTO t VALUES (1, 1), (2, 2)")
    run(other, "SELECT * FROM t")
    run(connection, "ALTER TABLE t ADD COLUMN b VARCHAR(9) NOT NULL DEFAULT 'old'")
    run(connection, "ALTER TABLE t ADD COLUMN c INTEGER")
    run(other, "INSERT INTO t VALUES (3, 3, 'new', 9)")
    expected = [(1, 1, "old", None), (2, 2, "old", None), (3, 3, "new", 9)]
    for each in (connection, other):
        assert rows(each, "SELECT * FROM t ORDER BY id") == expected
    run(other, "UPDATE t SET c = 5 WHERE b = 'old' AND id = 1")
    run(connection, "CREATE INDEX i ON t (b)", "CREATE UNIQUE INDEX u ON t (c)")
    table = Table("t", MetaData(), autoload_with=connection)
    found = select(table.c.id).where(table.c.b == "old").order_by(table.c.id)
    assert connection.scalars(found).all() == [1, 2]
    assert connection.scalars(select(table.c.id).where(table.c.c == 5)).all() == [1]
    run(connection, "DELETE FROM t WHERE b = 'old'")
    assert rows(other, "SELECT id FROM t") == [(3,)]


def test_drop_and_rename_columns(connection: Connection, other: Connection) -> None:
    run(connection, "CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER, b INTEGER, c INTEGER)")
    run(connection, "CREATE INDEX i ON t (c)", "INSERT INTO t VALUES (1, 10, 20, 30)")
    run(other, "SELECT * FROM t")
    run(connection, "ALTER TABLE t DROP COLUMN a")
    run(other, "INSERT INTO t (id, b, c) VALUES (2, 21, 31)")
    run(connection, "ALTER TABLE t RENAME COLUMN c TO a")
    run(other, "ALTER TABLE t ADD COLUMN d INTEGER DEFAULT 4")
    assert rows(connection, "SELECT * FROM t ORDER BY id") == [(1, 20, 30, 4), (2, 21, 31, 4)]
    table = Table("t", MetaData(), autoload_with=other)
    assert [column.name for column in table.columns] == ["id", "b", "a", "d"]
    assert other.scalars(select(table.c.id).where(table.c.a == 30)).all() == [1]
    run(connection, "UPDATE t SET a = 32, d = 5 WHERE id = 2")
    assert rows(other, "SELECT * FROM t WHERE a > 30") == [(2, 21, 32, 5)]


def test_rename_table(connection: Connection, other: Connection) -> None:
    run(connection, "CREATE TABLE p (id INTEGER PRIMARY KEY)", "INSERT INTO p VALUES (1)")
    run(connection, "CREATE TABLE c (id INTEGER PRIMARY KEY, p INTEGER REFERENCES p (id))")
    run(connection, "CREATE INDEX i ON c (p)", "INSERT INTO c VALUES (1, 1)")
    run(other, "SELECT * FROM p")
    run(connection, "ALTER TABLE p RENAME TO parent")
    run(other, "INSERT INTO c VALUES (2, 1)")
    with pytest.raises(IntegrityError):
        run(other, "INSERT INTO c VALUES (3, 77)")
    with pytest.raises(IntegrityError):
        run(connection, "DELETE FROM parent")
    assert rows(other, "SELECT * FROM parent") == [(1,)]
    run(connection, "CREATE TABLE p (id INTEGER PRIMARY KEY, x INTEGER)")
    assert rows(other, "SELECT * FROM p") == []


# ---------------------------------------------------------------- indexes


@pytest.fixture
def filled(connection: Connection) -> Connection:
    run(connection, "CREATE TABLE t (id INTEGER PRIMARY KEY, g INTEGER, name VARCHAR(20))")
    connection.exec_driver_sql(
        "INSERT INTO t VALUES (?, ?, ?)", [(n, n % 10, f"n{n}") for n in range(1, MANY + 1)]
    )
    return connection


def test_index_on_a_filled_table(filled: Connection, other: Connection) -> None:
    table = Table("t", MetaData(), autoload_with=filled)
    run(filled, "CREATE INDEX i ON t (g, name)", "CREATE UNIQUE INDEX u ON t (name)")
    assert wrong_index(filled) is None
    assert filled.scalar(select(func.count()).where(table.c.g == 3)) == MANY // 10
    with pytest.raises(IntegrityError, match="UNIQUE"):
        run(other, "INSERT INTO t VALUES (5000, 1, 'n7')")
    run(other, "UPDATE t SET g = 77 WHERE name = 'n7'", "DELETE FROM t WHERE id = 8")
    assert wrong_index(filled) is None
    run(filled, "DROP INDEX u", "DROP INDEX i")
    run(other, "INSERT INTO t VALUES (5000, 1, 'n7')")
    assert rows(filled, "SELECT id FROM t WHERE name = 'n7' ORDER BY id") == [(7,), (5000,)]


def test_an_index_is_used(filled: Connection, engine: Engine) -> None:
    """One round trip, and no more bytes than the rows take."""
    table = Table("t", MetaData(), autoload_with=filled)
    run(filled, "CREATE INDEX i ON t (name)")
    one = select(table).where(table.c.name == "n7")
    filled.execute(one).all()
    assert trips(engine, lambda: filled.execute(one).all()) == 1


def test_unique_index_that_rows_refuse(filled: Connection, other: Connection) -> None:
    with pytest.raises(IntegrityError, match=r"UNIQUE constraint failed: t\.g"):
        run(filled, "CREATE UNIQUE INDEX u ON t (g)")
    assert inspect(filled).get_indexes("t") == []
    # The constraint isn't there, neither here nor elsewhere.
    run(filled, "INSERT INTO t VALUES (6000, 1, 'x')")
    run(other, "INSERT INTO t VALUES (6001, 1, 'x')")
    run(other, "DELETE FROM t WHERE id > 10", "CREATE UNIQUE INDEX u ON t (g)")
    with pytest.raises(IntegrityError):
        run(filled, "INSERT INTO t VALUES (6000, 1, 'x')")


def test_nulls_are_no_duplicates(connection: Connection) -> None:
    run(connection, "CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER, b INTEGER)")
    run(connection, "INSERT INTO t VALUES (1, 1, NULL), (2, 1, NULL), (3, NULL, NULL)")
    run(connection, "CREATE UNIQUE INDEX u ON t (a, b)", "INSERT INTO t VALUES (4, 1, NULL)")
    run(connection, "INSERT INTO t VALUES (5, 1, 1)")
    with pytest.raises(IntegrityError, match=r"t\.a, t\.b"):
        run(connection, "UPDATE t SET b = 1 WHERE id = 4")


def test_index_with_expression_or_condition(filled: Connection) -> None:
    """Kept, but not used."""
    run(filled, "CREATE INDEX e ON t (lower(name))", "CREATE INDEX p ON t (g) WHERE g > 5")
    table = Table("t", MetaData(), Column("name", String), Column("g", Integer))
    assert filled.scalar(select(func.count()).where(func.lower(table.c.name) == "n7")) == 1
    assert filled.scalar(select(func.count()).where(table.c.g == 3)) == MANY // 10


# ---------------------------------------------------------------- several connections


def test_connection_with_an_older_schema(engine: Engine) -> None:
    """Another process, as it were: with a catalogue of its own that nobody tells."""
    with engine.begin() as connection:
        run(connection, "CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER)")
        run(connection, "INSERT INTO t VALUES (1, 1)")
    with engine.connect() as connection:
        dbapi: Any = connection.connection.dbapi_connection
        stale = driver.connect(lambda: dbapi.store, Shared())
        assert stale.execute("SELECT * FROM t").fetchall() == [(1, 1)]
        stale.rollback()
        run(connection, "ALTER TABLE t ADD COLUMN b INTEGER DEFAULT 7")
        run(connection, "CREATE UNIQUE INDEX u ON t (a)")
        # Reading: the new column is there at once.
        assert stale.execute("SELECT * FROM t").fetchall() == [(1, 1, 7)]
        stale.rollback()
        run(connection, "ALTER TABLE t ADD COLUMN c INTEGER DEFAULT 8")
        # Writing without reading: the commit notices.
        stale.execute("INSERT INTO t (id, a) VALUES (2, 2)")
        stale.commit()
        run(connection, "CREATE INDEX late ON t (c)")
        stale.execute("INSERT INTO t (id, a, c) VALUES (3, 3, 9)")
        stale.commit()
        assert rows(connection, "SELECT * FROM t ORDER BY id") == [
            (1, 1, 7, 8),
            (2, 2, 7, 8),
            (3, 3, 7, 9),
        ]
        with pytest.raises(driver.IntegrityError):
            stale.execute("INSERT INTO t (id, a) VALUES (4, 1)")
        stale.rollback()
        assert wrong_index(connection) is None


def test_a_schema_that_changes_while_a_transaction_writes(engine: Engine) -> None:
    with engine.connect() as one, engine.connect() as two:
        run(one, "CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER)")
        run(one, "CREATE TABLE u (id INTEGER PRIMARY KEY)")
        run(one, "INSERT INTO t VALUES (1, 1)")
        run(two, "ALTER TABLE u ADD COLUMN x INTEGER", "CREATE INDEX i ON t (a)")
        one.commit()
        assert rows(two, "SELECT * FROM t") == [(1, 1)]
        assert wrong_index(two) is None


def test_changes_at_the_same_time(new_url: Callable[[], str]) -> None:
    url = new_url()
    errors: list[Exception] = []

    def create(worker: int) -> None:
        engine = create_engine(url)
        try:
            for number in range(8):
                with engine.begin() as connection:
                    name = f"t{worker}_{number}"
                    run(connection, f"CREATE TABLE {name} (id INTEGER PRIMARY KEY, n INTEGER)")
                    run(connection, f"INSERT INTO {name} VALUES ({worker}, {number})")
                    run(connection, f"CREATE INDEX i_{name} ON {name} (n)")
        except Exception as error:
            errors.append(error)
        finally:
            engine.dispose()

    threads = [threading.Thread(target=create, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    engine = create_engine(url)
    with engine.connect() as connection:
        names = inspect(connection).get_table_names()
        assert len(names) == 32
        for name in names:
            worker, number = map(int, name[1:].split("_"))
            assert rows(connection, f"SELECT id, n FROM {name}") == [(worker, number)]
        assert wrong_index(connection) is None
        tables = _tables(engine).values()
        assert len({table.number for table in tables}) == 32
    engine.dispose()


def test_ddl_commits_what_was_written(engine: Engine) -> None:
    """As in MySQL."""
    with engine.connect() as connection:
        run(connection, "CREATE TABLE t (id INTEGER PRIMARY KEY)", "INSERT INTO t VALUES (1)")
        run(connection, "CREATE TABLE u (id INTEGER PRIMARY KEY)", "INSERT INTO t VALUES (2)")
        connection.rollback()
        assert rows(connection, "SELECT id FROM t") == [(1,)]
        assert inspect(connection).get_table_names() == ["t", "u"]


# ---------------------------------------------------------------- views


def test_view(connection: Connection, other: Connection) -> None:
    run(connection, "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER)")
    run(connection, "CREATE VIEW v AS SELECT id, n * 2 AS twice FROM t WHERE n > 1")
    run(other, "INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)")
    assert rows(other, "SELECT * FROM v WHERE id = 3") == [(3, 6)]
    both = "SELECT t.id, v.id FROM t LEFT JOIN v ON v.id = t.id + 1 WHERE t.id = 1"
    assert rows(connection, both) == [(1, 2)]
    assert inspect(other).get_view_names() == ["v"]
    run(other, "DROP VIEW v")
    with pytest.raises(OperationalError):
        run(connection, "SELECT * FROM v")


# ---------------------------------------------------------------- reflection


def test_reflection(engine: Engine) -> None:
    metadata = MetaData()
    Table(
        "parents",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("code", String(20), nullable=False, unique=True, server_default="none"),
    )
    Table(
        "children",
        metadata,
        Column("name", String(20), primary_key=True),
        Column("place", Integer, primary_key=True, autoincrement=False),
        Column("parent", ForeignKey("parents.id", ondelete="CASCADE", name="to_parent")),
        Column("weight", Float),
        UniqueConstraint("parent", "weight", name="one_weight"),
        CheckConstraint("weight > 0", name="heavy"),
        Index("by_weight", "weight"),
    )
    metadata.create_all(engine)
    found = MetaData()
    found.reflect(engine)
    assert sorted(found.tables) == ["children", "parents"]
    look = inspect(engine)
    parents = {column["name"]: column for column in look.get_columns("parents")}
    assert list(parents) == ["id", "code"]
    assert isinstance(parents["code"]["type"], String)
    assert parents["code"]["type"].length == 20
    assert parents["code"]["nullable"] is False
    assert parents["code"]["default"] == "'none'"
    assert look.get_pk_constraint("children")["constrained_columns"] == ["name", "place"]
    (foreign,) = look.get_foreign_keys("children")
    assert foreign["name"] == "to_parent"
    assert foreign["referred_table"] == "parents"
    assert foreign["options"] == {"ondelete": "CASCADE"}
    (unique,) = look.get_unique_constraints("children")
    assert (unique["name"], unique["column_names"]) == ("one_weight", ["parent", "weight"])
    (index,) = look.get_indexes("children")
    assert (index["name"], index["column_names"], index["unique"]) == ("by_weight", ["weight"], 0)
    (check,) = look.get_check_constraints("children")
    assert (check["name"], check["sqltext"]) == ("heavy", "weight > 0")
    assert not look.has_table("nothing")


# ---------------------------------------------------------------- Alembic


@pytest.fixture
def operations(engine: Engine) -> Iterator[Operations]:
    with engine.connect() as connection:
        yield Operations(MigrationContext.configure(connection))
        assert wrong_index(connection) is None


def test_alembic(operations: Operations, engine: Engine) -> None:
    operations.create_table(
        "t",
        Column("id", Integer, primary_key=True),
        Column("a", Integer),
        Column("b", String(20)),
    )
    operations.bulk_insert(
        Table("t", MetaData(), Column("id", Integer), Column("a", Integer), Column("b", String)),
        [{"id": n, "a": n % 3, "b": f"b{n}"} for n in range(1, 31)],
    )
    operations.add_column("t", Column("c", Integer, server_default="5", nullable=False))
    operations.create_index("by_a", "t", ["a"])
    with operations.batch_alter_table("t") as batch:
        batch.alter_column("a", new_column_name="group", nullable=False)
        batch.alter_column("b", type_=String(200))
        batch.create_unique_constraint("one_b", ["b"])
        batch.drop_column("c")
    with engine.connect() as connection:
        look = inspect(connection)
        assert [column["name"] for column in look.get_columns("t")] == ["id", "group", "b"]
        assert not look.get_columns("t")[1]["nullable"]
        assert [u["column_names"] for u in look.get_unique_constraints("t")] == [["b"]]
        assert rows(connection, 'SELECT count(*), sum("group"), max(b) FROM t') == [(30, 30, "b9")]
        with pytest.raises(IntegrityError, match="UNIQUE"):
            run(connection, "INSERT INTO t VALUES (77, 1, 'b1')")
        with pytest.raises(IntegrityError, match="NOT NULL"):
            run(connection, "INSERT INTO t VALUES (77, NULL, 'new')")
        run(connection, "INSERT INTO t (\"group\", b) VALUES (1, 'new')")
        connection.commit()
        assert rows(connection, "SELECT max(id) > 30 FROM t") == [(1,)]
    with operations.batch_alter_table("t") as batch:
        batch.drop_constraint("one_b", type_="unique")
        batch.drop_index("by_a")
    operations.rename_table("t", "u")
    operations.drop_table("u")
    operations.get_bind().commit()
    assert inspect(engine).get_table_names() == []


def test_alembic_foreign_keys(operations: Operations, engine: Engine) -> None:
    operations.create_table("p", Column("id", Integer, primary_key=True))
    operations.create_table("c", Column("id", Integer, primary_key=True), Column("p", Integer))
    operations.execute("INSERT INTO p VALUES (1)")
    operations.execute("INSERT INTO c VALUES (1, 1)")
    with operations.batch_alter_table("c") as batch:
        batch.create_foreign_key("to_p", "p", ["p"], ["id"], ondelete="CASCADE")
    with engine.begin() as connection:
        with pytest.raises(IntegrityError, match="FOREIGN KEY"):
            run(connection, "INSERT INTO c VALUES (2, 77)")
        run(connection, "DELETE FROM p")
        assert rows(connection, "SELECT * FROM c") == []
    with operations.batch_alter_table("c") as batch:
        batch.drop_constraint("to_p", type_="foreignkey")
    with engine.begin() as connection:
        run(connection, "INSERT INTO c VALUES (2, 77)")
        assert inspect(connection).get_foreign_keys("c") == []


def test_alembic_constraint_that_rows_refuse(operations: Operations, engine: Engine) -> None:
    operations.create_table("t", Column("id", Integer, primary_key=True), Column("a", Integer))
    operations.execute("INSERT INTO t VALUES (1, 1), (2, 1), (3, NULL)")
    with (
        pytest.raises(IntegrityError, match="UNIQUE"),
        operations.batch_alter_table("t") as batch,
    ):
        batch.create_unique_constraint("one_a", ["a"])
    with (
        pytest.raises(IntegrityError, match="NOT NULL"),
        operations.batch_alter_table("t") as batch,
    ):
        batch.alter_column("a", nullable=False)
    operations.get_bind().rollback()
    with engine.connect() as connection:
        assert rows(connection, "SELECT * FROM t ORDER BY id") == [(1, 1), (2, 1), (3, None)]
        assert inspect(connection).get_table_names() == ["t"]
        assert inspect(connection).get_unique_constraints("t") == []


def test_events_see_the_ddl(engine: Engine) -> None:
    """SQLAlchemy's own hooks work: what an application logs is what is run."""
    seen: list[str] = []

    @event.listens_for(engine, "before_cursor_execute")
    def _note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        seen.append(statement.split("(")[0].strip())

    Table("t", MetaData(), Column("id", Integer, primary_key=True)).create(engine)
    assert "CREATE TABLE t" in seen
