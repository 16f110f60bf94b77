"""DDL on tables with rows: verified, converted, refused; and several connections at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from rome.admin.check import check
from rome.engine.shared import Shared
from rome.schema import change as schema_change
from rome.schema.catalogue import Catalogue
from rome.schema.change import SchemaChange
from rome.schema.verification import Verification
from rome.stores.base import SchemaChanged
from rome.stores.redis import scans
from rome.stores.redis.connection import Commands, Lost, Wire
from sqlalchemy import (
    DDL,
    Column,
    Connection,
    Engine,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    Table,
    create_engine,
    inspect,
    select,
    text,
)
from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    NotSupportedError,
    OperationalError,
    SAWarning,
)

from rome import driver
from tests.fuzzing.pairs import wrong_index
from tests.servers import RedisServer


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    """Each of its statements takes effect at once."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as made:
        yield made
        problem = wrong_index(made)
        assert problem is None, problem


def run(connection: Connection, *statements: str) -> None:
    for statement in statements:
        connection.exec_driver_sql(statement)


def gather(connection: Connection, *statements: str) -> None:
    """As create_all and Alembic's operations do."""
    for statement in statements:
        connection.execute(DDL(statement))  # type: ignore[no-untyped-call]


def rows(connection: Connection, sql: str) -> list[tuple[Any, ...]]:
    return list(map(tuple, connection.exec_driver_sql(sql)))


def stranger(connection: Connection) -> driver.Connection:
    """A connection as of another process, which nobody tells of changes."""
    own: Any = connection.connection.dbapi_connection
    made = driver.connect(lambda: own.store, Shared())
    made.autocommit = True
    return made


# ---------------------------------------------------------------- rows against a definition

NUMBERS = (
    "CREATE TABLE t (id INTEGER PRIMARY KEY, x INTEGER)",
    "INSERT INTO t VALUES (1, 5), (2, NULL), (3, -7)",
)


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("ALTER TABLE t ADD COLUMN y INTEGER NOT NULL", "NOT NULL"),
        ("ALTER TABLE t ADD COLUMN y INTEGER NOT NULL DEFAULT NULL", "NOT NULL"),
        ("ALTER TABLE t ADD COLUMN y INTEGER DEFAULT 1 CHECK (y > 5)", "CHECK constraint failed"),
        ("ALTER TABLE t ADD COLUMN y INTEGER DEFAULT 1 CHECK (x > 0)", "CHECK constraint failed"),
        ("ALTER TABLE t ADD COLUMN y INTEGER DEFAULT 1 REFERENCES p (id)", "FOREIGN KEY"),
        ("ALTER TABLE t ADD CONSTRAINT c CHECK (x > 0)", "CHECK constraint failed: c"),
        ("ALTER TABLE t ADD CHECK (abs(x) < 6)", "CHECK constraint failed"),
        ("ALTER TABLE t ALTER COLUMN x SET NOT NULL", "NOT NULL constraint failed: t.x"),
        ("ALTER TABLE t ADD FOREIGN KEY (x) REFERENCES p (id)", "FOREIGN KEY"),
        ("ALTER TABLE t ADD FOREIGN KEY (x) REFERENCES nobody (id)", "FOREIGN KEY"),
        ("ALTER TABLE t ADD FOREIGN KEY (x) REFERENCES t (id)", "FOREIGN KEY"),
        ("ALTER TABLE t ADD FOREIGN KEY (x) REFERENCES p (n)", "foreign key mismatch"),
    ],
)
def test_rows_that_are_there_must_fulfil_it(
    connection: Connection, statement: str, words: str
) -> None:
    run(connection, *NUMBERS, "CREATE TABLE p (id INTEGER PRIMARY KEY, n INTEGER)")
    before = rows(connection, "SELECT sql FROM sqlite_master")
    with pytest.raises(DBAPIError, match=words):
        run(connection, statement)
    assert rows(connection, "SELECT sql FROM sqlite_master") == before
    table = Table("t", MetaData(), autoload_with=connection)
    everything = [(1, 5), (2, None), (3, -7)]
    assert sorted(map(tuple, connection.execute(select(table)))) == everything
    assert rows(connection, "SELECT id FROM t WHERE x + 0 > 0 OR x < 0 OR x IS NULL") == [
        (1,),
        (2,),
        (3,),
    ]
    assert connection.exec_driver_sql("UPDATE t SET x = 5").rowcount == 3
    # Rows that fulfil it are no hindrance.
    run(connection, "DELETE FROM t")
    if "mismatch" not in words:
        run(connection, statement)


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE t ADD COLUMN y INTEGER NOT NULL DEFAULT 3",
        "ALTER TABLE t ADD COLUMN y INTEGER DEFAULT 7 CHECK (y > 5)",
        "ALTER TABLE t ADD CONSTRAINT c CHECK (x > -100)",
        "ALTER TABLE t ADD FOREIGN KEY (x) REFERENCES p (id)",
        "ALTER TABLE t ADD FOREIGN KEY (x) REFERENCES p (code)",
        "ALTER TABLE t ADD FOREIGN KEY (id) REFERENCES t (id)",
    ],
)
def test_rows_that_fulfil_it_stay(connection: Connection, statement: str) -> None:
    run(connection, *NUMBERS, "CREATE TABLE p (id INTEGER PRIMARY KEY, code VARCHAR(9) UNIQUE)")
    run(connection, "INSERT INTO p VALUES (5, '5'), (-7, '-7')", statement)
    table = Table("t", MetaData(), autoload_with=connection)
    assert connection.scalars(select(table.c.id).where(table.c.x + 0 < 9)).all() == [1, 3]
    assert rows(connection, "SELECT count(*) FROM t WHERE id > 0") == [(3,)]


def test_strict_types(connection: Connection) -> None:
    run(connection, "CREATE TABLE t (id INTEGER PRIMARY KEY, x TEXT) STRICT")
    run(connection, "INSERT INTO t VALUES (1, 'one')")
    with pytest.raises(IntegrityError, match=r"cannot store TEXT value in INTEGER column t\.x"):
        run(connection, "ALTER TABLE t ALTER COLUMN x TYPE INTEGER")
    with pytest.raises(DBAPIError, match="cannot store TEXT"):
        run(connection, "ALTER TABLE t ADD COLUMN y INTEGER DEFAULT 'two'")
    assert rows(connection, "SELECT * FROM t") == [(1, "one")]


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("ALTER TABLE t ADD CHECK (x > 0)", "CHECK"),
        ("ALTER TABLE t ALTER COLUMN x SET NOT NULL", "NOT NULL"),
        ("ALTER TABLE t ADD FOREIGN KEY (x) REFERENCES p (id)", "FOREIGN KEY"),
    ],
)
@pytest.mark.parametrize("written", ["INSERT INTO t VALUES (2, NULL), (3, -1)", "DELETE FROM p"])
def test_rows_that_come_between_the_look_and_the_change(
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
    statement: str,
    words: str,
    written: str,
) -> None:
    run(connection, "CREATE TABLE p (id INTEGER PRIMARY KEY)", "INSERT INTO p VALUES (5)")
    run(connection, "CREATE TABLE t (id INTEGER PRIMARY KEY, x INTEGER)")
    run(connection, "INSERT INTO t VALUES (1, 5)")
    breaks = ("FOREIGN" in words) or "INSERT" in written
    other = stranger(connection)
    looks = 0
    pages = Verification.pages

    def slow(self: Verification, *given: Any) -> Iterator[Any]:
        nonlocal looks
        looks += 1
        yield from pages(self, *given)
        if looks == 1:
            other.execute(written)

    monkeypatch.setattr(Verification, "pages", slow)
    if breaks:
        with pytest.raises(IntegrityError, match=words):
            run(connection, statement)
        assert looks == 2
    else:
        run(connection, statement)
        assert looks == 1


def test_a_table_that_is_written_all_the_time(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(connection, *NUMBERS)
    other = stranger(connection)
    pages = Verification.pages

    def slow(self: Verification, *given: Any) -> Iterator[Any]:
        yield from pages(self, *given)
        other.execute("INSERT INTO t (x) VALUES (1)")

    monkeypatch.setattr(Verification, "pages", slow)
    monkeypatch.setattr(schema_change, "_LOOKING_S", 0)
    with pytest.raises(OperationalError, match="written all the time"):
        run(connection, "ALTER TABLE t ADD CHECK (x > -100)")
    monkeypatch.undo()
    run(connection, "ALTER TABLE t ADD CHECK (x > -100)")


# ---------------------------------------------------------------- other types


def test_a_type_of_another_affinity_converts_what_is_there(connection: Connection) -> None:
    run(connection, "CREATE TABLE t (id INTEGER PRIMARY KEY, x INTEGER, y VARCHAR(9), z REAL)")
    run(connection, "INSERT INTO t VALUES (1, 1, '10', 1.5), (2, NULL, 'ten', 2.0)")
    run(connection, "ALTER TABLE t ADD COLUMN old INTEGER DEFAULT 77", "CREATE INDEX i ON t (x)")
    run(connection, "CREATE UNIQUE INDEX u ON t (y)", "ALTER TABLE t DROP COLUMN z")
    run(connection, "ALTER TABLE t ALTER COLUMN x TYPE VARCHAR(20)")
    run(connection, "ALTER TABLE t ALTER COLUMN y TYPE INTEGER")
    run(connection, "ALTER TABLE t ALTER COLUMN old TYPE TEXT")
    assert rows(connection, "SELECT * FROM t ORDER BY id") == [
        (1, "1", 10, "77"),
        (2, None, "ten", "77"),
    ]
    table = Table("t", MetaData(), autoload_with=connection)
    assert connection.scalars(select(table.c.id).where(table.c.x == "1")).all() == [1]
    assert connection.scalars(select(table.c.id).where(table.c.y == 10)).all() == [1]
    with pytest.raises(IntegrityError, match=r"UNIQUE constraint failed: t\.y"):
        run(connection, "INSERT INTO t (y) VALUES ('10')")
    key = connection.exec_driver_sql("INSERT INTO t (y) VALUES (11)").lastrowid
    assert key > 2
    assert leftovers(connection) == []


def test_a_conversion_that_makes_two_keys_one(connection: Connection) -> None:
    run(connection, "CREATE TABLE t (k VARCHAR(9) PRIMARY KEY, n INTEGER)")
    run(connection, "INSERT INTO t VALUES ('1', 1), ('01', 2)")
    with pytest.raises(IntegrityError, match=r"UNIQUE constraint failed: t\.k"):
        run(connection, "ALTER TABLE t ALTER COLUMN k TYPE BIGINT")
    assert rows(connection, "SELECT * FROM t ORDER BY n") == [("1", 1), ("01", 2)]
    assert leftovers(connection) == []


def test_rows_that_come_while_a_table_is_copied(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(connection, *NUMBERS)
    other = stranger(connection)
    pages = Verification.pages
    looks = 0

    def slow(self: Verification, *given: Any) -> Iterator[Any]:
        nonlocal looks
        looks += 1
        yield from pages(self, *given)
        if looks == 1:
            other.execute("INSERT INTO t VALUES (4, 9)")
            other.execute("DELETE FROM t WHERE id = 1")

    monkeypatch.setattr(Verification, "pages", slow)
    run(connection, "ALTER TABLE t ALTER COLUMN x TYPE TEXT")
    assert rows(connection, "SELECT * FROM t ORDER BY id") == [(2, None), (3, "-7"), (4, "9")]
    other.execute("INSERT INTO t VALUES (5, 5)")
    assert rows(connection, "SELECT x FROM t WHERE id = 5") == [("5",)]
    assert leftovers(connection) == []


def leftovers(connection: Connection) -> list[str]:
    """What `rome check` says, of a database in Redis; nothing of one in memory."""
    own: Any = connection.connection.dbapi_connection
    if not hasattr(own.store, "key_names"):
        return []
    return [finding.text for finding in check(own.store, Catalogue())]


@pytest.mark.parametrize("statement", ["TYPE TEXT", "SET NOT NULL"])
def test_tables_that_are_read_page_by_page(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    monkeypatch.setattr(scans, "PAGE_ROWS", 100)
    monkeypatch.setattr(schema_change, "_COPIED_ROWS", 70)
    engine = create_engine(redis_server.url(f"pages-{statement[0]}"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        run(connection, "CREATE TABLE t (k VARCHAR(9) PRIMARY KEY, x INTEGER)")
        many = [(f"k{n}", n) for n in range(1000)]
        connection.exec_driver_sql("INSERT INTO t VALUES (?, ?)", many)
        run(connection, f"ALTER TABLE t ALTER COLUMN x {statement}")
        found = rows(connection, "SELECT k, typeof(x), x + 0 FROM t ORDER BY x + 0")
        kind = "text" if statement == "TYPE TEXT" else "integer"
        assert found == [(f"k{n}", kind, n) for n in range(1000)]
        assert leftovers(connection) == []
        assert wrong_index(connection) is None
    engine.dispose()


# ---------------------------------------------------------------- unique indexes


@pytest.mark.parametrize(
    "statement",
    ["ALTER TABLE t ADD CONSTRAINT one UNIQUE (x)", "CREATE UNIQUE INDEX one ON t (x)"],
)
def test_a_duplicate_that_comes_while_a_unique_index_is_built(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    run(connection, *NUMBERS)
    own: Any = connection.connection.dbapi_connection
    kind = type(own.store)
    other = stranger(connection)
    build = kind.build_index

    def late(self: Any, *arguments: Any) -> None:
        other.execute("INSERT INTO t VALUES (4, 5)")
        build(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(kind, "build_index", late)
        with pytest.raises(IntegrityError, match=r"UNIQUE constraint failed: t\.x"):
            run(connection, statement)
    # Nothing of it is left: neither the constraint, nor what keeps others from DDL.
    assert rows(connection, "SELECT id FROM t WHERE x = 5 ORDER BY id") == [(1,), (4,)]
    assert leftovers(connection) == []
    run(connection, "INSERT INTO t VALUES (6, 5)", "CREATE TABLE u (id INTEGER PRIMARY KEY)")
    other.execute("CREATE INDEX i ON t (x)")
    run(connection, "DELETE FROM t WHERE id > 3", statement)
    with pytest.raises(IntegrityError, match="UNIQUE"):
        run(connection, "INSERT INTO t VALUES (6, 5)")


def test_while_a_unique_index_is_built_nobody_sees_it(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(connection, *NUMBERS)
    own: Any = connection.connection.dbapi_connection
    kind = type(own.store)
    other = stranger(connection)
    build = kind.build_index
    seen: list[Any] = []

    def late(self: Any, *arguments: Any) -> None:
        other.execute("INSERT INTO t VALUES (4, 6)")
        other.execute("UPDATE t SET x = 7 WHERE id = 2")
        other.execute("DELETE FROM t WHERE id = 3")
        build(self, *arguments)
        other.execute("INSERT INTO t VALUES (5, 8)")
        with pytest.raises(driver.ConflictError):
            other.execute("INSERT INTO t VALUES (7, 8)")
        seen.extend(other.execute("SELECT x FROM t ORDER BY id"))

    with monkeypatch.context() as patch:
        patch.setattr(kind, "build_index", late)
        run(connection, "CREATE UNIQUE INDEX one ON t (x)")
    assert seen == [(5,), (7,), (6,), (8,)]
    with pytest.raises(driver.IntegrityError, match="UNIQUE"):
        other.execute("INSERT INTO t VALUES (9, 7)")


def test_a_builder_that_dies_leaves_what_check_removes(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        run(connection, *NUMBERS, "INSERT INTO t VALUES (4, 5)")
        own: Any = connection.connection.dbapi_connection

        def killed(*_: Any) -> None:
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(type(own.store), "build_index", killed)
            with pytest.raises(Killed):
                own.execute("CREATE UNIQUE INDEX one ON t (x)")
        # Everybody may go on, also with DDL.
        run(connection, "INSERT INTO t VALUES (5, 9)", "CREATE TABLE u (id INTEGER)")
        if not hasattr(own.store, "key_names"):
            return
        assert leftovers(connection) == ["t (x): the index isn't ready"]
        repaired = list(check(own.store, Catalogue(), repair=True))
        assert [finding.repaired for finding in repaired] == [True]
        assert leftovers(connection) == []
        assert rows(connection, "SELECT count(*) FROM t WHERE x = 5") == [(2,)]


# ---------------------------------------------------------------- parents that go


@pytest.fixture
def family(connection: Connection) -> Connection:
    run(connection, "CREATE TABLE p (id INTEGER PRIMARY KEY)")
    run(connection, "CREATE TABLE c (id INTEGER PRIMARY KEY, p INTEGER REFERENCES p (id))")
    run(connection, "INSERT INTO p VALUES (1)", "INSERT INTO c VALUES (1, 1), (2, NULL)")
    return connection


def test_drop_of_a_parent(family: Connection) -> None:
    with pytest.raises(IntegrityError, match="FOREIGN KEY constraint failed"):
        run(family, "DROP TABLE p")
    with pytest.raises(IntegrityError, match="FOREIGN KEY constraint failed"):
        run(family, 'drop table if exists main."P";')
    assert rows(family, "SELECT * FROM p") == [(1,)]
    run(family, "UPDATE c SET p = NULL", "DROP TABLE p")
    assert inspect(family).get_table_names() == ["c"]


def test_drop_of_a_parent_unless_foreign_keys_are_off(family: Connection) -> None:
    run(family, "PRAGMA foreign_keys = OFF", "DROP TABLE p", "PRAGMA foreign_keys = ON")
    assert rows(family, "SELECT * FROM c") == [(1, 1), (2, None)]


def test_drop_of_a_parent_that_gets_a_child_meanwhile(
    family: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(family, "UPDATE c SET p = NULL")
    other = stranger(family)
    pages = Verification.pages

    def slow(self: Verification, *given: Any) -> Iterator[Any]:
        yield from pages(self, *given)
        other.execute("UPDATE c SET p = 1 WHERE id = 2")

    monkeypatch.setattr(Verification, "pages", slow)
    with pytest.raises(IntegrityError, match="FOREIGN KEY"):
        run(family, "DROP TABLE p")


@pytest.mark.parametrize("cyclic", [False, True])
def test_drop_all_whatever_refers_to_what(engine: Engine, cyclic: bool) -> None:
    metadata = MetaData()
    a = Table("a", metadata, Column("id", Integer, primary_key=True), Column("b", Integer))
    b = Table("b", metadata, Column("id", Integer, primary_key=True), Column("a", Integer))
    Table("itself", metadata, Column("id", Integer, ForeignKey("itself.id"), primary_key=True))
    b.append_constraint(ForeignKeyConstraint(["a"], ["a.id"]))
    if cyclic:
        a.append_constraint(ForeignKeyConstraint(["b"], ["b.id"]))
    metadata.create_all(engine)
    with engine.begin() as connection:
        run(connection, "INSERT INTO itself VALUES (1)", "INSERT INTO a VALUES (1, NULL)")
        run(connection, "INSERT INTO b VALUES (1, 1)")
        if cyclic:
            run(connection, "UPDATE a SET b = 1")
    if cyclic:
        with pytest.warns(SAWarning, match="Can't sort tables for DROP"):
            metadata.drop_all(engine)
    else:
        metadata.drop_all(engine)
    assert inspect(engine).get_table_names() == []


def test_half_of_a_cycle_is_refused(engine: Engine) -> None:
    with engine.begin() as connection:
        run(connection, "CREATE TABLE a (id INTEGER PRIMARY KEY, b INTEGER REFERENCES b (id))")
        run(connection, "CREATE TABLE b (id INTEGER PRIMARY KEY, a INTEGER REFERENCES a (id))")
        run(connection, "INSERT INTO a VALUES (1, NULL)", "INSERT INTO b VALUES (1, 1)")
    with pytest.raises(IntegrityError, match="FOREIGN KEY"), engine.begin() as connection:
        run(connection, "DROP TABLE a")
    assert sorted(inspect(engine).get_table_names()) == ["a", "b"]


# ---------------------------------------------------------------- other forms


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE u AS SELECT * FROM t",
        "CREATE TABLE IF NOT EXISTS u AS SELECT 1 AS x",
        "/* a copy */ CREATE TABLE u AS VALUES (1)",
    ],
)
def test_create_table_as_select_is_refused(connection: Connection, statement: str) -> None:
    run(connection, *NUMBERS)
    with pytest.raises(NotSupportedError, match="CREATE TABLE AS SELECT"):
        run(connection, statement)
    assert inspect(connection).get_table_names() == ["t"]


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("ALTER TABLE t DROP COLUMN a", "error in index i after drop column"),
        ("ALTER TABLE t DROP COLUMN id", "cannot drop PRIMARY KEY column"),
        ("ALTER TABLE t DROP COLUMN u", "cannot drop UNIQUE column"),
        ("ALTER TABLE t DROP COLUMN c", "error in table t after drop column"),
        ("ALTER TABLE t DROP COLUMN v", "error in view seen after drop column"),
        ("ALTER TABLE t RENAME TO w", "there is already another table"),
        ("ALTER TABLE t RENAME COLUMN a TO v", "duplicate column name"),
        ("CREATE INDEX i ON t (v)", "index i already exists"),
        ("CREATE VIEW t AS SELECT 1", "table t already exists"),
        ("DROP VIEW t", "use DROP TABLE to delete table t"),
        ("DROP TABLE seen", "use DROP VIEW to delete view seen"),
        ("DROP INDEX sqlite_autoindex_t_1", "index associated with UNIQUE or PRIMARY KEY"),
        ("REINDEX nobody", "unable to identify the object to be reindexed"),
        ("ANALYZE nobody", "no such table: nobody"),
    ],
)
def test_sqlites_own_refusals(connection: Connection, statement: str, words: str) -> None:
    run(connection, "CREATE TABLE w (id INTEGER)")
    run(
        connection,
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER, u INTEGER UNIQUE,"
        " c INTEGER, v INTEGER, CHECK (c > 0))",
        "CREATE INDEX i ON t (a)",
        "CREATE VIEW seen AS SELECT v FROM t",
        "INSERT INTO t VALUES (1, 2, 3, 4, 5)",
    )
    with pytest.raises(OperationalError, match=words):
        run(connection, statement)
    assert rows(connection, "SELECT * FROM t") == [(1, 2, 3, 4, 5)]
    run(connection, "REINDEX t", "REINDEX", "ANALYZE t", "ANALYZE", "VACUUM")


def test_renaming_what_foreign_keys_and_views_speak_of(family: Connection) -> None:
    run(family, "CREATE VIEW v AS SELECT id FROM p")
    run(family, "ALTER TABLE p RENAME COLUMN id TO number", "ALTER TABLE p RENAME TO parents")
    (foreign,) = inspect(family).get_foreign_keys("c")
    assert (foreign["referred_table"], foreign["referred_columns"]) == ("parents", ["number"])
    assert rows(family, "SELECT * FROM v") == [(1,)]
    with pytest.raises(IntegrityError, match="FOREIGN KEY"):
        run(family, "INSERT INTO c VALUES (3, 77)")
    run(family, "UPDATE c SET p = NULL", "DROP TABLE parents")
    with pytest.raises(OperationalError, match=r"no such table: main\.parents"):
        run(family, "SELECT * FROM v")


def test_a_foreign_key_that_names_no_columns_means_the_primary_key(
    connection: Connection,
) -> None:
    run(connection, "CREATE TABLE p (k VARCHAR(9) PRIMARY KEY, x VARCHAR(9) UNIQUE)")
    run(connection, "CREATE TABLE c (id INTEGER PRIMARY KEY, p VARCHAR(9) REFERENCES p)")
    run(connection, "INSERT INTO p VALUES ('key', 'other')", "INSERT INTO c VALUES (1, 'key')")
    with pytest.raises(IntegrityError, match="FOREIGN KEY"):
        run(connection, "INSERT INTO c VALUES (2, 'other')")
    run(connection, "CREATE TABLE d (id INTEGER PRIMARY KEY, p VARCHAR(9))")
    run(connection, "INSERT INTO d VALUES (1, 'key')")
    run(connection, "ALTER TABLE d ADD FOREIGN KEY (p) REFERENCES p")
    assert leftovers(connection) == []
    with pytest.raises(IntegrityError, match="FOREIGN KEY"):
        run(connection, "DELETE FROM p")


@pytest.mark.parametrize("names", [("É", "é"), ("straße_ÄÖ", "STRASSE_äö"), ("İ", "i̇")])
def test_only_ascii_letters_are_folded(connection: Connection, names: tuple[str, str]) -> None:
    for place, name in enumerate(names):
        run(connection, f'CREATE TABLE "{name}" (id INTEGER PRIMARY KEY, "{name}" INTEGER)')
        run(connection, f'INSERT INTO "{name}" VALUES ({place}, {place})')
    for place, name in enumerate(names):
        table = Table(name, MetaData(), autoload_with=connection)
        assert list(map(tuple, connection.execute(select(table)))) == [(place, place)]
        connection.execute(table.update().values({name: 9}).where(table.c[name] == place))
        assert rows(connection, f'SELECT "{name}" FROM "{name}"') == [(9,)]
    run(connection, "CREATE TABLE Mixed (Id INTEGER PRIMARY KEY)", "INSERT INTO mIXED VALUES (1)")
    assert rows(connection, "SELECT iD FROM MIXED") == [(1,)]
    run(connection, f'DROP TABLE "{names[0]}"')
    assert rows(connection, f'SELECT "{names[1]}" FROM "{names[1]}"') == [(9,)]


def test_a_column_of_a_table_with_comments_and_brackets(connection: Connection) -> None:
    run(
        connection,
        "CREATE TABLE t (-- it's (the key)\n id INTEGER PRIMARY KEY, /* a, b */ [x, )] INTEGER"
        " DEFAULT '(' , y INTEGER -- last, one\n)",
    )
    run(connection, "INSERT INTO t VALUES (1, 2, 3)", "ALTER TABLE t ALTER y SET NOT NULL")
    run(connection, "ALTER TABLE t ADD CONSTRAINT c CHECK (y > 0)")
    with pytest.raises(IntegrityError, match="NOT NULL"):
        run(connection, "INSERT INTO t (id) VALUES (2)")
    with pytest.raises(IntegrityError, match="CHECK"):
        run(connection, "INSERT INTO t (id, y) VALUES (2, -1)")


# ---------------------------------------------------------------- statements that wait


def test_ddl_waits_for_its_like(engine: Engine) -> None:
    """Its own connection sees it at once, others when it is made."""
    with engine.connect() as one, engine.connect() as two:
        gather(one, "CREATE TABLE t (id INTEGER PRIMARY KEY)", "CREATE INDEX i ON t (id)")
        assert inspect(one).get_table_names() == ["t"]
        assert rows(one, "SELECT name FROM sqlite_master ORDER BY name") == [("i",), ("t",)]
        assert inspect(two).get_table_names() == []
        with pytest.raises(OperationalError, match="already exists"):
            gather(one, "CREATE TABLE t (id INTEGER)")
        one.rollback()  # DDL isn't undone
        two.rollback()
        assert inspect(two).get_table_names() == ["t"]
        gather(one, "CREATE TABLE u (id INTEGER PRIMARY KEY)")
        run(one, "INSERT INTO u VALUES (1)")
        two.rollback()
        assert inspect(two).get_table_names() == ["t", "u"]
        gather(one, "DROP TABLE t", "CREATE TABLE t (name VARCHAR(9))")
        run(one, "INSERT INTO t VALUES ('new')")
        assert rows(one, "SELECT * FROM t") == [("new",)]
        gather(one, "DROP TABLE u")
    with engine.connect() as connection:
        assert inspect(connection).get_table_names() == ["t"]


def test_several_tables_are_made_at_once_or_not_at_all(engine: Engine) -> None:
    with engine.connect() as connection:
        other = stranger(connection)
        gather(connection, "CREATE TABLE a (id INTEGER)", "CREATE TABLE b (id INTEGER)")
        other.execute("CREATE TABLE b (id INTEGER PRIMARY KEY, x INTEGER)")
        with pytest.raises(OperationalError, match="table b already exists"):
            connection.commit()
        connection.rollback()
        assert inspect(connection).get_table_names() == ["b"]
        gather(connection, "CREATE TABLE c (id INTEGER)")
        other.execute("CREATE TABLE d (id INTEGER)")
        connection.commit()
        assert inspect(connection).get_table_names() == ["b", "c", "d"]


def test_ddl_given_as_text_takes_effect_at_once(engine: Engine) -> None:
    with engine.connect() as one, engine.connect() as two:
        gather(one, "CREATE TABLE t (id INTEGER PRIMARY KEY)")
        run(one, "CREATE TABLE u (id INTEGER PRIMARY KEY)")
        assert inspect(two).get_table_names() == ["t", "u"]


@pytest.mark.parametrize(
    "statement", ["CREATE TABLE IF NOT EXISTS t (b)", "DROP TABLE IF EXISTS u"]
)
def test_if_exists_is_asked_of_the_schema_as_it_is(engine: Engine, statement: str) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        run(connection, "CREATE TABLE t (a INTEGER)")
        other = stranger(connection)
        other.execute("DROP TABLE t")
        other.execute("CREATE TABLE u (a INTEGER)")
        run(connection, statement)
        expected = ["t", "u"] if "t (b)" in statement else []
        assert inspect(connection).get_table_names() == expected


def test_alembics_copy_takes_a_parents_place(family: Connection) -> None:
    """As its batches do: a copy is made, the table dropped, the copy renamed."""
    copy = "CREATE TABLE _alembic_tmp_p (id INTEGER PRIMARY KEY, more INTEGER)"
    run(family, copy, "INSERT INTO _alembic_tmp_p (id) SELECT id FROM p", "DROP TABLE p")
    run(family, "ALTER TABLE _alembic_tmp_p RENAME TO p")
    assert rows(family, "SELECT id, more FROM p") == [(1, None)]
    with pytest.raises(IntegrityError, match="FOREIGN KEY"):
        run(family, "INSERT INTO c VALUES (3, 77)")
    run(family, copy)  # without its rows
    with pytest.raises(IntegrityError, match="FOREIGN KEY"):
        run(family, "DROP TABLE p")


# ---------------------------------------------------------------- lost answers


def test_a_change_whose_answer_is_lost_is_done_once(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = Wire._exchange
    lost = 0

    def losing(self: Wire, commands: Commands, stop: bytes | None) -> list[Any]:
        nonlocal lost
        answers = exchange(self, commands, stop)
        if callable(commands) and isinstance(answers[0], list) and not lost:
            lost += 1
            self.close()
            self.in_doubt = True
            raise Lost("on purpose")
        return answers

    engine = create_engine(redis_server.url("lost-answers"))
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        monkeypatch.setattr(Wire, "_exchange", losing)
        run(connection, "CREATE TABLE t (id INTEGER PRIMARY KEY)", "INSERT INTO t VALUES (1)")
        connection.commit()
        assert lost == 1
        assert rows(connection, "SELECT * FROM t") == [(1,)]
    engine.dispose()


def test_a_change_begins_again_when_others_are_faster(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it has looked at is looked at again."""
    run(connection, *NUMBERS)
    other = stranger(connection)
    once = SchemaChange._make_once
    tries = 0

    def slow(self: SchemaChange) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            other.execute("ALTER TABLE t ADD COLUMN y INTEGER DEFAULT 4")
            with pytest.raises(SchemaChanged):
                once(self)
            raise SchemaChanged
        once(self)

    monkeypatch.setattr(SchemaChange, "_make_once", slow)
    run(connection, "ALTER TABLE t ALTER COLUMN x TYPE TEXT")
    assert rows(connection, "SELECT * FROM t WHERE id = 1") == [(1, "5", 4)]
    assert leftovers(connection) == []
